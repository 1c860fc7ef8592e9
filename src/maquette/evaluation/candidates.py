"""The checkpoints of a run: of maquette's own folder, or of any folder of LoRA files with numbers in their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import MaquetteError
from ..formats import safetensors

_DIFFUSERS = "pytorch_lora_weights.safetensors"
_NAMES = (
    re.compile(r"(?P<name>.*?)\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-save-(?P<step>\d{1,18})-\d+-\d+"),  # OneTrainer
    re.compile(r"(?P<name>.+)_(?P<step>\d{9,18})"),  # ai-toolkit
    re.compile(r"(?P<name>.+?)-step(?P<step>\d{1,18})(?:-state)?"),  # Kohya
    re.compile(r"(?P<name>.+?)-(?P<epoch>\d{1,18})(?:-state)?"),  # Kohya, and maquette, whose metadata has the step
)


@dataclass(frozen=True)
class Candidate:
    """A file. step: after how many steps it was saved, or epochs where its name and metadata tell no more."""

    step: int
    file: Path
    unit: str = "step"


@dataclass(frozen=True)
class _Named:
    """What a file's name tells: of which run it is, and after how many of which unit it was saved; None of the last."""

    name: str
    number: int | None = None
    unit: str = ""

    @classmethod
    def of(cls, file: Path) -> _Named:
        if file.name == _DIFFUSERS:
            number = re.fullmatch(r"checkpoint-(\d{1,18})", file.parent.name)
            return cls(file.stem, int(number[1]), "step") if number else cls(file.stem)
        match = next((found for pattern in _NAMES if (found := pattern.fullmatch(file.stem))), None)
        if match is None:
            return cls(file.stem)
        unit = "step" if "step" in match.groupdict() else "epoch"
        return cls(match["name"], int(match[unit]), unit)


def find_candidates(folder: Path) -> list[Candidate]:
    """The LoRA files directly in a folder, or in diffusers' checkpoint-500 below it, in the order of training.

    NAME-000400 of maquette, NAME-step00000400 of Kohya's trainer, NAME_000000400 of ai-toolkit and DATE-save-400-3-0 of
    OneTrainer count steps, NAME-000004 of Kohya's epochs; NAME alone is the last. `ss_steps` in all files wins over
    names. Raises MaquetteError for no file, a single one, and files of two runs.
    """
    below = [file for file in folder.glob(f"checkpoint-*/{_DIFFUSERS}") if _Named.of(file).unit]
    files = sorted(file for file in [*folder.glob("*.safetensors"), *below] if file.is_file())
    if not files:
        raise MaquetteError(f"{folder} holds no LoRA files (.safetensors); name the folder that a trainer saved into.")
    metadata = {file: safetensors.read_metadata(file) for file in files}
    _require_one_run(folder, files, metadata)
    if len(files) == 1:
        raise MaquetteError(
            f"{folder} holds one checkpoint, {files[0].name}: there is nothing to choose between. Save more during "
            "training (save_every_steps)."
        )
    steps = {file: number for file in files if (number := _whole(metadata[file].get("ss_steps"))) is not None}
    at: dict[int, Path] = {}
    for file in sorted(files, key=lambda file: bool(_Named.of(file).unit)):  # of one step the last file rather
        at.setdefault(steps.get(file, 0), file)
    if len(steps) == len(files) and len(at) > 1:
        return [Candidate(step, at[step]) for step in sorted(at)]
    return _by_name(folder, files)


def _by_name(folder: Path, files: list[Path]) -> list[Candidate]:
    """By the number at the end of each name; a name without one is the last. Raises MaquetteError where some count
    epochs and others steps.
    """
    named = {file: _Named.of(file) for file in files}
    units = sorted({one.unit for one in named.values() if one.unit}, reverse=True)
    if len(units) > 1:
        one, other = (next(file.name for file in files if named[file].unit == unit) for unit in units)
        raise MaquetteError(
            f"{folder} holds files that count steps and files that count epochs, such as {one} and {other}, and their "
            "metadata does not tell the steps of all: put one kind into a folder of its own."
        )
    last = 1 + max((one.number for one in named.values() if one.number is not None), default=0)
    steps = {file: last if one.number is None else one.number for file, one in named.items()}
    return [Candidate(steps[file], file, *units) for file in sorted(files, key=lambda file: steps[file])]


def _require_one_run(folder: Path, files: list[Path], metadata: dict[Path, dict[str, str]]) -> None:
    """Raise MaquetteError where the names, or the numbers of the runs in the metadata, are of several."""
    by_name: dict[str, Path] = {}
    by_session: dict[str, Path] = {}
    for file in files:
        by_name.setdefault(_Named.of(file).name, file)
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
