"""Photos that are not trained on, so that it can be told what is understood from what is learned by heart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..config import TrainConfig
from ..data.dataset import Dataset, Problem
from ..errors import MaquetteError

FOLDED = 6  # so many photos or fewer are too few to do without some: each run of a first pass holds out another one
FOLDS = 3
FEWEST = 3  # photos below which none can be spared
MOST, SHARE = 3, 0.2


def usual_count(photos: int) -> int:
    """How many of so many photos to hold out: a fifth, at most three."""
    return 1 if photos <= FOLDED else min(MOST, round(SHARE * photos))


def count_for(config: TrainConfig, dataset: Dataset) -> int:
    """How many photos a run holds out: what the user said, and with stop = "auto" some in any case.

    Raises MaquetteError where there are too few for that.
    """
    if config.held_out or config.stop != "auto":
        return config.held_out
    photos = len(dataset.of("instance"))
    require_enough(photos, dataset, "stop = auto")
    return usual_count(photos)


def require_enough(photos: int, dataset: Dataset, what: str) -> None:
    """Raise MaquetteError where no photo can be held out."""
    if photos < FEWEST:
        raise MaquetteError(
            f"{what} measures photos that are not trained on, and {dataset.folder} holds {photos}: give {FEWEST} or "
            "more, or a number of steps."
        )


def findings(config: TrainConfig, dataset: Dataset) -> list[Problem]:
    """Which photos are held out, and how to have them back."""
    held = [photo.name for photo in dataset.of("held")]
    if not held:
        return []
    of = len(held) + len(dataset.of("instance"))
    back = "" if config.fold is not None else " two_pass = true trains on them too, once the step is found."
    return [
        Problem("held", "", f"{len(held)} of {of} photos are not trained on, to judge by: {', '.join(held)}.{back}")
    ]


def all_in(config: TrainConfig) -> TrainConfig:
    """The configuration that reads every photo and holds none out, for `as_recorded` to say which were."""
    return config.model_copy(update={"held_out": 0, "fold": None, "stop": "never"})


def as_recorded(dataset: Dataset, recorded: Sequence[Mapping[str, Any]]) -> tuple[Dataset, str | None]:
    """The photos in the roles that they had in a run, and a sentence where some have changed since. recorded: those of
    its dataset.json. A photo is known by its content, else by its name; what the run did not see is left out.

    Where none is known all count as trained.
    """
    roles = {str(photo[key]): photo.get("role") for key in ("name", "sha256") for photo in recorded if key in photo}
    contents = {photo.get("sha256") for photo in recorded}
    kept, strange, changed = [], [], []
    for photo in dataset.photos:
        role = roles.get(photo.sha256, roles.get(photo.name))
        if photo.role == "class":
            kept.append(photo)
        elif role in ("instance", "held"):
            kept.append(replace(photo, role=role))
            changed += [] if photo.sha256 in contents else [photo.name]
        else:
            strange.append(photo)
    if len(strange) == len(dataset.photos) - len(dataset.of("class")):
        return dataset, f"No photo in {dataset.folder} is one of the run's, by content or name: all count as trained."
    told = []
    if changed:
        told.append(f"changed since the run: {', '.join(changed)}")
    if strange:
        told.append(f"left out, as the run did not see them: {', '.join(photo.name for photo in strange)}")
    sentence = f"The photos in {dataset.folder} are not those of the run; {'; '.join(told)}." if told else None
    return replace(dataset, photos=kept), sentence
