"""JSON and TOML that a user or a stranger wrote, read within a budget: nesting, digits, infinities, half characters."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import MaquetteError
from .files import read_text
from .limits import CONFIGURATION_BYTES, JSON_DEPTH, NUMBER_DIGITS, RECORD_BYTES, TOML_DEPTH

# Parts of a dotted key, one more than is allowed. Each attempt begins at a word and gives nothing back: linear.
_DOTTED = re.compile(rf"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){{{TOML_DEPTH}}}""")


def read_json(path: str | Path, most: int, what: str, name: str | None = None) -> Any:
    """What a JSON file holds; see parse_json."""
    return parse_json(read_text(path, most, what, name), name or str(path))


def parse_json(text: str, name: str, unique: bool = False, constants: bool = False) -> Any:
    """JSON as Python values. Raises MaquetteError that begins with `name`. unique: no table may name a thing twice.
    constants: NaN and Infinity are numbers.

    Refuses what would trip the reader of the values: nesting deeper than JSON_DEPTH, whole numbers of more than
    NUMBER_DIGITS digits, NaN, infinity and 1e999, and halves of surrogate pairs, which no file holds.
    """
    try:
        value = json.loads(
            text,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=float if constants else _no_constant,
            object_pairs_hook=_unique if unique else None,
        )
        _check_depth(value)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise MaquetteError(f"{name} is nested too deep ({JSON_DEPTH} levels at most).") from error
    except UnicodeEncodeError as error:
        raise MaquetteError(f"{name} holds half of a surrogate pair (\\ud800 to \\udfff), which is no text.") from error
    except ValueError as error:
        raise MaquetteError(f"{name} is not valid JSON: {error}.") from error
    return value


def read_object(path: Path, most_bytes: int = RECORD_BYTES) -> dict[str, Any]:
    """The JSON object in a file of a run folder, which anybody may have written. Infinities count as numbers.

    Raises MaquetteError, naming the file and what is wrong: missing, empty, too large, no JSON, no object.
    """
    if not path.exists():
        raise MaquetteError(f"{path} is missing.")
    text = read_text(path, most_bytes, "such file of a run")
    if not text.strip("\0 \r\n\t"):
        raise MaquetteError(f"{path} is empty.")
    content = parse_json(text, str(path), constants=True)
    if not isinstance(content, dict):
        raise MaquetteError(f"{path} is damaged: it holds no JSON object.")
    return content


class NotToml(MaquetteError):
    """A text that is no TOML at all, as against TOML that is refused."""


def read_toml(path: str | Path) -> dict[str, Any]:
    """The keys of a TOML file; see parse_toml."""
    return parse_toml(read_text(path, CONFIGURATION_BYTES, "configuration"), str(path))


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """TOML as Python values. Raises MaquetteError that begins with `name`, NotToml where the text is none.

    Refuses what would trip the reader: nesting and dotted keys deeper than TOML_DEPTH, whole numbers beyond the
    64 bits of TOML, infinity and NaN.
    """
    try:
        if _DOTTED.search(text):
            raise RecursionError
        value = tomllib.loads(text)
        _check_depth(value, TOML_DEPTH)
    except RecursionError as error:
        raise MaquetteError(f"{name} is nested too deep ({TOML_DEPTH} levels at most).") from error
    except tomllib.TOMLDecodeError as error:
        raise NotToml(f"{name} is not valid TOML: {error}.") from error
    except ValueError as error:  # thousands of digits
        raise MaquetteError(f"{name} has a number that is too large.") from error
    _check_numbers(value, name)
    return value


def _check_numbers(value: Any, name: str) -> None:
    """Raise MaquetteError for numbers that no setting has. value: nested no deeper than the budget."""
    if isinstance(value, dict | list):
        for item in _items(value):
            _check_numbers(item, name)
    elif (isinstance(value, int) and abs(value) >= 2**63) or (isinstance(value, float) and not math.isfinite(value)):
        shown = f"{value.bit_length()} bits" if isinstance(value, int) else str(value)
        raise MaquetteError(f"{name} has a number that is too large ({shown}).")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _whole(digits: str) -> int:
    if len(digits) > NUMBER_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _check_depth(value: Any, most: int = JSON_DEPTH) -> None:
    """Raise RecursionError for containers within containers beyond the budget."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(most):
        level = [item for holder in level for item in _items(holder) if isinstance(item, list | dict)]
        if not level:
            return
    raise RecursionError


def _items(holder: Any) -> Iterable[Any]:
    return holder.values() if isinstance(holder, dict) else holder
