"""A worker as an actor of Ray: the class that is made on a node."""

from __future__ import annotations

import threading
from typing import Any

from .records import Outcome, Task


class Actor:
    """What runs on a node: a worker, in threads of its own. A call of `run` waits for one outcome."""

    def __init__(self, trainer: str, name: str, slots: int) -> None:
        import ray

        from .worker import Belt, Worker  # which imports torch only when it trains: the graphics card is chosen by then

        node = ray.get_runtime_context().get_node_id()
        self.worker = Worker(trainer, node, name, slots)
        self._ended: dict[int, Outcome] = {}
        self._fault: Exception | None = None
        self._changed = threading.Condition()
        self._belt = Belt(self.worker, self._keep, lambda numbers: None)
        threading.Thread(target=self._train, daemon=True).start()

    def facts(self) -> dict[str, str]:
        """Device and node."""
        return {"device": self.worker.trainer.device(), "node": self.worker.node}

    def put(self, tasks: list[dict[str, Any]]) -> None:
        """Tasks that came together."""
        self._belt.put([Task(**task) for task in tasks])

    def run(self, number: int) -> dict[str, Any]:
        """What became of a task. Raises what ended the worker."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._ended or self._fault is not None)
            if number in self._ended:
                return vars(self._ended.pop(number))
            assert self._fault is not None
            raise self._fault

    def _train(self) -> None:
        try:
            self._belt.train()
        except Exception as error:  # the driver hears of it from every task
            with self._changed:
                self._fault = error
                self._changed.notify_all()

    def _keep(self, outcome: Outcome) -> None:
        with self._changed:
            self._ended[outcome.number] = outcome
            self._changed.notify_all()

    def cancel(self, number: int) -> None:
        self.worker.cancel(number)

    def drain(self) -> None:
        self.worker.drain()


def actor_class(ray: Any, tasks: int) -> Any:
    """The actor's class for Ray: a whole graphics card where the cluster has some, and CPUs, so that the autoscaler
    sees that a node is in use. It is never restarted or repeated by Ray: the driver does both. tasks: at most at one.
    """
    cards = ray.cluster_resources().get("GPU", 0) > 0
    for name in ("put", "cancel", "drain", "facts"):
        ray.method(concurrency_group="control")(getattr(Actor, name))  # which marks it
    ray.method(concurrency_group="run")(Actor.run)
    return ray.remote(
        num_gpus=1 if cards else 0, num_cpus=2 if cards else 1, max_restarts=0, max_task_retries=0,
        concurrency_groups={"control": 1, "run": tasks},
    )(Actor)  # fmt: skip
