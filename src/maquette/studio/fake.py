"""A job's work without torch, for tests and for trying the page: MAQUETTE_ENGINE=fake.

It writes a true run folder: the files, names and keys of the real one, in seconds. MAQUETTE_FAKE makes faults:
oom, crash-1 (the process dies at step 1), disk-full; and paces: slow (a step takes a second), fast (no time at all).
Several have commas between them. MAQUETTE_FAKE_SLOW_WHILE names a file: slow ends when it is gone.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from ..config import TrainConfig
from ..data.buckets import plan
from ..data.dataset import manifest
from ..data.layouts import read_folder
from ..errors import MaquetteError
from ..events import Cancel, Event
from ..files import atomic_writer, write_json, write_text
from ..formats.png import write_png
from ..report import run_page
from ..run_folder import RunFolder

if TYPE_CHECKING:
    import numpy as np

    from .job import Job
    from .worker import Report

STEPS, SECONDS, EVERY = 40, 0.05, 10
SIDE = 64
RANK = 4
WEIGHTS = (0.7, 1.0)


def faults() -> set[str]:
    """Which faults MAQUETTE_FAKE asks for."""
    return {part for part in os.environ.get("MAQUETTE_FAKE", "").split(",") if part}


def pace() -> float:
    """Seconds of a step."""
    until = os.environ.get("MAQUETTE_FAKE_SLOW_WHILE")
    slow = "slow" in faults() and (until is None or Path(until).exists())
    return 1.0 if slow else 0.001 if "fast" in faults() else SECONDS


def work(job: Job, report: Report, cancel: Cancel) -> Mapping[str, Any]:
    """Do a job of any kind."""
    kind = job.spec["kind"]
    if kind == "train":
        return _train(job, report, cancel)
    if kind == "evaluate":
        return _evaluated(RunFolder(job.config["run"]), report)
    if kind == "merge":
        out = job.run.final
        write_lora(out, 0, "merged")
        return {"file": out.name}
    return _captioned(Path(job.config["photos"]), job.config, report, cancel)


def _captioned(photos: Path, config: Mapping[str, Any], report: Report, cancel: Cancel) -> dict[str, Any]:
    there = [path for path in sorted(photos.iterdir()) if path.suffix not in (".txt",)]
    for at, path in enumerate(there, 1):
        if cancel.wait(pace()):
            return {"status": "stopped"}
        text = path.with_suffix(".txt")
        if not text.exists() or config.get("overwrite"):
            write_text(text, f"a photo of {config.get('subject') or 'it'}, picture {path.stem[:4]}\n")
        report(Event("progress", {"what": "describing photos", "done": at, "of": len(there)}))
    return {"written": len(there)}


def _train(job: Job, report: Report, cancel: Cancel) -> Mapping[str, Any]:
    run, config = job.run, _begun(job)
    steps, step = config.steps or STEPS, max(run.checkpoints(), default=0)
    run.keep_metrics_until(step)
    if "oom" in faults():
        raise MaquetteError("The memory does not suffice for a step of this size; lower resolution or batch_size.")
    if not run.samples(0).exists():
        _sample(run, 0, config, report)
    while step < steps:
        if cancel.wait(pace()):
            _save(run, step, config, report)
            return _stopped(job, step, steps)
        step += 1
        _fault(step)
        loss = 0.05 + 0.1 * math.exp(-step / 20) + 0.01 * math.sin(step)
        line = {"step": step, "loss": loss, "gradient_norm": 0.02, "learning_rate": 1e-3}
        run.append_metric(line)
        report(
            Event(
                "metric",
                line | {"steps": steps, "images_per_second": 20.0, "remaining_seconds": (steps - step) * SECONDS},
            )
        )
        wanted = run.sample
        if step % (config.save_every_steps or EVERY) == 0 or step == steps or wanted.exists():
            wanted.unlink(missing_ok=True)
            _save(run, step, config, report)
    verdict = _evaluated(run, report)
    return {"status": "finished", "step": step, "steps": steps, "file": run.final.name} | verdict


def _begun(job: Job) -> TrainConfig:
    """The run folder with its configuration, as a training that begins or goes on has it."""
    run = job.run
    config = TrainConfig.parse(job.config | {"out": str(run.path)}, "the studio")
    steps = config.steps or STEPS
    prompts = config.sample_prompts
    if prompts is None:
        prompts = [
            f"a photo of {config.subject}",
            f"a photo of {config.subject} on a red background",
            "a photo of a cat",
        ]
    filled = {"steps": steps, "batch_size": 1, "learning_rate": 1e-3, "resolution": SIDE, "sample_prompts": prompts}
    filled |= {"alpha": float(config.rank), "buckets": False, "sample_cfg_scale": 4.0}
    config = config.model_copy(update=filled | {"save_every_steps": config.save_every_steps or max(1, steps // 4)})
    run.path.mkdir(parents=True, exist_ok=True)
    photos = plan(read_folder(config.photos, config.subject), SIDE, 4, aspect_buckets=False)
    write_json(run.dataset, manifest(photos))
    write_text(run.config, config.to_toml())
    return config


def _stopped(job: Job, step: int, steps: int) -> dict[str, Any]:
    from .worker import keep_last

    paused = job.wishes("pause") and not job.wishes("stop")
    return {"status": "stopped", "step": step, "steps": steps, "file": None if paused else keep_last(job)}


def _fault(step: int) -> None:
    if step == 1 and "crash-1" in faults():
        os._exit(9)
    if step == 12 and "disk-full" in faults():
        raise OSError(errno.ENOSPC, "No space left on device")


def _save(run: RunFolder, step: int, config: TrainConfig, report: Report) -> None:
    if not step or run.checkpoint(step).exists():
        return
    write_lora(run.checkpoint(step), step, run.name)
    report(Event("saved", {"path": str(run.checkpoint(step)), "step": step}))
    _sample(run, step, config, report)


def _sample(run: RunFolder, step: int, config: TrainConfig, report: Report) -> None:
    prompts, folder = config.sample_prompts or [], run.samples(step)
    for at, prompt in enumerate(prompts):
        write_png(
            picture(prompt, config.sample_seed + at, SIDE, SIDE, {run.name: step / 40}), folder / f"{at}.png", prompt
        )
    if prompts:
        write_json(folder / "prompts.json", prompts)
        report(Event("sample", {"step": step, "folder": str(folder), "prompts": prompts}))


def write_lora(path: Path, step: int, name: str) -> None:
    """A small LoRA of Kohya's keys and metadata, the same bytes for the same step and name."""
    import numpy as np
    from safetensors.numpy import save

    random = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{name} {step}".encode()).digest()[:8], "big"))
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for attention in ("attn1", "attn2"):
        for layer in ("to_q", "to_k", "to_v", "to_out_0"):
            key = f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_{attention}_{layer}"
            tensors[f"{key}.lora_down.weight"] = random.normal(0, 0.02, (RANK, 32)).astype(np.float16)
            tensors[f"{key}.lora_up.weight"] = random.normal(0, 0.02, (32, RANK)).astype(np.float16)
            tensors[f"{key}.alpha"] = np.array(RANK, dtype=np.float16)
    facts = {"ss_network_module": "networks.lora", "ss_network_dim": str(RANK), "ss_network_alpha": str(RANK)}
    facts |= {"ss_output_name": name, "ss_steps": str(step), "ss_base_model_version": "pocket"}
    with atomic_writer(path) as file:
        file.write(save(tensors, facts))


def _evaluated(run: RunFolder, report: Report) -> dict[str, Any]:
    """The verdict, as `training.verdicts.record` writes one: the third checkpoint of four is the best."""
    steps = list(run.checkpoints())
    rows = [_row(step, weight, at, len(steps)) for at, step in enumerate(steps) for weight in WEIGHTS]
    for at in range(len(rows)):
        report(Event("progress", {"what": "measuring checkpoints", "done": at + 1, "of": len(rows)}))
    best = max(rows, key=lambda row: float(row["score"]))
    reasons = [f"Step {best['step']} at weight {best['weight']} is the likest of those that still follow prompts."]
    verdict = {
        "step": best["step"], "weight": best["weight"], "unit": "step", "prefer": "balanced", "reasons": reasons,
        "overtrained": [], "held_out": [], "hard_photos": [], "noise": None, "rows": rows, "encoders": [],
        "folded": False,
    }  # fmt: skip
    write_json(run.evaluation, verdict)
    chosen = run.checkpoints()[int(best["step"])]
    with atomic_writer(run.final) as file:
        file.write(chosen.read_bytes())
    write_json(run.final.with_suffix(".json"), {"preferred weight": best["weight"], "notes": "made by the fake engine"})
    run_page.write(run)
    return {"chosen": best["step"], "weight": best["weight"], "reasons": reasons}


def _row(step: int, weight: float, at: int, of: int) -> dict[str, Any]:
    share = (at + 1) / of * weight
    values = {"likeness": min(0.9, 0.3 + 0.7 * share), "following": 0.95 - 0.3 * share**2, "variety": 0.8 - 0.2 * share}
    values |= {"benefit": 0.1 * share, "drift": 0.05 * share}
    return {"step": step, "weight": weight, **values, "score": 1 - (share - 0.75) ** 2, "error": 0.02}


def picture(prompt: str, seed: int, width: int, height: int, loras: Mapping[str, float] | None = None) -> Image.Image:
    """A picture that follows from prompt, seed, size and the weights of LoRAs alone; a weight of 0 is none."""
    used = sorted((name, weight) for name, weight in (loras or {}).items() if weight)
    digest = hashlib.sha256(json.dumps([prompt, seed, used]).encode()).digest()
    made = Image.new("RGB", (width, height), tuple(128 + value // 2 for value in digest[:3]))
    draw = ImageDraw.Draw(made)
    for at in range(3, 27, 6):
        x, y, size = (digest[at] * width // 255, digest[at + 1] * height // 255, 4 + digest[at + 2] * width // 700)
        draw.ellipse((x - size, y - size, x + size, y + size), fill=tuple(digest[at + 3 : at + 6]))
    return made
