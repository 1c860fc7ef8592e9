"""The training loop and its step."""

from __future__ import annotations

import time

from torch import Tensor
from torch.optim import AdamW

from ..data import findings
from ..errors import Diverged, MaquetteError, OutOfMemory
from ..events import Cancel, Event, Listener
from ..run_folder import RunFolder
from ..sampling.finite import damage
from . import memory, optim
from .batches import Batch
from .checkpoint_writer import checkpoint_writer
from .distributed import ProcessGroup
from .ending import Ending
from .job import Job, photo_names
from .keeping import Keeper
from .previews import PreviewWriter
from .step_result import StepResult, may_defer
from .train_result import Pace, TrainResult
from .watching import Watcher


class Trainer:
    """Trains a job: the loop, and what it does with a step that is not finite."""

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
        self.keeper = Keeper(
            folder, job, self.writer, PreviewWriter(job, self.writer, folder, on_event), processes, on_event
        )
        self.pace = Pace()
        self.stop = False  # some process is asked to stop
        self.refused = False  # whether the step before was skipped as not finite
        self.deferred = may_defer(job, processes.size) if defer is None else defer
        self.pending: StepResult | None = None  # the last step, computed but not checked yet
        self.base_first = False  # whether the base's pictures are drawn before the first step, not at the first saving
        self.start = self.step = 0  # how many were done at the beginning, and are done now
        self.watcher = Watcher(job, self.writer, folder, on_event) if self.config.stop == "auto" else None
        self.ended: str | None = None  # why training ended by itself

    def train(self, start: int) -> TrainResult:
        """Train from `start` steps on to the end, or until asked to stop."""
        self.begin(start)
        while self.step < self.steps and not self.stop:
            began, job = self.start_step(), self.job
            try:
                loss, batches = job.gradients(self.step)
                loss, self.stop = self.processes.all_reduce(job.parameters, loss, self._cancelled())
                self.end_step(began, loss, batches)
            except RuntimeError as error:
                if not memory.exhausted(error):
                    raise
                raise OutOfMemory(memory.advice(job, self.processes.size)) from error
            self.after_step()
        return self.end()

    def begin(self, start: int) -> None:
        """What comes before the first step, which is that after `start` steps."""
        self.start = self.step = start
        findings.tell(self.job.findings, self.on_event)
        if self.job.graphs is not None:
            self.job.graphs.on_warning = self._warn
        if self.processes.is_main:
            self.keeper.expect_room(self.steps)
            self.keeper.complete(start)
            if self.base_first:
                self.keeper.previews.base()
        self._watch(start)

    def after_step(self) -> None:
        """Count a step, and save what is due."""
        self.step += 1
        step = self.step
        self.stop |= self.processes.size == 1 and self._cancelled()  # set while the step was reported
        wanted = self._sample_wanted()
        if wanted or self.job.saves_after(step) or step == self.steps or self.stop:
            self._flush(step)
            self.keeper.save(step)
            self._watch(step)

    def end(self) -> TrainResult:
        """After the last step, or that at which the run was asked to stop."""
        ending = Ending(self.keeper, self._cancelled)
        if self.step >= self.steps:
            ending.finish(self.steps)
        return ending.result(self.start, min(self.step, self.steps), self.steps, self.pace, self.ended)

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
            self.steps = step

    def _warn(self, message: str) -> None:
        self.on_event(Event("warning", {"message": message}))

    def start_step(self) -> float:
        """Set the learning rates and forget the gradients of the step before. Returns the time."""
        began = time.perf_counter()
        optim.set_lr(self.job.optimizer, optim.lr_multiplier(self.config, self.step, self.steps))
        self.job.optimizer.zero_grad(set_to_none=True)
        return began

    def end_step(self, began: float, loss: Tensor, batches: list[Batch]) -> None:
        """Unscale and clip the gradients, step the optimizer, and log. loss: (), of these photos."""
        job, step = self.job, self.step
        job.scaler.unscale_(job.parameters)
        norm = optim.gradient_norm(job.parameters)
        rate = (self.config.learning_rate or 0.0) * optim.lr_multiplier(self.config, step, self.steps)
        result: StepResult | None = StepResult(step, batches, rate, loss, norm)
        if self.deferred:
            assert isinstance(job.optimizer, AdamW)
            optim.optimizer_step_if_finite(job.optimizer, job.parameters, loss, norm, self.config.max_grad_norm)
            self.pending, result = result, self.pending
        else:
            assert result is not None
            self._update(result, norm)
        self.pace.training_seconds += time.perf_counter() - began
        self.pace.images += self.config.batch_size or 1
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
            self.keeper.save_state(done)
            raise Diverged(
                f"The loss is not finite at steps {step} and {step + 1} (photos {names}); training stopped at the last "
                f"good weights, and the checkpoints in {self.folder.path} are good. "
                "Lower learning_rate, or try --set dtype=fp32."
            )
        self.refused = True
        message = f"Step {step + 1} was skipped: its loss or gradient is not finite (photos {names})."
        self._warn(message)

    def _log(self, step: int, loss: float, norm: float, rate: float) -> None:
        speed = self.pace.images_per_second
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
