"""The checkpoints of a run: of maquette's own folder, or of any folder of LoRA files with numbers in their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import MaquetteError
from ..formats import safetensors

_NUMBER = re.compile(r"^(?P<name>.+?)-(?P<step>step)?(?P<number>\d{1,18})(?:-state)?$")


@dataclass(frozen=True)
class Candidate:
    """A file. step: after how many steps it was saved, or epochs where its name and metadata tell no more."""

    step: int
    file: Path
    unit: str = "step"


def find_candidates(folder: Path) -> list[Candidate]:
    """The LoRA files directly in a folder, in the order of training.

    NAME-000400 of maquette and NAME-step00000400 of Kohya's trainer count steps, NAME-000004 of Kohya's epochs; NAME
    alone is the last. `ss_steps` in all files wins over names. Raises MaquetteError for no file, a single one, and
    files of two runs.
    """
    files = sorted(file for file in folder.glob("*.safetensors") if file.is_file())
    if not files:
        raise MaquetteError(f"{folder} holds no LoRA files (.safetensors); name the folder that a trainer saved into.")
    metadata = {file: safetensors.read_metadata(file) for file in files}
    _require_one_run(folder, files, metadata)
    if len(files) == 1:
        raise MaquetteError(
            f"{folder} holds one checkpoint, {files[0].name}: there is nothing to choose between. Save more during "
            "training (save_every_steps)."
        )
    steps = {file: _whole(metadata[file].get("ss_steps")) for file in files}
    numbers = [steps[file] for file in files]
    if all(number is not None for number in numbers) and len(set(numbers)) == len(numbers):
        return sorted((Candidate(number or 0, file) for file, number in steps.items()), key=lambda c: c.step)
    return _by_name(files)


def _by_name(files: list[Path]) -> list[Candidate]:
    """By the number at the end of each name; a name without one is the last."""
    found = {file: _NUMBER.match(file.stem) for file in files}
    unit = "step" if any(match and match["step"] for match in found.values()) else "epoch"
    highest = max((int(match["number"]) for match in found.values() if match), default=0)
    numbered = [Candidate(int(match["number"]) if match else highest + 1, file, unit) for file, match in found.items()]
    return sorted(numbered, key=lambda c: c.step)


def _require_one_run(folder: Path, files: list[Path], metadata: dict[Path, dict[str, str]]) -> None:
    """Raise MaquetteError where the names, or the numbers of the runs in the metadata, are of several."""
    by_name: dict[str, Path] = {}
    by_session: dict[str, Path] = {}
    for file in files:
        match = _NUMBER.match(file.stem)
        by_name.setdefault(match["name"] if match else file.stem, file)
        if session := metadata[file].get("ss_session_id"):
            by_session.setdefault(session, file)
    for kinds in (by_name, by_session):
        if len(kinds) > 1:
            one, other = list(kinds.values())[:2]
            raise MaquetteError(
                f"{folder} holds checkpoints of {len(kinds)} runs, such as {one.name} and {other.name}; put each run's "
                "into a folder of its own."
            )


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,18}", text) else None
