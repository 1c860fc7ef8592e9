"""What lies beside photos and is not read as a person may expect: named, so that nothing is lost in silence."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import MaquetteError
from ..files import open_regular
from ..formats import pictures
from .captions import CAPTION_EXTENSIONS, CaptionText, read_caption, same_name
from .dataset import Photo, Problem
from .images import OTHER_PICTURES, is_photo, read_photo
from .metadata import Metadata, is_metadata

_MOST_NAMED = 5  # names in a problem about many files
_SHOWN = 60  # characters of a caption in a sentence
# What cameras, editors, trainers and operating systems write beside pictures.
_SIDECARS = frozenset(
    {".json", ".jsonl", ".csv", ".npz", ".npy", ".xmp", ".aae", ".ini", ".db", ".xml", ".yaml", ".yml", ".toml", ".bak"}
    | {".safetensors", ".pt", ".html", ".log", ".lnk", ".url", ".py", ".sh", ".bat"}
)
Key = TypeVar("Key", bound=Hashable)


def not_used(files: Sequence[Path], extensions: Sequence[str], name: Callable[[Path], str]) -> Iterable[Problem]:
    """Pictures of kinds that are not read, captions whose photo is missing, and captions that another one hides."""
    photos = [file for file in files if is_photo(file)]
    bases = {same_name(str(path)) for file in photos for path in (file, file.with_suffix(""))}
    wanted = [extension.lower() for extension in extensions]
    captions: dict[str, list[Path]] = {}
    others: dict[str, list[Path]] = {}
    nameless: list[Path] = []
    for file in files:
        suffix, base = file.suffix.lower(), same_name(str(file.with_suffix("")))
        if suffix in OTHER_PICTURES:
            yield Problem("not_a_photo", name(file), _why_not(file, name(file)), left_out=True)
        elif suffix in wanted and base in bases:
            captions.setdefault(base, []).append(file)
        elif suffix in (*wanted, *CAPTION_EXTENSIONS) and base not in bases:
            yield Problem("caption", name(file), f"{name(file)} is not used: there is no photo of that name.")
        elif base in bases and not is_photo(file) and suffix not in _SIDECARS:
            others.setdefault(suffix, []).append(file)
        elif not is_photo(file) and suffix not in _SIDECARS and _begins_as_a_photo(file):
            nameless.append(file)
    if nameless:
        message = (
            f"{_of(nameless, 'picture', name)} not read: names of photos end in .jpg, .png and so on; rename them."
        )
        yield Problem("not_a_photo", name(nameless[0]), message)
    hidden = [max(found, key=lambda f: wanted.index(f.suffix.lower())) for found in captions.values() if len(found) > 1]
    if hidden:
        message = f"{_of(hidden, 'caption', name)} not read: a photo's {wanted[0]} file comes first."
        yield Problem("caption", "", message)
    for suffix, found in sorted(others.items()):
        if _is_text(found[0]):
            read = " and ".join(wanted)
            message = f"{_of(found, f'{suffix} text', name)} not read: captions are {read} files here; rename them."
            yield Problem("caption", "", message)


def unread_metadata(files: Iterable[Path], name: Callable[[Path], str]) -> Iterable[Problem]:
    """Metadata files that lie where none is looked for: in Kohya's folders, beside them, and in sub-folders."""
    for file in files:
        if is_metadata(file):
            message = f"{name(file)} is not read, nor the captions in it: name it instead of the folder to learn them."
            yield Problem("caption", name(file), message)


def _of(files: Sequence[Path], what: str, name: Callable[[Path], str]) -> str:
    if len(files) == 1:
        return f"1 {what} ({name(files[0])}) is"
    return f"{len(files)} {what}s (the first {name(files[0])}) are"


def _is_text(file: Path) -> bool:
    try:
        return bool(read_caption(file).lines)
    except MaquetteError:  # pictures, sounds, what no one takes for a caption
        return False


def _begins_as_a_photo(file: Path) -> bool:
    """By its first bytes; those of a BMP are too few to tell."""
    try:
        with open_regular(file) as opened:
            kind = pictures.kind_of(opened.read(16))
    except (MaquetteError, OSError):  # pipes, files that may not be read: nobody's photos
        return False
    return kind in pictures.FORMATS and kind != "BMP"


def _why_not(file: Path, name: str) -> str:
    if file.suffix.lower() == ".gif":
        try:
            read_photo(file, name)
        except MaquetteError as error:  # animated, empty, damaged: say which
            return str(error)
    return f"{name} is not used: {file.suffix} files are not read; save it as PNG or JPEG."


def sharing(photos: Sequence[Photo]) -> Iterable[Problem]:
    """Different photos with one caption file, metadata entry or mask between them."""
    written = {photo.path: photo for photo in photos}.values()  # one used at several resolutions shares nothing
    captions = _groups((p.caption_file, p) for p in written if p.caption_file)
    for file, found in captions:
        names = _names(found)
        message = (
            f"{names} share the caption {file.name}; name the captions after the whole file names "
            f"({found[0].path.name}.txt), or rename one of the photos."
        )
        yield Problem("shared", found[1].name, message)
    masks = _groups((p.mask, p) for p in written if isinstance(p.mask, Path))
    for mask, found in masks:
        message = (
            f"{_names(found)} share the mask {mask.name}; name the masks after the whole file names "
            f"({found[0].path.name}.png), or rename one of the photos."
        )
        yield Problem("shared", found[1].name, message)


def _groups(pairs: Iterable[tuple[Key, Photo]]) -> Iterable[tuple[Key, list[Photo]]]:
    groups: dict[Key, list[Photo]] = {}
    for key, photo in pairs:
        groups.setdefault(key, []).append(photo)
    return [(key, found) for key, found in groups.items() if len(found) > 1]


def _names(photos: Sequence[Photo]) -> str:
    names = [photo.name for photo in photos]
    if len(names) > _MOST_NAMED:
        return ", ".join(names[:_MOST_NAMED]) + f" and {len(names) - _MOST_NAMED} more"
    return ", ".join(names[:-1]) + f" and {names[-1]}"


def caption_problems(read: Sequence[tuple[Photo, CaptionText, str]]) -> Iterable[Problem]:
    """Caption files in an old encoding, and those whose several lines are not read as such."""
    for photo, text, _ in read:
        if text.fallback and photo.caption_file:
            shown = text.joined if len(text.joined) <= _SHOWN else text.joined[:_SHOWN] + " …"
            message = (
                f"The caption {photo.caption_file.name} is not UTF-8 and was read as {text.fallback}: '{shown}'; "
                "save it as UTF-8 if that is wrong."
            )
            yield Problem("encoding", photo.name, message)
    for how, remedy in (
        ("joined", "are read as one caption"),
        ("first", "are read to the end of their first line, as Kohya's trainer does"),
    ):
        several = [p for p, text, rule in read if len(text.lines) > 1 and rule == how and not p.options.wildcards]
        if several:
            who = f"{len(several)} captions of several lines (the first {several[0].caption_source})"
            message = f"{who} {remedy}; with caption_wildcards (enable_wildcard) each line is a caption of its own."
            yield Problem("lines", "", message)


def unused_entries(metadata: Metadata, made_up: bool) -> Iterable[Problem]:
    """Entries of a metadata file that no photo has asked for, and entries that several have.

    made_up: some photos have no caption of their own; then a file that fits none of them is a fault.
    """
    for key, names in sorted(metadata.shared().items()):
        shown = ", ".join(names[:_MOST_NAMED])
        message = f"{shown} share the entry '{key}' of {metadata.file.name}; write file names with their extensions."
        yield Problem("shared", names[1], message)
    unused = metadata.unused()
    if not unused:
        return
    some = ", ".join(unused[:_MOST_NAMED]) + (" …" if len(unused) > _MOST_NAMED else "")
    number = "1 entry" if len(unused) == 1 else f"{len(unused)} entries"
    if made_up and not metadata.used:
        message = (
            f"{metadata.file.name} has {number} and none is of a photo here ({some}): correct its paths, or take the "
            "file out of the folder."
        )
        yield Problem("caption", metadata.file.name, message, blocking=True)
    else:
        yield Problem("caption", metadata.file.name, f"{metadata.file.name} has {number} without a photo: {some}.")
