"""Sample pictures of a run, as they lie in a folder of its samples."""

from __future__ import annotations

from pathlib import Path

from ..data.images import open_photo
from ..errors import MaquetteError
from ..limits import RECORD_BYTES
from ..parsing import read_json


def drawn(folder: Path) -> list[str]:
    """The prompts of the pictures in a folder of samples; [] unless all of them are there and can be read."""
    try:
        prompts = read_json(folder / "prompts.json", RECORD_BYTES, "list of prompts")
        if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
            return []
        for i in range(len(prompts)):
            open_photo(folder / f"{i}.png")
    except MaquetteError:
        return []
    return prompts
