"""From a project to a job: presets, the folder of photos as trained, the configuration."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import TrainConfig
from ..data.images import read_photo
from ..errors import MaquetteError
from ..files import slug
from ..formats.png import write_png
from . import presets
from .job import Job
from .names import Busy, folded
from .presets import Preset

if TYPE_CHECKING:
    from .core import Studio
    from .photos import Photo
    from .store import Project

LEAST_PHOTOS = 4
# Keys that the studio sets itself: where things lie is never the client's.
OWN = frozenset({"photos", "out", "subject", "kind", "base", "vae", "reg", "from_lora", "trackers", "device"})


def start(studio: Studio, project: Project, kind: str, preset: Preset, settings: Mapping[str, Any]) -> Job:
    """Queue a job of a project. Raises Busy where one of its kind waits or works already."""
    for job in studio.queue.jobs():
        if job.spec["project"] == project.id and job.spec["kind"] == kind and job.state in ("queued", "running"):
            raise Busy("This project has such a job already; it is in the queue or at work.")
    if kind == "caption":
        return caption(studio, project, settings)
    return train(studio, project, configured(studio, project, preset, settings), preset)


def configured(studio: Studio, project: Project, preset: Preset, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a training that say something: the preset's, then the project's words, then the user's changes.

    Raises MaquetteError for keys that are not the user's, and for values that cannot be.
    """
    wrong = sorted(OWN & settings.keys())
    if wrong:
        raise MaquetteError(f"{wrong[0]} is set by the studio itself.")
    base = presets.base_of(studio, project)
    used = sum(not photo.excluded for photo in project.photos())
    config = presets.values(preset, used, base, settings) | dict(settings)
    config |= {"subject": project.phrase, "kind": project.kind, "base": base}
    TrainConfig.parse(config | {"photos": "photos"}, "the training")
    return config


def train(studio: Studio, project: Project, config: Mapping[str, Any], preset: Any = None) -> Job:
    """Copy the photos as they are trained, and queue the training."""
    name = folded(project.name) or "lora"
    used = [photo for photo in project.photos() if not photo.excluded]
    if len(used) < LEAST_PHOTOS:
        raise MaquetteError(f"A training needs {LEAST_PHOTOS} photos or more; this project has {len(used)} in use.")
    sets = studio.folder / "sets"
    folder = write_photos(used, sets / f"{project.id}-{os.urandom(4).hex()}")
    try:
        values = dict(config) | {"photos": str(folder)}
        job = studio.queue.submit("train", project.id, values, title=project.name, name=name, preset=preset)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return job


def caption(studio: Studio, project: Project, settings: Mapping[str, Any]) -> Job:
    raise Busy("Photos cannot be described yet.")


def write_photos(photos: list[Photo], folder: Path) -> Path:
    """The photos with their captions and masks as training reads them, cut where the user has cut them."""
    folder.mkdir(parents=True)
    for photo in photos:
        stem = f"{slug(Path(photo.original_name).stem)[:60]}-{photo.id[:6]}"
        if photo.crop is None:
            _link(photo.file, folder / f"{stem}{photo.file.suffix}")
        else:
            x, y, width, height = photo.crop
            cut = read_photo(photo.file, photo.original_name).image.crop((x, y, x + width, y + height))
            write_png(cut, folder / f"{stem}.png")
        if photo.caption:
            (folder / f"{stem}.txt").write_text(photo.caption + "\n", encoding="utf-8")
    return folder


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the disk has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
