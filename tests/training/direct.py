"""A run put together from its parts, so that a test can exchange one of them."""

from __future__ import annotations

from collections.abc import Callable

from maquette.config import TrainConfig
from maquette.data.cache import cache_folder
from maquette.data.dataset import manifest
from maquette.events import Cancel, Event, ignore
from maquette.files import write_json, write_text
from maquette.run_folder import RunFolder
from maquette.training.distributed import ProcessGroup
from maquette.training.job import Job
from maquette.training.preparing import prepare
from maquette.training.train_result import TrainResult
from maquette.training.trainer import Trainer


def run(
    config: TrainConfig,
    on_event: Callable[[Event], None] = ignore,
    change: Callable[[Job], object] = lambda job: None,
    defer: bool | None = None,
) -> TrainResult:
    """`stages.train.run` without its lock and messages. change: called with the set-up before the first step."""
    assert config.out is not None
    folder = RunFolder.create(config.out)
    job = prepare(config, cache_folder(folder.path.parent), lambda *_: None)
    change(job)
    write_json(folder.dataset, manifest(job.dataset))
    write_text(folder.config, job.config.to_toml())
    return Trainer(folder, job, on_event, Cancel(), ProcessGroup(), defer).train(0)
