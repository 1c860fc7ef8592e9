"""Captions as conditioning: encoded once and kept, or at every step where the text encoder or a word learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ...core.denoiser import Conditioning
from ...families.base import BaseModel


class Texts:
    """Every prompt of a run. live: whether a prompt's encoding changes, for the text encoder or a word of it learns."""

    def __init__(
        self, base: BaseModel, prompts: Sequence[str], clip_skip: int, live: Callable[[str], bool] | None
    ) -> None:
        self._base, self._clip_skip, self._live = base, clip_skip, live
        self._place = {prompt: i for i, prompt in enumerate(dict.fromkeys([*prompts, ""]))}
        self._kept = self._encode_all(list(self._place))

    @torch.no_grad()
    def _encode_all(self, prompts: list[str]) -> Conditioning:
        parts = [self._base.encode_text(prompts[i : i + 32], self._clip_skip) for i in range(0, len(prompts), 32)]
        return Conditioning.cat(parts)

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
        parts = [self._base.encode_text(changing, self._clip_skip), *([self.original(constant)] if constant else [])]
        order = [*changing, *constant]
        return Conditioning.cat(parts)[[order.index(prompt) for prompt in prompts]]
