"""Workers as actors of a Ray cluster: long-lived, since Ray gives every task on a graphics card a new process.

Ray places and watches processes, and that is all it is trusted with. What is done stands in the store; priorities,
quotas and retries are the driver's. Nothing but tasks and outcomes, some kilobytes of JSON, goes through Ray, so no
object of its store pins a node.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection
from typing import Any

from ..errors import MaquetteError
from .actor import actor_class
from .executor import MOST_STILLBORN, WINDOW, Session
from .records import Outcome, Task
from .trainer import USUAL

OBJECT_STORE = 200_000_000  # bytes, of a cluster that is begun here: otherwise Ray takes a third of the memory


class RayExecutor:
    """So many actors. One that dies is replaced, by Ray's placement perhaps on another node, and what it had not begun
    goes to others.
    """

    def __init__(self, address: str = "auto", workers: int = 1, trainer: str = USUAL, slots: int = 1) -> None:
        """address: "auto" (the cluster of this machine, or a new one), "local" (a new one) or "ray://host:10001".
        slots: how many jobs a worker trains together.

        Raises MaquetteError where Ray is not installed or there is no cluster at the address.
        """
        self.ray = import_ray()
        self.trainer, self.slots = trainer, slots
        self._ours = join_cluster(self.ray, address)
        self._remote = actor_class(self.ray, WINDOW * slots)
        self.actors = [_Handle(self, index) for index in range(workers)]
        self.backlog: list[tuple[Task, Collection[str]]] = []
        self.ended: list[Outcome] = []  # to be told by the next `wait`
        self.sessions: list[Session] = []
        self.draining = False
        self.stillborn = 0  # actors in a row that never were ready

    @property
    def capacity(self) -> int:
        return WINDOW * self.slots * max(1, sum(actor.ready for actor in self.actors))

    def submit(self, task: Task, avoid: Collection[str] = ()) -> None:
        self.backlog.append((task, avoid))

    def _dispatch(self) -> None:
        """Give what waits to actors that are up: one without a place in the cluster must keep no task to itself."""
        chosen: dict[_Handle, list[Task]] = {one: [] for one in self.actors if one.ready}
        while self.backlog and (free := [one for one in chosen if self._room(one, chosen[one])]):
            task, avoid = self.backlog.pop(0)
            best = min(free, key=lambda one: (one.node in avoid, len(one.tasks) + len(chosen[one])))
            chosen[best].append(task)
        for actor, tasks in chosen.items():
            actor.give(tasks)

    def _room(self, actor: _Handle, chosen: list[Task]) -> bool:
        return len(actor.tasks) + len(chosen) < WINDOW * self.slots

    def wait(self, timeout: float) -> list[Outcome]:
        self._dispatch()
        found, self.ended = self.ended, []
        refs: dict[Any, tuple[_Handle, int | None]] = {one.facts: (one, None) for one in self.actors if not one.ready}
        refs |= {ref: (actor, number) for actor in self.actors for number, (_, ref) in actor.tasks.items()}
        if not refs:  # all wait for their next trial
            time.sleep(0 if found else timeout)
            return found
        ready, _ = self.ray.wait(list(refs), num_returns=1, timeout=0 if found else timeout)
        if ready:
            ready, _ = self.ray.wait(list(refs), num_returns=len(refs), timeout=0)
        for ref in ready:
            actor, number = refs[ref]
            if actor not in self.actors:
                continue  # it died a moment ago
            if number is None:
                self._up(actor)
            elif number in actor.tasks:
                found += self._heard(actor, number, ref)
        self._dispatch()
        return found

    def _up(self, actor: _Handle) -> None:
        """An actor is ready, or could not be made."""
        try:
            actor.known = self.ray.get(actor.facts)
            self.stillborn = 0
        except self.ray.exceptions.RayError as error:
            self.stillborn += 1
            if self.stillborn >= MOST_STILLBORN:
                raise MaquetteError(f"The workers end before they are ready: {_first_line(error)}") from error
            self._replace(actor)

    def _heard(self, actor: _Handle, number: int, ref: Any) -> list[Outcome]:
        """What became of a task."""
        try:
            outcome = Outcome.from_json(self.ray.get(ref))
        except self.ray.exceptions.RayActorError as error:
            return self._died(actor, _first_line(error))
        except self.ray.exceptions.RayTaskError as error:
            outcome = Outcome(number, "failed", actor.node, actor.name, "machine", str(error.cause))
        actor.ended(outcome)
        if outcome.recycle:
            self._replace(actor)
        return [outcome]

    def _died(self, actor: _Handle, why: str) -> list[Outcome]:
        """The first task of an actor died with it. The others had not begun, or were trained together with it: what
        killed them, if it was not the first, will be first itself in time, since that one is tried again alone.
        """
        first, _ = actor.tasks.pop(next(iter(actor.tasks)))
        message = f"The worker's process or node is gone: {why}"
        self._replace(actor)
        return [Outcome(first.number, "died", actor.node, actor.name, "machine", message, actor.spent())]

    def _replace(self, actor: _Handle) -> None:
        """A new actor in its place; what it had not begun waits for any."""
        self.sessions.append(actor.closed())
        actor.kill()
        tasks = [task for task, _ in actor.tasks.values()]
        place = self.actors.index(actor)
        if self.draining:
            self.ended += [Outcome(task.number, "drained") for task in tasks]
            del self.actors[place]
        else:
            self.actors[place] = _Handle(self, place)
            self.backlog[:0] = [(task, ()) for task in tasks]

    def cancel(self, number: int) -> None:
        for actor in self.actors:
            if number in actor.tasks:
                actor.handle.cancel.remote(number)
        if any(task.number == number for task, _ in self.backlog):
            self.backlog = [entry for entry in self.backlog if entry[0].number != number]
            self.ended.append(Outcome(number, "cancelled"))

    def drain(self) -> None:
        self.draining = True
        self.ended += [Outcome(task.number, "drained") for task, _ in self.backlog]
        self.backlog = []
        for actor in self.actors:
            actor.handle.drain.remote()

    def close(self) -> list[Session]:
        for actor in self.actors:
            self.sessions.append(actor.closed())
            actor.kill()
        if self._ours:
            self.ray.shutdown()
        return self.sessions


class _Handle:
    """One actor as the driver sees it."""

    def __init__(self, owner: RayExecutor, index: int) -> None:
        self.ray, self.name = owner.ray, f"actor-{index}"
        self.handle = owner._remote.remote(owner.trainer, self.name, owner.slots)
        self.tasks: dict[int, tuple[Task, Any]] = {}  # in the order in which they are run
        self.began = self.since = time.monotonic()
        self.busy = 0.0
        self.cold: float | None = None
        self.facts = self.handle.facts.remote()
        self.known: dict[str, str] = {}  # device and node, once it is up

    @property
    def ready(self) -> bool:
        return bool(self.known)

    @property
    def node(self) -> str:
        return self.known.get("node", "")

    def give(self, tasks: list[Task]) -> None:
        """All at once, so that the actor knows which jobs it may train together."""
        if not tasks:
            return
        if not self.tasks:
            self.since = time.monotonic()
        self.handle.put.remote([task.to_json() for task in tasks])
        self.tasks |= {task.number: (task, self.handle.run.remote(task.number)) for task in tasks}

    def ended(self, outcome: Outcome) -> None:
        self.tasks.pop(outcome.number, None)
        now = time.monotonic()
        if self.cold is None:
            self.cold = max(0.0, now - self.began - outcome.seconds)
        self.busy += outcome.seconds
        self.since = now

    def spent(self) -> float:
        return time.monotonic() - self.since

    def closed(self) -> Session:
        lived = time.monotonic() - self.began
        return Session(
            worker=self.name, node=self.node, device=self.known.get("device", ""), lived=lived, busy=self.busy,
            cold=lived if self.cold is None else self.cold,
        )  # fmt: skip

    def kill(self) -> None:
        with contextlib.suppress(Exception):  # it is dead already
            self.ray.kill(self.handle)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MaquetteError("A cluster needs Ray: pip install 'maquette-lora[fleet]'.") from error
    return ray


def join_cluster(ray: Any, address: str) -> bool:
    """Join a cluster, or begin one on this machine. Returns whether it is ours to end."""
    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    refused = getattr(ray.exceptions, "AuthenticationError", ())  # which Ray has since 2.52
    try:
        if address.startswith("ray://"):
            ray.init(address, **quiet)
            return True
        if address == "auto":
            with contextlib.suppress(ConnectionError):
                ray.init("auto", **quiet)
                return True
        ray.init(
            "local", include_dashboard=False, object_store_memory=OBJECT_STORE, _node_ip_address="127.0.0.1", **quiet
        )
    except refused as error:
        raise MaquetteError(
            f"The Ray cluster at {address} asks for its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN where "
            "~/.ray/auth_token is another's."
        ) from error
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise MaquetteError(f"There is no Ray cluster at {address}: {error}.") from error
    return True
