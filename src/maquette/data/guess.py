"""What a folder without photos holds, and what it was probably meant to be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from .captions import CAPTION_EXTENSIONS
from .dataset import Problem
from .images import OTHER_PICTURES, is_photo, walk

_MOST_KINDS = 5
_NEARLY_KOHYA = re.compile(r"^(\d{1,3})(?: +|-|x |X |× ?| ?x_)(\D.*\S)\s*$")  # "40 ohwx man", "40-ohwx man", "40x ohwx"
_REMEDIES: tuple[tuple[frozenset[str], str], ...] = (  # the most telling kinds first
    (frozenset({".toml"}), "If {} is a data set file, name it instead of the folder."),
    (OTHER_PICTURES, "Pictures such as {} are not read: save them as PNG or JPEG."),
    (frozenset({".zip", ".7z", ".rar", ".tar", ".gz"}), "If the photos are in {}, unpack it."),
    (frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm"}), "{} is a video: save still pictures of it."),
    (
        frozenset({".safetensors", ".ckpt", ".pt", ".bin"}),
        "{} looks like a model: that is for --base; the photos come first.",
    ),
    (frozenset({".json", ".jsonl", ".csv"}), "If {} lists the photos, they must lie where it says."),
    (frozenset(CAPTION_EXTENSIONS), "Texts such as {} are captions: the photos of the same names are missing."),
)


def what_is_there(folder: Path) -> str:
    """One or two sentences on a folder in which no photo was found: what it holds, and the remedy where one is near."""
    files = list(walk(folder))
    empty = [sub.name for sub in sorted(folder.iterdir()) if sub.is_dir() and not any(walk(sub))]
    if not files:
        return f"Its folder '{empty[0]}' is empty." if empty else "It is empty."
    kinds = Counter(file.suffix.lower() or "(no extension)" for file in files)
    shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_MOST_KINDS))
    more = ", …" if len(kinds) > _MOST_KINDS else ""
    remedy = _remedy(files)
    return f"It holds {shown}{more}." + (f" {remedy}" if remedy else "")


def _remedy(files: Iterable[Path]) -> str:
    """What to do, by the most telling file."""
    by_kind: dict[str, Path] = {}
    for file in files:
        by_kind.setdefault(file.suffix.lower(), file)

    if any(is_photo(file) for file in by_kind.values()):
        return ""  # photos that cannot be used: each is named by itself
    for kinds, sentence in _REMEDIES:
        if kind := next((kind for kind in sorted(kinds) if kind in by_kind), None):
            return sentence.format(by_kind[kind].name)
    return ""


def nearly_kohya(folders: Iterable[Path]) -> Iterable[Problem]:
    """Folders whose name is almost Kohya's '40_ohwx man': their repeats and subject are not understood."""
    for folder in folders:
        if match := _NEARLY_KOHYA.match(folder.name):
            message = (
                f"The folder '{folder.name}' is read without repeats and subject; "
                f"if they are meant, rename it to '{match[1]}_{match[2]}'."
            )
            yield Problem("folder", folder.name, message)
