"""The trainer of `maquette compare`: each run leaves a record of what it took beside its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..config import TrainConfig
from ..events import Cancel, Listener
from ..files import write_json
from .trainer import Trained, WarmFleetTrainer

if TYPE_CHECKING:
    from ..training.train_result import TrainResult

RUN_TRAINER = f"{__name__}:RunTrainer"
KEPT = ("file", "steps", "seconds", "memory_bytes", "images_per_second", "start")


class RunTrainer(WarmFleetTrainer):
    """maquette's own training, in run folders that stay and without a base that is kept for the next: each job has its
    process to itself, and takes the memory that `maquette train` takes.
    """

    def train(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
        from ..training.running import begun

        with begun(config, on_event, cancel) as trainer:
            result = trainer.train(0)
        return self.trained(result)

    def resume(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
        from ..training import running

        assert config.out is not None
        return self.trained(running.resume(config.out, {}, on_event, cancel))

    def encode(self, config: TrainConfig, cancel: Cancel) -> None:
        """There is no training beside which it would be done."""

    def trained(self, result: TrainResult) -> Trained:
        if result.status == "finished":
            kept = {key: getattr(result, key) for key in KEPT}
            if result.start:  # of a run that was interrupted only the last part was timed
                kept["seconds"] = result.steps / (result.steps - result.start) * result.seconds
            write_json(record_of(Path(result.run)), kept)
        return super().trained(result)


def record_of(run: Path) -> Path:
    """Where the record of a finished run lies."""
    return run.parent / "trained" / f"{run.name}.json"
