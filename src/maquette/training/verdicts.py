"""The verdict on a run's checkpoints: which photos, how much to measure, and what a training does at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import TrainConfig
from ..config.runs import WEIGHTS
from ..data.buckets import plan, require_large_enough
from ..data.dataset import Dataset
from ..data.views import View
from ..errors import MaquetteError
from ..evaluation.candidates import Candidate
from ..evaluation.example import Example
from ..evaluation.panel import QUICK, SMALL, STANDARD, Size
from ..evaluation.validated import require_measurable
from ..evaluation.verdict import Verdict, forwards, judge
from ..families.base import BaseModel
from ..fast import compiled
from ..files import write_json
from ..methods import METHODS
from . import memory
from .defaults import subject_of

if TYPE_CHECKING:
    from ..run_folder import RunFolder
    from .checkpoint_writer import CheckpointWriter
    from .job import Job

AROUND = 8  # cells beside those of every step at one weight
SHARE = 1 / 3  # of a training's own passes, for what its end measures
PANEL = 1.5  # cells that the panel itself costs


def examples(dataset: Dataset, base: BaseModel) -> list[Example]:
    """The photos as squares of the base's native size, captioned and masked, by their transparency where they have no
    other mask. Raises MaquetteError without any.
    """
    squares = plan(dataset, base.spec.native_size, base.spec.latent_factor, aspect_buckets=False)
    require_large_enough(squares)
    photos = [photo for photo in squares.photos if photo.role != "class"]
    photos = [replace(p, mask="alpha") if p.has_alpha and p.mask is None else p for p in photos]
    seen = [(photo, View.planned(photo)) for photo in photos]
    return [Example(view.pixels(), p.caption_at(0), p.name, p.role == "held", view.mask(1)) for p, view in seen]


def weights_for(method: str, weights: Sequence[float]) -> list[float]:
    """The weights to try: a word and a whole model have none."""
    return list(weights) if METHODS[method].product == "adapter" and not METHODS[method].embedding else [1.0]


def affordable(config: TrainConfig, photos: int, checkpoints: int) -> tuple[Size, int] | None:
    """How much the end of a training measures: the size of the panel and how many cells, within SHARE of the passes
    that the training itself took; None where that is not enough for two cells.
    """
    passes = 3.0  # forward, and twice as much back
    if config.prior_preservation:
        passes += 4 * config.prior_share  # the base's own prediction too
    elif config.reg is not None:
        passes += 3 * config.prior_share
    budget = SHARE * passes * (config.steps or 0) * (config.batch_size or 1)
    for size in (STANDARD, SMALL, QUICK):
        cells = int(budget / forwards(size, photos) - PANEL)
        if cells >= (2 if size is QUICK else checkpoints + AROUND):
            return size, min(cells, checkpoints + AROUND)
    return None


def record(path: Path, verdict: Verdict, fold: bool, encoders: Sequence[Mapping[str, Any]] = ()) -> None:
    """evaluation.json: the choice and every row. encoders: rows of `evaluation.dreambench`."""
    result = verdict.to_json()
    write_json(path / "evaluation.json", {**result, "encoders": list(encoders), "folded": fold})


class Cancelled(Exception):
    """The user wants no verdict now."""


def at_the_end(
    job: Job, writer: CheckpointWriter, folder: RunFolder, on_progress: Callable[[str, int, int], None]
) -> tuple[Verdict, list[Example]] | None:
    """The verdict on a finished training, and its photos; None where the training was too short to be judged within
    SHARE of its own work, where there is one checkpoint, and where no subject is named. on_progress: as `judge` has it.

    Raises MaquetteError for what cannot be measured, Cancelled if `on_progress` does.
    """
    config, subject = job.config, subject_of(job.config, job.dataset)
    files = folder.checkpoints()
    done = config.model_copy(update={"steps": max(files, default=0)})  # it may have ended early
    extent = affordable(done, len(job.dataset.of("instance")), len(files))
    if len(files) < 2 or subject is None or extent is None or not config.choose:
        return None
    require_measurable(job.base)
    size, cells = extent
    with ExitStack() as stack:
        stack.enter_context(job.attached.suspended())
        if config.compile:
            stack.enter_context(compiled.off())
        base = stack.enter_context(writer.base_model())
        photos = examples(job.dataset, base)
        try:
            verdict = judge(
                base,
                [Candidate(step, file) for step, file in files.items()],
                photos,
                subject,
                kind=config.kind,
                size=size,
                cells=cells,
                weights=weights_for(config.method, WEIGHTS),
                seed=config.seed,
                clip_skip=config.clip_skip,
                cfg_scale=config.sample_cfg_scale,
                on_progress=on_progress,
            )
        except RuntimeError as error:
            if not memory.exhausted(error):
                raise
            raise MaquetteError("the memory does not suffice") from error
    return verdict, photos
