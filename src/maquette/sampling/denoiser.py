"""The denoiser that samplers see: x at a level of noise -> the clean latent x0, guided by the prompts of that call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.denoiser import Conditioning, Denoiser
from ..core.guidance import Parts, guided_and_negative
from .levels import NoiseLevels

if TYPE_CHECKING:
    from ..prompts.encode import Prompt

OnDenoised = Callable[[Tensor, float], Tensor]


class GuidedDenoiser:
    """Scales x to what the network knows, asks it, guides (CFG) and turns its epsilon, v or flow into x0, once for all.

    model: a base, or what answers `predict` in its place (ControlNet). cond, uncond: B rows each; without uncond, or at
    scale 1, the prompt alone is computed. rescale: see `core.guidance`. on_denoised(x0, sigma) -> x0 may change each
    answer (inpainting puts the kept picture back). calls: answers given so far, on_call told of each. step: the
    schedule's step at work, counted from 1, kept by the caller.
    """

    def __init__(
        self,
        model: Denoiser,
        levels: NoiseLevels,
        cond: Conditioning | Prompt,
        uncond: Conditioning | Prompt | None,
        scale: float,
        on_denoised: OnDenoised | None = None,
        rescale: float = 0.0,
    ) -> None:
        self.model, self.levels = model, levels
        self.cond, self.uncond, self.scale, self.rescale = cond, uncond, scale, rescale
        self.on_denoised = on_denoised
        self.on_call: Callable[[int], None] = lambda calls: None
        self.calls = 0
        self.step = 1

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x: (B, 4, h, w) float32 = x0 + sigma n -> x0 of the same shape."""
        return self._answer(x, sigma, need_negative=False)[0]

    def both(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """(x0 guided, x0 of the negative prompt alone), for CFG++; without negative prompt both are the same."""
        x0, negative = self._answer(x, sigma, need_negative=True)
        return x0, x0 if negative is None else negative

    def _answer(self, x: Tensor, sigma: float, need_negative: bool) -> tuple[Tensor, Tensor | None]:
        levels = self.levels
        t = torch.full((len(x),), levels.time(sigma), device=x.device)
        negative = None if self.uncond is None else self._at(self.uncond)[0][0]
        output, other = guided_and_negative(
            self.model,
            x * levels.scale(sigma),
            t,
            self._at(self.cond),
            negative,
            self.scale,
            need_negative,
            self.rescale,
        )
        self.calls += 1
        self.on_call(self.calls)
        x0 = levels.denoised(output.float(), x, sigma)
        if self.on_denoised is not None:
            x0 = self.on_denoised(x0, sigma)
        return x0, None if other is None else levels.denoised(other.float(), x, sigma)

    def _at(self, prompt: Conditioning | Prompt) -> Parts:
        return [(prompt, 1.0)] if isinstance(prompt, Conditioning) else prompt.at_call(self.calls, self.step)
