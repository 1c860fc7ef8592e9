"""Jobs that a worker trains together in slots of one network: which they are, and how each keeps its own attempt."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from .attempt import Attempt
from .preparing import Prepared
from .records import Outcome
from .trainer import CameTo, Trainer, Training


class Gathering:
    """Prepared jobs, between the thread that prepares and the one that trains."""

    def __init__(self, slots: int) -> None:
        """slots: how many jobs are trained together at most."""
        self.slots = slots
        self._ready: list[Prepared] = []
        self._coming = 0
        self._closed = False
        self._changed = threading.Condition()

    def expect(self, count: int) -> None:
        """So many more are being prepared: a group that is not full waits for them."""
        with self._changed:
            self._coming += count

    def arrived(self, made: Prepared | None) -> None:
        """One that was expected; None: it has ended already."""
        with self._changed:
            self._coming -= 1
            self._ready += [] if made is None else [made]
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more will come than what is expected."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, until: Callable[[], bool] = lambda: False, timeout: float | None = None) -> list[Prepared]:
        """The job that is first and those that can be trained with it. Empty at the end, once `until` says so, or after
        so many seconds without any.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._full() or (not self._ready and (self._over() or until())), timeout)
            group = self._group()
            self._ready = [made for made in self._ready if made not in group]
            return group

    def another(self, alike: str | None) -> Prepared | None:
        """The job that is first, where it can be trained with a group that is at work: a slot of it is free. None where
        there is none now; one of another kind that is first has its turn before any that comes later.
        """
        with self._changed:
            if alike is None or not self._ready or self._ready[0].alike != alike:
                return None
            return self._ready.pop(0)

    def _full(self) -> bool:
        return bool(self._ready) and (len(self._group()) >= self.slots or not self._coming)

    def _over(self) -> bool:
        return self._closed and not self._coming

    def _group(self) -> list[Prepared]:
        alike = self._ready[0].alike if self._ready else None
        if alike is None:
            return self._ready[:1]
        return [made for made in self._ready if made.alike == alike][: self.slots]


class Group:
    """Attempts that are trained together, and what each had of the time. Those that go on from a state are trained
    alone, after the others.
    """

    def __init__(
        self, trainer: Trainer, tell: Callable[[Outcome], None], slots: int, more: Callable[[], Attempt | None]
    ) -> None:  # fmt: skip
        """tell: hears how each ended, at once. more: gives another when a slot is free, None where there is none."""
        self.trainer, self.tell, self.slots, self.more = trainer, tell, slots, more
        self.at_work: dict[Training, Attempt] = {}
        self.alone: list[tuple[Attempt, Training]] = []
        self._since = time.monotonic()

    def run(self, attempts: Sequence[Attempt]) -> None:
        """Train and commit each. What ends one leaves the others; what ends all, such as a lack of memory, is told of
        each.
        """
        for attempt in attempts:
            self._begin(attempt)
        if len(self.at_work) == 1:
            ((training, attempt),) = self.at_work.items()
            self.alone.insert(0, (attempt, training))
            self.at_work = {}
        if self.at_work:
            try:
                self.trainer.together([*self.at_work], self.slots, self._another, self._ended)
            except Exception as error:  # what it means is decided by each attempt
                for training in [*self.at_work]:
                    self._ended(training, error)
        for attempt, training in self.alone:
            self.tell(attempt.end(attempt.train(training)))

    def _begin(self, attempt: Attempt) -> Training | None:
        """Claim a job. Returns what is to be trained together with the others, if it is to be."""
        training = attempt.begin()
        if isinstance(training, Outcome):
            self.tell(training)
            return None
        if training.goes_on:
            self.alone.append((attempt, training))
            return None
        self._share_time()
        self.at_work[training] = attempt
        for one in self.at_work.values():
            one.slots = max(one.slots, len(self.at_work))
        return training

    def _another(self) -> Training | None:
        """For a slot that is free; none once somebody waits to be trained alone."""
        while not self.alone and (attempt := self.more()) is not None:
            if (training := self._begin(attempt)) is not None:
                return training
        return None

    def _ended(self, training: Training, came_to: CameTo) -> None:
        self._share_time()
        self.tell(self.at_work.pop(training).end(came_to))
        self._since = time.monotonic()  # what followed was that one's own

    def _share_time(self) -> None:
        """Give each its part of the time since the last change."""
        now = time.monotonic()
        for attempt in self.at_work.values():
            attempt.parts["train"] = attempt.parts.get("train", 0.0) + (now - self._since) / len(self.at_work)
        self._since = now
