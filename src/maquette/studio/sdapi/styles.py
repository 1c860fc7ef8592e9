"""Styles: prompts that are called by name. They lie in `styles.csv` of the data folder, as A1111 writes that file."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from ...errors import MaquetteError
from ...limits import PROMPT_CHARACTERS
from ...sampling.styles import DEFAULT_FILE, Style, put, read_styles
from ..engine import DrawingEngine
from .answering import A1111Route, engine_of

router = APIRouter(route_class=A1111Route, tags=["a1111"])
MOST = 50  # styles of a request


def styles_of(engine: DrawingEngine) -> dict[str, Style]:
    """Those of the file by name; {} without one. Raises MaquetteError, without the folder, for a file that is none."""
    path = engine.folder / DEFAULT_FILE
    try:
        return read_styles(path) if path.exists() else {}
    except MaquetteError as error:
        raise MaquetteError(str(error).replace(str(path), str(DEFAULT_FILE))) from error


def styled(prompt: str, negative: str, wanted: Any, engine: DrawingEngine) -> tuple[str, str, list[str]]:
    """Both prompts with the styles of a request, and a sentence for each that is not there: A1111 passes them over."""
    names = [str(name)[:200] for name in wanted[:MOST] if name] if isinstance(wanted, list) else []
    if not names:
        return prompt, negative, []
    known, notes = styles_of(engine), []
    for name in names:
        style = known.get(name)
        if style is None:
            notes.append(f"There is no style {name!r}; there are {', '.join(known) or 'none'}. Drawn without it.")
        elif max(len(prompt), len(negative)) <= PROMPT_CHARACTERS:
            prompt, negative = put(style.prompt, prompt), put(style.negative_prompt, negative)
    return prompt, negative, notes


@router.get("/sdapi/v1/prompt-styles")
def prompt_styles(request: Request) -> list[dict[str, str]]:
    """The styles that there are."""
    return [{"name": name, **style._asdict()} for name, style in styles_of(engine_of(request)).items()]
