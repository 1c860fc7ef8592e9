"""How photos lie in folders: a plain folder, or Kohya's `40_ohwx man` folders with an optional `reg` folder."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import MaquetteError
from .captions import (
    CAPTION_EXTENSIONS,
    TEMPLATE,
    FolderNames,
    caption_for_class,
    caption_for_subject,
    class_of,
    find_caption,
    read_caption,
)
from .dataset import Dataset, Photo, Problem, Role
from .images import EXTENSIONS, OTHER_PICTURES, OpenedPhoto, read_photo, walk

A_PHOTO_FOLDER = (
    "A photo folder holds 5 to 50 photos (jpg, jpeg, png, webp, bmp, heic, heif or avif), each with or without a text "
    "file of the same name as its caption (IMG_1.jpg, IMG_1.txt); Kohya's '40_ohwx man' folders are understood too."
)
_KOHYA_NAME = re.compile(r"^(\d{1,3})_(.*\S)\s*$")  # at most 3 digits, so that '2024_holiday' is a plain folder
_MOST_WORKERS = 8
Look = Callable[[Path, OpenedPhoto], None]  # called with each decoded photo, from several threads


@dataclass(frozen=True)
class _Group:
    """Files that share a subject, repeats and role."""

    root: Path  # names are relative to this
    files: list[Path]
    subject: str
    repeats: int
    role: Role


def read_folder(
    folder: str | Path,
    subject: str | None = None,
    *,
    reg: str | Path | None = None,
    repeats: int | None = None,
    template: str = TEMPLATE,
    look: Look | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read and decode every photo below `folder`, with captions, repeats and roles; no buckets yet (`dataset.plan`).

    subject: makes the captions of photos that have no text file. reg: folder of regularization pictures. repeats: how
    often each instance photo counts in an epoch, instead of 1 or the number in a Kohya folder's name. look: sees every
    decoded photo. progress: called with (done, all). Files that cannot be used are in `.problems`.
    Raises MaquetteError when there is no folder or no readable photo. `require_trainable` refuses the rest.
    """
    root = _existing_folder(folder)
    instance, kohya, problems = _instance_groups(root, subject)
    groups = list(instance)
    if reg is None:
        reg = _reg_beside(root)
    if reg is not None:
        groups += _class_groups(_existing_folder(reg), instance[0].subject if instance else subject or "", problems)
    photos = _read_groups(groups, repeats, template, problems, look, progress)
    dataset = Dataset(root, "kohya" if kohya else "plain", photos, problems)
    _require_photos(dataset, "instance", root)
    if reg is not None:
        _require_photos(dataset, "class", Path(reg))
    return dataset


def _existing_folder(folder: str | Path) -> Path:
    path = Path(folder).expanduser()
    if path.is_file():
        if path.suffix.lower() in {".zip", ".7z", ".rar", ".tar", ".gz"}:
            raise MaquetteError(f"{path} is an archive; unpack it and name the folder.")
        raise MaquetteError(f"{path} is a file; name the folder that holds the photos.")
    if not path.is_dir():
        parent = path.parent
        near = difflib.get_close_matches(path.name, [p.name for p in _folders(parent)] if parent.is_dir() else [], 1)
        hint = f" Did you mean {parent / near[0]}?" if near else ""
        raise MaquetteError(f"There is no folder {path}.{hint}")
    return path


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _kohya_folders(path: Path) -> list[tuple[Path, int, str]]:
    """Direct sub-folders called `<repeats>_<subject>` that hold a photo."""
    found = []
    for sub in _folders(path):
        match = _KOHYA_NAME.match(sub.name)
        if match and any(_is_photo(file) for file in walk(sub)):
            found.append((sub, int(match[1]), match[2]))
    return found


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS


def _child(path: Path, *names: str) -> Path | None:
    return next((sub for sub in _folders(path) if sub.name.lower() in names), None)


def _prepared(root: Path) -> Path | None:
    """The `img` folder of a kohya_ss project folder (img, reg, log, model), when that is what the user named."""
    image_folder = _child(root, "img", "image", "images")
    return image_folder if image_folder and _kohya_folders(image_folder) else None


def _reg_beside(root: Path) -> Path | None:
    if _prepared(root) is None:
        return None
    reg = _child(root, "reg")
    return reg if reg and any(_is_photo(file) for file in walk(reg)) else None


def _instance_groups(root: Path, subject: str | None) -> tuple[list[_Group], bool, list[Problem]]:
    """The instance photos by folder, whether the layout is Kohya's, and what was passed over."""
    problems: list[Problem] = []
    leaf = _KOHYA_NAME.match(root.resolve().name)
    source = _prepared(root) or root
    named = _kohya_folders(source)
    if not named:
        if leaf and subject is None and int(leaf[1]) > 0:
            return [_Group(root, list(walk(root)), leaf[2], int(leaf[1]), "instance")], True, problems
        return [_Group(root, list(walk(root)), subject or "", 1, "instance")], False, problems
    if subject is not None and len({words for _, _, words in named}) > 1:
        names = ", ".join(f"'{sub.name}'" for sub, _, _ in named)
        problems.append(
            Problem("subject", "", f"The subject '{subject}' is not used: the folders {names} name their own subjects.")
        )
        subject = None
    groups = []
    for sub, count, words in named:
        if count == 0:
            message = f"The folder '{sub.name}' asks for 0 repeats and is left out."
            problems.append(Problem("folder", sub.name, message, left_out=True))
            continue
        groups.append(_Group(source, list(walk(sub)), subject or words, count, "instance"))
    problems += _passed_over(source, {sub for sub, _, _ in named})
    return groups, True, problems


def _passed_over(source: Path, used: set[Path]) -> Iterable[Problem]:
    """Photos that lie beside Kohya folders, where other trainers lose them in silence."""
    for file in sorted(source.iterdir()):
        if file.is_file() and _is_photo(file):
            message = f"{file.name} lies beside the '40_ohwx man' folders, not inside one, and is left out."
            yield Problem("folder", file.name, message, left_out=True)
    for sub in _folders(source):
        if sub not in used and sub.name.lower() != "reg" and any(_is_photo(file) for file in walk(sub)):
            message = f"The folder '{sub.name}' is left out: its name lacks repeats; rename it to '40_{sub.name}'."
            yield Problem("folder", sub.name, message, left_out=True)


def _class_groups(reg: Path, subject: str, problems: list[Problem]) -> list[_Group]:
    """The regularization pictures: Kohya folders (`1_man`), one such folder itself, or a plain folder."""
    source = _child(reg, "reg") if not _kohya_folders(reg) and _child(reg, "reg") else reg
    assert source is not None
    named = _kohya_folders(source)
    leaf = _KOHYA_NAME.match(source.resolve().name)
    if named:
        problems += _passed_over(source, {sub for sub, _, _ in named})
        return [_Group(source, list(walk(sub)), words, max(1, count), "class") for sub, count, words in named]
    if leaf:
        return [_Group(source, list(walk(source)), leaf[2], max(1, int(leaf[1])), "class")]
    return [_Group(source, list(walk(source)), class_of(subject), 1, "class")]


def _read_groups(
    groups: list[_Group],
    repeats: int | None,
    template: str,
    problems: list[Problem],
    look: Look | None,
    progress: Callable[[int, int], None] | None,
) -> list[Photo]:
    jobs: list[tuple[_Group, Path, FolderNames]] = []
    for group in groups:
        folders: dict[Path, list[str]] = {}
        for file in group.files:
            folders.setdefault(file.parent, []).append(file.name)
        names = {parent: FolderNames(parent, inside) for parent, inside in folders.items()}
        jobs += [(group, file, names[file.parent]) for file in group.files if _is_photo(file)]
        problems += _not_used(group)

    def read(job: tuple[_Group, Path, FolderNames]) -> Photo | Problem:
        group, file, names = job
        return _read_one(group, file, names, repeats, template, look)

    photos = []
    with ThreadPoolExecutor(min(_MOST_WORKERS, os.cpu_count() or 1)) as pool:
        for done, result in enumerate(pool.map(read, jobs), 1):
            if isinstance(result, Problem):
                problems.append(result)
            else:
                photos.append(result)
            if progress:
                progress(done, len(jobs))
    return photos


def _not_used(group: _Group) -> Iterable[Problem]:
    """Pictures of kinds that are not read, broken links, and captions whose photo is missing."""
    bases = {str(file.with_suffix("")).lower() for file in group.files if _is_photo(file)}
    bases |= {str(file).lower() for file in group.files if _is_photo(file)}
    for file in group.files:
        name, suffix = file.relative_to(group.root).as_posix(), file.suffix.lower()
        if suffix in OTHER_PICTURES:
            yield Problem("not_a_photo", name, _why_not(file, name), left_out=True)
        elif suffix in CAPTION_EXTENSIONS and str(file.with_suffix("")).lower() not in bases:
            yield Problem("caption", name, f"{name} is not used: there is no photo of that name.")


def _why_not(file: Path, name: str) -> str:
    if file.suffix.lower() == ".gif":
        try:
            read_photo(file, name)
        except MaquetteError as error:  # animated, empty, damaged: say which
            return str(error)
    return f"{name} is not used: {file.suffix} files are not read; save it as PNG or JPEG."


def _read_one(
    group: _Group, file: Path, names: FolderNames, repeats: int | None, template: str, look: Look | None
) -> Photo | Problem:
    name = file.relative_to(group.root).as_posix()
    try:
        opened = read_photo(file, name)
    except MaquetteError as error:
        return Problem("unreadable", name, str(error), left_out=True)
    if look:
        look(file, opened)
    caption_file = find_caption(file, names)
    try:
        text = read_caption(caption_file) if caption_file else ""
    except MaquetteError as error:
        return Problem("bad_caption", name, str(error), left_out=True, blocking=True)
    notes = opened.notes
    if caption_file and not text:
        notes = (*notes, f"its caption file {caption_file.name} is empty")
    source = caption_file.name if caption_file and text else "subject"
    if not text and group.subject:
        is_class = group.role == "class"
        text = caption_for_class(group.subject) if is_class else caption_for_subject(group.subject, template)
    return Photo(
        path=file,
        name=name,
        sha256=opened.sha256,
        size=opened.image.size,
        caption=text,
        caption_source=source,
        repeats=group.repeats if repeats is None or group.role == "class" else repeats,
        role=group.role,
        subject=group.subject,
        has_alpha=opened.alpha is not None,
        notes=notes,
    )


def _require_photos(dataset: Dataset, role: Role, folder: Path) -> None:
    if dataset.of(role):
        return
    bad = dataset.left_out
    shown = " ".join(problem.message for problem in bad[:3]) + (f" And {len(bad) - 3} more." if len(bad) > 3 else "")
    what = "regularization picture" if role == "class" else "photo"
    raise MaquetteError(f"No readable {what} in {folder}. {shown} {A_PHOTO_FOLDER}".replace("  ", " "))


def require_trainable(dataset: Dataset) -> None:
    """Raise MaquetteError when the data set must not be trained on as it is.

    That is: a caption cannot be read or is missing, or (after `plan`) no instance photo is large enough.
    """
    if not dataset.of("instance"):
        messages = " ".join(problem.message for problem in dataset.left_out[:3])
        raise MaquetteError(f"No photo in {dataset.folder} is large enough to train on. {messages}")
    blocking = [problem.message for problem in dataset.problems if problem.blocking]
    if blocking:
        more = f" And {len(blocking) - 3} more such problems." if len(blocking) > 3 else ""
        raise MaquetteError(" ".join(blocking[:3]) + more)
    bare = [photo.name for photo in dataset.photos if not photo.caption]
    if bare:
        some = ", ".join(bare[:3]) + (f" and {len(bare) - 3} more" if len(bare) > 3 else "")
        raise MaquetteError(
            f"No caption for {some}: name the subject (--subject 'ohwx man') or write {Path(bare[0]).stem}.txt."
        )
