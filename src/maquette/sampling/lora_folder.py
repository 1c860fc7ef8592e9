"""LoRA files by the name that a prompt gives: the file's stem, or the name written inside it, as A1111 finds them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from ..adapters import peft_folder
from ..errors import MaquetteError
from ..files import open_regular
from ..formats import safetensors

DEFAULT_FOLDER = Path("runs")
SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin")  # in small or capital letters
MOST_NAMED = 12  # in a message; those in subfolders, which have their own names too, are left out


def find_loras(names: Sequence[str], folder: Path | None) -> dict[str, Path]:
    """Name -> file, or PEFT's folder. folder: searched with its subfolders, linked ones too; a file stands for itself.
    None: `runs`.

    Raises MaquetteError, listing the names there, for one that is not found, and for one that two different files have.
    """
    if not names:
        return {}
    by_stem = lora_files(folder)
    return {name: _find(name, DEFAULT_FOLDER if folder is None else folder, by_stem) for name in names}


def known_lora(name: str, known: Mapping[str, Path]) -> dict[str, Path]:
    """One of the LoRAs that a caller has named. Raises MaquetteError, listing the names, for another."""
    if name in known:
        return {name: known[name]}
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise MaquetteError(f"There is no LoRA {name!r}; there are {some(known)}.{hint}")


def some(names: Iterable[str]) -> str:
    """Names for a message, the first MOST_NAMED of them."""
    there = sorted(names)
    there = [name for name in there if "/" not in name] or there
    more = f" and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else ""
    return ", ".join(there[:MOST_NAMED]) + more or "none"


def lora_files(folder: Path | None) -> dict[str, list[Path]]:
    """The files below a folder, as above, by the names of prompts. Raises MaquetteError where there is no folder."""
    place = DEFAULT_FOLDER if folder is None else folder
    if not place.exists():
        raise MaquetteError(f"The folder of LoRAs {place} does not exist; give the right one with --lora-dir.")
    by_stem: dict[str, list[Path]] = {}
    for file in [place] if place.is_file() else sorted(_files(place)):
        by_stem.setdefault(file.name if file.is_dir() else file.stem, []).append(file)
    return by_stem


def _files(place: Path) -> Iterator[Path]:
    """LoRA files and PEFT folders below a folder. Each folder is entered once, however many links lead to it or round
    in a circle; hidden ones and a run's state are left out.
    """
    if peft_folder.parts_of(place):
        yield place.resolve()
        return
    seen: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(place, followlinks=True):
        inside = []
        for name in sorted(folders):
            path = Path(root, name)
            try:
                status = path.stat()
            except OSError:
                continue
            if name.startswith(".") or name == "state" or (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            if peft_folder.parts_of(path):
                yield path
            else:
                inside.append(name)
        folders[:] = inside
        for name in files:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(root, name)


def _find(name: str, place: Path, by_stem: dict[str, list[Path]]) -> Path:
    found = by_stem.get(name) or [file for files in by_stem.values() for file in files if _told_name(file) == name]
    if not found:
        raise MaquetteError(_not_found(name, place, sorted(by_stem)))
    if len(found) > 1 and len({lora_hash(file) for file in found}) > 1:
        raise MaquetteError(
            f"Two different files are called {name}: {found[0]} and {found[1]}; name the folder of one with --lora-dir."
        )
    return found[0]


def _told_name(file: Path) -> str | None:
    """The name written inside a file; nothing for one that cannot be read, which says nothing about the others."""
    if file.is_dir() or file.suffix.lower() != ".safetensors":
        return None
    try:
        return safetensors.read_metadata(file).get("ss_output_name")
    except MaquetteError:
        return None


def lora_hash(file: Path) -> str:
    """What tells two LoRAs apart, as A1111 does: sha256 of a safetensors file's tensors, of a pickle's bytes; of a PEFT
    folder those of its first network.
    """
    if file.is_dir():
        return lora_hash(next(iter(peft_folder.parts_of(file).values())))
    try:
        state = file.stat()
    except OSError as error:
        raise MaquetteError(f"{file} cannot be read: {error.strerror or error}.") from error
    return _hash(file, state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=256)
def _hash(file: Path, *state: int) -> str:
    """Of a file while it is in this state: every picture's text names the hashes of its LoRAs."""
    return safetensors.file_sha256(file) if _is_pickle(file) else safetensors.body_sha256(file)


def _is_pickle(file: Path) -> bool:
    with open_regular(file) as opened:
        return safetensors.is_pickle(opened.read(9))


def _not_found(name: str, place: Path, stems: list[str]) -> str:
    if not stems:
        return (
            f"There is no LoRA {name!r}: {place} holds no LoRA ({', '.join(SUFFIXES)}, or a folder of PEFT); give the "
            "right folder with --lora-dir."
        )
    near = difflib.get_close_matches(name, stems, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"There is no LoRA {name!r} in {place}; it holds {some(stems)}.{hint}"
