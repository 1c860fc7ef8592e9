"""What `maquette check` finds in the photos of a project, and what training sees of each, from what is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..data import dataset
from ..data.buckets import plan
from ..data.captions import caption_for_subject
from ..data.dataset import Dataset, Problem
from ..data.doctor import Look, examine_captions, examine_photos

if TYPE_CHECKING:
    from .photos import Photo
    from .store import Project

Frame = tuple[float, float, float, float]  # x, y, width, height in pixels of the upright photo
BAD = frozenset({"too_small", "dark", "bright", "flat"})
MILD = frozenset({"alpha"})
# Of each kind, what fits on a card; the whole sentence says more.
SHORT = {
    "too_small": "too small", "small": "small", "dark": "almost black", "bright": "almost white", "flat": "one colour",
    "blurred": "blurred", "aspect": "very long", "cropped": "much is cut off", "alpha": "transparent parts",
    "duplicate": "same as another", "no_subject": "caption lacks the word", "long_caption": "long caption",
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """Something about a photo. level: "bad", "warn" or "info"."""

    kind: str
    short: str
    message: str
    level: str


@dataclass(frozen=True)
class Examined:
    """Of each photo, by its id: findings and the frame. general: sentences about the photos as a whole."""

    findings: dict[str, list[Finding]] = field(default_factory=dict)
    frames: dict[str, Frame] = field(default_factory=dict)
    general: list[Problem] = field(default_factory=list)


def examine(project: Project, facts: Mapping[str, Any] | None) -> Examined:
    """Look at the photos that are used. facts: of the base; None where they are not known yet: then no frames."""
    photos = project.photos()
    used = {photo.id: photo for photo in photos if not photo.excluded}
    found: dict[str, list[Finding]] = {photo.id: _reading(photo) for photo in photos}
    whole = Dataset(project.path, "plain", [_as_data(photo, project.phrase) for photo in used.values()])
    planned = whole
    if facts is not None:
        resolution = project.changed.get("resolution") or facts["native_size"]
        buckets = project.changed.get("buckets")
        wanted = facts["buckets"] if buckets is None else buckets
        planned = plan(whole, int(resolution), facts["latent_factor"], aspect_buckets=bool(wanted))
    looks = {photo.file: look for photo in used.values() if (look := photo.look) is not None}
    problems = [*planned.problems, *examine_photos(planned, looks), *examine_captions(planned, project.phrase)]
    names = {photo.id: photo.original_name for photo in photos}
    general = []
    for problem in problems:
        if problem.photo in found:
            found[problem.photo].append(_finding(problem, names))
        else:
            general.append(Problem(problem.kind, "", named(problem.message, names), blocking=problem.blocking))
    frames = {data.name: _frame(data, used[data.name]) for data in planned.photos if data.crop is not None}
    return Examined(found, frames, general)


def _as_data(photo: Photo, phrase: str) -> dataset.Photo:
    """The photo as training knows it, under its id, which a message then has in the name's place."""
    return dataset.Photo(
        photo.file, photo.id, photo.sha256, photo.size_trained, photo.caption or caption_for_subject(phrase),
        photo.caption_file.name if photo.caption else "subject", has_alpha=bool(photo.facts.get("alpha")),
    )  # fmt: skip


def _frame(data: dataset.Photo, photo: Photo) -> Frame:
    assert data.crop is not None
    left, top, right, bottom = data.crop.box
    x, y = photo.crop[:2] if photo.crop else (0, 0)
    return round(x + left, 1), round(y + top, 1), round(right - left, 1), round(bottom - top, 1)


def _finding(problem: Problem, names: Mapping[str, str]) -> Finding:
    level = "bad" if problem.left_out or problem.blocking or problem.kind in BAD else "warn"
    level = "info" if problem.kind in MILD else level
    return Finding(problem.kind, SHORT.get(problem.kind, problem.kind), named(problem.message, names), level)


def _reading(photo: Photo) -> list[Finding]:
    """What was done to the photo while it was read."""
    found = []
    for note in photo.notes:
        short = "turned upright" if "EXIF orientation" in note else note.partition(" (")[0][:40]
        found.append(Finding("note", short, f"{photo.original_name}: {note}.", "info"))
    if photo.file.suffix in (".heic", ".avif"):
        kind = photo.file.suffix[1:].upper()
        found.append(Finding("format", f"{kind}, understood", f"{photo.original_name} is {kind}, and is read.", "info"))
    return found


def named(message: str, names: Mapping[str, str]) -> str:
    """A sentence with the photos' names in place of their ids."""
    for identity, name in names.items():
        message = message.replace(identity, name)
    return message


def look_of(facts: Mapping[str, Any]) -> Look | None:
    """What was measured when the photo came, as project.json keeps it."""
    import numpy as np

    look = facts.get("look")
    if look is None:
        return None
    colours = np.array(look["colours"], dtype=np.uint8).reshape(8, 8, 3)
    bright: Sequence[float] = look["brightness"]
    return Look(
        int(look["hash"], 16), int(look["mirrored"], 16), colours, look["sharpness"],
        (bright[0], bright[1], bright[2], bright[3]),
    )  # fmt: skip


def told_look(look: Look) -> dict[str, Any]:
    """The same for project.json."""
    return {
        "hash": f"{look.hash:x}", "mirrored": f"{look.mirrored:x}", "colours": look.colours.ravel().tolist(),
        "sharpness": round(look.sharpness, 5), "brightness": list(look.brightness),
    }  # fmt: skip
