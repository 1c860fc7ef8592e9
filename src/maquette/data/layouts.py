"""How photos lie in folders: a plain folder, Kohya's `40_ohwx man` folders, a metadata file, or a data set file."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..config.photos import TEMPLATE
from ..errors import MaquetteError
from ..files import at_home
from ..shown import is_unicode, visible
from .caption_options import CaptionOptions
from .captions import class_of
from .dataset import Dataset, Problem, Role
from .groups import MASK_FOLDERS, Group, Look, read_groups
from .guess import below, nearly_kohya, ordinary, passed_over, what_is_there
from .images import directly_in, is_hidden, is_photo, walk
from .kohya_names import agrees, kohya_name
from .kohya_toml import read_dataset_file
from .leftovers import unread_metadata
from .metadata import SUFFIXES as METADATA_SUFFIXES
from .metadata import Metadata, find_metadata, read_metadata

A_PHOTO_FOLDER = (
    "A photo folder holds 5 to 50 photos (jpg, png, webp, bmp, heic or avif), each with or without a text "
    "file of the same name as its caption (IMG_1.jpg, IMG_1.txt); Kohya's '40_ohwx man' folders are understood too."
)
MOST_SAMPLES = 10_000_000  # photos x repeats of an epoch


@dataclass
class _Found:
    """What lies in the folder that the user named."""

    root: Path
    layout: Any  # of Dataset
    groups: list[Group]
    problems: list[Problem] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    reg: Path | None = None  # regularization images that lie there too


def read_folder(
    folder: str | Path,
    subject: str | None = None,
    *,
    reg: str | Path | None = None,
    repeats: int | None = None,
    template: str = TEMPLATE,
    options: CaptionOptions | None = None,
    alpha_mask: bool = False,
    keep_lines: bool = False,
    extension: str | None = None,
    look: Look | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read and decode every photo below `folder`, with captions, repeats and roles; no buckets yet (`buckets.plan`).

    folder: photos, or a metadata file (.json, .jsonl, .csv), or a Kohya data set file (.toml). subject: makes the
    captions of photos that have none. reg: folder of regularization images. repeats: how often each instance photo
    counts in an epoch, instead of 1 or what the layout says. options: how captions vary, unless a data set file says
    so. alpha_mask: the loss counts where photos are not transparent. keep_lines: captions of several lines keep them.
    extension: ending of the caption files that are read, unless a data set file says so. look: sees every decoded
    photo. progress: called with (done, all). Files that cannot be used are in `.problems`.
    Raises MaquetteError when there is no folder or no readable photo. `doctor.require_trainable` refuses the rest.
    """
    found = _found(folder, subject, reg)
    wanted: dict[str, Any] = {"template": template}
    if alpha_mask:
        wanted["alpha_mask"] = True
    if keep_lines:
        wanted["lines"] = "kept"
    if options is not None and found.layout != "toml":
        wanted["options"] = options
    if extension and found.layout != "toml":
        wanted["extensions"] = [extension if extension.startswith(".") else f".{extension}"]
    counted = wanted if repeats is None else wanted | {"repeats": repeats}
    groups = [replace(group, **(wanted if group.role == "class" else counted)) for group in found.groups]
    photos, problems = read_groups(groups, look, progress)
    told = [
        p if is_unicode(p.photo + p.message) else replace(p, photo=visible(p.photo), message=visible(p.message))
        for p in found.problems + problems
    ]
    dataset = Dataset(found.root, found.layout, photos, told, settings=found.settings)
    _require_photos(dataset, "instance", found.root)
    if found.reg is not None or any(group.role == "class" for group in groups):
        _require_photos(dataset, "class", found.reg or found.root)
    _refuse_endless(dataset)
    return dataset


def groups_in(folder: str | Path, subject: str | None = None, reg: str | Path | None = None) -> list[Group]:
    """The files that `read_folder` would read, in groups of one subject, repeats and role; nothing is decoded."""
    return _found(folder, subject, reg).groups


def _found(folder: str | Path, subject: str | None, reg: str | Path | None) -> _Found:
    """What lies in the folder, with the regularization images that are named or lie there too."""
    path = at_home(folder)
    if path.is_file() and path.suffix.lower() == ".toml":
        told = read_dataset_file(path, subject)
        found = _Found(path.parent, "toml", told.groups, told.problems, told.settings)
    elif path.is_file() and path.suffix.lower() in METADATA_SUFFIXES:
        groups = [_plain(path.parent, subject or "", metadata=read_metadata(path))]
        found = _Found(path.parent, "plain", groups, reg=_reg_beside(path.parent))
    else:
        found = _find_in_folder(_existing_folder(path), subject)
    wanted = found.reg if reg is None else reg
    if wanted is not None:
        found.reg = _existing_folder(at_home(wanted))
        found.groups = [_without(group, found.reg) for group in found.groups]
        named = next((group.subject for group in found.groups if group.subject), subject or "")
        found.groups += _class_groups(found.reg, named, found.problems)
    return found


def _refuse_endless(dataset: Dataset) -> None:
    """Raise MaquetteError for repeats that no run gets through and no memory holds."""
    for photo in dataset.photos:
        if dataset.samples(photo.role) > MOST_SAMPLES:
            most = max(dataset.of(photo.role), key=lambda p: p.repeats)
            raise MaquetteError(
                f"Photos x repeats are {dataset.samples(photo.role)} samples per epoch, more than anyone trains "
                f"({MOST_SAMPLES:,} at most): {most.name} has {most.repeats} repeats; give fewer, and more epochs."
            )


def _existing_folder(path: Path) -> Path:
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
    return sorted(p for p in path.iterdir() if p.is_dir() and not is_hidden(p.name))


def _has_photos(folder: Path) -> bool:
    return any(is_photo(file) for file in walk(folder))


def _plain(folder: Path, subject: str, repeats: int = 1, role: Role = "instance", **more: Any) -> Group:
    """All photos below a folder. A sub-folder called `masks` holds masks, when there are photos outside it."""
    files, masks = list(walk(folder)), _child(folder, *MASK_FOLDERS)
    if masks is not None:
        outside = [file for file in files if not file.is_relative_to(masks)]
        if any(is_photo(file) for file in outside):
            inside = [file for file in files if file.is_relative_to(masks) and is_photo(file)]
            return Group(folder, outside, subject, repeats, role, masks=inside, mask_root=masks, **more)
    return Group(folder, files, subject, repeats, role, **more)


def _flat(folder: Path, subject: str, repeats: int, role: Role, problems: list[Problem]) -> Group:
    """A Kohya folder: as sd-scripts reads it, without what lies in sub-folders, which are named, masks excepted."""
    masks = _child(folder, *MASK_FOLDERS)
    inside = [file for file in walk(masks) if is_photo(file)] if masks else []
    problems += below(folder, masks)
    files = list(directly_in(folder))
    return Group(folder.parent, files, subject, repeats, role, masks=inside, mask_root=masks, lines="first")


def _without(group: Group, folder: Path) -> Group:
    """The group without what lies in the folder of regularization images."""
    inside = [file for file in group.files if file.is_relative_to(folder)]
    if not inside or len(inside) == len(group.files):
        return group
    return replace(group, files=[file for file in group.files if not file.is_relative_to(folder)])


def _numbered(path: Path, subject: str | None = None) -> list[tuple[Path, int, str]]:
    """Direct sub-folders called `<repeats>_<subject>` that hold a photo."""
    matches = [(sub, kohya_name(sub.name, subject)) for sub in _folders(path)]
    return [(sub, *match) for sub, match in matches if match and _has_photos(sub)]


def _child(path: Path, *names: str) -> Path | None:
    return next((sub for sub in _folders(path) if sub.name.lower() in names), None)


def _prepared(root: Path) -> Path | None:
    """The `img` folder of a kohya_ss project folder (img, reg, log, model), when that is what the user named."""
    image_folder = _child(root, "img", "image", "images")
    return image_folder if image_folder and _numbered(image_folder) else None


def _reg_beside(root: Path) -> Path | None:
    """The `reg` folder of such a project or beside other photos, when it holds pictures."""
    reg = _child(root, "reg")
    if reg is None or not _has_photos(reg):
        return None
    return reg if any(is_photo(file) and not file.is_relative_to(reg) for file in walk(root)) else None


def _find_in_folder(root: Path, subject: str | None) -> _Found:
    """The instance photos of a folder, and what is passed over."""
    leaf = kohya_name(root.resolve().name, subject)
    source = _prepared(root) or root
    named = _numbered(source, subject)
    believed = [entry for entry in named if subject is None or agrees(entry[2], subject)]
    if believed:
        return _kohya(root, source, named, subject)
    reg = _reg_beside(root)
    if not named and leaf and leaf[0] > 0 and (subject is None or agrees(leaf[1], subject)):
        problems: list[Problem] = []
        group = replace(_flat(root, subject or leaf[1], leaf[0], "instance", problems), root=root)
        return _Found(root, "kohya", [group], problems)
    file = find_metadata(source)
    metadata: Metadata | None = read_metadata(file) if file else None
    near = [
        *ordinary([sub.name for sub, _, _ in named], subject or ""),
        *nearly_kohya([sub for sub in _folders(root) if _has_photos(sub)], subject),
    ]
    return _Found(root, "plain", [_plain(source, subject or "", metadata=metadata)], near, reg=reg)


def _kohya(root: Path, source: Path, named: list[tuple[Path, int, str]], subject: str | None) -> _Found:
    """Kohya's folders; where they name several subjects, each has its own."""
    problems: list[Problem] = []
    if subject is not None and len({words for _, _, words in named}) > 1:
        names = ", ".join(f"'{sub.name}'" for sub, _, words in named if words != subject)
        message = f"The subject '{subject}' is not that of all photos: the folders {names} name their own."
        problems.append(Problem("subject", "", message))
        subject = None
    groups: list[Group] = []
    for sub, count, words in named:
        if count < 1:
            problems.append(_no_repeats(sub, count))
        else:
            groups.append(_flat(sub, subject or words, count, "instance", problems))
    problems += passed_over(source, {sub for sub, _, _ in named}, _folders(source))
    problems += unread_metadata(directly_in(source), lambda file: file.name)
    return _Found(root, "kohya", groups, problems, reg=_reg_beside(root))


def _no_repeats(folder: Path, count: int) -> Problem:
    message = f"The folder '{folder.name}' asks for {count} repeats and is left out."
    return Problem("folder", folder.name, message, left_out=True)


def _class_groups(reg: Path, subject: str, problems: list[Problem]) -> list[Group]:
    """The regularization images: Kohya folders (`1_man`), one such folder itself, or a plain folder."""
    source = _child(reg, "reg") if not _numbered(reg) and _child(reg, "reg") else reg
    assert source is not None
    named = _numbered(source)
    leaf = kohya_name(source.resolve().name)
    if named:
        problems += passed_over(source, {sub for sub, _, _ in named}, _folders(source))
        problems += [_no_repeats(sub, count) for sub, count, _ in named if count < 1]
        return [_flat(sub, words, count, "class", problems) for sub, count, words in named if count > 0]
    if leaf:
        return [replace(_flat(source, leaf[1], max(1, leaf[0]), "class", problems), root=source)]
    file = find_metadata(source)
    return [_plain(source, class_of(subject), role="class", metadata=read_metadata(file) if file else None)]


def _require_photos(dataset: Dataset, role: Role, folder: Path) -> None:
    if dataset.of(role):
        return
    bad = dataset.left_out
    shown = " ".join(problem.message for problem in bad[:3]) + (f" And {len(bad) - 3} more." if len(bad) > 3 else "")
    what = "regularization image" if role == "class" else "photo"
    if any(problem.kind == "bad_caption" for problem in bad):  # the pictures themselves are good
        raise MaquetteError(f"No {what} in {folder} can be used. {shown}")
    there = "" if bad else what_is_there(folder)
    raise MaquetteError(f"No readable {what} in {folder}. {shown}{there} {A_PHOTO_FOLDER}".replace("  ", " "))
