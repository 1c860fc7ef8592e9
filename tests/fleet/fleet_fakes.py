"""A trainer that takes no time, for workers of the tests: what it does stands in a job's subject ("nan thing")."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

from maquette.config import TrainConfig
from maquette.errors import Diverged, MaquetteError, OutOfMemory
from maquette.events import Cancel, Cancelled, Event, Listener
from maquette.fleet.trainer import CameTo, Judged, Trained, Training


class FakeTrainer:
    def device(self) -> str:
        return "cpu"

    def versions(self) -> dict[str, str]:
        return {"fake": "1"}

    def encode(self, config: TrainConfig, cancel: Cancel) -> None:
        if (config.subject or "").startswith("unreadable"):
            raise MaquetteError("A photo cannot be read.")

    def train(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
        assert config.out is not None
        word = (config.subject or "").split()[0]
        config.out.mkdir(parents=True, exist_ok=True)
        if word == "nan":
            raise Diverged("The loss is not finite.")
        if word == "oom" and not (config.gradient_checkpointing and config.rank < 100):
            raise OutOfMemory("The memory does not suffice.")
        if word == "user":
            raise MaquetteError(f"{config.photos}/a.png is no photo.")
        if word == "disk":
            raise MaquetteError("The disk is full.") from OSError(errno.ENOSPC, "No space left on device")
        if word == "die":
            os._exit(9)
        if word == "slow":
            cancel.wait(0.5)
        if word == "wait":
            on_event(Event("progress", {"what": "waiting", "done": 0, "of": 1}))
            cancel.wait(60)
            return Trained("stopped", None, 10)
        for step in range(3):
            on_event(Event("metric", {"step": step}))
        file = config.out / "lora.safetensors"
        told = config.model_dump_json(exclude={"photos", "out", "gradient_checkpointing", "gradient_accumulation"})
        file.write_bytes(hashlib.sha256(told.encode()).digest() * 8)
        return Trained("finished", str(file), 10, 10, 0.8)

    def resume(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
        return self.train(config, on_event, cancel)

    def evaluate(self, config: TrainConfig, cancel: Cancel) -> Judged:
        if (config.subject or "").startswith("judged"):
            cancel.wait(60)
            raise Cancelled("Stopped; nothing more was written.")
        return Judged(5, 0.7, config.rank < 32, 0.5)

    def generate(self, config: TrainConfig, pack: dict[str, Any], weight: float, cancel: Cancel) -> None:
        assert config.out is not None
        (config.out / "pictures").mkdir()
        (config.out / "pictures" / "0.png").write_bytes(repr((pack, weight)).encode())

    def alike(self, config: TrainConfig) -> str | None:
        return str(config.batch_size) if config.method == "lora" else None

    def together(
        self, first: Sequence[Training], slots: int, more: Callable[[], Training | None],
        ended: Callable[[Training, CameTo], None],
    ) -> None:  # fmt: skip
        """One after another; "crowd" takes the memory of all."""
        if any((one.config.subject or "").startswith("crowd") for one in first):
            raise OutOfMemory("The memory does not suffice for so many subjects at once.")
        waiting = list(first)
        while waiting:
            one = waiting.pop(0)
            try:
                ended(one, self.train(one.config, one.on_event, one.cancel))
            except MaquetteError as error:
                ended(one, error)
            if (another := more()) is not None:
                waiting.append(another)
