"""The photos of a training run as data: what each is, how often it counts, and how it becomes pixels."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import MaquetteError
from .buckets import BucketRules, Crop, ShapeWish, Size, crop_box, cut_places
from .caption_options import PLAIN, CaptionOptions, vary
from .images import read_photo

if TYPE_CHECKING:
    from torch import Tensor

Role = Literal["instance", "class", "held"]  # held: a photo of the subject that is not trained on
RANDOM_CROPS = 8  # places at which a photo is cut when it is not always cut in the middle; each is encoded once
MAX_ENLARGEMENT = 4.0  # beyond this a photo teaches blur; it is left out and named


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
    crop: Crop | None = None  # set by `plan`
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
class View:
    """One way in which training sees a photo: where it is cut, and whether it is mirrored."""

    crop: Crop
    flip: bool = False


def views(photo: Photo, flip: bool = False, random_crop: bool = False) -> list[View]:
    """The planned cut, or with random_crop up to RANDOM_CROPS of them; with flip each of them mirrored too."""
    if photo.crop is None:
        raise ValueError(f"{photo.name} has no bucket yet: call plan() first")
    crops = cut_places(photo.crop, RANDOM_CROPS) if random_crop else [photo.crop]
    return [View(crop, mirrored) for crop in crops for mirrored in ((False, True) if flip else (False,))]


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
    rules: BucketRules | None = None  # set by `plan`
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


def plan(
    dataset: Dataset,
    resolution: int,
    latent_factor: int = 8,
    *,
    aspect_buckets: bool = True,
    no_upscale: bool = False,
) -> Dataset:
    """Give every photo its bucket and crop. What would be enlarged more than MAX_ENLARGEMENT times is left out.

    resolution: pixels of a side of the square whose area every bucket has. aspect_buckets: keep each photo's shape as
    nearly as the buckets allow; otherwise everything is cut square. no_upscale: shapes that need no enlarging.
    A data set file's own words on shapes hold, unless the run's resolution or buckets are others than the file's.
    """
    run = ShapeWish((resolution, resolution), aspect_buckets, None, no_upscale)
    as_filed = (resolution, aspect_buckets) == tuple(
        dataset.settings.get(key, value) for key, value in (("resolution", resolution), ("buckets", aspect_buckets))
    )
    rules = {
        shape: _own_rules(shape, run, as_filed).rules(resolution, latent_factor)
        for shape in {photo.shape for photo in dataset.photos}
    }
    buckets = {shape: found.buckets() for shape, found in rules.items()}
    photos: list[Photo] = []
    problems = list(dataset.problems)
    chosen: dict[tuple[Size, ShapeWish | None], Crop | None] = {}
    for photo in dataset.photos:
        key = photo.size, photo.shape
        if key not in chosen:
            bucket = rules[photo.shape].bucket(photo.size, buckets[photo.shape])
            chosen[key] = crop_box(photo.size, bucket) if bucket else None
        crop = chosen[key]
        if crop is None or crop.enlargement > MAX_ENLARGEMENT:
            problems.append(_too_small(photo, crop))
        else:
            photos.append(replace(photo, crop=crop))
    first = next((rules[photo.shape] for photo in dataset.photos), None)
    return replace(dataset, photos=photos, problems=problems, rules=first)


def _own_rules(wish: ShapeWish | None, run: ShapeWish, as_filed: bool) -> ShapeWish:
    if wish is None:
        return run
    wish = replace(wish, no_upscale=wish.no_upscale or run.no_upscale)
    limits = wish.limits if wish.given else None
    return wish if as_filed else replace(wish, resolution=run.resolution, buckets=run.buckets, limits=limits)


def _too_small(photo: Photo, crop: Crop | None) -> Problem:
    width, height = photo.size
    if crop is None:
        fault = "fill no bucket without being enlarged"
    else:
        fault = f"would be enlarged {crop.enlargement:.1f} times to {crop.bucket[0]} x {crop.bucket[1]}"
    message = f"{photo.name} is too small: {width} x {height} pixels {fault}; use the original photo."
    return Problem("too_small", photo.name, message, left_out=True)


def pixels(photo: Photo, flip: bool = False, crop: Crop | None = None) -> Tensor:
    """The photo cut and scaled to its bucket: float32 (3, H, W) in [-1, 1]. `crop` replaces the planned one.

    Raises MaquetteError when the file has changed since the folder was read.
    """
    import numpy as np
    import torch

    values = np.array(picture(photo, flip, crop), dtype=np.float32)  # (H, W, 3), 0..255
    return torch.from_numpy(values).permute(2, 0, 1).contiguous() / 127.5 - 1


def mask_weights(photo: Photo, latent_factor: int, flip: bool = False, crop: Crop | None = None) -> Tensor | None:
    """How much each latent cell of the photo counts: float32 (1, H/f, W/f) in [0, 1], or None where all count.

    The share of a cell that the mask covers. `crop` replaces the planned one.
    Raises MaquetteError when the mask has changed size or covers nothing.
    """
    weights = _mask_cells(photo, latent_factor, flip, crop or photo.crop)
    if weights is not None and not weights.any():
        raise MaquetteError(f"The mask of {photo.name} covers nothing of what is trained; mend it or leave it out.")
    return weights


def masked_views(photo: Photo, latent_factor: int, found: list[View]) -> list[View]:
    """The views in which the photo's mask covers something; all where there is no mask or it never does."""
    if photo.mask is None or len(found) == 1:
        return found
    covered = [view for view in found if (w := _mask_cells(photo, latent_factor, False, view.crop)) is None or w.any()]
    return covered or found


def _mask_cells(photo: Photo, latent_factor: int, flip: bool, crop: Crop | None) -> Tensor | None:
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    if photo.mask is None or crop is None:
        return None
    if photo.mask == "alpha":
        mask = read_photo(photo.path, photo.name).alpha
    else:
        mask = read_photo(photo.mask, f"the mask {photo.mask.name}").image.convert("L")
    if mask is None or mask.size != photo.size:
        raise MaquetteError(f"The mask of {photo.name} changed while it was in use; start again.")
    width, height = (side // latent_factor for side in crop.bucket)
    cells = mask.resize((width, height), Image.Resampling.BOX, box=crop.box)
    return torch.from_numpy(np.array(ImageOps.mirror(cells) if flip else cells, dtype=np.float32))[None] / 255


def picture(photo: Photo, flip: bool = False, crop: Crop | None = None) -> Any:
    """As `pixels`, but a Pillow image of the bucket's size (for contact sheets and reports)."""
    from PIL import Image, ImageOps

    crop = crop or photo.crop
    if crop is None:
        raise ValueError(f"{photo.name} has no bucket yet: call plan() first")
    opened = read_photo(photo.path, photo.name)
    if opened.sha256 != photo.sha256:
        raise MaquetteError(f"{photo.name} changed while it was in use; start again.")
    cut = opened.image.resize(crop.bucket, Image.Resampling.LANCZOS, box=crop.box)
    return ImageOps.mirror(cut) if flip else cut


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
