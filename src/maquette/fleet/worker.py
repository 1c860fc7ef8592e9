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
from functools import partial
from typing import Any

from . import failures, keys
from .attempt import Attempt
from .groups import Gathering, Group
from .preparing import Prepared, prepare, sweep
from .records import Outcome, Task
from .trainer import Trainer, load_trainer

MOST_JOBS = 500  # of one process, whose memory may have grown by then


class Worker:
    """Runs tasks in the order in which they come."""

    def __init__(self, trainer: str, node: str, name: str, slots: int = 1, most: int = MOST_JOBS) -> None:
        """slots: how many jobs are trained together at most. most: jobs after which the process ends."""
        self.node, self.name, self.slots, self.most = node, name, slots, most
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
            if made.fault is None:
                self._encode(made)
            return made
        except Exception as error:
            fault = failures.sentence(error)
            return Outcome(task.number, "failed", self.node, self.name, kind="machine", message=fault)

    def _encode(self, made: Prepared) -> None:
        """Prepare the photos beside the training at work, where they can be."""
        try:
            self.trainer.encode(made.config, self.draining)
        except Exception:  # whatever it is, the training meets it too, and it is the job's then
            return

    def run(
        self, group: Sequence[Prepared], tell: Callable[[Outcome], None], more: Callable[[], Prepared | None]
    ) -> None:  # fmt: skip
        """Train and commit what is prepared: one job, or several together. `tell` hears of each as it ends; `more` is
        asked for another of their kind when a slot is free.
        """

        def another() -> Attempt | None:
            while not (self.tired or self.draining.is_set()) and (made := more()) is not None:
                if (attempt := self._attempt(made, tell)) is not None:
                    return attempt
            return None

        attempts = [attempt for made in group if (attempt := self._attempt(made, tell)) is not None]
        Group(self.trainer, lambda outcome: tell(self._ended(outcome)), self.slots, another).run(attempts)

    def _attempt(self, made: Prepared, tell: Callable[[Outcome], None]) -> Attempt | None:
        """An attempt at a prepared job; none where it is not wanted any more."""
        number = made.task.number
        with self._lock:
            if not self.draining.is_set() and number not in self._cancelled:
                self._current[number] = Attempt(made, self.trainer, self.node, self.name, threading.Event())
                return self._current[number]
        made.close()
        tell(Outcome(number, "drained" if self.draining.is_set() else "cancelled", self.node, self.name))
        return None

    def _ended(self, outcome: Outcome) -> Outcome:
        with self._lock:
            self._current.pop(outcome.number, None)
            self._cancelled.discard(outcome.number)
            self.jobs += 1
            self.tired |= self.jobs >= self.most or "CUDA error" in outcome.message
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
            self.worker.run(group, self.tell, partial(self._another, group[0].alike))

    def _another(self, alike: str | None) -> Prepared | None:
        made = self.gathering.another(alike)
        if made is not None:
            self.started([made.task.number])
        return made


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
    trainer, name, slots, most = sys.argv[1:]
    worker = Worker(trainer, socket.gethostname(), name, int(slots), int(most))
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=worker.drain, daemon=True).start())
    belt = Belt(worker, lambda outcome: say(outcome=vars(outcome)), lambda numbers: say(started=numbers))
    say(ready=worker.trainer.device(), seconds=time.monotonic() - began)
    threading.Thread(target=_listen, args=(worker, belt), daemon=True).start()
    belt.train()
    out.flush()
    os._exit(0)  # without waiting for the thread that prepares, which may be in the middle of a photo


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
