"""From a project to a job: the configuration, what stands in the way, the photos as trained."""

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
from ..stages.captioners import models_folder
from . import presets
from .job import Job
from .names import Busy, file_stem
from .presets import Preset, base_of

if TYPE_CHECKING:
    from .core import Studio
    from .photos import Photo
    from .store import Project

LEAST_PHOTOS = 4
# Keys that the studio sets itself: where things lie is never the client's.
OWN = frozenset({
    "photos", "out", "subject", "kind", "base", "vae", "reg", "from_lora", "trackers", "device", "two_pass", "fold",
})  # fmt: skip


def start(studio: Studio, project: Project, kind: str, preset: Preset, settings: Mapping[str, Any]) -> Job:
    """Queue a job of a project. Raises Busy where one of its kind waits or works already."""
    with project.lock:
        for job in studio.queue.jobs():
            same = job.spec["project"] == project.id and job.spec["kind"] == kind
            if same and job.state in ("queued", "running", "stopping", "paused"):
                raise Busy("This project has such a job already; it is in the queue or at work.")
        if kind == "caption":
            return describe(studio, project, settings)
        return train(studio, project, configured(studio, project, preset, settings), preset)


def require_possible(changed: Mapping[str, Any]) -> None:
    """Raise MaquetteError for keys that are not the user's, and for values that no training can have."""
    _require_users(changed)
    TrainConfig.parse({**changed, "photos": "photos", "subject": "zkw thing"}, "the training")


def _require_users(changed: Mapping[str, Any]) -> None:
    if wrong := sorted(OWN & changed.keys()):
        raise MaquetteError(f"{wrong[0]} is set by the studio itself.")


def configured(studio: Studio, project: Project, preset: Preset, changed: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a training that say something: the preset's, the user's changes, the project's words and prompts.

    Raises MaquetteError for keys that are not the user's, and for values that cannot be.
    """
    _require_users(changed)
    base = base_of(studio, project)
    config = presets.values(preset, len(project.used()), base, changed) | dict(changed)
    prompts = project.settings.get("prompts")
    if prompts:
        config.setdefault("sample_prompts", [prompt for prompt in prompts if str(prompt).strip()])
    config |= {"subject": project.phrase, "kind": project.kind, "base": base}
    TrainConfig.parse(config | {"photos": "photos"}, "the training")
    return config


def train(studio: Studio, project: Project, config: Mapping[str, Any], preset: Any = None) -> Job:
    """Copy the photos as they are trained, and queue the training."""
    used = project.used()
    if len(used) < LEAST_PHOTOS:
        raise MaquetteError(f"A training needs {LEAST_PHOTOS} photos or more; this project has {len(used)} in use.")
    name = file_stem(project.name, "lora")
    return studio.queue.submit(
        "train", project.id, config, lambda folder: write_photos(used, folder / "photos"), title=project.name,
        name=name, preset=preset,
    )  # fmt: skip


def describe(studio: Studio, project: Project, settings: Mapping[str, Any]) -> Job:
    """Queue the description of the photos that have no caption, or of all."""
    photos = project.photos()
    if not photos:
        raise MaquetteError("There are no photos to describe yet; add some.")
    captioner = str(settings.get("captioner") or captioner_here())
    if captioner not in ("template", "blip", "wd14"):
        raise MaquetteError("The captioner is template, blip or wd14.")
    overwrite = settings.get("overwrite") is True
    config = {"subject": project.phrase, "captioner": captioner, "overwrite": overwrite}

    def prepare(folder: Path) -> None:
        target = folder / "photos"
        target.mkdir()
        for photo in photos:
            _link(photo.file, target / f"{photo.id}{photo.file.suffix}")
            if photo.caption:
                (target / f"{photo.id}.txt").write_text(photo.caption + "\n", encoding="utf-8")

    was = {photo.id: photo.caption for photo in photos}
    return studio.queue.submit("caption", project.id, config, prepare, title=project.name, name="captions", was=was)


def captioner_here() -> str:
    """The best captioner whose weights are there."""
    return next((name for name in ("blip", "wd14") if (models_folder() / name).is_dir()), "template")


def take_captions(project: Project, job: Job) -> int:
    """Give the photos what a finished caption job wrote, where nobody has changed the caption since it began."""
    from .captions import remember

    was, taken = job.spec.get("was", {}), {}
    with project.lock:
        for photo in project.photos():
            file = job.path / "photos" / f"{photo.id}.txt"
            if photo.id in was and photo.caption == was[photo.id] and file.exists():
                text = " ".join(file.read_text(encoding="utf-8").split())
                if text != photo.caption:
                    taken[photo.id] = text
        if taken:
            remember(project, "description", {identity: {"caption": was[identity]} for identity in taken})
        for identity, text in taken.items():
            project.photo(identity).set_caption(text)
    return len(taken)


def write_photos(photos: list[Photo], folder: Path) -> Path:
    """The photos with their captions and masks as training reads them, cut where the user has cut them."""
    folder.mkdir(parents=True)
    for photo in photos:
        stem = f"{slug(Path(photo.original_name).stem)[:60]}-{photo.id[:6]}"
        box = None
        if photo.crop is None:
            _link(photo.file, folder / f"{stem}{photo.file.suffix}")
        else:
            x, y, width, height = photo.crop
            box = x, y, x + width, y + height
            write_png(read_photo(photo.file, photo.original_name).image.crop(box), folder / f"{stem}.png")
        if photo.mask is not None:
            mask = read_photo(photo.mask).image.convert("L")
            write_png(mask.crop(box) if box else mask, folder / f"{stem}.mask.png")
        if photo.caption:
            (folder / f"{stem}.txt").write_text(photo.caption + "\n", encoding="utf-8")
    return folder


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the disk has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
