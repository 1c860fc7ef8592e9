"""Reading groups of photos that share a subject, repeats and role: decoding, captions, masks, and what is not used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..config.photos import TEMPLATE
from ..errors import MaquetteError
from ..openmp import processors
from ..shown import is_unicode
from .buckets import ShapeWish
from .caption_options import PLAIN, CaptionOptions
from .captions import CAPTION_EXTENSIONS, CaptionText, FolderNames, caption_of, same_name
from .dataset import Photo, Problem, Role
from .images import OpenedPhoto, is_photo, read_photo
from .leftovers import caption_problems, not_used, sharing, unread_metadata, unused_entries
from .masks import is_grey, sort_masks
from .metadata import Metadata

_MOST_WORKERS = 8
MASK_FOLDERS = ("masks", "mask")
Look = Callable[[Path, OpenedPhoto], None]  # called with each decoded photo, from several threads


@dataclass(frozen=True)
class Group:
    """Files that share a subject, repeats and role."""

    root: Path  # names are relative to this
    files: Sequence[Path]
    subject: str
    repeats: int
    role: Role
    options: CaptionOptions = PLAIN
    extensions: Sequence[str] = CAPTION_EXTENSIONS
    metadata: Metadata | None = None
    alpha_mask: bool = False  # transparency says where the loss counts, instead of becoming white
    masks: Sequence[Path] = field(default=())  # pictures of a folder of their own
    mask_root: Path | None = None  # that folder
    shape: ShapeWish | None = None
    lines: Literal["joined", "first", "kept"] = "joined"  # what of a caption of several lines is read without wildcards
    literal: bool = False  # the subject is the caption as it is, where there is no other
    template: str = TEMPLATE  # which else makes a caption of it

    def name(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class _Job:
    group: Group
    file: Path
    names: FolderNames
    mask: Path | None
    named_mask: bool  # the mask lies beside the photo and is one by its name


@dataclass(frozen=True)
class _Read:
    photo: Photo
    text: CaptionText | None  # of its caption file, where that was read
    group: Group


def read_groups(
    groups: Sequence[Group], look: Look | None = None, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Photo], list[Problem]]:
    """Decode every photo of the groups, several at a time, in order. What cannot be used is in the problems.

    look: sees each decoded photo. progress: called with (done, all).
    """
    jobs: list[_Job] = []
    problems: list[Problem] = []
    for group in groups:
        found, faults = _jobs(group)
        jobs += found
        problems += faults
    read: list[_Read] = []
    with ThreadPoolExecutor(min(_MOST_WORKERS, processors())) as pool:
        for done, result in enumerate(pool.map(lambda job: _read_one(job, look), jobs), 1):
            if isinstance(result, Problem):
                problems.append(result)
            else:
                read.append(result)
            if progress:
                progress(done, len(jobs))
    photos = [entry.photo for entry in read]
    problems += caption_problems([(r.photo, r.text, r.group.lines) for r in read if r.text])
    problems += sharing(photos)
    for metadata in {id(g.metadata): g.metadata for g in groups if g.metadata}.values():
        problems += unused_entries(metadata, any(photo.caption_source == "subject" for photo in photos))
    return photos, problems


def _jobs(group: Group) -> tuple[list[_Job], list[Problem]]:
    """The photos of a group with what belongs to each, and what belongs to none."""
    beside = sort_masks(group.files, group.root)
    folders: dict[Path, list[str]] = {}
    for file in beside.files:
        folders.setdefault(file.parent, []).append(file.name)
    names = {parent: FolderNames(parent, inside) for parent, inside in folders.items()}
    masks = _by_name(group)
    jobs, used = [], set()
    problems = []
    for file in filter(is_photo, beside.files):
        if not is_unicode(file):
            name = group.name(file)
            message = f"The name of {name} is no UTF-8, in which a run lists its photos: rename it."
            problems.append(Problem("name", name, message, left_out=True))
            continue
        mask = next((masks[key] for key in _mask_names(group, file) if key in masks), None)
        own = beside.mask(file)
        used.add(mask or own)
        jobs.append(_Job(group, file, names[file.parent], mask or own, mask is None and own is not None))
    told = group.metadata.file.parent if group.metadata else None
    problems += [
        *not_used(beside.files, group.extensions, group.name),
        *unread_metadata((file for file in beside.files if file.parent != told), group.name),
        *beside.problems,
    ]
    for mask in [*group.masks, *beside.masks.values()]:
        if mask not in used:
            why = "its photo has another mask" if mask in beside.masks.values() else "there is no photo of that name"
            problems.append(Problem("mask", mask.name, f"The mask {mask.name} is not used: {why}."))
    return jobs, problems


def _by_name(group: Group) -> dict[str, Path]:
    """Masks of a folder by the names under which photos look for them."""
    found: dict[str, Path] = {}
    for mask in group.masks:
        inside = mask.relative_to(group.mask_root) if group.mask_root else Path(mask.name)
        found.setdefault(same_name(inside.with_suffix("").as_posix()), mask)
    return found


def _mask_names(group: Group, file: Path) -> list[str]:
    """The most exact first: sub/a.jpg, sub/a, a.jpg, a."""
    inside = file.relative_to(group.root) if file.is_relative_to(group.root) else Path(file.name)
    keys = (inside.as_posix(), inside.with_suffix("").as_posix(), file.name, file.stem)
    return [same_name(key) for key in keys]


def _read_one(job: _Job, look: Look | None) -> _Read | Problem:
    group, name = job.group, job.group.name(job.file)
    try:
        opened = read_photo(job.file, name)
    except MaquetteError as error:
        return Problem("unreadable", name, str(error), left_out=True)
    if look:
        look(job.file, opened)
    try:
        _check_mask(job, name, opened)
        caption = caption_of(job.file, job.names, group)
    except MaquetteError as error:
        return Problem("bad_caption", name, str(error), left_out=True, blocking=True)
    masked = (f"masked by {job.mask.name}",) if job.mask and job.named_mask else ()
    photo = Photo(
        path=job.file,
        name=name,
        sha256=opened.sha256,
        size=opened.image.size,
        caption=caption.words,
        caption_source=caption.source,
        caption_file=caption.file,
        caption_extension=group.extensions[0],
        options=group.options,
        repeats=group.repeats,
        role=group.role,
        subject=group.subject,
        shape=group.shape,
        has_alpha=opened.alpha is not None,
        mask="alpha" if group.alpha_mask and opened.alpha is not None else job.mask,
        notes=(*opened.notes, *masked, *caption.notes),
    )
    return _Read(photo, caption.text, group)


def _check_mask(job: _Job, name: str, opened: OpenedPhoto) -> None:
    """Raise MaquetteError when the mask cannot be read, is not as large as the photo, or seems to be a photo."""
    if job.mask is None:
        return
    mask = read_photo(job.mask, f"the mask {job.mask.name}").image
    if job.named_mask and not is_grey(mask):
        raise MaquetteError(
            f"{job.mask.name} is called as a mask of {name} but has colours: make it grey, or rename it if it is a "
            "photo of its own."
        )
    if mask.size != opened.image.size:
        width, height = opened.image.size
        raise MaquetteError(
            f"The mask of {name} is {mask.width} x {mask.height} pixels and the photo {width} x {height}; "
            "make them equal."
        )
