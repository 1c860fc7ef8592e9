"""Workers as processes of this machine; nothing but Python is needed."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from ..openmp import share_among
from .executor import MOST_STILLBORN, WINDOW, Session
from .records import Outcome, Task
from .trainer import USUAL
from .worker import MOST_JOBS

PATIENCE = 30.0  # seconds in which a worker may end by itself


class LocalExecutor:
    """So many long-lived processes. One that dies is replaced, and what it had not begun goes to another."""

    def __init__(
        self, workers: int = 1, devices: Sequence[str] = (), trainer: str = USUAL, log: Path | None = None,
        slots: int = 1, fresh: bool = False,
    ) -> None:  # fmt: skip
        """devices: graphics cards by number, one worker each. log: file for what workers print; else nowhere. slots:
        how many jobs a worker trains together. fresh: every job has a process of its own, whose memory is that job's.
        """
        self.trainer, self.log, self.slots = trainer, log, slots
        self.most, self.window = (1, 1) if fresh else (MOST_JOBS, WINDOW)
        self.places: Sequence[str | None] = list(devices) or [None] * workers
        self.events: queue.Queue[tuple[_Process, dict[str, Any] | None]] = queue.Queue()
        self.workers = [_Process(self, index) for index in range(len(self.places))]
        self.sessions: list[Session] = []
        self.draining = False
        self.stillborn = 0  # workers in a row that never were ready

    @property
    def capacity(self) -> int:
        return self.window * self.slots * len(self.workers)

    def submit(self, task: Task, avoid: Collection[str] = ()) -> None:
        min(self.workers, key=lambda worker: len(worker.tasks)).hold(task)

    def wait(self, timeout: float) -> list[Outcome]:
        for worker in self.workers:
            worker.send()
        found: list[Outcome] = []
        deadline = time.monotonic() + timeout
        while True:
            try:
                left = max(0.0, deadline - time.monotonic())
                worker, message = self.events.get(timeout=left) if not found else self.events.get_nowait()
            except queue.Empty:
                return found
            found += self._heard(worker, message)

    def _heard(self, worker: _Process, message: dict[str, Any] | None) -> list[Outcome]:
        if message is None:
            return self._died(worker)
        if "ready" in message:
            self.stillborn = 0
            worker.session |= {"device": message["ready"], "cold": time.monotonic() - worker.began}
        elif "started" in message:
            worker.running |= set(message["started"])
        elif "outcome" in message:
            outcome = Outcome.from_json(message["outcome"])
            worker.running.discard(outcome.number)
            worker.tasks.pop(outcome.number, None)
            worker.busy += outcome.seconds
            return [outcome]
        return []

    def _died(self, worker: _Process) -> list[Outcome]:
        """A new worker in its place. What was being trained died with it; what waited goes to the new one."""
        code = worker.process.wait()
        self.sessions.append(worker.closed())
        tasks, running = dict(worker.tasks), worker.running & worker.tasks.keys()
        ready = "device" in worker.session
        self.stillborn += not ready
        if self.stillborn >= MOST_STILLBORN:
            raise MaquetteError(f"The workers end before they are ready (with {code}){self._where()}.")
        if not ready:
            running = set()
        lost = [Outcome(n, "drained") for n in tasks if n not in running] if self.draining else []
        if self.draining:
            self.workers.remove(worker)
        else:
            index = self.workers.index(worker)
            self.workers[index] = _Process(self, index)
            for number, task in tasks.items():
                if number not in running:
                    self.workers[index].hold(task)
            self.workers[index].send()
        for number in sorted(running):
            message, spent = f"The worker ended with {code}.", worker.spent() / len(running)
            lost.append(Outcome(number, "died", worker.node, worker.name, "machine", message, spent))
        return lost

    def _where(self) -> str:
        return f"; what they say stands in {self.log}" if self.log else ""

    def cancel(self, number: int) -> None:
        for worker in self.workers:
            if number in worker.tasks:
                worker.say(cancel=number)

    def drain(self) -> None:
        self.draining = True
        for worker in self.workers:
            worker.say(drain=True)

    def close(self) -> list[Session]:
        for worker in self.workers:
            worker.say(end=True)
        for worker in self.workers:
            try:
                worker.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            self.sessions.append(worker.closed())
        return self.sessions


class _Process:
    """One worker as the driver sees it."""

    def __init__(self, owner: LocalExecutor, index: int) -> None:
        self.name = f"worker-{index}"
        self.node = "this machine"
        self.tasks: dict[int, Task] = {}
        self.held: list[Task] = []  # to be sent together
        self.running: set[int] = set()
        self.since = self.began = time.monotonic()
        self.busy = 0.0
        self.session = Session(worker=self.name)
        environment = dict(os.environ)
        if (device := owner.places[index]) is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        if len(owner.places) > 1:
            share_among(environment, len(owner.places))
        words = [owner.trainer, self.name, str(owner.slots), str(owner.most)]
        with contextlib.ExitStack() as held:
            errors: Any = subprocess.DEVNULL if owner.log is None else held.enter_context(owner.log.open("ab"))
            self.process = subprocess.Popen(
                [sys.executable, "-m", "maquette.fleet.worker", *words],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8",
                env=environment,
            )  # fmt: skip
        threading.Thread(target=self._listen, args=(owner.events,), daemon=True).start()

    def _listen(self, events: queue.Queue[tuple[_Process, dict[str, Any] | None]]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):  # the last line of one that was killed may be cut
                message = json.loads(line)
                if "started" in message:
                    self.since = time.monotonic()
                events.put((self, message))
        events.put((self, None))

    def hold(self, task: Task) -> None:
        self.tasks[task.number] = task
        self.held.append(task)

    def send(self) -> None:
        """All at once, so that the worker knows which jobs it may train together."""
        if self.held:
            self.say(tasks=[task.to_json() for task in self.held])
            self.held = []

    def say(self, **message: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # its death is told by the other pipe
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def spent(self) -> float:
        return time.monotonic() - self.since

    def closed(self) -> Session:
        with contextlib.suppress(BrokenPipeError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        return Session(self.session | {"node": self.node, "lived": time.monotonic() - self.began, "busy": self.busy})
