"""A1111's styles.csv: prompts by name that are put around one's own."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from ..errors import MaquetteError
from ..files import read_text
from ..limits import CONFIGURATION_BYTES

DEFAULT_FILE = Path("styles.csv")
_PLACE = "{prompt}"


class Style(NamedTuple):
    """A style's two prompts; `{prompt}` in one is the place of one's own, otherwise it stands behind it."""

    prompt: str
    negative_prompt: str


def read_styles(path: Path) -> dict[str, Style]:
    """Name -> style, of a CSV file with the columns name, prompt (older: text), negative_prompt."""
    text = read_text(path, CONFIGURATION_BYTES, "file of styles").removeprefix("\ufeff")
    found = {}
    try:
        rows = list(csv.DictReader(StringIO(text)))
    except csv.Error as error:
        raise MaquetteError(f"{path} is no file of styles: {error}.") from error
    if rows and "name" not in rows[0]:
        raise MaquetteError(f"{path} is no file of styles: its first line names no column 'name'.")
    for row in rows:
        prompt = row.get("prompt") or row.get("text") or ""
        if row["name"]:
            found[row["name"]] = Style(prompt, row.get("negative_prompt") or "")
    return found


def styled(prompt: str, negative: str, names: Sequence[str], path: Path | None) -> tuple[str, str]:
    """Both prompts with the styles, in their order. path: otherwise styles.csv. Raises MaquetteError."""
    if not names:
        return prompt, negative
    styles = read_styles(path or DEFAULT_FILE)
    for name in names:
        if name not in styles:
            near = difflib.get_close_matches(name, styles, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise MaquetteError(f"There is no style {name!r} in {path or DEFAULT_FILE}.{hint}")
        prompt, negative = put(styles[name].prompt, prompt), put(styles[name].negative_prompt, negative)
    return prompt, negative


def put(style: str, prompt: str) -> str:
    """A prompt within a style that says where it goes, else before it with a comma between."""
    if _PLACE in style:
        return style.replace(_PLACE, prompt)
    return ", ".join(part for part in (prompt.strip(), style.strip()) if part)
