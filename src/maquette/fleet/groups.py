"""Jobs that a worker trains together in slots of one network: which they are, and how each keeps its own attempt."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from .attempt import Attempt
from .preparing import Prepared
from .records import Outcome
from .trainer import Trained, Trainer, Training


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

    def _full(self) -> bool:
        return bool(self._ready) and (len(self._group()) >= self.slots or not self._coming)

    def _over(self) -> bool:
        return self._closed and not self._coming

    def _group(self) -> list[Prepared]:
        alike = self._ready[0].alike if self._ready else None
        if alike is None:
            return self._ready[:1]
        return [made for made in self._ready if made.alike == alike][: self.slots]


def run_group(attempts: Sequence[Attempt], trainer: Trainer, tell: Callable[[Outcome], None]) -> None:
    """Train several attempts and commit each. Those that go on from a state are trained alone, after the others.

    What ends one leaves the others; what ends all, such as a lack of memory, is told of each.
    """
    alone: list[tuple[Attempt, Training]] = []
    together: list[tuple[Attempt, Training]] = []
    for attempt in attempts:
        training = attempt.begin()
        if isinstance(training, Outcome):
            tell(training)
        else:
            (alone if training.goes_on else together).append((attempt, training))
    if len(together) == 1:
        alone, together = [*together, *alone], []
    if together:
        for attempt, _ in together:
            attempt.slots = len(together)
        began = time.monotonic()
        found: list[Trained | Exception]
        try:
            found = trainer.together([training for _, training in together])
        except Exception as error:  # what it means is decided by each attempt
            found = [error] * len(together)
        share = (time.monotonic() - began) / len(together)
        for (attempt, _), came_to in zip(together, found, strict=True):
            attempt.parts["train"] = share
            tell(attempt.end(came_to))
    for attempt, training in alone:
        tell(attempt.end(attempt.train(training)))
