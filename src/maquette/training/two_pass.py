"""Two passes: which runs find step and weight on part of the photos, and which run they make of all photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

from ..config import TrainConfig
from ..data.dataset import Dataset
from ..errors import MaquetteError
from .holding_out import FOLDED, FOLDS, require_enough, usual_count
from .optim import schedules


@dataclass(frozen=True)
class Found:
    """What a first pass found. photos: how many it trained on; all: how many there are. steps: of its schedule."""

    step: int
    weight: float | None
    steps: int
    photos: int
    all: int


def first_passes(config: TrainConfig, dataset: Dataset, out: Path) -> list[TrainConfig]:
    """The runs that look for the step: one, or of few photos several, each without other photos. out: of the run.

    Raises MaquetteError for too few photos.
    """
    photos = len(dataset.of("instance"))
    require_enough(photos, dataset, "two_pass")
    count = config.held_out or usual_count(photos)
    folds = min(FOLDS, photos // count) if photos <= FOLDED else 1
    common = {"two_pass": False, "held_out": count, "choose": True, "sample_prompts": [], "keep_last": 0}
    return [
        changed(config, {**common, "fold": fold, "out": out.with_name(f"{out.name}-first{_number(fold, folds)}")})
        for fold in range(folds)
    ]


def _number(fold: int, folds: int) -> str:
    return f"-{fold + 1}" if folds > 1 else ""


def second_pass(config: TrainConfig, found: Sequence[Found], out: Path) -> TrainConfig:
    """The run on all photos: the median of the steps that were found, as many more as there are more photos, so that
    each photo is seen as often; the learning rate falls as it would in the whole, longer run.
    """
    scale = [one.all / one.photos for one in found]
    steps = max(1, round(median_low(one.step * by for one, by in zip(found, scale, strict=True))))
    whole = max(steps, round(found[0].steps * scale[0]))
    weights = [one.weight for one in found if one.weight is not None]
    changes = {
        "two_pass": False, "stop": "never", "held_out": 0, "choose": False, "out": out, "epochs": None, "steps": steps,
        "schedule_steps": whole if schedules(config) and config.lr_scheduler != "constant" else None,
        "preferred_weight": median_low(weights) if weights else None,
    }  # fmt: skip
    return changed(config, changes)


def changed(config: TrainConfig, changes: dict[str, object]) -> TrainConfig:
    """The configuration with other values; None takes a value away."""
    values = config.model_dump(exclude_unset=True) | changes
    return TrainConfig.parse({key: value for key, value in values.items() if value is not None}, "two_pass")


def require_same(there: TrainConfig, wanted: TrainConfig, place: Path) -> None:
    """Raise MaquetteError where the run that lies there was begun with other settings than the user gives now."""
    for key in sorted(wanted.model_fields_set - {"photos", "reg", "from_lora", "out", "base", "vae"}):
        before, now = getattr(there, key), getattr(wanted, key)
        if before != now and now is not None and not (key == "epochs" and before is None):
            raise MaquetteError(
                f"{place} holds a first pass with other settings ({key} = {before}, not {now}); choose another --out, "
                "or remove that folder."
            )
