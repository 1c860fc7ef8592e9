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
    prompt, negative = styled(settings.prompt, settings.negative_prompt, settings.styles, settings.styles_file)
    plain = {"prompt": prompt, "negative_prompt": negative, "styles": []}
    folder = settings.wildcard_dir
    if not settings.dynamic_prompts and folder is None:
        yield settings.model_copy(update=plain)
        return
    first = secrets.randbelow(MAX_SEED) if settings.seed == -1 else settings.seed
    varied = secrets.randbelow(MAX_SEED) if settings.variation_seed == -1 else settings.variation_seed
    for place in range(settings.batch_size * settings.batch_count):
        seed = first + place
        words = {"prompt": chosen(prompt, seed, folder), "negative_prompt": chosen(negative, seed, folder)}
        single = {"batch_size": 1, "batch_count": 1, "variation_seed": varied + place}
        kept = first if settings.variation_strength else seed
        yield settings.model_copy(update={**plain, **words, **single, "seed": kept})
