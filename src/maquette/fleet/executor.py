"""What the driver needs of those who work: a page, which a machine's own processes and a Ray cluster both fill."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from .records import Outcome, Task

WINDOW = 2  # tasks at a worker: one is trained, the next prepared
MOST_STILLBORN = 3  # workers in a row that end before they are ready


class Executor(Protocol):
    """Runs tasks somewhere. Nothing of it is durable: whatever it forgets, the store knows."""

    @property
    def capacity(self) -> int:
        """How many tasks may be with it at a time."""

    def submit(self, task: Task, avoid: Collection[str] = ()) -> None:
        """Give a task to a worker, on a node that is not named in `avoid` where there is one. What was submitted since
        the last `wait` goes together with the next.
        """

    def wait(self, timeout: float) -> list[Outcome]:
        """What ended since the last call; waits at most so many seconds for the first."""

    def cancel(self, number: int) -> None:
        """End one task without a result."""

    def drain(self) -> None:
        """All stop at the next step; `wait` tells of each."""

    def close(self) -> list[Session]:
        """End the workers. Returns what they did with their time."""


class Session(dict[str, object]):
    """Of one worker: device, node, seconds of life (`lived`), until it was ready (`cold`) and at work (`busy`)."""
