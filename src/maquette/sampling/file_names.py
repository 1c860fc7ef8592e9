"""Names of the pictures' files, by A1111's patterns: `[number]-[seed]`, `[seed]-[prompt_words]` …"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from ..files import portable

DEFAULT = "[number]-[seed]"
_PATTERN = re.compile(r"\[([a-z_]+)(?:<([^<>\[\]]*)>)?\]")
_NOT_IN_NAMES = re.compile(r'[#<>:"/\\|?*\x00-\x1f\x7f-\x9f]')
_WORDS = 8
_LONGEST = 128  # characters of one part of a name


@dataclass(frozen=True)
class Picture:
    """What a name can tell. values: the keys of the picture's text; number: in the folder; index: of this drawing."""

    prompt: str
    negative: str
    values: Mapping[str, Any]
    number: int
    index: int
    stem: str = ""  # of the picture that was begun from
    time: datetime.datetime = datetime.datetime(2000, 1, 1)


def file_name(pattern: str, picture: Picture) -> str:
    """The name, without its ending, as every system takes it; a `/` in the pattern makes folders. Raises MaquetteError
    for an unknown field.
    """
    made = _PATTERN.sub(lambda match: _field(match[1], match[2], picture), pattern)
    parts = [portable(_NOT_IN_NAMES.sub("_", part).strip(" .")[:_LONGEST].strip(" .")) for part in made.split("/")]
    return "/".join(part for part in parts if part) or f"{picture.number:05d}"


def require_known(pattern: str) -> None:
    """Raise MaquetteError for a pattern with an unknown field, or one that leads out of the folder."""
    for match in _PATTERN.finditer(pattern):
        if match[1] not in FIELDS:
            known = ", ".join(f"[{name}]" for name in FIELDS)
            raise MaquetteError(f"There is no field {match[0]} for names of files; known are {known}.")
    if pattern.startswith(("/", "~")) or ".." in pattern or "\\" in pattern or Path(pattern).is_absolute():
        raise MaquetteError(f"The name {pattern} leads out of the folder; leave out '..' and a leading '/'.")


def _field(name: str, argument: str | None, picture: Picture) -> str:
    if name == "datetime":
        return _safe(picture.time.strftime(argument or "%Y%m%d%H%M%S"))
    return FIELDS[name](picture)


def _safe(text: str, spaces: bool = False) -> str:
    """Without the characters that names of files cannot have."""
    text = _NOT_IN_NAMES.sub("_", text)
    return (text if spaces else text.replace(" ", "_"))[:_LONGEST].strip(" .")


def _words(text: str) -> str:
    """The first words, without punctuation."""
    return _safe(" ".join(re.findall(r"[^\W_]+", text)[:_WORDS]), True)


def _value(key: str) -> Callable[[Picture], str]:
    return lambda picture: _safe(str(picture.values.get(key, "")), True)


def _side(index: int) -> Callable[[Picture], str]:
    return lambda picture: str(picture.values.get("Size", "x")).split("x")[index]


FIELDS: dict[str, Callable[[Picture], str]] = {
    "number": lambda p: f"{p.number:05d}",
    "seed": _value("Seed"),
    "steps": _value("Steps"),
    "cfg": _value("CFG scale"),
    "width": _side(0),
    "height": _side(1),
    "sampler": _value("Sampler"),
    "scheduler": _value("Schedule type"),
    "model_name": _value("Model"),
    "model_hash": _value("Model hash"),
    "denoising": _value("Denoising strength"),
    "clip_skip": lambda p: str(p.values.get("Clip skip") or 1),
    "prompt": lambda p: _safe(p.prompt),
    "prompt_spaces": lambda p: _safe(p.prompt, True),
    "prompt_words": lambda p: _words(p.prompt),
    "prompt_hash": lambda p: hashlib.sha256(p.prompt.encode()).hexdigest()[:8],
    "negative_prompt_hash": lambda p: hashlib.sha256(p.negative.encode()).hexdigest()[:8],
    "batch_number": lambda p: str(p.index + 1),
    "generation_number": lambda p: str(p.index + 1),
    "init_image": lambda p: _safe(p.stem, True),
    "date": lambda p: p.time.strftime("%Y-%m-%d"),
    "datetime": lambda p: p.time.strftime("%Y%m%d%H%M%S"),
}
