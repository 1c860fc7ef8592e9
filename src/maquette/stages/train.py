"""`maquette train`: from a folder of photos to checkpoints, sample pictures and a report."""

from __future__ import annotations

from ..config import TrainConfig
from ..events import Cancel, Listener, ignore
from ..training.running import begun, resume
from ..training.train_result import TrainResult

__all__ = ["TrainResult", "resume", "run"]


def run(config: TrainConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> TrainResult:
    """Train from the beginning, in a new run folder. Setting `cancel` ends the run after the step at work, all saved.

    With config.two_pass two runs or more. Raises MaquetteError for everything that is the user's to mend.
    """
    if config.two_pass:
        from . import two_pass

        return two_pass.train_twice(config, on_event, cancel or Cancel())
    with begun(config, on_event, cancel) as trainer:
        return trainer.train(0)
