"""Settings with styles and chance in them -> the drawings they stand for."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TypeVar

from .draw_settings import DrawSettings
from .styles import styled
from .wildcards import chosen

MAX_SEED = 2**32 - 2  # A1111's range of random seeds
S = TypeVar("S", bound=DrawSettings)


def drawings_of(settings: S) -> Iterator[S]:
    """The settings with their styles in the prompts; where prompts hold choices, once for each picture of a batch.

    Raises MaquetteError for unknown styles and wildcards.
    """
    prompts = _prompts(settings)
    plain = {**prompts, "styles": []}
    folder = settings.wildcard_dir
    if not settings.dynamic_prompts and folder is None:
        yield settings.model_copy(update=plain)
        return
    first = secrets.randbelow(MAX_SEED) if settings.seed == -1 else settings.seed
    varied = secrets.randbelow(MAX_SEED) if settings.variation_seed == -1 else settings.variation_seed
    for place in range(settings.batch_size * settings.batch_count):
        seed = first + place
        words = {key: chosen(text, seed, folder, settings.prompt_comments) for key, text in prompts.items()}
        single = {"batch_size": 1, "batch_count": 1, "variation_seed": varied + place}
        kept = first if settings.variation_strength else seed
        yield settings.model_copy(update={**plain, **words, **single, "seed": kept})


def _prompts(settings: DrawSettings) -> dict[str, str]:
    """By key, with the styles; those of the second drawing where it has its own, as in A1111."""
    found: dict[str, str] = {}
    for keys in (("prompt", "negative_prompt"), ("hires_prompt", "hires_negative_prompt")):
        texts = [getattr(settings, key) or "" for key in keys]
        made = styled(texts[0], texts[1], settings.styles, settings.styles_file)
        found |= {key: new for key, old, new in zip(keys, texts, made, strict=True) if old or keys[0] == "prompt"}
    return found
