"""`maquette train`: from a folder of photos to checkpoints, sample pictures and a report."""

from __future__ import annotations

import json
import shutil
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .. import methods
from ..config import TrainConfig
from ..data.cache import cache_folder
from ..data.dataset import manifest
from ..data.doctor import examine_regularization
from ..errors import MaquetteError
from ..run import Event, Listener, RunFolder, ignore, write_json, write_text
from . import report
from .training import learning, memory, state
from .training.checkpoint import author
from .training.determinism import same_bits
from .training.distributed import Team, require_enough, team
from .training.job import Job, photo_names, prepare
from .training.room import intact
from .training.samples import Sampler
from .training.trackers import following

Cancel = threading.Event


@dataclass
class TrainResult:
    """A run: finished, or stopped early and ready to go on."""

    run: str
    product: str  # what the file is: "adapter", "embedding" or "model"
    file: str | None  # the chosen checkpoint; None when stopped early
    report: str
    step: int
    steps: int
    status: str  # "finished" or "stopped"
    loss: float | None  # mean over the last steps
    seconds: float
    images_per_second: float
    checkpoints: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(config: TrainConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> TrainResult:
    """Train from the beginning, in a new run folder. Setting `cancel` ends the run after the step at work, all saved.

    Raises MaquetteError for everything that is the user's to mend.
    """
    with team(config.device) as crew, ExitStack() as held:
        held.enter_context(same_bits(config.deterministic))
        on_event = on_event if crew.leads else ignore
        named = config.out or RunFolder.free_path("runs", config.subject or config.photos.resolve().name)
        folder = RunFolder(crew.agree(str(named)))
        if crew.leads:
            RunFolder.refuse_taken(folder.path)
        job = _prepared(crew, config, folder, on_event)
        job.config = job.config.model_copy(update={"out": folder.path})
        if crew.leads:
            RunFolder.create(folder.path)
            held.enter_context(folder.locked())
            held.enter_context(intact(folder))
            RunFolder.refuse_taken(folder.path)  # another run may have come and gone before the lock
            write_json(folder.dataset, manifest(job.dataset))
            write_text(folder.config, job.config.to_toml())  # last: a folder with it can be resumed
            on_event = held.enter_context(following(job.config, folder, on_event))
        return _Training(folder, job, on_event, cancel or Cancel(), crew).go(0)


def resume(
    path: str | Path, changes: dict[str, Any] | None = None, on_event: Listener = ignore, cancel: Cancel | None = None
) -> TrainResult:
    """Go on with a run from its newest whole state, to the same final file as if it had never stopped.

    changes: keys of TrainConfig; only `steps` and what does not touch the weights may be changed.
    """
    folder = RunFolder.open(path)
    config = TrainConfig.read(folder.config)
    changed = _changed(config, changes or {})
    with team(config.device) as crew, ExitStack() as held:
        held.enter_context(same_bits(changed.deterministic))
        on_event = on_event if crew.leads else ignore
        if crew.leads:
            held.enter_context(folder.locked())
            held.enter_context(intact(folder))
            folder.clear_unfinished()
        begun = state.latest(folder) is not None  # then the file that the run began from is needed no more
        job = _prepared(crew, changed.model_copy(update={"from_lora": None}) if begun else changed, folder, on_event)
        job.config = job.config.model_copy(update={"from_lora": changed.from_lora})
        start = _restore(folder, job)
        crew.wait()  # until all have read the state
        if crew.leads:
            state.clear_newer(folder, start)
            folder.keep_metrics_until(start)
            if changed != config:
                write_text(folder.config, job.config.to_toml())
            on_event = held.enter_context(following(job.config, folder, on_event))
        if changed.steps != config.steps:
            message = (
                f"The run now ends at step {changed.steps}: from step {start} the learning rate follows that length."
            )
            on_event(Event("warning", {"message": message}))
        return _Training(folder, job, on_event, cancel or Cancel(), crew).go(start)


def _prepared(crew: Team, config: TrainConfig, folder: RunFolder, on_event: Listener) -> Job:
    """The job, made ready in the first process before the others, which then find the photos encoded."""
    if not crew.leads:
        crew.wait()
    try:
        job = prepare(config, cache_folder(folder.path.parent), _progress(on_event))
    except RuntimeError as error:
        if not memory.exhausted(error):
            raise
        raise MaquetteError(
            "The memory does not suffice to open the base and to encode the largest photo; lower resolution."
        ) from error
    require_enough(job.config.batch_size or 1, crew.size)
    job.objective.share = crew.share()
    if methods.METHODS[config.method].product == "model":
        job.optimizer = crew.split(job.optimizer)
    if crew.leads:
        crew.wait()
    return job


def _restore(folder: RunFolder, job: Job) -> int:
    """Put the newest whole state back. Returns its step, 0 when there is none."""
    _refuse_other_photos(folder, job)
    found = state.latest(folder)
    if found is None:
        return 0
    state.load(found[1], job.attached, job.optimizer, job.average, job.scale)
    return found[0]


def _progress(on_event: Listener) -> Any:
    return lambda what, done, of: on_event(Event("progress", {"what": what, "done": done, "of": of}))


FREE_TO_CHANGE = {
    "steps", "gradient_accumulation", "gradient_checkpointing", "save_every_steps", "save_every_epochs",
    "keep_last", "keep_steps", "trackers", "sample_prompts", "sample_seed", "sample_steps", "sample_cfg_scale",
}  # fmt: skip


def _changed(config: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    before = config.model_dump(exclude_none=True)
    if changes.keys() & {"save_every_steps", "save_every_epochs"}:  # one takes the other's place
        before = {key: value for key, value in before.items() if not key.startswith("save_every_")}
    changed = TrainConfig.parse(before | changes, "the command line")
    fixed = [key for key in changes if key not in FREE_TO_CHANGE and getattr(changed, key) != getattr(config, key)]
    if fixed:
        allowed = ", ".join(sorted(FREE_TO_CHANGE))
        raise MaquetteError(f"A resumed run cannot change {fixed[0]!r}, only {allowed}; start a new run for the rest.")
    return changed


def _refuse_other_photos(folder: RunFolder, job: Job) -> None:
    """The photos must be those that the run began with."""
    before = json.loads(folder.dataset.read_text(encoding="utf-8"))["photos"]
    now = manifest(job.dataset)["photos"]
    keys = ("name", "sha256", "caption", "repeats", "role", "bucket")
    old, new = ([tuple(map(str, (photo[key] for key in keys))) for photo in photos] for photos in (before, now))
    if old != new:
        name = sorted(set(old) ^ set(new))[0][0]
        raise MaquetteError(
            f"The photos have changed since {folder.path} began ({name}); put them back, or start a new run."
        )


class _Training:
    """The loop and what happens around it."""

    def __init__(self, folder: RunFolder, job: Job, on_event: Listener, cancel: Cancel, crew: Team) -> None:
        self.folder, self.job, self.on_event, self.cancel, self.crew = folder, job, on_event, cancel, crew
        self.config = job.config
        self.steps = job.config.steps or 0
        self.author = author(job.config, job.base, job.dataset)
        self.sampler = Sampler(job, self.author, folder, on_event)
        self.began = time.perf_counter()
        self.training_seconds = 0.0
        self.seen = 0
        self.stop = False  # some process was told to stop
        self.refused = False  # the step before was not finite and was skipped

    def go(self, start: int) -> TrainResult:
        """Train from `start` steps on to the end, or until told to stop."""
        for problem in self.job.dataset.left_out:
            self._warn(f"left out: {problem.message}")
        seen = int(self.steps * (self.config.batch_size or 1) * self.config.prior_share)
        for problem in examine_regularization(self.job.dataset, seen):
            self._warn(problem.message)
        if self.config.zero_terminal_snr and self.job.objective.schedule.prediction_type == "epsilon":
            message = (
                "zero_terminal_snr with a base that predicts noise: in pure noise there is nothing for it to tell."
            )
            self._warn(message)
        if self.job.graphs is not None:
            self.job.graphs.on_warning = self._warn
        if self.crew.leads:
            self._expect_room()
            self._draw_missing(start)
        step = start
        while step < self.steps:
            try:
                self._step(step)
            except RuntimeError as error:
                if not memory.exhausted(error):
                    raise
                raise MaquetteError(memory.advice(self.job, self.crew.size)) from error
            step += 1
            self.stop |= self.crew.size == 1 and self.cancel.is_set()  # told while the step was reported
            if self.job.saves_after(step) or step == self.steps or self.stop:
                self._save(step)
            if self.stop and step < self.steps:
                return self._result(step, "stopped")
        return self._finish()

    def _warn(self, message: str) -> None:
        self.on_event(Event("warning", {"message": message}))

    def _draw_missing(self, start: int) -> None:
        """The pictures of the checkpoint after which an earlier part of the run was killed."""
        file = self.folder.checkpoint(start)
        if start and file.exists() and not (self.folder.samples(start) / "prompts.json").exists():
            self.sampler.checkpoint(start, file)

    def _step(self, step: int) -> None:
        """One optimizer step, guarded against numbers that are not finite."""
        began, job = time.perf_counter(), self.job
        factor = learning.rate_factor(self.config, step, self.steps)
        learning.set_rates(job.optimizer, factor)
        job.optimizer.zero_grad(set_to_none=True)
        loss, batches = job.gradients(step)
        loss, self.stop = self.crew.add_up(job.parameters, loss, self.cancel.is_set())
        job.scale.undo(job.parameters)
        norm = learning.gradient_norm(job.parameters)
        value = float(loss)
        if not torch.isfinite(loss + norm):
            if not job.scale.lower(loss):  # float16 overflows now and then, until the scale fits
                self._refuse(step, batches)
        else:
            if self.config.max_grad_norm:
                learning.shorten(job.parameters, norm, self.config.max_grad_norm)
            job.optimizer.step()
            if job.average is not None:
                job.average.update()
            self.refused = False
            job.scale.keep()
        self.training_seconds += time.perf_counter() - began
        self.seen += self.config.batch_size or 1
        self._tell(step + 1, value, float(norm), (self.config.learning_rate or 0.0) * factor)

    def _refuse(self, step: int, batches: list[Any]) -> None:
        """A step whose loss or gradient is not finite is passed over once; twice in a row ends the run."""
        names = ", ".join(photo_names(self.job, batches))
        if self.refused:
            self._save_state(step)
            raise MaquetteError(
                f"The loss is not finite at steps {step} and {step + 1} (photos {names}); training stopped at the last "
                f"good weights, and the checkpoints in {self.folder.path} are good. "
                "Lower learning_rate, or try --set dtype=fp32."
            )
        self.refused = True
        message = f"Step {step + 1} was skipped: its loss or gradient is not finite (photos {names})."
        self._warn(message)

    def _tell(self, step: int, loss: float, norm: float, rate: float) -> None:
        speed = self.seen / max(self.training_seconds, 1e-9)
        values = {
            "step": step,
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": rate,
            "images_per_second": speed,
            "remaining_seconds": (self.steps - step) * (self.config.batch_size or 1) / speed,
        }
        if self.crew.leads:
            self.folder.append_metric({key: values[key] for key in ("step", "loss", "gradient_norm", "learning_rate")})
        self.on_event(Event("metric", {"steps": self.steps, **values}))

    def _save(self, step: int) -> None:
        """Checkpoint, state and sample pictures; the pictures are made from the file."""
        if not self.crew.leads:
            return self._save_state(step)
        weights = self.job.state()
        self._need_room(sum(value.numel() * 4 for value in weights.values()) * 5)
        path = self.folder.checkpoint(step)
        self.author.save(weights, path, step)
        self.on_event(Event("saved", {"path": str(path), "step": step}))
        self._save_state(step)
        if self.config.keep_last:
            for at, old in list(self.folder.checkpoints().items())[: -self.config.keep_last]:
                if at not in self.config.keep_steps:
                    old.unlink()
        self.sampler.checkpoint(step, path)

    def _save_state(self, step: int) -> None:
        self.crew.collect(self.job.optimizer)
        if self.crew.leads:
            job = self.job
            state.save(self.folder, step, job.attached, job.optimizer, job.average, job.scale)

    def _finish(self) -> TrainResult:
        """The last checkpoint becomes NAME.safetensors, with its side-car and preview, and the report is written."""
        if not self.crew.leads:
            return self._result(self.steps, "finished")
        self._need_room(self.folder.checkpoint(self.steps).stat().st_size * 2)
        self.author.save(self.job.state(), self.folder.final, self.steps)
        self.author.sidecar(self.folder.final)
        self.sampler.preview(self.steps, self.folder.final.with_suffix(".png"))
        self.on_event(Event("saved", {"path": str(self.folder.final), "step": self.steps}))
        return self._result(self.steps, "finished")

    def _result(self, step: int, status: str) -> TrainResult:
        last = [line["loss"] for line in self.folder.read_metrics()][-20:]
        result = TrainResult(
            run=str(self.folder.path),
            product=methods.METHODS[self.config.method].product,
            file=str(self.folder.final) if status == "finished" else None,
            report=str(self.folder.report),
            step=step,
            steps=self.steps,
            status=status,
            loss=sum(last) / len(last) if last else None,
            seconds=time.perf_counter() - self.began,
            images_per_second=self.seen / max(self.training_seconds, 1e-9),
            checkpoints=[str(path) for path in self.folder.checkpoints().values()],
            left_out=[problem.message for problem in self.job.dataset.left_out],
        )
        if self.crew.leads:
            self.sampler.sheet()
            report.write(self.folder)
        self.on_event(Event("done", result.to_json()))
        return result

    def _expect_room(self) -> None:
        """Refuse to start a run whose files cannot all be written."""
        weights = sum(value.numel() for value in self.job.attached.state().values())
        saves = sum(self.job.saves_after(step) for step in range(1, self.steps)) + 1
        kept = min(saves, self.config.keep_last or saves) + 1
        self._need_room(weights * (kept * 2 + 3 * 12))

    def _need_room(self, size: int) -> None:
        free = shutil.disk_usage(self.folder.path).free
        if free < size:
            raise MaquetteError(
                f"The disk of {self.folder.path} has {free / 1e6:.0f} MB left, the run needs {size / 1e6:.0f} MB; "
                f"make room and go on with: maquette train --resume {self.folder.path}"
            )
