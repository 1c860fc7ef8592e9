"""Prompts from a file, one a line, with A1111's options per line ("Prompts from file or textbox")."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from ..files import read_text
from ..limits import CONFIGURATION_BYTES

_TEXTS = {"prompt": "prompt", "negative_prompt": "negative_prompt"}
_KEYS: dict[str, tuple[str, type]] = {
    "seed": ("seed", int),
    "subseed": ("variation_seed", int),
    "subseed_strength": ("variation_strength", float),
    "sampler_name": ("sampler", str),
    "sampler_index": ("sampler", str),
    "scheduler": ("schedule_type", str),
    "batch_size": ("batch_size", int),
    "n_iter": ("batch_count", int),
    "steps": ("steps", int),
    "cfg_scale": ("cfg_scale", float),
    "width": ("width", int),
    "height": ("height", int),
    "styles": ("styles", str),
}
_SIDES = ("seed_resize_from_w", "seed_resize_from_h")


def read_prompts(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Each line's place, for messages, and what it changes: {"prompt": …}, and with `--prompt … --steps 30` the
    settings that it names.

    Empty lines are left out. Raises MaquetteError with the line's number for an unknown option or a wrong value.
    """
    found = []
    for number, line in enumerate(read_text(path, CONFIGURATION_BYTES, "file of prompts").splitlines(), 1):
        line = line.removeprefix("\ufeff").strip()
        if line:
            where = f"{path}, line {number}"
            found.append((where, _read(line, where) if line.startswith("--") else {"prompt": line}))
    if not found:
        raise MaquetteError(f"{path} holds no prompt.")
    return found


def _read(line: str, where: str) -> dict[str, Any]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise MaquetteError(f"{where}: a quotation mark is not closed.") from error
    values: dict[str, Any] = {}
    sides: dict[str, int] = {}
    while words:
        option = words.pop(0).removeprefix("--")
        count = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
        if option in _TEXTS:
            values[_TEXTS[option]] = " ".join(words[:count])
            words = words[count:]
            continue
        if option not in _KEYS and option not in _SIDES:
            known = ", ".join(f"--{key}" for key in (*_TEXTS, *_KEYS, *_SIDES))
            raise MaquetteError(f"{where}: there is no option --{option}; known are {known}.")
        if not count:
            raise MaquetteError(f"{where}: --{option} has no value.")
        key, kind = _KEYS.get(option, (option, int))
        try:
            value = kind(words.pop(0))
        except ValueError as error:
            raise MaquetteError(f"{where}: --{option} needs a number.") from error
        if option in _SIDES:
            sides[option] = value
        else:
            values[key] = [value] if key == "styles" else value
    if len(sides) == len(_SIDES) and min(sides.values()) > 0:
        values["seed_resize_from"] = "x".join(str(sides[side]) for side in _SIDES)
    return values
