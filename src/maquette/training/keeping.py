"""What a run writes while it trains: states, checkpoints with their sample pictures, and the room that they need."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from ..core.dtypes import DTYPES
from ..errors import MaquetteError
from ..events import Event, Listener
from ..run_folder import RunFolder
from . import identity, state
from .checkpoint_writer import CheckpointWriter
from .distributed import ProcessGroup
from .job import Job
from .previews import PreviewWriter
from .resuming import unreadable


class Keeper:
    """The files of a run by step. Of several processes the first one writes."""

    def __init__(
        self,
        folder: RunFolder,
        job: Job,
        writer: CheckpointWriter,
        previews: PreviewWriter,
        processes: ProcessGroup,
        on_event: Listener,
    ) -> None:
        self.folder, self.job, self.config = folder, job, job.config
        self.writer, self.previews, self.processes, self.on_event = writer, previews, processes, on_event

    def complete(self, start: int) -> None:
        """What belongs to the state at which an earlier part of the run was killed: its checkpoint and pictures."""
        file = self.folder.checkpoint(start)
        if not start or not self.folder.state(start).exists():
            return
        if not file.exists() or unreadable(file):
            self.write_checkpoint(start)
        if not self.previews.has(start):
            self.previews.checkpoint(start, file)

    def save(self, step: int) -> None:
        """State, checkpoint and sample pictures. The state comes first: where a checkpoint is, there is one. The
        pictures are made from the file.
        """
        if self.processes.is_main:
            self.need_room(sum(value.numel() * 4 for value in self.job.attached.state().values()) * 5)
        self.save_state(step)
        if self.processes.is_main:
            path = self.write_checkpoint(step)
            self.previews.checkpoint(step, path)

    def write_checkpoint(self, step: int) -> Path:
        path, weights = self.folder.checkpoint(step), self.job.state()
        self.require_fitting(weights, step)
        self.writer.save(weights, path, step)
        self.on_event(Event("saved", {"path": str(path), "step": step}))
        if self.config.keep_last:
            for at, old in list(self.folder.checkpoints().items())[: -self.config.keep_last]:
                if at not in self.config.keep_steps:
                    old.unlink()
        return path

    def require_fitting(self, weights: dict[str, Tensor], step: int) -> None:
        """Raise MaquetteError before a file is written whose numbers its type cannot hold: they would be infinite."""
        kind = self.config.save_dtype
        most = torch.finfo(DTYPES[kind]).max
        large = next((name for name, value in weights.items() if bool((value.abs() > most).any())), None)
        if large is not None:
            raise MaquetteError(
                f"At step {step} the weights of {large} are beyond what {kind} can hold; the learning rate may be too "
                f"high. Go on, saving in bf16, with: maquette train --resume {self.folder.path} --set save_dtype=bf16"
            )

    def save_state(self, step: int) -> None:
        self.processes.consolidate(self.job.optimizer)
        if self.processes.is_main:
            job = self.job
            run = identity.of_run(job.config, job.dataset, job.base)
            state.save(self.folder, step, job.attached, job.optimizer, job.ema, job.scaler, run)

    def expect_room(self, steps: int) -> None:
        """Refuse to start a run whose files cannot all be written."""
        weights = sum(value.numel() for value in self.job.attached.state().values())
        saves = sum(self.job.saves_after(step) for step in range(1, steps)) + 1
        kept = min(saves, self.config.keep_last or saves) + 1
        self.need_room(weights * (kept * 2 + 3 * 12))

    def need_room(self, size: int) -> None:
        free = shutil.disk_usage(self.folder.path).free
        if free < size:
            raise MaquetteError(
                f"The disk of {self.folder.path} has {free / 1e6:.0f} MB left, the run needs {size / 1e6:.0f} MB; "
                f"make room and go on with: maquette train --resume {self.folder.path}"
            )
