"""The photos of a training run as data: what each is and how often it counts."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import MaquetteError
from .caption_options import PLAIN, CaptionOptions, vary

if TYPE_CHECKING:
    from .buckets import BucketRules, Crop, ShapeWish, Size

Role = Literal["instance", "class", "held"]  # held: a photo of the subject that is not trained on


@dataclass(frozen=True)
class Photo:
    """One photo that can be trained on. Sizes are width, height in pixels, upright."""

    path: Path
    name: str  # path relative to the folder the user named, with "/"
    sha256: str  # of the file's bytes
    size: Size
    caption: str
    caption_source: str  # name of the caption or metadata file, or "subject" when it was made from the subject
    caption_file: Path | None = None  # the text file beside the photo, even when it is empty
    caption_extension: str = ".txt"  # of caption files in its folder; a new one is called so
    options: CaptionOptions = PLAIN
    repeats: int = 1
    role: Role = "instance"
    subject: str = ""
    crop: Crop | None = None  # set by `buckets.plan`
    shape: ShapeWish | None = None  # what a data set file says of this photo's bucket
    has_alpha: bool = False
    mask: Path | Literal["alpha"] | None = None  # where the loss counts: a picture or the photo's transparency
    notes: tuple[str, ...] = ()  # what was done while reading: "turned upright (EXIF orientation)"

    @property
    def bucket(self) -> Size:
        if self.crop is None:
            raise ValueError(f"{self.name} has no bucket yet: call plan() first")
        return self.crop.bucket

    def caption_at(self, draw: int) -> str:
        """The caption as training reads it; where options make it vary, each number is a draw of its own."""
        return vary(self.caption, self.options, random.Random(draw))

    def some_captions(self, most: int) -> tuple[str, ...]:
        """What training may read: the caption, or up to `most` different draws where it varies."""
        count = most if self.options.varies else 1
        return tuple(dict.fromkeys(self.caption_at(int(self.sha256[:8], 16) + draw) for draw in range(count)))


@dataclass(frozen=True)
class Problem:
    """Something the user should know. The message is a whole sentence."""

    kind: str  # "unreadable", "too_small", "not_a_photo", "caption", "folder", …
    photo: str  # name relative to the folder, or "" for the folder as a whole
    message: str
    left_out: bool = False  # the file is not trained on
    blocking: bool = False  # training must not start before the user has dealt with it


@dataclass(frozen=True)
class Dataset:
    """Everything read from the user's folder(s), good and bad."""

    folder: Path
    layout: Literal["plain", "kohya", "toml"]
    photos: list[Photo] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    rules: BucketRules | None = None  # set by `buckets.plan`
    settings: Mapping[str, Any] = field(default_factory=dict)  # a data set file's wishes, by TrainConfig's keys

    def of(self, role: Role) -> list[Photo]:
        return [photo for photo in self.photos if photo.role == role]

    @property
    def left_out(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.left_out]

    def samples(self, role: Role = "instance") -> int:
        """Images x repeats: how many samples one epoch shows."""
        return sum(photo.repeats for photo in self.of(role))


def hold_out(dataset: Dataset, count: int, seed: int, fold: int = 0) -> Dataset:
    """The same photos, of which `count` of the subject, drawn by the seed, are held out from training. The photos of
    two folds differ.

    Raises MaquetteError where too few would be left.
    """
    places = [i for i, photo in enumerate(dataset.photos) if photo.role == "instance"]
    if count >= len(places):
        raise MaquetteError(
            f"held_out = {count} leaves nothing to train on: {dataset.folder} holds {len(places)} photos."
        )
    if count * (fold + 1) > len(places):
        raise MaquetteError(f"fold = {fold}: {dataset.folder} has no {fold + 1} times {count} photos to hold out.")
    chosen = set(random.Random(seed).sample(places, count))
    for again in range(fold):
        places = [place for place in places if place not in chosen]
        chosen = set(random.Random(f"{seed} {again}").sample(places, count))
    photos = [replace(photo, role="held") if i in chosen else photo for i, photo in enumerate(dataset.photos)]
    return replace(dataset, photos=photos)


def manifest(dataset: Dataset) -> dict[str, Any]:
    """What dataset.json holds: every file used with its hash, bucket, crop and caption, and what was left out."""
    rules = dataset.rules
    return {
        "folder": str(dataset.folder),
        "layout": dataset.layout,
        "resolution": list(rules.resolution) if rules else None,
        "bucket_step": rules.step if rules else None,
        "photos": [_entry(photo) for photo in dataset.photos],
        "left_out": [{"photo": p.photo, "kind": p.kind, "message": p.message} for p in dataset.left_out],
    }


def _entry(photo: Photo) -> dict[str, Any]:
    crop = photo.crop
    return {
        "path": str(photo.path),
        "name": photo.name,
        "sha256": photo.sha256,
        "size": list(photo.size),
        "bucket": list(crop.bucket) if crop else None,
        "scaled": list(crop.scaled) if crop else None,
        "crop": [crop.left, crop.top] if crop else None,
        "caption": photo.caption,
        "caption_source": photo.caption_source,
        "caption_options": asdict(photo.options) if photo.options != PLAIN else None,
        "mask": str(photo.mask) if photo.mask else None,
        "repeats": photo.repeats,
        "role": photo.role,
        "subject": photo.subject,
    }


def bucket_counts(photos: Sequence[Photo]) -> dict[Size, int]:
    """How many samples (images x repeats) each bucket holds, sorted by bucket."""
    counts: dict[Size, int] = {}
    for photo in photos:
        counts[photo.bucket] = counts.get(photo.bucket, 0) + photo.repeats
    return dict(sorted(counts.items()))
