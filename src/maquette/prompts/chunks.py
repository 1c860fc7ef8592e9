"""Weighted text as chunks of 75 tokens, which a text encoder sees one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ..formats.tokenizer import Tokenizer
from .attention import BREAK, parse_attention

CHUNK = 75  # tokens of a chunk, without start and end
COMMA_BACKTRACK = 20  # a chunk ends at a comma when one lies among its last tokens


@dataclass
class Chunk:
    """Up to 75 tokens and the weight of each."""

    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def take_after(self, index: int) -> Chunk:
        """Remove and return what follows the token at `index`."""
        rest = Chunk(self.tokens[index + 1 :], self.weights[index + 1 :])
        del self.tokens[index + 1 :], self.weights[index + 1 :]
        return rest

    def window(self, tokenizer: Any) -> list[int]:
        """77 ids: start, tokens, end, padding."""
        ids = [tokenizer.bos, *self.tokens, tokenizer.eos]
        return ids + [tokenizer.pad] * (CHUNK + 2 - len(ids))

    def window_weights(self) -> list[float]:
        """77 weights: start, end and padding have 1."""
        return [1.0, *self.weights, *[1.0] * (CHUNK + 1 - len(self.weights))]


def split_chunks(pieces: Sequence[Sequence[str | float]], tokenizer: Any) -> list[Chunk]:
    """Weighted text as chunks of at most 75 tokens. BREAK begins a new one; a comma near the end of a full one, too.

    A BREAK with nothing behind it begins none, so that a chunk is empty only when a BREAK ends it, or all is empty.
    """
    comma = tokenizer.encode(",")[-1]
    closed: list[Chunk] = []
    chunk, last_comma = Chunk(), -1
    span = getattr(tokenizer, "span", None)  # the vectors of an embedding stay in one chunk
    for text, number in pieces:
        weight = float(number)
        if text == BREAK and weight < 0:
            closed.append(chunk)
            chunk, last_comma = Chunk(), -1
            continue
        for token in tokenizer.encode(str(text)):
            if len(chunk.tokens) + (1 if span is None else span(token)) > CHUNK:
                near = token != comma and last_comma >= 0 and CHUNK - last_comma <= COMMA_BACKTRACK
                closed.append(chunk)
                chunk = chunk.take_after(last_comma) if near else Chunk()
                last_comma = -1
            if token == comma:
                last_comma = len(chunk.tokens)
            chunk.tokens.append(token)
            chunk.weights.append(weight)
    return [*closed, chunk] if chunk.tokens or not closed else closed


def tokenize(prompt: str) -> list[tuple[list[int], list[float]]]:
    """(ids, weights) of each chunk of a prompt: CLIP's ids without start, end and padding.

    Raises MaquetteError for a prompt that is too long, WeightError for a weight that is no number.
    """
    chunks = split_chunks(parse_attention(prompt), _tokenizer())
    return [(chunk.tokens, chunk.weights) for chunk in chunks]


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer()
