"""What is likely to go wrong with photos that can be read: copies, blur, exposure, shape, size, captions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MaquetteError
from .buckets import require_large_enough
from .dataset import Dataset, Photo, Problem
from .golden_rule import trigger_of, words_of
from .images import OpenedPhoto

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# Thresholds, with what they were measured against: 53 photos of ten subjects and altered copies of them.
LOOK_SIZE = 512  # pixels of the longer side at which a photo is judged
SAME_BITS = (
    10  # of 64 perceptual-hash bits; unlike photos differ in 16 or more, recompressed or resized copies in 0 to 6
)
SAME_COLOUR = 30.0  # mean difference of 8 x 8 thumbnails, 0..255; tells one drawing on two backgrounds apart
BLURRED = 0.12  # edge strength over contrast; sharp photos have 0.22 or more, blurred by 3 pixels 0.1 or less
DARK, BRIGHT, FLAT = 40, 225, 20  # of 255
EXTREME_RATIO = 2.2
MUCH_CUT = 0.4
ENLARGED = 1.05
COMMON_TOKEN = 40_000  # CLIP numbers its word tokens by frequency: "man" 786, "sks" 48,136
CAPTION_TOKENS = 225  # that training reads, unless max_token_length says less
_SHOWN_CUT = 60  # characters of what is cut off
_DRAWS = 4  # of a caption that varies, whose tokens are counted


@dataclass(frozen=True)
class Look:
    """What is measured on a decoded photo."""

    hash: int  # 64-bit perceptual hash
    mirrored: int  # the same of the mirrored photo
    colours: np.ndarray  # (8, 8, 3) uint8
    sharpness: float  # 99th percentile of the Laplacian over the range of brightness
    brightness: tuple[float, float, float, float]  # 1st, 5th, 95th, 99th percentile, 0..255


class Looks(dict[Path, Look]):
    """What was measured on each photo."""

    def see(self, path: Path, opened: OpenedPhoto) -> None:
        """Measure a photo while it is decoded: `look` of `layouts.read_folder`."""
        self[path] = look_at(opened)


def look_at(opened: OpenedPhoto) -> Look:
    """Measure a decoded photo, shrunk to LOOK_SIZE so that the numbers mean the same for every camera."""
    import numpy as np
    from PIL import Image

    image = opened.image
    scale = min(1.0, LOOK_SIZE / max(image.size))
    size = max(3, round(image.width * scale)), max(3, round(image.height * scale))
    small = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0) if size != image.size else image
    shades = small.convert("L")
    grey = np.asarray(shades, dtype=np.int16)
    edges = np.abs(grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1] - 4 * grey[1:-1, 1:-1])
    p1, p5, p95, p99 = _percentiles(np.array(shades.histogram()), (1, 5, 95, 99))
    strongest = _percentiles(np.bincount(edges.ravel()), (99,))[0]
    plain, mirrored = _hashes(shades)
    return Look(
        hash=plain,
        mirrored=mirrored,
        colours=np.asarray(small.resize((8, 8), Image.Resampling.BOX)),
        sharpness=strongest / max(1.0, p99 - p1),
        brightness=(p1, p5, p95, p99),
    )


def _percentiles(histogram: np.ndarray, percents: Sequence[int]) -> tuple[float, ...]:
    """The values below which so many per cent of a histogram lie."""
    import numpy as np

    below = np.cumsum(histogram)
    return tuple(float(np.searchsorted(below, below[-1] * percent / 100)) for percent in percents)


@cache
def _cosines() -> np.ndarray:
    """(8, 32): the eight lowest basis functions of a 32-point cosine transform."""
    import numpy as np

    return np.cos(np.pi / 32 * np.outer(np.arange(8), np.arange(32) + 0.5))


def _hashes(shades: Image) -> tuple[int, int]:
    """Perceptual hash (pHash: low cosine frequencies against their median) of a picture and of its mirror image."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(shades.resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    low = _cosines() @ pixels @ _cosines().T  # (8, 8): vertical by horizontal frequency
    mirrored = low * np.array([1, -1] * 4)  # mirroring turns the sign of odd horizontal frequencies
    first, second = (np.packbits(x > np.median(x)).tobytes() for x in (low, mirrored))
    return int.from_bytes(first, "big"), int.from_bytes(second, "big")


def examine_regularization(dataset: Dataset, seen: int | None = None) -> list[Problem]:
    """A warning when there are too few or too many regularization images for one per sample.

    seen: how many of them the whole run will see; more pictures than that are in vain.
    """
    needed, present = dataset.samples("instance"), dataset.samples("class")
    if not present:
        return []
    pictures = f"{present} regularization sample{'' if present == 1 else 's'} for {needed} of photos"
    if seen is not None and seen < present:
        message = f"{pictures}: the whole run sees {seen} of them, the others have no effect."
    elif present == needed:
        return []
    elif present < needed:
        message = f"{pictures}: each is used up to {math.ceil(needed / present)} times."
    else:
        message = f"{pictures}: an epoch uses some, in turn."
    return [Problem("regularization", "", message)]


def examine_photos(dataset: Dataset, looks: Mapping[Path, Look]) -> list[Problem]:
    """Warnings about the instance photos of a planned data set, in the order of the photos; pairs of copies last."""
    photos = [photo for photo in dataset.of("instance") if photo.path in looks]
    problems = [problem for photo in photos for problem in _one_photo(photo, looks[photo.path])]
    files = list({photo.path: photo for photo in photos}.values())  # one used at several resolutions is no copy
    return problems + list(_copies(files, [looks[photo.path] for photo in files]))


def _one_photo(photo: Photo, look: Look) -> Iterable[Problem]:
    p1, p5, p95, p99 = look.brightness
    name, (width, height) = photo.name, photo.size
    if p95 < DARK:
        yield Problem("dark", name, f"{name} is almost black; brighten it or leave it out.")
    elif p5 > BRIGHT:
        yield Problem("bright", name, f"{name} is almost white; darken it or leave it out.")
    elif p99 - p1 < FLAT:
        yield Problem("flat", name, f"{name} is almost a single colour; leave it out.")
    elif look.sharpness < BLURRED:
        yield Problem("blurred", name, f"{name} looks blurred or was enlarged; use a sharper photo.")
    ratio = max(width, height) / min(width, height)
    if ratio > EXTREME_RATIO:
        shape = f"{ratio:.1f} times as {'wide as high' if width > height else 'high as wide'}"
        yield Problem("aspect", name, f"{name} is {shape}; cut it to the subject.")
    crop = photo.crop
    if crop is not None:
        if crop.lost > MUCH_CUT:
            lost = f"{crop.lost:.0%} of {name} is cut off at {crop.bucket[0]} x {crop.bucket[1]}"
            yield Problem("cropped", name, f"{lost}; cut it to the subject yourself.")
        if crop.enlargement > ENLARGED:
            size = f"{crop.bucket[0]} x {crop.bucket[1]}"
            message = (
                f"{name} ({width} x {height}) is small and would be enlarged {crop.enlargement:.1f} times to {size}."
            )
            yield Problem("small", name, message)
    if photo.has_alpha and photo.mask != "alpha":
        yield Problem("alpha", name, f"{name} has transparent parts, which are trained as white (or use alpha_mask).")


def _copies(photos: Sequence[Photo], looks: Sequence[Look]) -> Iterable[Problem]:
    """One problem for each photo that repeats an earlier one, naming the first it repeats."""
    import numpy as np

    hashes = np.array([look.hash for look in looks], dtype=np.uint64)
    mirrored = np.array([look.mirrored for look in looks], dtype=np.uint64)
    colours = np.array([look.colours for look in looks], dtype=np.int16)
    for i in range(1, len(photos)):
        name = photos[i].name
        near = np.flatnonzero(np.bitwise_count(hashes[:i] ^ hashes[i]) <= SAME_BITS)
        flipped = np.flatnonzero(np.bitwise_count(hashes[:i] ^ mirrored[i]) <= SAME_BITS)
        first = _first(near, np.abs(colours[near] - colours[i]))
        turned = _first(flipped, np.abs(colours[flipped] - colours[i][:, ::-1]))
        if first is not None:
            other = photos[first]
            how = "is the same file as" if other.sha256 == photos[i].sha256 else "is nearly the same picture as"
            yield Problem("duplicate", name, f"{name} {how} {other.name}; leave one out, or it counts twice.")
        elif turned is not None:
            yield Problem("duplicate", name, f"{name} is {photos[turned].name} mirrored; use the option flip instead.")


def _first(places: np.ndarray, differences: np.ndarray) -> int | None:
    """The first of the places whose thumbnail differs little; differences: (n, 8, 8, 3)."""
    alike = places[differences.mean(axis=(1, 2, 3)) < SAME_COLOUR]
    return int(alike[0]) if len(alike) else None


def examine_captions(
    dataset: Dataset,
    subject: str | None,
    tokens: Callable[[str], Sequence[int]] | None = None,
    most_tokens: int = CAPTION_TOKENS,
) -> list[Problem]:
    """Warnings about captions, and the blocking fault that none names the subject.

    tokens: the base's tokenizer. most_tokens: so many of a caption are trained (max_token_length).
    """
    photos = dataset.of("instance")
    written = [photo for photo in photos if photo.caption_source != "subject" and photo.caption]
    problems = []
    bare = [photo.name for photo in dataset.photos if not photo.caption]
    if bare:
        who = f"{len(bare)} photos, the first {bare[0]}, have" if len(bare) > 1 else f"{bare[0]} has"
        message = (
            f"{who} no caption: name the subject (--subject 'ohwx man') or write {Path(bare[0]).stem}.txt, or training "
            "will not start."
        )
        problems.append(Problem("no_caption", "", message, blocking=True))
    if tokens:
        problems += [problem for photo in dataset.photos for problem in _too_long(photo, tokens, most_tokens)]
    if len(written) > 2 and len(written) == len(photos) and len({photo.caption for photo in written}) == 1:
        message = (
            f"All {len(written)} captions are the same ('{written[0].caption}'); say what differs between the photos."
        )
        problems.append(Problem("same_caption", "", message))
    for wanted in sorted({photo.subject for photo in photos if photo.subject}) if subject is None else [subject]:
        problems += _subject_in_captions([p for p in written if p.subject in ("", wanted)], wanted)
        if tokens:
            problems += _common_trigger(wanted, tokens)
    return problems


def require_trainable(dataset: Dataset, subject: str | None) -> None:
    """Raise MaquetteError for what `maquette check` calls blocking in a planned data set: no photo is large enough, or
    something in the folder or its captions must be mended first.
    """
    require_large_enough(dataset)
    found = [*dataset.problems, *examine_captions(dataset, subject)]
    blocking = [problem.message for problem in found if problem.blocking]
    if blocking:
        more = f" And {len(blocking) - 3} more such problems." if len(blocking) > 3 else ""
        raise MaquetteError(" ".join(blocking[:3]) + more)


def longest_caption(photo: Photo, tokens: Callable[[str], Sequence[int]]) -> tuple[str, int]:
    """The caption as training reads it, and its number of tokens; of a caption that varies, the longest of some draws.

    Start and end tokens are not counted.
    """
    return max(((text, len(tokens(text))) for text in photo.some_captions(_DRAWS)), key=lambda pair: pair[1])


def _too_long(photo: Photo, tokens: Callable[[str], Sequence[int]], most: int) -> Iterable[Problem]:
    text, count = longest_caption(photo, tokens)
    if count <= most:
        return
    read = 0
    words = text.split()
    for place, word in enumerate(words):  # no token reaches over a space
        read += len(tokens(word))
        if read > most:
            cut = " ".join(words[place:])
            shown = cut if len(cut) <= _SHOWN_CUT else cut[:_SHOWN_CUT] + " …"
            message = f"The caption of {photo.name} has {count} tokens; after the {most}th it is cut off: '{shown}'."
            yield Problem("long_caption", photo.name, message)
            return


def _trained(photo: Photo) -> str:
    """The caption with the text that training puts in front of it and behind it."""
    return " ".join((photo.options.prefix, photo.caption, photo.options.suffix))


def _subject_in_captions(written: Sequence[Photo], subject: str) -> Iterable[Problem]:
    trigger = trigger_of(subject)
    without = [photo for photo in written if not set(words_of(trigger)) <= set(words_of(_trained(photo)))]
    if not without:
        return
    if len(without) == len(written):
        message = (
            f"No caption file contains '{trigger}', the word of the subject '{subject}', so it could not be learned; "
            f"add it: maquette caption --prefix '{subject}, '."
        )
        yield Problem("no_subject", "", message, blocking=True)
        return
    for photo in without:
        message = f"The caption of {photo.name} does not contain '{trigger}', the word of the subject."
        yield Problem("no_subject", photo.name, message)


def _common_trigger(subject: str, tokens: Callable[[str], Sequence[int]]) -> Iterable[Problem]:
    trigger = trigger_of(subject)
    ids = tokens(trigger)
    if len(ids) == 1 and ids[0] < COMMON_TOKEN:
        message = (
            f"The base already knows the word '{trigger}' well and will resist a new meaning; use a rare one (ohwx)."
        )
        yield Problem("common_trigger", "", message)
