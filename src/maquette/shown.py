"""Text from files and names, made harmless for a terminal: what would command it is shown as what it is."""

from __future__ import annotations

import math
import re
from typing import Any

# C0 and DEL, C1, the marks, embeddings, overrides and isolates that turn the direction of writing, line and paragraph
# separators, and halves of surrogate pairs (bytes of a file name that are no UTF-8).
_COMMANDING = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: object, lines: bool = False) -> str:
    """The text with each control character as an escape: ESC becomes the four characters backslash, x, 1, b.

    lines: line breaks and tabs stay. Afterwards the text can be encoded in UTF-8 and cannot steer a terminal.
    """
    return _COMMANDING.sub(lambda match: match[0] if lines and match[0] in "\n\t" else _escape(match[0]), str(text))


def reason_of(error: BaseException, most: int = 300) -> str:
    """The first line of another program's error, its type's name where it says nothing; cut between words."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip()
    return line if len(line) <= most else f"{line[:most].rpartition(' ')[0] or line[:most]} …"


def is_unicode(text: object) -> bool:
    """Whether it can be written in UTF-8; a file's name or an argument may hold other bytes."""
    return not re.search("[\ud800-\udfff]", str(text))


def visible_json(text: str) -> str:
    """JSON whose strings hold such characters, with each as JSON's own escape; it means the same as before."""
    return _COMMANDING.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


def finite_json(value: Any) -> Any:
    """A value for JSON, which has no NaN and no infinity: they become their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: finite_json(item) for key, item in value.items()}
    return [finite_json(item) for item in value] if isinstance(value, list | tuple) else value


def _escape(character: str) -> str:
    number = ord(character)
    return _SHORT.get(character) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")
