"""How long a prompt may be. Every parser here works in time n log n at most, on texts up to this length."""

from __future__ import annotations

from ..errors import MaquetteError
from ..limits import PROMPT_CHARACTERS

MAX_CHARACTERS = PROMPT_CHARACTERS  # the longest prompts that people share have a third of it


def require_bounded(prompt: str) -> None:
    """Raise MaquetteError for a prompt of more than MAX_CHARACTERS characters."""
    if len(prompt) > MAX_CHARACTERS:
        raise MaquetteError(f"The prompt has {len(prompt):,} characters; at most {MAX_CHARACTERS:,} are read.")
