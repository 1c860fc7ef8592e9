"""Pictures with A1111's generation parameters inside ("infotext"), written, read and parsed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import MaquetteError
from ..files import atomic_writer, open_regular
from . import pictures

if TYPE_CHECKING:
    from PIL import Image

KEY = "parameters"
_NEGATIVE = "Negative prompt:"
_PROMPTS = ("Prompt", "Negative prompt")
_KEY = re.compile(r"\w[\w \-/]+")
_KEY_CHARACTER = re.compile(r"[\w \-/]")
_VALUE = re.compile(r'\s*("(?:\\.|[^\\"])+"(?=,|$)|[^,]*)')
_SIZE = re.compile(r"(\d+)x(\d+)")
_FEWEST_PAIRS = 3  # a last line with fewer `Key: value` pairs is part of the prompt


def format_infotext(prompt: str, negative_prompt: str, values: Mapping[str, Any]) -> str:
    """A1111's text: prompt, negative prompt, then `Key: value` pairs in the given order; None values are left out.

    A value with a comma, colon or line break, or that begins with a quotation mark, is quoted as JSON.
    """
    pairs = ", ".join(f"{key}: {_quoted(value)}" for key, value in values.items() if value is not None)
    prompt, negative = _trimmed(prompt), _trimmed(negative_prompt)
    negative_line = f"\n{_NEGATIVE} {negative}" if negative else ""
    return f"{prompt}{negative_line}\n{pairs}".strip()


def _trimmed(text: str) -> str:
    """Without the spaces around lines, which no reader of such texts keeps."""
    return "\n".join(line.strip() for line in text.split("\n")).strip()


def parse_infotext(text: str) -> dict[str, str]:
    """A1111's text -> "Prompt", "Negative prompt", then its keys; a value WxH under key K gives "K-1" and "K-2".

    The last line counts as parameters when it holds at least three pairs; lines after "Negative prompt:" belong to it.
    A key without a value is left out, and one that is called as a prompt never stands for it.
    """
    lines = text.strip().split("\n")
    pairs = _pairs(lines[-1])
    if len(pairs) >= _FEWEST_PAIRS:
        lines = lines[:-1]
    else:
        pairs = []
    prompt: list[str] = []
    negative: list[str] = []
    current = prompt
    for line in (line.strip() for line in lines):
        if line.startswith(_NEGATIVE):
            current, line = negative, line.removeprefix(_NEGATIVE).strip()
        current.append(line)
    result = {"Prompt": "\n".join(prompt).strip(), "Negative prompt": "\n".join(negative).strip()}
    for key, raw in pairs:
        value = _unquoted(raw.strip())
        if key in _PROMPTS or not raw.strip():
            continue
        if size := _SIZE.fullmatch(value):
            result[f"{key}-1"], result[f"{key}-2"] = size[1], size[2]
        else:
            result[key] = value
    return result


def _pairs(line: str) -> list[tuple[str, str]]:
    """`Key: value` pairs of a line, in time that grows with its length. A key has two letters or more."""
    pairs: list[tuple[str, str]] = []
    place = 0
    while (colon := line.find(":", place)) >= 0:
        before = line[place:colon]
        length = next((i for i, c in enumerate(reversed(before)) if not _KEY_CHARACTER.match(c)), len(before))
        key = _KEY.search(before, len(before) - length)
        place = colon + 1
        if key is not None:
            value = _VALUE.match(line, place)
            assert value is not None  # it can be empty
            pairs.append((key.group(), value[1]))
            place = value.end() + 1
    return pairs


def write_png(image: Image.Image, path: str | Path, infotext: str = "", new: bool = False) -> None:
    """Write a PNG with the text under A1111's key; the file appears whole or not at all.

    new: raises NameTakenError rather than replace a file. Raises MaquetteError naming the file when it cannot be
    written: a full disk, a folder without permission.
    """
    with atomic_writer(path, new) as file:
        save_png(image, file, infotext)


def save_png(image: Image.Image, file: IO[bytes], infotext: str = "") -> None:
    """Write a PNG with the text under A1111's key into an open file or buffer."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if infotext:
        info.add_text(KEY, infotext)
    image.save(file, format="PNG", pnginfo=info)


def read_infotext(path: str | Path) -> str:
    """The generation parameters of a PNG, "" when it has none. Raises MaquetteError for a file that is no picture."""
    with open_regular(path) as file:
        try:
            text = pictures.open_picture(file, ("PNG",)).info.get(KEY, "")
        except Exception as error:  # Pillow raises a dozen kinds for damaged files
            raise MaquetteError(f"{path} cannot be read as a PNG picture.") from error
    return text if isinstance(text, str) else ""


def number_text(value: float) -> str:
    """A number as A1111 writes it, without a needless point; as many digits as it takes to read the same one again."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:\n]|^"', text) else text


def _unquoted(text: str) -> str:
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, str) else text
