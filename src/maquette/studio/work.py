"""What the worker does: the stages on the real engine. Imports torch, so only a job's own process imports it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import TrainConfig
from ..config.photos import CaptionConfig
from ..config.runs import EvaluateConfig
from ..config.weights import MergeConfig
from ..errors import MaquetteError
from ..events import Cancel, Event
from ..files import write_text
from ..run_folder import RunFolder
from ..stages import caption, evaluate, merge, train
from ..training.resuming import read_config
from ..training.running import begun
from .worker import keep_last

if TYPE_CHECKING:
    from .job import Job
    from .worker import Engine, Report


def train_and_evaluate(job: Job, report: Report, cancel: Cancel) -> Mapping[str, Any]:
    """Train, or go on with a run. At its end a training compares its checkpoints itself, where that takes no more than
    about a third of its own time; else they are compared roughly, and a better comparison can be queued.
    """
    run, config = job.run, job.config
    if run.config.exists():
        _moved(run, Path(config["photos"]))
        steps = {"steps": config["steps"]} if config.get("steps") else {}
        result = train.resume(run.path, steps, report, cancel, base_first=True)
    else:
        parsed = TrainConfig.parse(config | {"out": str(run.path)}, "the studio")
        with begun(parsed, report, cancel, base_first=True) as trainer:
            result = trainer.train(0)
    if result.status == "stopped":
        paused = job.wishes("pause") and not job.wishes("stop")
        file = None if paused else keep_last(job)
        return {"status": "stopped", "step": result.step, "steps": result.steps, "file": file}
    outcome = {"status": "finished", "step": result.step, "steps": result.steps, "file": run.final.name}
    outcome |= {"chosen": result.chosen, "weight": result.weight, "reasons": result.reasons}
    if not run.evaluation.exists() and config.get("choose", True) and len(run.checkpoints()) > 1:
        outcome |= _compared(run, report, cancel)
    return outcome


def _compared(run: RunFolder, report: Report, cancel: Cancel) -> dict[str, Any]:
    """A rough verdict. Whoever stops it, and a base that cannot be measured, leave the last checkpoint as the file."""
    try:
        verdict = evaluate.run(EvaluateConfig(run=run.path, quick=True), report, cancel)
    except MaquetteError as error:
        report(Event("warning", {"message": f"The checkpoints were not compared ({error}); the last one was taken."}))
        return {}
    return {"chosen": verdict.step, "weight": verdict.weight, "reasons": verdict.reasons}


def _moved(run: RunFolder, photos: Path) -> None:
    """Let a run's configuration name its photos where they are now: the data folder may have been moved."""
    config = read_config(run)
    if config.photos != photos or config.out != run.path:
        write_text(run.config, config.model_copy(update={"photos": photos, "out": run.path}).to_toml())


def evaluate_run(job: Job, report: Report, cancel: Cancel) -> Mapping[str, Any]:
    """Evaluate a finished run anew."""
    verdict = evaluate.run(EvaluateConfig.parse(job.config, "the studio"), report, cancel)
    return {
        "chosen": verdict.step,
        "weight": verdict.weight,
        "reasons": verdict.reasons,
        "file": Path(verdict.file).name,
    }


def write_captions(job: Job, report: Report, cancel: Cancel) -> Mapping[str, Any]:
    """Describe photos; the captions lie beside the photos in the job's own folder, from which the studio takes them."""
    result = caption.run(CaptionConfig.parse(job.config, "the studio"), report, cancel)
    return {"written": len(result.written)}


def merge_files(job: Job, report: Report, cancel: Cancel) -> Mapping[str, Any]:
    """Merge LoRA files into one."""
    out = job.run.final
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)  # of an earlier try
    merge.run(MergeConfig.parse(job.config | {"out": str(out), "to": "lora"}, "the studio"), report, cancel)
    return {"file": out.name}


WORK: dict[str, Engine] = {
    "train": train_and_evaluate, "evaluate": evaluate_run, "caption": write_captions, "merge": merge_files,
}  # fmt: skip
