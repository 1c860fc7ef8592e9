"""How photos lie in folders: a plain folder, Kohya's `40_ohwx man` folders, a metadata file, or a data set file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from .caption_options import CaptionOptions
from .captions import TEMPLATE, class_of
from .dataset import Dataset, Problem, Role
from .groups import MASK_FOLDERS, Group, Look, Reading, read_groups
from .guess import nearly_kohya, what_is_there
from .images import is_photo, walk
from .kohya_toml import read_dataset_file
from .metadata import SUFFIXES as METADATA_SUFFIXES
from .metadata import Metadata, find_metadata, read_metadata

A_PHOTO_FOLDER = (
    "A photo folder holds 5 to 50 photos (jpg, png, webp, bmp, heic or avif), each with or without a text "
    "file of the same name as its caption (IMG_1.jpg, IMG_1.txt); Kohya's '40_ohwx man' folders are understood too."
)
_KOHYA_NAME = re.compile(r"^(\d{1,3})_(.*\S)\s*$")  # at most 3 digits, so that '2024_holiday' is a plain folder


@dataclass
class _Found:
    """What lies in the folder that the user named."""

    root: Path
    layout: Any  # of Dataset
    groups: list[Group]
    problems: list[Problem] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


def read_folder(
    folder: str | Path,
    subject: str | None = None,
    *,
    reg: str | Path | None = None,
    repeats: int | None = None,
    template: str = TEMPLATE,
    options: CaptionOptions | None = None,
    alpha_mask: bool = False,
    look: Look | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read and decode every photo below `folder`, with captions, repeats and roles; no buckets yet (`dataset.plan`).

    folder: photos, or a metadata file (.json, .jsonl, .csv), or a Kohya data set file (.toml). subject: makes the
    captions of photos that have none. reg: folder of regularization pictures. repeats: how often each instance photo
    counts in an epoch, instead of 1 or what the layout says. options: how captions vary, unless a data set file says
    so. alpha_mask: the loss counts where photos are not transparent. look: sees every decoded photo. progress: called
    with (done, all). Files that cannot be used are in `.problems`.
    Raises MaquetteError when there is no folder or no readable photo. `require_trainable` refuses the rest.
    """
    found = _find(Path(folder).expanduser(), subject)
    if options is not None and found.layout != "toml":
        found.groups = [replace(group, options=options) for group in found.groups]
    if alpha_mask:
        found.groups = [replace(group, alpha_mask=True) for group in found.groups]
    if reg is None and found.layout == "kohya":
        reg = _reg_beside(found.root)
    if reg is not None:
        named = next((group.subject for group in found.groups if group.subject), subject or "")
        found.groups += _class_groups(_existing_folder(Path(reg).expanduser()), named, found.problems)
    photos, problems = read_groups(found.groups, Reading(repeats, template, look, progress))
    dataset = Dataset(found.root, found.layout, photos, found.problems + problems, settings=found.settings)
    _require_photos(dataset, "instance", found.root)
    if any(group.role == "class" for group in found.groups):
        _require_photos(dataset, "class", Path(reg) if reg else found.root)
    return dataset


def _find(path: Path, subject: str | None) -> _Found:
    if path.is_file() and path.suffix.lower() == ".toml":
        asked = read_dataset_file(path, subject)
        return _Found(path.parent, "toml", asked.groups, [], asked.settings)
    if path.is_file() and path.suffix.lower() in METADATA_SUFFIXES:
        return _Found(path.parent, "plain", [_plain(path.parent, subject or "", metadata=read_metadata(path))])
    return _find_in_folder(_existing_folder(path), subject)


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
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _has_photos(folder: Path) -> bool:
    return any(is_photo(file) for file in walk(folder))


def _plain(folder: Path, subject: str, repeats: int = 1, role: Role = "instance", **more: Any) -> Group:
    """All photos below a folder. A sub-folder called `masks` holds masks, when there are photos outside it."""
    files = list(walk(folder))
    masks = _child(folder, *MASK_FOLDERS)
    if masks is not None:
        inside = [file for file in files if file.is_relative_to(masks)]
        outside = [file for file in files if not file.is_relative_to(masks)]
        if any(is_photo(file) for file in outside):
            return Group(folder, outside, subject, repeats, role, masks=[m for m in inside if is_photo(m)], **more)
    return Group(folder, files, subject, repeats, role, **more)


def _kohya_folders(path: Path) -> list[tuple[Path, int, str]]:
    """Direct sub-folders called `<repeats>_<subject>` that hold a photo."""
    matches = [(sub, _KOHYA_NAME.match(sub.name)) for sub in _folders(path)]
    return [(sub, int(match[1]), match[2]) for sub, match in matches if match and _has_photos(sub)]


def _child(path: Path, *names: str) -> Path | None:
    return next((sub for sub in _folders(path) if sub.name.lower() in names), None)


def _prepared(root: Path) -> Path | None:
    """The `img` folder of a kohya_ss project folder (img, reg, log, model), when that is what the user named."""
    image_folder = _child(root, "img", "image", "images")
    return image_folder if image_folder and _kohya_folders(image_folder) else None


def _reg_beside(root: Path) -> Path | None:
    """The `reg` folder of such a project, when it holds pictures."""
    reg = _child(root, "reg") if _prepared(root) else None
    return reg if reg and _has_photos(reg) else None


def _find_in_folder(root: Path, subject: str | None) -> _Found:
    """The instance photos of a folder, and what is passed over."""
    leaf = _KOHYA_NAME.match(root.resolve().name)
    source = _prepared(root) or root
    named = _kohya_folders(source)
    if not named:
        if leaf and subject is None and int(leaf[1]) > 0:
            return _Found(root, "kohya", [_plain(root, leaf[2], int(leaf[1]))])
        file = find_metadata(root)
        metadata: Metadata | None = read_metadata(file) if file else None
        near = nearly_kohya(sub for sub in _folders(root) if _has_photos(sub))
        return _Found(root, "plain", [_plain(root, subject or "", metadata=metadata)], list(near))
    problems: list[Problem] = []
    if subject is not None and len({words for _, _, words in named}) > 1:
        names = ", ".join(f"'{sub.name}'" for sub, _, _ in named)
        message = f"The subject '{subject}' is not used: the folders {names} name their own subjects."
        problems.append(Problem("subject", "", message))
        subject = None
    for sub, count, _ in named:
        if count == 0:
            message = f"The folder '{sub.name}' asks for 0 repeats and is left out."
            problems.append(Problem("folder", sub.name, message, left_out=True))
    groups = [replace(_plain(sub, subject or words, count), root=source) for sub, count, words in named if count > 0]
    problems += _passed_over(source, {sub for sub, _, _ in named})
    return _Found(root, "kohya", groups, problems)


def _passed_over(source: Path, used: set[Path]) -> Iterable[Problem]:
    """Photos that lie beside Kohya folders, where other trainers lose them in silence."""
    for file in sorted(source.iterdir()):
        if file.is_file() and is_photo(file):
            message = f"{file.name} lies beside the '40_ohwx man' folders, not inside one, and is left out."
            yield Problem("folder", file.name, message, left_out=True)
    for sub in _folders(source):
        if sub not in used and sub.name.lower() != "reg" and _has_photos(sub):
            message = f"The folder '{sub.name}' is left out: its name lacks repeats; rename it to '40_{sub.name}'."
            yield Problem("folder", sub.name, message, left_out=True)


def _class_groups(reg: Path, subject: str, problems: list[Problem]) -> list[Group]:
    """The regularization pictures: Kohya folders (`1_man`), one such folder itself, or a plain folder."""
    source = _child(reg, "reg") if not _kohya_folders(reg) and _child(reg, "reg") else reg
    assert source is not None
    named = _kohya_folders(source)
    leaf = _KOHYA_NAME.match(source.resolve().name)
    if named:
        problems += _passed_over(source, {sub for sub, _, _ in named})
        return [replace(_plain(sub, words, max(1, count), "class"), root=source) for sub, count, words in named]
    if leaf:
        return [_plain(source, leaf[2], max(1, int(leaf[1])), "class")]
    file = find_metadata(source)
    return [_plain(source, class_of(subject), role="class", metadata=read_metadata(file) if file else None)]


def _require_photos(dataset: Dataset, role: Role, folder: Path) -> None:
    if dataset.of(role):
        return
    bad = dataset.left_out
    shown = " ".join(problem.message for problem in bad[:3]) + (f" And {len(bad) - 3} more." if len(bad) > 3 else "")
    what = "regularization picture" if role == "class" else "photo"
    there = "" if bad else what_is_there(folder)
    raise MaquetteError(f"No readable {what} in {folder}. {shown}{there} {A_PHOTO_FOLDER}".replace("  ", " "))


def require_trainable(dataset: Dataset) -> None:
    """Raise MaquetteError when the data set must not be trained on as it is.

    That is: it has blocking problems, or (after `plan`) no instance photo is large enough.
    """
    if not dataset.of("instance"):
        messages = " ".join(problem.message for problem in dataset.left_out[:3])
        raise MaquetteError(f"No photo in {dataset.folder} is large enough to train on. {messages}")
    blocking = [problem.message for problem in dataset.problems if problem.blocking]
    if blocking:
        more = f" And {len(blocking) - 3} more such problems." if len(blocking) > 3 else ""
        raise MaquetteError(" ".join(blocking[:3]) + more)
