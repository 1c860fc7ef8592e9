"""Captions of a training run as Conditioning: their first tokens, cut into windows of exactly 75."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.denoiser import Conditioning
from ..errors import MaquetteError
from .attention import BREAK, WeightError, parse_attention
from .chunks import CHUNK, Chunk
from .encode import Prompt, TextModel

MOST_WEIGHT = 1000.0  # of a word: far beyond use, and far from what overflows


def caption_chunks(caption: str, tokenizer: Any, most_tokens: int, weighted: bool = False) -> list[Chunk]:
    """The first `most_tokens` tokens of a caption in chunks of 75; the last may be shorter, an empty caption has one.

    Chunks are cut at every 75th token, as sd-scripts does (max_token_length), and not at commas, as prompts are; only
    the vectors of an embedding stay together. weighted: brackets weigh words as in prompts, and BREAK is a word.
    Raises MaquetteError for a weight that is no number or beyond MOST_WEIGHT.
    """
    pieces: Sequence[Sequence[str | float]] = [[caption, 1.0]]
    if weighted:
        try:
            pieces = parse_attention(caption)
        except WeightError as error:
            raise MaquetteError(
                f"The caption {_shown(caption)} has a weight that is no number: {error.written[:20]}."
            ) from error
        if heaviest := next((weight for _, weight in pieces if not abs(float(weight)) <= MOST_WEIGHT), None):
            raise MaquetteError(
                f"The caption {_shown(caption)} has the weight {float(heaviest):g}; at most {MOST_WEIGHT:g} is read."
            )
    span = getattr(tokenizer, "span", lambda token: 1)
    chunks = [Chunk()]
    for text, weight in pieces:
        for token in tokenizer.encode(str(text)):
            if len(chunks[-1].tokens) + span(token) > CHUNK:
                if len(chunks) == most_tokens // CHUNK:
                    return chunks
                chunks.append(Chunk())
            chunks[-1].tokens.append(token)
            chunks[-1].weights.append(1.0 if text == BREAK else float(weight))
    return chunks


def _shown(caption: str) -> str:
    return repr(caption if len(caption) <= 60 else caption[:60] + " …")


def encode_caption(
    base: TextModel, caption: str, clip_skip: int, most_tokens: int, weighted: bool = False
) -> Conditioning:
    """Conditioning of batch 1, tokens (1, 77 k, D): k windows with start and end each, as drawing programs join them.

    sd-scripts drops the inner start and end tokens and always has as many windows as the longest caption may need.
    """
    split = [caption_chunks(caption, tokenizer, most_tokens, weighted) for tokenizer in base.tokenizers]
    return Prompt.encoded(base, [split], [1], clip_skip)[0]
