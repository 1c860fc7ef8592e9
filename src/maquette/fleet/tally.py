"""What a `fleet run` did, counted as it goes, and told to whoever listens."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from ..events import Event, Listener

SHOWN = 100  # bad rows, and reasons of failures, that a result names


@dataclass
class RunResult:
    """What a run did. status: "finished", or "stopped" by a signal, to go on with the same command."""

    root: str
    status: str
    committed: int  # results of this run
    done: int
    rejected: int
    failed: int
    known: int  # done before, or by others meanwhile
    cancelled: int
    late: int  # whose deadline had passed
    held: int  # of tenants whose budget is used up or cannot be counted
    invalid: int
    attempts: int
    seconds: float
    driver_seconds: float  # of the driver's own work, between waits
    bad: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # why jobs were rejected, failed or held, the first of them

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Tally:
    """Counts of a run at work."""

    def __init__(self, root: str, on_event: Listener) -> None:
        self.root, self.on_event = root, on_event
        self.counts: Counter[str] = Counter()
        self.bad: list[dict[str, str]] = []
        self.problems: list[str] = []
        self.total = 0  # jobs without a result at the beginning
        self.began = time.monotonic()
        self.waited = 0.0

    def invalid(self, place: str, name: str, why: str) -> None:
        """A row that is no job."""
        self.counts["invalid"] += 1
        if len(self.bad) < SHOWN:
            self.bad.append({"place": place, "id": name, "why": why})
        self.warn(place, why)

    def problem(self, name: str, message: str) -> None:
        """Why a job was rejected or failed."""
        if len(self.problems) < SHOWN:
            self.problems.append(f"{name}: {message}")
        self.warn(name, message)

    def warn(self, name: str, message: str) -> None:
        self.on_event(Event("warning", {"message": f"{name}: {message}"}))

    def tell(self) -> None:
        """How far the run has come."""
        done = self.counts["committed"]
        self.on_event(Event("progress", {"what": "jobs", "done": min(done, self.total), "of": self.total}))

    def result(self, status: str) -> RunResult:
        c, seconds = self.counts, time.monotonic() - self.began
        return RunResult(
            self.root, status, c["committed"], c["done"], c["rejected"], c["failed"], c["known"], c["cancelled"],
            c["late"], c["held"], c["invalid"], c["attempts"], seconds, seconds - self.waited, self.bad, self.problems,
        )  # fmt: skip
