"""The training loop: steps, checkpoints, sample pictures, events."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from .. import methods
from ..core.dtypes import DTYPES
from ..data import findings
from ..errors import Diverged, MaquetteError, OutOfMemory
from ..evaluation import page_values
from ..evaluation.verdict import Verdict
from ..events import Cancel, Event, Listener
from ..report import run_page as report
from ..run_folder import RunFolder
from ..sampling.finite import damage
from . import identity, memory, optim, state, verdicts
from .checkpoint_writer import checkpoint_writer
from .distributed import ProcessGroup
from .job import Job, photo_names
from .previews import PreviewWriter
from .promotion import promote
from .resuming import drop_state, unreadable
from .step_result import StepResult, may_defer
from .watching import Watcher


@dataclass
class TrainResult:
    """A run: finished, or stopped early and ready to go on."""

    run: str
    product: str  # what the file is: "adapter", "embedding" or "model"
    file: str | None  # the chosen checkpoint; None when stopped early
    report: str
    start: int  # the step after which this part of the run began: 0 unless it was resumed
    step: int
    steps: int
    status: str  # "finished" or "stopped"
    loss: float | None  # mean over the last steps
    seconds: float  # of this part
    images_per_second: float
    checkpoints: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    chosen: int | None = None  # step of the checkpoint that `file` is
    memory_bytes: int | None = None  # the most that was needed: of the card, or of this process; None: not known here
    weight: float | None = None  # at which it is best, where that was measured
    reasons: list[str] = field(default_factory=list)  # of the choice

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Trainer:
    """The loop and what happens around it."""

    def __init__(
        self,
        folder: RunFolder,
        job: Job,
        on_event: Listener,
        cancel: Cancel,
        processes: ProcessGroup,
        defer: bool | None = None,
    ) -> None:
        """defer: whether a step is checked while the next is computed; None: where that is possible."""
        self.folder, self.job, self.on_event, self.cancel, self.processes = folder, job, on_event, cancel, processes
        self.config = job.config
        self.steps = job.config.steps or 0
        self.writer = checkpoint_writer(job.config, job.base, job.dataset)
        self.previews = PreviewWriter(job, self.writer, folder, on_event)
        self.began = time.perf_counter()
        self.training_seconds = 0.0
        self.seen = 0
        self.stop = False  # some process is asked to stop
        self.refused = False  # whether the step before was skipped as not finite
        self.deferred = may_defer(job, processes.size) if defer is None else defer
        self.pending: StepResult | None = None  # the last step, computed but not checked yet
        self.start = 0
        self.chosen = self.steps  # the step whose checkpoint is the run's own file
        self.verdict: Verdict | None = None
        self.page: dict[str, Any] | None = None  # what the report shows of the verdict
        self.watcher = Watcher(job, self.writer, folder, on_event) if self.config.stop == "auto" else None
        self.ended: str | None = None  # why training ended by itself

    def train(self, start: int) -> TrainResult:
        """Train from `start` steps on to the end, or until asked to stop."""
        self.start = start
        findings.tell(self.job.findings, self.on_event)
        if self.job.graphs is not None:
            self.job.graphs.on_warning = self._warn
        if self.processes.is_main:
            self._expect_room()
            self._complete(start)
        step = start
        self._watch(start)
        while step < self.steps:
            try:
                self._step(step)
            except RuntimeError as error:
                if not memory.exhausted(error):
                    raise
                raise OutOfMemory(memory.advice(self.job, self.processes.size)) from error
            step += 1
            self.stop |= self.processes.size == 1 and self._cancelled()  # set while the step was reported
            wanted = self._sample_wanted()
            if wanted or self.job.saves_after(step) or step == self.steps or self.stop:
                self._flush(step)
                self._save(step)
                self._watch(step)
            if self.stop and step < self.steps:
                return self._result(step, "stopped")
        return self._finish()

    def _cancelled(self) -> bool:
        """Whether to stop: by the caller's word, or by the file that another process makes in the run folder."""
        return self.cancel.is_set() or (self.processes.is_main and self.folder.stop.exists())

    def _sample_wanted(self) -> bool:
        """Whether another process made the file that asks for a checkpoint now. Several processes save at their usual
        steps only: they would have to agree at every step.
        """
        if self.processes.size > 1 or not self.folder.sample.exists():
            return False
        self.folder.sample.unlink(missing_ok=True)
        return True

    def _watch(self, step: int) -> None:
        """Measure what was saved, where that is wanted; the end of the training may be moved to this step."""
        if self.watcher is None:
            return
        why = None
        if self.processes.is_main:
            file = self.folder.checkpoint(step)
            if step == self.start:
                self.watcher.start(step)
            elif file.exists():
                self.watcher.look(step, file)
            why = self.watcher.ending()
        self.ended = self.processes.broadcast(why)
        if self.ended and step < self.steps:
            self.steps = self.chosen = step

    def _warn(self, message: str) -> None:
        self.on_event(Event("warning", {"message": message}))

    def _complete(self, start: int) -> None:
        """What belongs to the state at which an earlier part of the run was killed: its checkpoint and pictures."""
        file = self.folder.checkpoint(start)
        if not start or not self.folder.state(start).exists():
            return
        if not file.exists() or unreadable(file):
            self._write_checkpoint(start)
        if not self.previews.has(start):
            self.previews.checkpoint(start, file)

    def _step(self, step: int) -> None:
        """Do one training step: zero_grad, backward, all_reduce, unscale, clip and optimizer step."""
        began, job = time.perf_counter(), self.job
        factor = optim.lr_multiplier(self.config, step, self.steps)
        optim.set_lr(job.optimizer, factor)
        job.optimizer.zero_grad(set_to_none=True)
        loss, batches = job.gradients(step)
        loss, self.stop = self.processes.all_reduce(job.parameters, loss, self._cancelled())
        job.scaler.unscale_(job.parameters)
        norm = optim.gradient_norm(job.parameters)
        result = StepResult(step, batches, (self.config.learning_rate or 0.0) * factor, loss, norm)
        if self.deferred:
            assert isinstance(job.optimizer, AdamW)
            optim.optimizer_step_if_finite(job.optimizer, job.parameters, loss, norm, self.config.max_grad_norm)
            self.pending, result = result, self.pending
        else:
            self._update(result, norm)
        self.training_seconds += time.perf_counter() - began
        self.seen += self.config.batch_size or 1
        if result is not None:
            self._check_finite(result, step + 1 if self.deferred else step)

    def _update(self, result: StepResult, norm: Tensor) -> None:
        """Step the optimizer, EMA and loss scale, if the loss and the gradient norm are finite."""
        job = self.job
        if not result.finite:
            result.overflowed = job.scaler.backoff(result.loss)  # float16 overflows now and then, until the scale fits
            return
        try:
            optim.optimizer_step(job.optimizer, job.parameters, norm, self.config.max_grad_norm)
        except (RuntimeError, KeyError) as error:
            if memory.exhausted(error) or not 0 < result.step == self.start:
                raise
            raise MaquetteError(
                f"The first step from {self.folder.state(self.start)} failed ({error}): that state does not fit this "
                "run. Put it back, or remove it to go on from the one before."
            ) from error
        if job.ema is not None:
            job.ema.update()
        job.scaler.update()

    def _flush(self, step: int) -> None:
        """Check the pending step, after `step` steps."""
        result, self.pending = self.pending, None
        if result is not None:
            self._check_finite(result, step)

    def _check_finite(self, result: StepResult, done: int) -> None:
        """Log a step. One that is not finite is skipped; two in a row end the run, after `done` steps."""
        if result.finite:
            self.refused = False
        elif not result.overflowed:
            self._skip_step(result, done)
        self._log(result.step + 1, float(result.loss), float(result.norm), result.rate)

    def _skip_step(self, result: StepResult, done: int) -> None:
        names, step = ", ".join(photo_names(self.job, result.batches)), result.step
        if step == self.start:  # then nothing has been learned that could be at fault: perhaps the base is
            with self.writer.base_model() as base:
                if found := damage(base):
                    raise MaquetteError(found)
        if self.refused:
            self._save_state(done)
            raise Diverged(
                f"The loss is not finite at steps {step} and {step + 1} (photos {names}); training stopped at the last "
                f"good weights, and the checkpoints in {self.folder.path} are good. "
                "Lower learning_rate, or try --set dtype=fp32."
            )
        self.refused = True
        message = f"Step {step + 1} was skipped: its loss or gradient is not finite (photos {names})."
        self._warn(message)

    def _log(self, step: int, loss: float, norm: float, rate: float) -> None:
        speed = self.seen / max(self.training_seconds, 1e-9)
        values = {
            "step": step,
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": rate,
            "images_per_second": speed,
            "remaining_seconds": (self.steps - step) * (self.config.batch_size or 1) / speed,
        }
        if self.processes.is_main:
            self.folder.append_metric({key: values[key] for key in ("step", "loss", "gradient_norm", "learning_rate")})
        self.on_event(Event("metric", {"steps": self.steps, **values}))

    def _save(self, step: int) -> None:
        """State, checkpoint and sample pictures. The state comes first: where a checkpoint is, there is one. The
        pictures are made from the file.
        """
        if self.processes.is_main:
            self._need_room(sum(value.numel() * 4 for value in self.job.attached.state().values()) * 5)
        self._save_state(step)
        if self.processes.is_main:
            path = self._write_checkpoint(step)
            self.previews.checkpoint(step, path)

    def _write_checkpoint(self, step: int) -> Path:
        path, weights = self.folder.checkpoint(step), self.job.state()
        self._require_fitting(weights, step)
        self.writer.save(weights, path, step)
        self.on_event(Event("saved", {"path": str(path), "step": step}))
        if self.config.keep_last:
            for at, old in list(self.folder.checkpoints().items())[: -self.config.keep_last]:
                if at not in self.config.keep_steps:
                    old.unlink()
        return path

    def _require_fitting(self, weights: dict[str, Tensor], step: int) -> None:
        """Raise MaquetteError before a file is written whose numbers its type cannot hold: they would be infinite."""
        kind = self.config.save_dtype
        most = torch.finfo(DTYPES[kind]).max
        large = next((name for name, value in weights.items() if bool((value.abs() > most).any())), None)
        if large is not None:
            raise MaquetteError(
                f"At step {step} the weights of {large} are beyond what {kind} can hold; the learning rate may be too "
                f"high. Go on, saving in bf16, with: maquette train --resume {self.folder.path} --set save_dtype=bf16"
            )

    def _save_state(self, step: int) -> None:
        self.processes.consolidate(self.job.optimizer)
        if self.processes.is_main:
            job = self.job
            run = identity.of_run(job.config, job.dataset, job.base)
            state.save(self.folder, step, job.attached, job.optimizer, job.ema, job.scaler, run)

    def _finish(self) -> TrainResult:
        """The chosen checkpoint becomes NAME.safetensors, with its side-car and preview, and the report is written."""
        if not self.processes.is_main:
            return self._result(self.steps, "finished")
        weights = self.job.state()
        self._require_fitting(weights, self.steps)
        self._need_room(sum(value.numel() * 4 for value in weights.values()) * 2)
        self.writer.save(weights, self.folder.final, self.steps)
        self.writer.sidecar(self.folder.final)
        self._choose()
        self.previews.preview(self.chosen, self.folder.final.with_suffix(".png"))
        self.on_event(Event("saved", {"path": str(self.folder.final), "step": self.chosen}))
        return self._result(self.steps, "finished")

    def _choose(self) -> None:
        """Put the verdict's checkpoint in the last one's place, where there is a verdict."""

        def on_progress(what: str, done: int, of: int) -> None:
            if self._cancelled():
                raise verdicts.Cancelled
            self.on_event(Event("progress", {"what": what, "done": done, "of": of}))

        self.folder.evaluation.unlink(missing_ok=True)  # of a shorter training
        try:
            found = verdicts.at_the_end(self.job, self.writer, self.folder, on_progress)
        except verdicts.Cancelled:
            return
        except MaquetteError as error:
            self._warn(f"The checkpoints were not compared ({error}); the last one was taken.")
            return
        if found is not None:
            self.verdict, photos = found
            self.chosen = self.verdict.choice.step
            promote(self.writer, self.folder, self.verdict.choice)
            verdicts.record(self.folder.path, self.verdict, fold=False)
            self.page = page_values.values(self.verdict, photos)

    def _result(self, step: int, status: str) -> TrainResult:
        last = [line["loss"] for line in self.folder.read_metrics()][-20:]
        result = TrainResult(
            run=str(self.folder.path),
            product=methods.METHODS[self.config.method].product,
            file=str(self.folder.final) if status == "finished" else None,
            report=str(self.folder.report),
            start=self.start,
            step=step,
            steps=self.steps,
            status=status,
            loss=sum(last) / len(last) if last else None,
            seconds=time.perf_counter() - self.began,
            images_per_second=self.seen / max(self.training_seconds, 1e-9),
            checkpoints=[str(path) for path in self.folder.checkpoints().values()],
            left_out=[problem.message for problem in self.job.dataset.left_out],
            memory_bytes=memory.peak(self.job.base.device),
            chosen=self.chosen if status == "finished" else None,
            weight=self.verdict.choice.weight if self.verdict else None,
            reasons=[*([self.ended] if self.ended else []), *(self.verdict.reasons if self.verdict else [])],
        )
        if self.processes.is_main:
            self.folder.stop.unlink(missing_ok=True)
            self.folder.sample.unlink(missing_ok=True)
            self.previews.sheet()
            report.write(self.folder, self.page)
            if status == "finished":
                drop_state(self.folder, self.job, step)
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
