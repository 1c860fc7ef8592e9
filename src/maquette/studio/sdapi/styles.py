"""Styles: prompts that are called by name. They lie in `styles.csv` of the data folder, as A1111 writes that file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from io import StringIO
from typing import Any

from fastapi import APIRouter, Request

from ...errors import MaquetteError
from ...files import read_text
from ...limits import CONFIGURATION_BYTES, PROMPT_CHARACTERS
from ..engine import DrawingEngine
from .answering import A1111Route, engine_of

router = APIRouter(route_class=A1111Route, tags=["a1111"])
FILE = "styles.csv"
MOST = 50  # styles of a request
PLACE = "{prompt}"  # in a style: where the request's own prompt goes


@dataclass(frozen=True)
class Style:
    """What a style adds to both prompts."""

    name: str
    prompt: str
    negative_prompt: str


def styles_of(engine: DrawingEngine) -> dict[str, Style]:
    """Those of the file by name; {} without one. Raises MaquetteError for a file that is none of A1111's."""
    path = engine.folder / FILE
    if not path.exists():
        return {}
    rows = csv.DictReader(StringIO(read_text(path, CONFIGURATION_BYTES, "list of styles", FILE)))
    try:
        found = [Style(*(str(row.get(key) or "") for key in ("name", "prompt", "negative_prompt"))) for row in rows]
    except csv.Error as error:
        raise MaquetteError(f"{FILE} is no list of styles: {error}.") from error
    if "name" not in (rows.fieldnames or ()):
        raise MaquetteError(f"{FILE} is no list of styles: its first line is name,prompt,negative_prompt.")
    return {style.name: style for style in found if style.name}


def styled(prompt: str, negative: str, wanted: Any, engine: DrawingEngine) -> tuple[str, str, list[str]]:
    """Both prompts with the styles of a request, and a sentence for each that is not there."""
    names = [str(name)[:200] for name in wanted[:MOST] if name] if isinstance(wanted, list) else []
    if not names:
        return prompt, negative, []
    known, notes = styles_of(engine), []
    for name in names:
        style = known.get(name)
        if style is None:
            notes.append(f"There is no style {name!r}; there are {', '.join(known) or 'none'}. Drawn without it.")
        elif max(len(prompt), len(negative)) <= PROMPT_CHARACTERS:
            prompt, negative = joined(prompt, style.prompt), joined(negative, style.negative_prompt)
    return prompt, negative, notes


def joined(prompt: str, style: str) -> str:
    """A prompt within a style that says where it goes, else before it with a comma between."""
    if PLACE in style:
        return style.replace(PLACE, prompt)
    return ", ".join(part for part in (prompt.strip(), style.strip()) if part)


@router.get("/sdapi/v1/prompt-styles")
def prompt_styles(request: Request) -> list[dict[str, str]]:
    """The styles that there are."""
    return [vars(style) for style in styles_of(engine_of(request)).values()]
