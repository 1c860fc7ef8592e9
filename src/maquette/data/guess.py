"""What a folder without photos holds, and what it was probably meant to be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from .captions import CAPTION_EXTENSIONS
from .dataset import Problem
from .images import OTHER_PICTURES, is_hidden, is_photo, walk
from .kohya_names import looks_numbered

_MOST_KINDS = 5
_MOST_SEARCHED = 10_000  # files of a sub-folder that is not read, in which photos are looked for
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


def nearly_kohya(folders: Iterable[Path], subject: str | None) -> Iterable[Problem]:
    """Folders whose name is almost Kohya's '40_ohwx man': their repeats and subject are not understood.

    Without a subject that the user named, also those whose number is taken for a year's or a camera's.
    """
    for folder in folders:
        if re.fullmatch(r"\d{1,3}", folder.name):
            message = (
                f"The folder '{folder.name}' is read without repeats; if they are meant, rename it to "
                f"'{folder.name}_{subject or 'ohwx man'}', the subject behind them."
            )
            yield Problem("folder", folder.name, message)
        elif match := _NEARLY_KOHYA.match(folder.name):
            message = (
                f"The folder '{folder.name}' is read without repeats and subject; "
                f"if they are meant, rename it to '{match[1]}_{match[2]}'."
            )
            yield Problem("folder", folder.name, message)
        elif subject is None and looks_numbered(folder.name):
            message = (
                f"The folder '{folder.name}' is read without repeats and subject, for its number looks like a year's "
                "or a camera's; if they are meant, name the subject too (--subject)."
            )
            yield Problem("folder", folder.name, message)


def ordinary(names: Sequence[str], subject: str) -> Iterable[Problem]:
    """Numbered folders that do not speak of the subject that the user named."""
    if names:
        shown = ", ".join(f"'{name}'" for name in names[:_MOST_KINDS]) + (" …" if len(names) > _MOST_KINDS else "")
        if len(names) == 1:
            what = f"the folder {shown} is an ordinary one, without repeats: its name says something else"
        else:
            what = f"the folders {shown} are ordinary ones, without repeats: their names say something else"
        remedy = f"If Kohya's repeats are meant, call it '40_{subject}' or leave out --subject."
        message = f"For the subject '{subject}' {what}. {remedy}"
        yield Problem("folder", "", message)


def passed_over(source: Path, used: set[Path], folders: Iterable[Path]) -> Iterable[Problem]:
    """Photos that lie beside Kohya folders, where other trainers lose them in silence."""
    for file in sorted(source.iterdir()):
        if file.is_file() and is_photo(file):
            message = f"{file.name} lies beside the '40_ohwx man' folders, not inside one, and is left out."
            yield Problem("folder", file.name, message, left_out=True)
    for sub in folders:
        if sub in used or sub.name.lower() == "reg" or not any(is_photo(file) for file in walk(sub)):
            continue
        if looks_numbered(sub.name):
            why = "its number looks like a year's or a camera's; put its photos into a folder with repeats"
        elif sub.name.isdecimal():
            why = f"its name lacks the subject; rename it to '{sub.name}_ohwx man'"
        else:
            why = f"its name lacks repeats; rename it to '40_{sub.name}'"
        message = f"The folder '{sub.name}' is left out: {why}."
        yield Problem("folder", sub.name, message, left_out=True)


def below(folder: Path, masks: Path | None) -> Iterable[Problem]:
    """Sub-folders with photos of a folder that Kohya's trainer does not search below."""
    for sub in sorted(
        path for path in folder.iterdir() if path.is_dir() and path != masks and not is_hidden(path.name)
    ):
        name, count = sub.name, sum(is_photo(file) for file in islice(walk(sub), _MOST_SEARCHED))
        if not count:
            continue
        number = "1 photo" if count == 1 else f"{count} photos"
        message = (
            f"{number} in '{folder.name}/{name}' left out: Kohya's folders and data set files are not searched below, "
            "there as here; move them up."
        )
        yield Problem("folder", f"{folder.name}/{name}", message, left_out=True)
