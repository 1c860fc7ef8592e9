"""From A1111's prompt language to Conditioning: chunks of 75 tokens, emphasis, schedules, AND."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ..core.denoiser import Conditioning
from ..errors import MaquetteError
from .attention import BREAK, parse_attention
from .composable import parse_composable
from .schedule import parse_schedule

Emphasis = Literal["Original", "No norm", "Ignore", "None"]
CHUNK = 75  # tokens of a chunk, without start and end
COMMA_BACKTRACK = 20  # a chunk ends at a comma when one lies among its last tokens


class TextModel(Protocol):
    """What is asked of a base: its tokenizers and its text encoders."""

    tokenizers: list[Any]
    text_encoders: list[Any]

    def encode_ids(self, ids: Sequence[Tensor], clip_skip: int = 1) -> Conditioning: ...


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


def split_chunks(pieces: Sequence[Sequence[str | float]], tokenizer: Any) -> list[Chunk]:
    """Weighted text as chunks of at most 75 tokens. BREAK begins a new one; a comma near the end of a full one, too."""
    comma = tokenizer.encode(",")[-1]
    chunks, last_comma = [Chunk()], -1
    span = getattr(tokenizer, "span", lambda token: 1)  # the vectors of an embedding stay in one chunk
    for text, weight in pieces:
        if text == BREAK and float(weight) < 0:
            chunks.append(Chunk())
            last_comma = -1
            continue
        for token in tokenizer.encode(str(text)):
            if len(chunks[-1].tokens) + span(token) > CHUNK:
                near = token != comma and last_comma >= 0 and CHUNK - last_comma <= COMMA_BACKTRACK
                chunks.append(chunks[-1].take_after(last_comma) if near else Chunk())
                last_comma = -1
            if token == comma:
                last_comma = len(chunks[-1].tokens)
            chunks[-1].tokens.append(token)
            chunks[-1].weights.append(float(weight))
    return chunks


def encode(base: TextModel, prompt: str, clip_skip: int = 1, emphasis: Emphasis = "Original") -> Conditioning:
    """One prompt with emphasis and BREAK -> Conditioning of batch 1, tokens (1, 77 k, D) for k chunks.

    emphasis "Original" multiplies each token's features by its weight and restores the chunk's mean; "No norm" leaves
    that out; "Ignore" reads brackets without effect; "None" takes them for text. The pooled vector (SDXL) is the first
    chunk's, without weights.
    """
    pieces: list[list[str | float]] = [[prompt, 1.0]]
    if emphasis != "None":
        try:
            pieces = parse_attention(prompt)
        except ValueError as error:
            raise MaquetteError(f"The prompt {prompt!r} has a weight that is no number: {error}.") from error
    split = [split_chunks(pieces, tokenizer) for tokenizer in base.tokenizers]
    return encode_chunks(base, split, clip_skip, emphasis)


def encode_chunks(
    base: TextModel, split: Sequence[Sequence[Chunk]], clip_skip: int = 1, emphasis: Emphasis = "Original"
) -> Conditioning:
    """One text, cut into k chunks by each tokenizer of the base -> Conditioning as of `encode`."""
    windows = [
        torch.tensor([_window(chunk, tokenizer) for chunk in chunks])
        for chunks, tokenizer in zip(split, base.tokenizers, strict=True)
    ]
    told = base.encode_ids(windows, clip_skip)  # tokens (k, 77, D)
    tokens = told.tokens
    if emphasis in ("Original", "No norm"):
        weights = torch.tensor([[1.0, *c.weights, *[1.0] * (CHUNK + 1 - len(c.weights))] for c in split[0]])
        widths = [encoder.config.hidden_size for encoder in base.text_encoders]
        tokens = _emphasised(tokens, weights, widths, emphasis == "Original")
    first = told[:1]
    return Conditioning(tokens.reshape(1, -1, tokens.shape[-1]), first.pooled, first.time_ids, first.concat)


def _window(chunk: Chunk, tokenizer: Any) -> list[int]:
    """77 ids: start, tokens, end, padding."""
    ids = [tokenizer.bos, *chunk.tokens, tokenizer.eos]
    return ids + [tokenizer.pad] * (CHUNK + 2 - len(ids))


def _emphasised(z: Tensor, weights: Tensor, widths: Sequence[int], restore_mean: bool) -> Tensor:
    """z: (k, 77, D); weights: (k, 77). Each chunk and each text encoder's share of D by itself."""
    if bool((weights == 1.0).all()):
        return z
    parts = []
    for part in torch.split(z.float(), list(widths), dim=-1):
        weighted = part * weights.to(part)[..., None]
        if restore_mean:
            before, after = part.mean(dim=(1, 2), keepdim=True), weighted.mean(dim=(1, 2), keepdim=True)
            # Weight 0 on every token leaves a mean of the start and end tokens alone, never exactly 0.
            weighted = weighted * (before / after)
        parts.append(weighted)
    return torch.cat(parts, dim=-1).to(z.dtype)


class Prompt:
    """A prompt with schedule and AND, encoded for a number of steps; `at(step)` says what to guide toward."""

    def __init__(
        self,
        base: TextModel,
        prompt: str,
        steps: int,
        *,
        clip_skip: int = 1,
        emphasis: Emphasis = "Original",
        composable: bool = True,
        batch: int = 1,
    ) -> None:
        """composable: split at AND (A1111 does so in the positive prompt only). batch: copies of each conditioning."""
        parts = parse_composable(prompt) if composable else [(prompt, 1.0)]
        known: dict[str, Conditioning] = {}
        self.parts: list[tuple[list[tuple[int, Conditioning]], float]] = []
        for text, weight in parts:
            schedule = []
            for end, plain in parse_schedule(text, steps):
                if plain not in known:
                    known[str(plain)] = encode(base, str(plain), clip_skip, emphasis)[[0] * batch]
                schedule.append((int(end), known[str(plain)]))
            self.parts.append((schedule, weight))

    def at(self, step: int) -> list[tuple[Conditioning, float]]:
        """Conditionings of batch `batch` and their weights at a step, counted from 1."""
        return [
            (next((told for end, told in schedule if step <= end), schedule[-1][1]), weight)
            for schedule, weight in self.parts
        ]
