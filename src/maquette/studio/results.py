"""What becomes of a finished job: another choice, an archive to give away, a merge with another."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..config import TrainConfig
from ..errors import MaquetteError
from ..files import atomic_writer, open_regular, write_json
from ..limits import RECORD_BYTES
from ..methods import METHODS
from ..parsing import read_json, read_object
from ..report import model_card
from .names import Busy, NotFound, file_stem, shown_name

if TYPE_CHECKING:
    from .core import Studio
    from .job import Job

SIDECAR = "preferred weight"  # A1111's key of a LoRA's card


def verdict(job: Job) -> dict[str, Any] | None:
    """What the evaluation said; None without one."""
    return read_object(job.run.evaluation) if job.run.evaluation.exists() else None


def chosen(job: Job) -> tuple[int | None, float | None]:
    """Step and weight of the job's file: the user's choice before the evaluation's."""
    choice = job.spec.get("choice") or verdict(job) or job.status().get("result") or {}
    step = choice.get("step", choice.get("chosen"))
    return step if isinstance(step, int) else None, choice.get("weight")


def choose(job: Job, step: int | None, weight: float | None) -> None:
    """Make a checkpoint the job's file. None: the recommended one. Raises NotFound where there is none."""
    if job.state not in ("finished", "stopped", "failed", "paused"):
        raise Busy("The job is still at work; choose when it has ended.")
    recommended = verdict(job) or {}
    own = step is not None
    step = step if step is not None else recommended.get("step")
    source = job.run.checkpoints().get(step) if step is not None else None
    if source is None:
        raise NotFound("There is no such checkpoint.")
    with open_regular(source) as opened, atomic_writer(job.run.final) as target:
        shutil.copyfileobj(opened, target)
    preferred = weight or recommended.get("weight") or 1.0
    card = job.run.final.with_suffix(".json")
    facts = read_json(card, RECORD_BYTES, "side-car") if card.exists() else {}
    write_json(card, (facts if isinstance(facts, dict) else {}) | {SIDECAR: preferred})
    job.change_spec(choice={"step": step, "weight": preferred} if own else None)


def pack(job: Job) -> Any:
    """An archive of the file, its card and side-car, and the pictures of the chosen step. Raises NotFound without."""
    run = job.run
    if not run.final.exists():
        raise NotFound("This job has no file yet.")
    step, weight = chosen(job)
    pictures = []
    if step is not None and (run.samples(step) / "prompts.json").exists():
        prompts = read_json(run.samples(step) / "prompts.json", RECORD_BYTES, "list of prompts")
        pictures = [(prompt, run.samples(step) / f"{at}.png") for at, prompt in enumerate(prompts)]
    path = job.path / "packed.zip"
    with atomic_writer(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.write(run.final, run.final.name)
        if run.final.with_suffix(".json").exists():
            archive.write(run.final.with_suffix(".json"), run.final.with_suffix(".json").name)
        if run.config.exists():
            archive.writestr("README.md", card(job, [prompt for prompt, _ in pictures], weight))
        for at, (_, picture) in enumerate(pictures):
            archive.write(picture, f"{model_card.PICTURES}/{at}.png")
    return path


def card(job: Job, prompts: Sequence[str], weight: float | None) -> str:
    """README.md of the archive, without any folder of this computer."""
    config = TrainConfig.read(job.run.config)
    listed = read_object(job.run.dataset).get("photos", []) if job.run.dataset.exists() else []
    photos = sum(isinstance(photo, dict) and photo.get("role") == "instance" for photo in listed)
    judged = verdict(job) or {}
    reasons = [] if job.spec.get("choice") else [str(reason) for reason in judged.get("reasons", [])]
    title = str(job.spec.get("title") or job.run.name)
    weight = weight if METHODS[config.method].product == "adapter" else None
    return model_card.text(
        model_card.Card(title, config, "other", job.run.final.name, weight, prompts, reasons, photos)
    )


def evaluate(studio: Studio, job: Job) -> Job:
    """Queue the comparison of a training's checkpoints. Raises Busy where there is nothing to compare."""
    if job.spec["kind"] != "train" or job.state not in ("finished", "stopped", "failed"):
        raise Busy("Checkpoints are compared when their training has ended.")
    if len(job.run.checkpoints()) < 2:
        raise Busy("There is one checkpoint at most: nothing to compare.")
    title = str(job.spec.get("title") or job.run.name)
    return studio.queue.submit(
        "evaluate", str(job.spec["project"]), {"run": str(job.run.path)}, title=title, name=job.run.name, of=job.id,
        taken=False,
    )  # fmt: skip


def merge(studio: Studio, jobs: Sequence[str], weights: Sequence[float], name: str, rank: int | None) -> Job:
    """Queue the merging of jobs' files into one LoRA, as a job of the first one's project."""
    if len(jobs) != len(weights):
        raise MaquetteError("Give each file a weight.")
    if not any(weights):
        raise MaquetteError("Every file has the weight 0, so nothing would be merged; give one another.")
    found = [studio.queue.job(identity) for identity in jobs]
    for job in found:
        if not job.run.final.exists():
            raise NotFound(f"{job.spec.get('title') or 'A job'} has no file yet.")
    title = shown_name(name) or " + ".join(str(job.spec.get("title") or job.run.name) for job in found)
    loras = [f"{job.run.final}:{json.dumps(weight)}" for job, weight in zip(found, weights, strict=True)]
    config: dict[str, Any] = {"loras": loras} | ({"rank": rank} if rank else {})
    project = str(found[0].spec["project"])
    return studio.queue.submit("merge", project, config, title=title, name=file_stem(title, "merged"))
