"""One attempt at a prepared job, in a worker: claim, training, what follows, upload, and the result last."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..events import Cancel, Cancelled, Event
from ..run_folder import RunFolder
from . import carrying, failures, layout
from .claiming import alive, claimed, claims
from .preparing import Prepared
from .records import Outcome, Result, price_of, read_result
from .trainer import Trained, Trainer, Training

UNPRICED = "[prices] in fleet.toml has none for {}, so that the tenant's money cannot be counted: add it."


class Refused(Exception):
    """The job is another's already."""

    def __init__(self, state: str, result: dict[str, Any] | None = None) -> None:
        super().__init__(state)
        self.state, self.result = state, result


class Attempt:
    """Train what was prepared, and commit it."""

    def __init__(self, made: Prepared, trainer: Trainer, node: str, worker: str, cancel: Cancel) -> None:
        self.made, self.task, self.store, self.trainer = made, made.task, made.store, trainer
        self.node, self.worker, self.cancel = node, worker, cancel
        self.drain = False  # set with cancel: stop, but only to go on elsewhere
        self.over_budget = False
        self.slots = 1  # how many jobs are trained together, this one among them
        self.key = made.key
        self.name = layout.new_attempt(made.task.trial)
        self.began, self.started = time.monotonic(), time.time()
        self.parts: dict[str, float] = {"prepare": made.seconds}
        self.device = trainer.device()

    @property
    def folder(self) -> str:
        return f"{layout.attempts(self.task.tenant, self.key)}/{self.name}"

    def run(self) -> Outcome:
        """All of it, alone. Never raises: what goes wrong is in the outcome."""
        training = self.begin()
        return training if isinstance(training, Outcome) else self.end(self.train(training))

    def begin(self) -> Training | Outcome:
        """Claim the job. Returns what is to be trained, or how the attempt ended before that. Never raises."""
        self._course = self._guarded()
        try:
            return next(self._course)
        except StopIteration as over:
            ended: Outcome = over.value
            return ended

    def train(self, training: Training) -> Trained | Exception:
        """What the trainer makes of it, alone."""
        act = self.trainer.resume if training.goes_on else self.trainer.train
        with self._timed("train"):
            try:
                return act(training.config, training.on_event, training.cancel)
            except Exception as error:
                return error

    def end(self, came_to: Trained | Exception) -> Outcome:
        """What follows from what the training came to. Never raises."""
        try:
            if isinstance(came_to, Exception):
                self._course.throw(came_to)
            else:
                self._course.send(came_to)
        except StopIteration as over:
            ended: Outcome = over.value
            return ended
        raise AssertionError("an attempt trains once")

    def _guarded(self) -> Generator[Training, Trained, Outcome]:
        try:
            return (yield from self._run())
        except Refused as refused:
            return self._outcome(refused.state, result=refused.result)
        except Exception as error:
            return self._failed(error)
        finally:
            self.made.close()

    def _run(self) -> Generator[Training, Trained, Outcome]:
        if self.made.fault is not None:
            raise self.made.fault
        self._require_free()
        if self.made.max_cost is not None and price_of(self.device, self.task.prices) is None:
            why = f"[prices] in fleet.toml has none for {self.device}, so that max_cost cannot be kept: add it."
            return self._commit(self._result("failed", "budget", why))
        if self.task.money_limited and price_of(self.device, self.task.prices) is None:
            return self._outcome("unpriced", message=UNPRICED.format(self.device))
        with claimed(self.store, self.folder, self.node):
            trained = yield from self._train()
            if trained.status == "stopped" and not self.over_budget:
                return self._stopped(trained)
            if self.over_budget:
                why = f"The job would cost more than its max_cost of {self.made.max_cost:g}."
                return self._commit(self._result("failed", "budget", why))
            try:
                result = self._follow(trained)
            except Cancelled:
                if not self.cancel.is_set():
                    raise
                return self._stopped(trained)
            if not self.task.runs:
                with self._timed("upload"):
                    result.files, result.size = carrying.upload(self.made.config, trained, self.store, self.folder)
            return self._commit(result)

    def _require_free(self) -> None:
        """Raise Refused where the job has a result, or somebody gives signs of life from an attempt at it."""
        place = layout.result(self.task.tenant, self.key)
        try:
            known = read_result(self.store.read(place))
        except FileNotFoundError:
            known = None
        else:
            if known is not None:
                raise Refused("known", known)
            self.store.remove([place])
        if any(alive(claim) for claim in claims(self.store, self.task.tenant, self.key)):
            raise Refused("busy")

    def _train(self) -> Generator[Training, Trained, Trained]:
        stays = self.task.runs is not None
        state = None if stays else carrying.newest_state(self.store, self.task.tenant, self.key)
        keeper = None if stays else carrying.Keeper(self.store, self.folder, self.made.config)
        price = price_of(self.device, self.task.prices)

        def listen(event: Event) -> None:
            if keeper is not None:
                keeper.listen(event)
            spent = (time.monotonic() - self.began) / self.slots / 3600 * (price or 0.0)
            if self.made.max_cost is not None and spent > self.made.max_cost:
                self.over_budget = True
                self.cancel.set()

        if state is not None:
            carrying.restore(self.store, state, self.made.config)
        goes_on = state is not None or RunFolder(carrying.run_of(self.made.config)).config.exists()
        try:
            trained = yield Training(self.made.config, listen, self.cancel, goes_on)
        except Cancelled:
            if not self.cancel.is_set():
                raise
            trained = Trained("stopped", None, 0)  # before its first step
        trained.resumed_from = state.rpartition("/")[2] if state is not None else ""
        if keeper is not None and trained.status == "stopped" and self.drain:
            keeper.keep(force=True)
        return trained

    def _follow(self, trained: Trained) -> Result:
        """What `then` asks for, and the result with its figures."""
        result = self._result("done")
        result.steps, result.step, result.weight = trained.steps, trained.chosen, trained.weight
        result.resumed_from = trained.resumed_from
        for step in self.made.then:
            if step == "evaluate":
                with self._timed("evaluate"):
                    judged = self.trainer.evaluate(self.made.config, self.cancel)
                result.step, result.weight = judged.step, judged.weight
                result.accepted, result.score = judged.accepted, judged.score
            else:
                with self._timed("generate"):
                    pack, weight = step["generate"], result.weight or 1.0
                    self.trainer.generate(self.made.config, pack, weight, self.cancel)
        return result

    def _stopped(self, trained: Trained) -> Outcome:
        if not self.drain:
            self.store.remove([self.folder])
        return self._outcome("drained" if self.drain else "cancelled")

    def _failed(self, error: Exception) -> Outcome:
        kind = failures.kind_of(error)
        message = self._plain(failures.sentence(error))
        if kind not in failures.FINAL or (kind == "user" and not self.key):
            with contextlib.suppress(Exception):  # the store may be what failed; `fleet gc` finds the rest
                if self.key and not self.store.folders(f"{self.folder}/{carrying.STATE}"):
                    self._discard()
            return self._outcome("failed", kind=kind, message=message)
        try:
            self._discard()
            return self._commit(self._result("rejected" if kind == "user" else "failed", kind, message))
        except Exception as second:
            return self._outcome("failed", kind="machine", message=str(second))

    def _plain(self, message: str) -> str:
        """A message without the folders of the photos and of this machine."""
        for place, word in ((self.made.scratch, "job"), (self.made.config.photos, "photos")):
            message = message.replace(str(place), word)
        return message

    def _commit(self, result: Result) -> Outcome:
        """Write the result where there is none. Whoever comes second deletes what he made."""
        result.finished = time.time()
        result.seconds = {part: round(seconds, 3) for part, seconds in self.parts.items()}
        price = price_of(self.device, self.task.prices)
        if price is not None:
            result.cost = (result.busy_seconds + result.wasted_seconds) / 3600 * price
        written = asdict(result)
        if not self.store.exclusive:
            return self._outcome(
                "committed", result=written, uncommitted=True, kind=result.kind, message=result.message
            )
        try:
            self.store.create(layout.result(self.task.tenant, self.key), result.to_bytes())
        except FileExistsError:
            self._discard()
            return self._outcome("known")
        with contextlib.suppress(Exception):  # a state is of no use any more; `fleet gc` finds what stays
            self.store.remove([f"{self.folder}/{carrying.STATE}"])
        return self._outcome("committed", result=written, kind=result.kind, message=result.message)

    def _discard(self) -> None:
        if self.key:
            self.store.remove([self.folder])

    def _result(self, status: Any, kind: Any = "", message: str = "") -> Result:
        config, task = self.made.config, self.task
        return Result(
            self.key, task.tenant, task.job, task.row, task.mark, status, self.name if status == "done" else "", kind,
            message, trial=task.trial, device=self.device, node=self.node, submitted=task.submitted,
            started=self.started, wasted_seconds=task.wasted_seconds, low_memory=task.low_memory,
            slots=self.slots, base=Path(config.base).name, method=config.method, versions=self.trainer.versions(),
        )  # fmt: skip

    def _outcome(self, state: Any, **more: Any) -> Outcome:
        whole = self.made.seconds + time.monotonic() - self.began
        seconds = whole if self.slots == 1 else sum(self.parts.values())  # of its own
        facts = {"seconds": seconds, "key": self.key, "slots": self.slots, **more}
        return Outcome(self.task.number, state, self.node, self.worker, **facts)

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.parts[part] = self.parts.get(part, 0.0) + time.monotonic() - began
