"""Aspect buckets: the shapes a photo may be trained at, which one it gets, and which part of it is kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..errors import MaquetteError
from .dataset import Dataset, Photo, Problem

MAX_ENLARGEMENT = 4.0  # beyond this a photo teaches blur; it is left out and named
MOST_SIDES = 2_000  # steps between the smallest and the largest side
Size = tuple[int, int]  # width, height in pixels, everywhere in this file


@dataclass(frozen=True)
class BucketRules:
    """The numbers from which the list of buckets follows."""

    resolution: Size
    min_size: int
    max_size: int
    step: int
    fixed: bool = False  # everything is cut to `resolution`
    no_upscale: bool = False  # photos are never enlarged: any shape of whole steps that they cover and the area allows
    by_difference: bool = False  # the nearest ratio is by difference, as in sd-scripts, and not by factor

    def buckets(self) -> list[Size]:
        if self.fixed:
            return [self.resolution]
        if self.no_upscale:
            return []  # no list: each photo has its own
        return make_buckets(self.resolution, self.min_size, self.max_size, self.step)

    def crop(self, size: Size, buckets: Iterable[Size]) -> Crop | None:
        """How a photo becomes its bucket; None for one that covers not even a step. buckets: those of `buckets()`."""
        if self.no_upscale and not self.fixed:
            bucket = bucket_within(size, self.resolution[0] * self.resolution[1], self.step)
        else:
            bucket = choose_bucket(size, buckets, self.by_difference)
        return crop_box(size, bucket) if bucket else None


@dataclass(frozen=True)
class ShapeWish:
    """What one data set of a data set file says about shapes. None: as the run says."""

    resolution: Size | None = None
    buckets: bool = False
    limits: tuple[int, int, int] | None = None  # smallest side, largest side, step
    no_upscale: bool = False
    given: bool = True  # somebody wrote the limits; else they are sd-scripts' own, for the resolutions they fit

    def rules(self, resolution: int | Size, latent_factor: int) -> BucketRules:
        """The rules with the run's resolution where the data set has none."""
        wanted = self.resolution or resolution
        if not self.buckets:
            return square_rules(wanted)
        usual = rules_for(wanted, latent_factor)
        low, high, step = self.limits or (usual.min_size, usual.max_size, usual.step)
        if self.limits and not self.given and not low <= min(usual.resolution) <= max(usual.resolution) <= high:
            return replace(usual, no_upscale=self.no_upscale)
        return BucketRules(
            usual.resolution, low, high, step, no_upscale=self.no_upscale, by_difference=self.limits is not None
        )


@dataclass(frozen=True)
class Crop:
    """How a photo becomes its bucket: scaled until it covers it, then cut at (left, top), both in scaled pixels."""

    bucket: Size
    scaled: Size
    left: int
    top: int
    original: Size

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the part that is kept, in pixels of the upright photo."""
        x, y = self.original[0] / self.scaled[0], self.original[1] / self.scaled[1]
        width, height = self.bucket
        # min(): rounding must not step outside the photo
        right, bottom = min(self.original[0], (self.left + width) * x), min(self.original[1], (self.top + height) * y)
        return self.left * x, self.top * y, right, bottom

    @property
    def enlargement(self) -> float:
        """Factor by which the photo is scaled; above 1 its pixels are invented."""
        return max(self.scaled[0] / self.original[0], self.scaled[1] / self.original[1])

    @property
    def lost(self) -> float:
        """Share of the photo's area that is cut off, 0 to 1."""
        return 1 - (self.bucket[0] * self.bucket[1]) / (self.scaled[0] * self.scaled[1])


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
            chosen[key] = rules[photo.shape].crop(photo.size, buckets[photo.shape])
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


def require_large_enough(dataset: Dataset) -> None:
    """Raise MaquetteError when `plan` has left no photo of the subject."""
    if not dataset.of("instance"):
        messages = " ".join(problem.message for problem in dataset.left_out[:3])
        raise MaquetteError(f"No photo in {dataset.folder} is large enough to train on. {messages}")


def rules_for(resolution: int | Size, latent_factor: int = 8) -> BucketRules:
    """Usual rules for a resolution: step 64 and sides from half to twice as long, smaller steps for small bases.

    512 -> 256..1024 by 64; 1024 -> 512..2048 by 64; 64 (pocket, latent factor 4) -> 32..128 by 16.
    """
    width, height = (resolution, resolution) if isinstance(resolution, int) else resolution
    side = round(math.sqrt(width * height))
    # four latent cells at least: the UNet halves a latent twice or more, and pictures drawn later come in such steps
    step = min(64, max(4 * latent_factor, side // 8 // latent_factor * latent_factor))
    down, up = min(width, height, side // 2), max(width, height, side * 2)
    return BucketRules((width, height), max(step, down // step * step), -(-up // step) * step, step)


def square_rules(resolution: int | Size) -> BucketRules:
    """One bucket, square where one number is given: aspect buckets switched off."""
    size = (resolution, resolution) if isinstance(resolution, int) else resolution
    return BucketRules(size, min(size), max(size), math.gcd(*size), fixed=True)


def make_buckets(resolution: int | Size, min_size: int = 256, max_size: int = 1024, step: int = 64) -> list[Size]:
    """All (width, height) with sides from min to max in steps and no more area than `resolution`, sorted.

    The same list as sd-scripts makes for the same numbers: 512 with 256, 1024, 64 gives 17 buckets.
    Raises MaquetteError when the numbers leave no bucket.
    """
    width, height = (resolution, resolution) if isinstance(resolution, int) else resolution
    if step < 1 or min_size < 1 or max_size < min_size:
        raise MaquetteError(f"No buckets: min size {min_size}, max size {max_size} and step {step} do not make sense.")
    if (max_size - min_size) // step > MOST_SIDES:
        raise MaquetteError(f"Sides of {min_size} to {max_size} pixels in steps of {step} make too many buckets.")
    area = width * height
    square = math.isqrt(area) // step * step
    found = {(square, square)} if min_size <= square <= max_size else set()
    for side in range(min_size, max_size + 1, step):
        other = min(max_size, area // side // step * step)
        if other >= min_size:
            found |= {(side, other), (other, side)}
    if not found:
        raise MaquetteError(
            f"No buckets: no shape with sides of {min_size} to {max_size} pixels in steps of {step} has the area of "
            f"{width} x {height}."
        )
    return sorted(found)


def choose_bucket(size: Size, buckets: Iterable[Size], by_difference: bool = False) -> Size:
    """The bucket whose aspect ratio is nearest by factor, so that a photo and the same on its side get mirror buckets.

    An exact match of size wins. Equal ratios: the larger area, then the more nearly square. by_difference: nearest is
    the least difference of width / height, the first of the sorted buckets among equals, as sd-scripts has it.
    """
    choices = list(buckets)
    if not choices:
        raise MaquetteError("There are no buckets to choose from.")
    if size in choices:
        return size
    if by_difference:
        return min(sorted(choices), key=lambda bucket: abs(bucket[0] / bucket[1] - size[0] / size[1]))
    return min(choices, key=lambda bucket: _distance(size, bucket))


def _distance(size: Size, bucket: Size) -> tuple[float, int, int, Size]:
    # Ratio of ratios from whole numbers: exactly the same for the mirrored pair, which logarithms would not give.
    a, b = bucket[0] * size[1], bucket[1] * size[0]
    return max(a, b) / min(a, b), -bucket[0] * bucket[1], max(bucket), bucket


def bucket_within(size: Size, area: int, step: int) -> Size | None:
    """A bucket that a photo covers without being enlarged, with sides of whole steps and no more than `area`.

    A photo of more than the area is shrunk to it, and the nearest ratio among the neighbouring whole steps is taken;
    a smaller one loses what is over whole steps. None when a side is shorter than a step.
    """
    width, height = size
    if width * height <= area:
        found = [(width // step * step, height // step * step)]
    else:
        low = [math.isqrt(area * a // b) // step * step for a, b in ((width, height), (height, width))]
        found = [(low[0] + x, low[1] + y) for x in (0, step) for y in (0, step)]
    fits = [(w, h) for w, h in found if 0 < w <= width and 0 < h <= height and w * h <= area]
    return min(fits, key=lambda bucket: _distance(size, bucket), default=None)


def cut_places(crop: Crop, most: int) -> list[Crop]:
    """The crop at up to `most` places, spread evenly over what it leaves; itself alone where it leaves nothing."""
    spare = crop.scaled[0] - crop.bucket[0], crop.scaled[1] - crop.bucket[1]
    count = min(most, max(spare) + 1)
    if count < 2:
        return [crop]
    stride = 3 if count % 3 else 5  # prime to the count: the other axis goes through its places in another order
    along = [(place, place * stride % count) for place in range(count)]
    if spare[1] > spare[0]:
        along = [(other, place) for place, other in along]
    return [replace(crop, left=spare[0] * x // (count - 1), top=spare[1] * y // (count - 1)) for x, y in along]


def crop_box(size: Size, bucket: Size, anchor: tuple[float, float] = (0.5, 0.5)) -> Crop:
    """Scale a photo of `size` to cover `bucket`, cut at `anchor` (0, 0 top left; 0.5, 0.5 centre)."""
    width, height = size
    if width < 1 or height < 1:
        raise MaquetteError(f"A photo of {width} x {height} pixels cannot be cropped.")
    scale = max(bucket[0] / width, bucket[1] / height)
    # max(): rounding must never leave the bucket uncovered by a pixel
    scaled = max(bucket[0], int(width * scale + 0.5)), max(bucket[1], int(height * scale + 0.5))
    left = int((scaled[0] - bucket[0]) * anchor[0])
    top = int((scaled[1] - bucket[1]) * anchor[1])
    return Crop(bucket, scaled, left, top, size)
