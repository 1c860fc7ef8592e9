"""Words of a command line that calls one of Kohya's training scripts."""

from __future__ import annotations

import re
from pathlib import PureWindowsPath
from typing import Any

from ...errors import MaquetteError
from ...formats import shells
from ...trainers.kohya import OPTIONS, SCRIPTS
from ...trainers.kohya_gui import FIELDS


def script_name(word: str) -> str:
    """The file name of a word that calls a training script, else ""."""
    name = PureWindowsPath(word[-200:]).name
    trains = name.endswith(".py") and ("train" in name or name in SCRIPTS)
    return name if trains else ""


def options(words: list[str], path: str, strict: bool = True) -> dict[str, Any]:
    """--key=value and --key value… as argparse reads them: a beginning will do, the last one wins.

    strict: refuse words that belong to no option, and values that only running the script would tell.
    """
    given: dict[str, Any] = {}
    key = None
    for word in words:
        if re.match(r"--[a-zA-Z]", word):
            name, equals, value = word[2:].partition("=")
            key = _whole_name(name)
            given[key] = value if equals else True
        elif key is not None:
            held = given[key]
            given[key] = word if held is True else [*held, word] if isinstance(held, list) else [held, word]
        elif strict:
            _refuse_unset("", word, path)
            raise MaquetteError(f"{path}: {word[:100]!r} belongs to no option.")
    if strict:
        for name, value in given.items():
            _refuse_unset(name, value, path)
    return given


def _whole_name(name: str) -> str:
    """An option may be shortened, as long as only one begins so."""
    if name in OPTIONS or name in FIELDS:
        return name
    begun = [option for option in OPTIONS if option.startswith(name)] if len(name) < 60 else []
    return begun[0] if len(begun) == 1 else name


def _refuse_unset(name: str, value: Any, path: str) -> None:
    option = OPTIONS.get(name)
    if option is not None and option.fate == "no effect":
        return
    for word in value if isinstance(value, list) else [str(value)]:
        for variable in shells.unset_names(word):
            raise MaquetteError(
                f"{path}: {f'--{name}' if name else 'the command'} depends on {variable}, whose value only running the "
                "script would tell; write the value there."
            )


def listed(value: Any) -> list[str]:
    """The words of an option that takes several: a list, or a text as the GUI cuts it, at spaces."""
    if isinstance(value, list):
        return [str(word) for word in value]
    return [] if value is None or value is True else str(value).replace('"', "").split()
