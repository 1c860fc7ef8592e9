"""A worker: one trainer, and beside it a thread that prepares the next job while one is trained.

`Worker` is the same in a process of this machine (`main`, spoken to in lines of JSON) and in an actor of Ray.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import keys
from .attempt import Attempt
from .groups import Gathering, run_group
from .preparing import Prepared, prepare, sweep
from .records import Outcome, Task
from .trainer import Trainer, load_trainer

MOST_JOBS = 500  # of one process, whose memory may have grown by then


class Worker:
    """Runs tasks in the order in which they come."""

    def __init__(self, trainer: str, node: str, name: str, slots: int = 1) -> None:
        """slots: how many jobs are trained together at most."""
        self.node, self.name, self.slots = node, name, slots
        self.trainer: Trainer = load_trainer(trainer)
        self.digests = keys.Digests()
        self.draining = threading.Event()
        self.jobs = 0
        self._swept: set[str | None] = set()
        self.tired = False  # it ends after this job, and another takes its place
        self._cancelled: set[int] = set()
        self._current: dict[int, Attempt] = {}
        self._lock = threading.Lock()

    def prepare(self, task: Task) -> Prepared | Outcome:
        """What can be run, or how it ended already: where there is no room for it, or no store."""
        try:
            if task.scratch not in self._swept:
                self._swept.add(task.scratch)
                sweep(task.scratch)
            made = prepare(task, self.digests)
            if self.slots > 1 and made.fault is None and not (task.alone or task.low_memory):
                alike = self.trainer.alike(made.config)
                made.alike = None if alike is None else f"{task.tenant} {alike}"
            return made
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            return Outcome(task.number, "failed", self.node, self.name, kind="machine", message=fault)

    def run(self, group: Sequence[Prepared], tell: Callable[[Outcome], None]) -> None:
        """Train and commit what is prepared: one job, or several together. `tell` hears of each."""
        attempts: list[Attempt] = []
        left: list[Outcome] = []
        with self._lock:
            for made in group:
                number = made.task.number
                if self.draining.is_set() or number in self._cancelled:
                    made.close()
                    state: Any = "drained" if self.draining.is_set() else "cancelled"
                    left.append(Outcome(number, state, self.node, self.name))
                else:
                    attempts.append(Attempt(made, self.trainer, self.node, self.name, threading.Event()))
            self._current = {attempt.task.number: attempt for attempt in attempts}
        for outcome in left:
            tell(outcome)
        run_group(attempts, self.trainer, lambda outcome: tell(self._ended(outcome)))

    def _ended(self, outcome: Outcome) -> Outcome:
        with self._lock:
            self._current.pop(outcome.number, None)
            self._cancelled.discard(outcome.number)
            self.jobs += 1
            self.tired |= self.jobs >= MOST_JOBS or "CUDA error" in outcome.message
            outcome.recycle = self.tired and not self._current
        return outcome

    def cancel(self, number: int) -> None:
        """End a task without a result, whether it runs or waits."""
        with self._lock:
            self._cancelled.add(number)
            if number in self._current:
                self._current[number].cancel.set()

    def drain(self) -> None:
        """Stop at the next step, keep what is worth it, and take nothing more."""
        with self._lock:
            self.draining.set()
            for attempt in self._current.values():
                attempt.drain = True
                attempt.cancel.set()


class Belt:
    """Tasks in, outcomes out: one thread prepares, one trains."""

    def __init__(
        self, worker: Worker, tell: Callable[[Outcome], None], started: Callable[[list[int]], None]
    ) -> None:  # fmt: skip
        self.worker, self.tell, self.started = worker, tell, started
        self.tasks: queue.Queue[Task | None] = queue.Queue()
        self.gathering = Gathering(worker.slots)
        threading.Thread(target=self._prepare, daemon=True).start()

    def put(self, tasks: Sequence[Task] | None) -> None:
        """Tasks that came together, or None: no more will come."""
        self.gathering.expect(len(tasks or ()))
        for task in [None] if tasks is None else tasks:
            self.tasks.put(task)

    def _prepare(self) -> None:
        while (task := self.tasks.get()) is not None:
            made = self.worker.prepare(task)
            if isinstance(made, Outcome):
                self.tell(made)
            self.gathering.arrived(None if isinstance(made, Outcome) else made)
        self.gathering.close()

    def train(self) -> None:
        """Until no more come, or the worker is tired; in the thread that calls it, which owns the device."""
        while not self.worker.tired and (group := self.gathering.take()):
            self.started([made.task.number for made in group])
            self.worker.run(group, self.tell)


def main() -> None:
    """A process of the local executor: commands on stdin, outcomes on stdout, what anyone prints on stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever prints must not come between the lines
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to pass on
    lock = threading.Lock()

    def say(**message: Any) -> None:
        with lock:
            try:
                out.write(json.dumps(message) + "\n")
            except (BrokenPipeError, ValueError):  # the driver is gone; what is at work ends as drained
                return

    began = time.monotonic()
    worker = Worker(sys.argv[1], socket.gethostname(), sys.argv[2], int(sys.argv[3]))
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=worker.drain, daemon=True).start())
    belt = Belt(worker, lambda outcome: say(outcome=vars(outcome)), lambda numbers: say(started=numbers))
    say(ready=worker.trainer.device(), seconds=time.monotonic() - began)
    threading.Thread(target=_listen, args=(worker, belt), daemon=True).start()
    belt.train()


def _listen(worker: Worker, belt: Belt) -> None:
    """Commands until the driver closes the pipe, by dying too: then what is at work ends as drained."""
    for line in sys.stdin:
        command = json.loads(line)
        if "tasks" in command:
            belt.put([Task(**task) for task in command["tasks"]])
        elif "cancel" in command:
            worker.cancel(command["cancel"])
        elif "drain" in command:
            worker.drain()
        elif "end" in command:
            return belt.put(None)
    worker.drain()
    belt.put(None)


if __name__ == "__main__":
    main()
