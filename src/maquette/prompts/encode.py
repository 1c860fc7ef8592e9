"""From A1111's prompt language to Conditioning: chunks of 75 tokens, emphasis, schedules, AND."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ..core.denoiser import Conditioning
from ..errors import MaquetteError
from .attention import Emphasis, parse_attention
from .chunks import Chunk, split_chunks
from .composable import parse_composable
from .limits import require_bounded
from .schedule import Counting, held, parse_schedule


class TextModel(Protocol):
    """What is asked of a base: its tokenizers and its text encoders."""

    tokenizers: list[Any]
    text_encoders: list[Any]

    @property
    def token_widths(self) -> list[int]: ...

    def encode_ids(self, ids: Sequence[Tensor], clip_skip: int = 1) -> Conditioning: ...


def encode(base: TextModel, prompt: str, clip_skip: int = 1, emphasis: Emphasis = "Original") -> Conditioning:
    """One text with emphasis and BREAK, without AND and schedule -> Conditioning of batch 1, tokens (1, 77 k, D) for k
    chunks. Raises MaquetteError as `Prompt`.
    """
    return Prompt.encoded(base, [Prompt.chunks(base, prompt, emphasis)], [1], clip_skip, emphasis)[0]


def _zeros(conditioning: Conditioning) -> Conditioning:
    pooled = None if conditioning.pooled is None else torch.zeros_like(conditioning.pooled)
    return replace(conditioning, tokens=torch.zeros_like(conditioning.tokens), pooled=pooled)


class Prompt:
    """A prompt in A1111's language, encoded for a number of steps; `at` and `at_call` say what to guide toward.

    parts: for each text that AND joins, its schedule of (last place, Conditioning), and its weight.
    """

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
        counting: Counting = "A1111",
        calls_per_step: int = 1,
        first_pass: int | None = None,
        zeros: bool = False,
    ) -> None:
        """composable: split at AND (A1111 does so in the positive prompt only). batch: copies of each conditioning.

        emphasis "Original" multiplies each token's features by its weight and restores the chunk's mean; "No norm"
        leaves that out; "Ignore" reads brackets without effect; "None" takes them for text. counting: "A1111" reads the
        schedule by calls of the denoiser, of which there are calls_per_step; "exact" by steps. Both are the same only
        for prompts without schedule. first_pass: steps of a drawing that these steps go on with at a larger size (hires
        fix), times its calls where those are counted. zeros: a prompt without words is zeros, as SDXL's negative one
        is. Raises MaquetteError for a prompt that is too long or a weight that is no finite number.
        """
        self.counting = counting
        length = steps * calls_per_step if counting == "A1111" else steps
        lengths = (length, None) if first_pass is None else (first_pass, length)
        self.parts: list[tuple[list[tuple[int, Conditioning]], float]] = []
        for text, weight in parse_composable(prompt) if composable else [(prompt, 1.0)]:
            schedule = [(int(end), str(plain)) for end, plain in parse_schedule(text, *lengths)]
            counts = Counter(plain for _, plain in schedule)
            chunks = [self.chunks(base, plain, emphasis) for plain in counts]
            encoded = self.encoded(base, chunks, [*counts.values()], clip_skip, emphasis)
            if zeros and not any(counts):
                encoded = [_zeros(each) for each in encoded]
            copies = {plain: each[[0] * batch] for plain, each in zip(counts, encoded, strict=True)}
            self.parts.append(([(end, copies[plain]) for end, plain in schedule], weight))

    @staticmethod
    def chunks(base: TextModel, text: str, emphasis: Emphasis = "Original") -> list[list[Chunk]]:
        """A text's weighted tokens, as each tokenizer of the base has them, in chunks of 75."""
        require_bounded(text)
        pieces: list[list[str | float]] = [[text, 1.0]] if emphasis == "None" else parse_attention(text)
        for piece, weight in pieces:
            if not math.isfinite(float(weight)):
                raise MaquetteError(f"The brackets around {str(piece)[:60]!r} multiply to {weight}: take some away.")
        return [split_chunks(pieces, tokenizer) for tokenizer in base.tokenizers]

    @staticmethod
    def encoded(
        base: TextModel,
        texts: Sequence[Sequence[Sequence[Chunk]]],
        counts: Sequence[int],
        clip_skip: int = 1,
        emphasis: Emphasis = "Original",
    ) -> list[Conditioning]:
        """The texts of one schedule, each cut by each tokenizer, and how often each stands there -> their Conditionings
        of batch 1, tokens (1, 77 k, D), all of one length.

        As in A1111 shorter ones get empty chunks, and the mean that "Original" restores is the mean over all of them.
        The pooled vector (SDXL) is the first chunk's, without weights.
        """
        k = max(len(chunks[0]) for chunks in texts)
        filled = [[[*own, *[Chunk()] * (k - len(own))] for own in chunks] for chunks in texts]
        encoded: list[Conditioning] = []
        for chunks in filled:
            own = zip(chunks, base.tokenizers, strict=True)
            windows = [torch.tensor([chunk.window(tokenizer) for chunk in each]) for each, tokenizer in own]
            encoded.append(base.encode_ids(windows, clip_skip))  # tokens (k, 77, D)
        tokens = torch.stack([each.tokens for each in encoded])  # (n, k, 77, D)
        if emphasis in ("Original", "No norm"):
            weights = torch.tensor([[chunk.window_weights() for chunk in chunks[0]] for chunks in filled])
            restore = emphasis == "Original"
            tokens = Prompt.emphasised(tokens, weights, base.token_widths, restore, torch.tensor(counts))
        return [
            each.joined_chunks(rows.reshape(1, -1, rows.shape[-1])) for rows, each in zip(tokens, encoded, strict=True)
        ]

    @staticmethod
    def emphasised(z: Tensor, weights: Tensor, widths: Sequence[int], restore_mean: bool, counts: Tensor) -> Tensor:
        """z: (n, k, 77, D) of n texts; weights: (n, k, 77); counts: (n,), how often each text stands in its schedule.

        Each chunk and each text encoder's share of D by itself; the mean is over all n texts of a chunk, as often as
        they are there.
        """
        if bool((weights == 1.0).all()):
            return z
        share = (counts / counts.sum()).to(z.device, torch.float32)[:, None, None, None]

        def mean(x: Tensor) -> Tensor:
            return (x.mean(dim=(2, 3), keepdim=True) * share).sum(dim=0, keepdim=True)  # (1, k, 1, 1)

        parts = []
        for part in torch.split(z.float(), list(widths), dim=-1):
            weighted = part * weights.to(part)[..., None]
            if restore_mean:
                # Weight 0 on every token leaves a mean of the start and end tokens alone, never exactly 0.
                weighted = weighted * (mean(part) / mean(weighted))
            parts.append(weighted)
        return torch.cat(parts, dim=-1).to(z.dtype)

    def mapped(self, change: Callable[[Conditioning], Conditioning]) -> Prompt:
        """The same prompt with every conditioning changed: told of a mask, for example. Each is changed once."""
        made = copy(self)
        changed: dict[int, Conditioning] = {}

        def once(each: Conditioning) -> Conditioning:
            if id(each) not in changed:
                changed[id(each)] = change(each)
            return changed[id(each)]

        made.parts = [([(end, once(each)) for end, each in schedule], weight) for schedule, weight in self.parts]
        return made

    def at(self, place: int) -> list[tuple[Conditioning, float]]:
        """Conditionings of batch `batch` and their weights at a place of the schedule: a step, counted from 1."""
        return [(held(schedule, place), weight) for schedule, weight in self.parts]

    def at_call(self, call: int, step: int) -> list[tuple[Conditioning, float]]:
        """The same at a call of the denoiser. call: counted from 0 in this drawing; step: from 1 in the schedule."""
        return self.at(call if self.counting == "A1111" else step)
