"""Many runs one after another in one process that keeps the base in memory, each as if it were alone.

A process that trains one LoRA spends seconds on its imports and on reading the base, longer than a short training
takes. Here both are paid once. Nothing of a run is left for the next: the base is the kept one bit for bit
(`families.kept`), random numbers follow from the run's own seed, latents lie in a folder that the caller names, and
what a run sets in its process is put back.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..config import TrainConfig
from ..data.cache import LatentCache
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore, progress_of_parts, until
from ..families import load
from ..families.kept import KeptBases
from ..run_folder import RunFolder
from . import defaults, resuming
from .environment import one_thread_for
from .latents import encode_photos
from .photos import read_photos
from .preparing import opened
from .running import begun, resume
from .slots import SlotRun, train_in_slots
from .train_result import TrainResult

Passes = Callable[[TrainConfig, Listener, Cancel | None], TrainResult]


class WarmTrainer:
    """Trains jobs with one base in memory on each device; a job with another base lets that one go.

    The files of a run are those of `maquette train` with the same configuration, byte for byte. One run at a time.
    """

    def __init__(self, passes: Passes | None = None, most: int = 1) -> None:
        """passes: what trains a job of several runs (two_pass), `stages.train.run`. most: how many bases are kept."""
        self.bases = KeptBases(most)
        self._passes = passes

    def run(
        self,
        config: TrainConfig,
        on_event: Listener = ignore,
        cancel: Cancel | None = None,
        cache: Path | None = None,
    ) -> TrainResult:
        """As `maquette train`. cache: the folder of latents, one for each tenant; None: the one beside the run, or
        $MAQUETTE_CACHE. Raises MaquetteError as training does; the next job is none the worse for it.
        """
        with self._alone(config, on_event):
            if not config.two_pass:
                with begun(config, on_event, cancel, cache) as trainer:
                    return trainer.train(0)
            if self._passes is None:
                raise MaquetteError("two_pass takes several runs: leave it out, or give this trainer stages.train.run.")
            return self._passes(config, on_event, cancel)

    def resume(
        self,
        path: str | Path,
        changes: dict[str, Any] | None = None,
        on_event: Listener = ignore,
        cancel: Cancel | None = None,
        cache: Path | None = None,
    ) -> TrainResult:
        """As `maquette train --resume`."""
        with self._alone(resuming.read_config(RunFolder.open(path)), on_event):
            return resume(path, changes, on_event, cancel, cache)

    def in_slots(self, runs: Sequence[SlotRun], slots: int, more: Callable[[], SlotRun | None] = lambda: None) -> None:
        """Several jobs at once on the kept base: `slots.train_in_slots`."""
        with self._alone(runs[0].config, ignore):
            train_in_slots(runs, slots, more)

    def encode(self, config: TrainConfig, cache: Path, cancel: Cancel | None = None) -> int:
        """Encode a job's photos into its tenant's folder of latents, which the job finds there when it is run. Returns
        how many photos. May be called by another thread while a job is at work.

        Raises MaquetteError as training does, Cancelled once `cancel` is set.
        """
        on_progress = progress_of_parts(until(cancel, ignore))
        with self.bases.in_use(config.base), one_thread_for(config.base):
            base, dtype = opened(config, load)
            dataset, config, _ = read_photos(config, base, on_progress)
            defaults.resolve(config, base, dataset, dtype)  # refuses what training refuses
            encode_photos(base, dataset.photos, LatentCache(cache), on_progress, config.flip_aug, config.random_crop)
            return len(dataset.photos)

    @contextmanager
    def _alone(self, config: TrainConfig, on_event: Listener) -> Iterator[None]:
        """A job: its base comes out of memory, and what it leaves behind is cleared away however it ends."""
        try:
            with self.bases.in_use(config.base):
                yield
        finally:
            if config.compile and "torch._dynamo" in sys.modules:
                torch._dynamo.reset()  # compiled blocks of modules that are gone
            gc.collect()  # a job's parts know each other
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if not self.bases.check():
                message = "The job wrote into the base that is kept in memory; the next one reads it anew."
                on_event(Event("warning", {"message": message}))
