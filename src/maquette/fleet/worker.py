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
from collections.abc import Callable
from typing import Any

from . import keys
from .attempt import Attempt, Prepared, prepare, sweep
from .records import Outcome, Task
from .trainer import Trainer, load_trainer

MOST_JOBS = 500  # of one process, whose memory may have grown by then


class Worker:
    """Runs tasks in the order in which they come."""

    def __init__(self, trainer: str, node: str, name: str) -> None:
        self.node, self.name = node, name
        self.trainer: Trainer = load_trainer(trainer)
        self.digests = keys.Digests()
        self.draining = threading.Event()
        self.jobs = 0
        self._swept: set[str | None] = set()
        self.tired = False  # it ends after this job, and another takes its place
        self._cancelled: set[int] = set()
        self._current: Attempt | None = None
        self._lock = threading.Lock()

    def prepare(self, task: Task) -> Prepared | Outcome:
        """What can be run, or how it ended already: where there is no room for it, or no store."""
        try:
            if task.scratch not in self._swept:
                self._swept.add(task.scratch)
                sweep(task.scratch)
            return prepare(task, self.digests)
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            return Outcome(task.number, "failed", self.node, self.name, kind="machine", message=told)

    def run(self, made: Prepared) -> Outcome:
        """Train and commit what is prepared."""
        attempt = Attempt(made, self.trainer, self.node, self.name, threading.Event())
        with self._lock:
            if self.draining.is_set() or made.task.number in self._cancelled:
                made.close()
                state: Any = "drained" if self.draining.is_set() else "cancelled"
                return Outcome(made.task.number, state, self.node, self.name)
            self._current = attempt
        try:
            outcome = attempt.run()
            self.jobs += 1
            outcome.recycle = self.tired = self.jobs >= MOST_JOBS or "CUDA error" in outcome.message
            return outcome
        finally:
            with self._lock:
                self._current = None
                self._cancelled.discard(made.task.number)

    def cancel(self, number: int) -> None:
        """End a task without a result, whether it runs or waits."""
        with self._lock:
            self._cancelled.add(number)
            if self._current is not None and self._current.task.number == number:
                self._current.cancel.set()

    def drain(self) -> None:
        """Stop at the next step, keep what is worth it, and take nothing more."""
        with self._lock:
            self.draining.set()
            if self._current is not None:
                self._current.drain = True
                self._current.cancel.set()


class Belt:
    """Tasks in, outcomes out: one thread prepares, one trains."""

    def __init__(self, worker: Worker, tell: Callable[[Outcome], None], started: Callable[[int], None]) -> None:
        self.worker, self.tell, self.started = worker, tell, started
        self.tasks: queue.Queue[Task | None] = queue.Queue()
        self.ready: queue.Queue[Prepared | None] = queue.Queue(maxsize=1)
        self._threads = [threading.Thread(target=self._prepare, daemon=True)]
        for thread in self._threads:
            thread.start()

    def put(self, task: Task | None) -> None:
        """A task, or None: no more will come."""
        self.tasks.put(task)

    def _prepare(self) -> None:
        while (task := self.tasks.get()) is not None:
            made = self.worker.prepare(task)
            if isinstance(made, Outcome):
                self.tell(made)
            else:
                self.ready.put(made)
        self.ready.put(None)

    def train(self) -> None:
        """Until no more come, or the worker is tired; in the thread that calls it, which owns the device."""
        while (made := self.ready.get()) is not None:
            self.started(made.task.number)
            self.tell(self.worker.run(made))
            if self.worker.tired:
                return


def main() -> None:
    """A process of the local executor: commands on stdin, outcomes on stdout, what anyone prints on stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever prints must not come between the lines
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to pass on
    lock = threading.Lock()

    def say(**told: Any) -> None:
        with lock:
            try:
                out.write(json.dumps(told) + "\n")
            except (BrokenPipeError, ValueError):  # the driver is gone; what is at work ends as drained
                return

    began = time.monotonic()
    worker = Worker(sys.argv[1], socket.gethostname(), sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=worker.drain, daemon=True).start())
    belt = Belt(worker, lambda outcome: say(outcome=vars(outcome)), lambda number: say(started=number))
    say(ready=worker.trainer.device(), seconds=time.monotonic() - began)
    threading.Thread(target=_listen, args=(worker, belt), daemon=True).start()
    belt.train()


def _listen(worker: Worker, belt: Belt) -> None:
    """Commands until the driver closes the pipe, by dying too: then what is at work ends as drained."""
    for line in sys.stdin:
        told = json.loads(line)
        if "task" in told:
            belt.put(Task(**told["task"]))
        elif "cancel" in told:
            worker.cancel(told["cancel"])
        elif "drain" in told:
            worker.drain()
        elif "end" in told:
            return belt.put(None)
    worker.drain()
    belt.put(None)


if __name__ == "__main__":
    main()
