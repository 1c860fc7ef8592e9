"""Reading groups of photos that share a subject, repeats and role: decoding, captions, masks, and what is not used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import MaquetteError
from .buckets import ShapeWish
from .caption_options import PLAIN, CaptionOptions
from .captions import (
    CAPTION_EXTENSIONS,
    FolderNames,
    caption_for_class,
    caption_for_subject,
    find_caption,
    read_caption,
    same_name,
)
from .dataset import Photo, Problem, Role
from .images import OTHER_PICTURES, OpenedPhoto, is_photo, read_photo
from .metadata import Metadata

_MOST_WORKERS = 8
_MOST_NAMED = 5  # names in a problem about many files
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
    masks: Sequence[Path] = field(default=())  # one per photo, found by its stem
    shape: ShapeWish | None = None

    def name(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class Reading:
    """How to read: how often each instance photo counts (None: as the group says), and the caption template."""

    repeats: int | None
    template: str
    look: Look | None = None
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class _Job:
    group: Group
    file: Path
    names: FolderNames
    mask: Path | None


def read_groups(groups: Sequence[Group], reading: Reading) -> tuple[list[Photo], list[Problem]]:
    """Decode every photo of the groups, several at a time, in order. What cannot be used is in the problems."""
    jobs: list[_Job] = []
    problems: list[Problem] = []
    for group in groups:
        folders: dict[Path, list[str]] = {}
        for file in group.files:
            folders.setdefault(file.parent, []).append(file.name)
        names = {parent: FolderNames(parent, inside) for parent, inside in folders.items()}
        masks = {same_name(mask.stem): mask for mask in group.masks}
        jobs += [
            _Job(group, file, names[file.parent], masks.get(same_name(file.stem)))
            for file in group.files
            if is_photo(file)
        ]
        problems += _not_used(group)
    photos = []
    with ThreadPoolExecutor(min(_MOST_WORKERS, os.cpu_count() or 1)) as pool:
        for done, result in enumerate(pool.map(lambda job: _read_one(job, reading), jobs), 1):
            if isinstance(result, Problem):
                problems.append(result)
            else:
                photos.append(result)
            if reading.progress:
                reading.progress(done, len(jobs))
    return photos, problems + _unused_entries(groups)


def _unused_entries(groups: Sequence[Group]) -> list[Problem]:
    problems = []
    for metadata in {id(g.metadata): g.metadata for g in groups if g.metadata}.values():
        if unused := metadata.unused():
            some = ", ".join(unused[:_MOST_NAMED]) + (" …" if len(unused) > _MOST_NAMED else "")
            message = f"{metadata.file.name} has {len(unused)} entries without a photo: {some}."
            problems.append(Problem("caption", metadata.file.name, message))
    return problems


def _not_used(group: Group) -> Iterable[Problem]:
    """Pictures of kinds that are not read, and captions and masks whose photo is missing."""
    photos = [file for file in group.files if is_photo(file)]
    bases = {same_name(str(path)) for file in photos for path in (file, file.with_suffix(""))}
    for file in group.files:
        name, suffix = group.name(file), file.suffix.lower()
        if suffix in OTHER_PICTURES:
            yield Problem("not_a_photo", name, _why_not(file, name), left_out=True)
        elif suffix in CAPTION_EXTENSIONS and same_name(str(file.with_suffix(""))) not in bases:
            yield Problem("caption", name, f"{name} is not used: there is no photo of that name.")
    stems = {same_name(file.stem) for file in photos}
    for mask in group.masks:
        if same_name(mask.stem) not in stems:
            yield Problem("mask", mask.name, f"The mask {mask.name} is not used: there is no photo of that name.")


def _why_not(file: Path, name: str) -> str:
    if file.suffix.lower() == ".gif":
        try:
            read_photo(file, name)
        except MaquetteError as error:  # animated, empty, damaged: say which
            return str(error)
    return f"{name} is not used: {file.suffix} files are not read; save it as PNG or JPEG."


def _read_one(job: _Job, reading: Reading) -> Photo | Problem:
    group, name = job.group, job.group.name(job.file)
    try:
        opened = read_photo(job.file, name)
    except MaquetteError as error:
        return Problem("unreadable", name, str(error), left_out=True)
    if reading.look:
        reading.look(job.file, opened)
    try:
        _check_mask(job, name, opened)
        text, source, file, notes = _caption(job, reading)
    except MaquetteError as error:
        return Problem("bad_caption", name, str(error), left_out=True, blocking=True)
    return Photo(
        path=job.file,
        name=name,
        sha256=opened.sha256,
        size=opened.image.size,
        caption=text,
        caption_source=source,
        caption_file=file,
        options=group.options,
        repeats=group.repeats if reading.repeats is None or group.role == "class" else reading.repeats,
        role=group.role,
        subject=group.subject,
        shape=group.shape,
        has_alpha=opened.alpha is not None,
        mask="alpha" if group.alpha_mask and opened.alpha is not None else job.mask,
        notes=(*opened.notes, *notes),
    )


def _caption(job: _Job, reading: Reading) -> tuple[str, str, Path | None, tuple[str, ...]]:
    """Text, where it came from, its file, and notes: the text file beside the photo, the metadata, the subject."""
    group = job.group
    file = find_caption(job.file, job.names, group.extensions)
    notes: tuple[str, ...] = ()
    if file:
        text = read_caption(file, keep_lines=group.options.wildcards)
        if text:
            return text, file.name, file, notes
        notes = (f"its caption file {file.name} is empty",)
    if group.metadata and (text := group.metadata.caption(job.file) or ""):
        return text, group.metadata.file.name, None, notes
    if not group.subject:
        text = ""
    elif group.role == "class":
        text = caption_for_class(group.subject)
    else:
        text = caption_for_subject(group.subject, reading.template)
    return text, "subject", file, notes


def _check_mask(job: _Job, name: str, opened: OpenedPhoto) -> None:
    """Raise MaquetteError when the mask cannot be read or is not as large as the photo."""
    if job.mask is None:
        return
    mask = read_photo(job.mask, f"the mask {job.mask.name}").image
    if mask.size != opened.image.size:
        width, height = opened.image.size
        raise MaquetteError(
            f"The mask of {name} is {mask.width} x {mask.height} pixels and the photo {width} x {height}; "
            "make them equal."
        )
