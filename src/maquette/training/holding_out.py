"""Photos that are not trained on, so that it can be told what is understood from what is learned by heart."""

from __future__ import annotations

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
