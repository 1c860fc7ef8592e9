"""The end of a run: the chosen checkpoint becomes the run's own file, and the report is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import methods
from ..errors import MaquetteError
from ..evaluation import page_values
from ..evaluation.verdict import Verdict
from ..events import Event
from ..report import run_page
from . import memory, verdicts
from .keeping import Keeper
from .promotion import promote
from .resuming import drop_state
from .train_result import Pace, TrainResult


class Ending:
    """What is done once when training ends, finished or stopped."""

    def __init__(self, keeper: Keeper, cancelled: Callable[[], bool]) -> None:
        """cancelled: whether the caller wants no verdict any more."""
        self.keeper, self.cancelled, self.folder = keeper, cancelled, keeper.folder
        self.chosen: int | None = None  # the step whose checkpoint is the run's own file
        self.verdict: Verdict | None = None
        self.page: dict[str, Any] | None = None  # what the report shows of the verdict

    def finish(self, step: int) -> None:
        """Make the chosen checkpoint of a training of `step` steps NAME.safetensors, with side-car and preview."""
        self.chosen = step
        if not self.keeper.processes.is_main:
            return
        keeper, final = self.keeper, self.folder.final
        weights = keeper.job.state()
        keeper.require_fitting(weights, step)
        keeper.need_room(sum(value.numel() * 4 for value in weights.values()) * 2)
        keeper.writer.save(weights, final, step)
        keeper.writer.sidecar(final)
        self._choose()
        keeper.previews.preview(self.chosen, final.with_suffix(".png"))
        keeper.on_event(Event("saved", {"path": str(final), "step": self.chosen}))

    def _choose(self) -> None:
        """Put the verdict's checkpoint in the last one's place, where there is a verdict."""
        keeper = self.keeper

        def on_progress(what: str, done: int, of: int) -> None:
            if self.cancelled():
                raise verdicts.Cancelled
            keeper.on_event(Event("progress", {"what": what, "done": done, "of": of}))

        self.folder.evaluation.unlink(missing_ok=True)  # of a shorter training
        try:
            found = verdicts.at_the_end(keeper.job, keeper.writer, self.folder, on_progress)
        except verdicts.Cancelled:
            return
        except MaquetteError as error:
            message = f"The checkpoints were not compared ({error}); the last one was taken."
            keeper.on_event(Event("warning", {"message": message}))
            return
        if found is not None:
            self.verdict, photos = found
            self.chosen = self.verdict.choice.step
            promote(keeper.writer, self.folder, self.verdict.choice)
            verdicts.record(self.folder.path, self.verdict, fold=False)
            self.page = page_values.values(self.verdict, photos)

    def result(self, start: int, step: int, steps: int, pace: Pace, ended: str | None) -> TrainResult:
        """Write the report and tell the end. ended: why training ended by itself before its last step."""
        keeper, finished = self.keeper, self.chosen is not None
        last = [line["loss"] for line in self.folder.read_metrics()][-20:]
        result = TrainResult(
            run=str(self.folder.path),
            product=methods.METHODS[keeper.config.method].product,
            file=str(self.folder.final) if finished else None,
            report=str(self.folder.report),
            start=start,
            step=step,
            steps=steps,
            status="finished" if finished else "stopped",
            loss=sum(last) / len(last) if last else None,
            seconds=pace.seconds,
            images_per_second=pace.images_per_second,
            checkpoints=[str(path) for path in self.folder.checkpoints().values()],
            left_out=[problem.message for problem in keeper.job.dataset.left_out],
            memory_bytes=memory.peak(keeper.job.base.device),
            chosen=self.chosen,
            weight=self.verdict.choice.weight if self.verdict else None,
            reasons=[*([ended] if ended else []), *(self.verdict.reasons if self.verdict else [])],
        )
        if keeper.processes.is_main:
            self.folder.stop.unlink(missing_ok=True)
            self.folder.sample.unlink(missing_ok=True)
            keeper.previews.sheet()
            run_page.write(self.folder, self.page)
            if finished:
                drop_state(self.folder, keeper.job, step)
        keeper.on_event(Event("done", result.to_json()))
        return result
