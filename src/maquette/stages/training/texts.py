"""Captions as conditioning: encoded once and kept, or at every step where the text encoder or a word learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ...core.denoiser import Conditioning
from ...families.base import BaseModel
from ...prompts.encode import CHUNK, encode


class Texts:
    """Every prompt of a run. live: whether a prompt's encoding changes, for the text encoder or a word of it learns.

    weighted: brackets weigh words, as in A1111's prompts; of long prompts the first 75 tokens count, as without.
    """

    def __init__(
        self,
        base: BaseModel,
        prompts: Sequence[str],
        clip_skip: int,
        live: Callable[[str], bool] | None,
        weighted: bool = False,
    ) -> None:
        self._base, self._clip_skip, self._live, self._weighted = base, clip_skip, live, weighted
        self._place = {prompt: i for i, prompt in enumerate(dict.fromkeys([*prompts, ""]))}
        self._kept = self._encode_all(list(self._place))

    @torch.no_grad()
    def _encode_all(self, prompts: list[str]) -> Conditioning:
        return Conditioning.cat([self._encode(prompts[i : i + 32]) for i in range(0, len(prompts), 32)])

    def _encode(self, prompts: list[str]) -> Conditioning:
        if not self._weighted:
            return self._base.encode_text(prompts, self._clip_skip)
        told = [encode(self._base, prompt, self._clip_skip) for prompt in prompts]  # type: ignore[arg-type]
        return Conditioning.cat([replace(part, tokens=part.tokens[:, : CHUNK + 2]) for part in told])

    @property
    def live(self) -> bool:
        """Whether the text encoder is still needed."""
        return self._live is not None

    def original(self, prompts: Sequence[str]) -> Conditioning:
        """As the untrained text encoder says it."""
        return self._kept[[self._place[prompt] for prompt in prompts]]

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """As the text encoder says it now, with gradients where it learns."""
        if self._live is None:
            return self.original(prompts)
        distinct = list(dict.fromkeys(prompts))
        changing = [prompt for prompt in distinct if self._live(prompt)] or distinct  # some gradient, be it zero
        constant = [prompt for prompt in distinct if prompt not in changing]
        parts = [self._encode(changing), *([self.original(constant)] if constant else [])]
        order = [*changing, *constant]
        return Conditioning.cat(parts)[[order.index(prompt) for prompt in prompts]]
