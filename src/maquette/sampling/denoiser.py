"""The denoiser that samplers see: x at a level of noise -> the clean latent x0, guided by the prompts of that call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.denoiser import Conditioning, Denoiser
from ..core.guidance import Parts, guided_and_negative
from .levels import NoiseLevels

if TYPE_CHECKING:
    from ..prompts.encode import Prompt

OnDenoised = Callable[[Tensor, float], Tensor]
_MOST = 256  # cut or joined conditionings that are held: prompts may change at every step


@dataclass(frozen=True)
class Takeover:
    """Another model, with its own prompts, that answers from a timestep on: SDXL's refiner. below: the first timestep
    that it does not see.
    """

    model: Denoiser
    cond: Conditioning | Prompt
    uncond: Conditioning | Prompt | None
    below: float


class _Once:
    """Conditionings cut and joined once: of the same parts the very same object, by which a model knows it."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], tuple[Any, Conditioning]] = {}

    def cut(self, conditioning: Conditioning, rows: slice) -> Conditioning:
        """conditioning[rows]."""
        key = "cut", id(conditioning), rows.start, rows.stop
        return conditioning if rows == slice(None) else self._get(key, conditioning, lambda: conditioning[rows])

    def join(self, parts: Sequence[Conditioning]) -> Conditioning:
        """As `Conditioning.cat`."""
        return self._get(("join", *map(id, parts)), tuple(parts), lambda: Conditioning.cat(parts))

    def _get(self, key: tuple[Any, ...], parts: Any, make: Callable[[], Conditioning]) -> Conditioning:
        if key not in self._made:
            if len(self._made) >= _MOST:
                self._made.clear()
            self._made[key] = parts, make()  # parts: held, so that no other object gets their numbers
        return self._made[key][1]


class GuidedDenoiser:
    """Scales x to what the network knows, asks it, guides (CFG) and turns its epsilon, v or flow into x0, once for all.

    model: a base, or what answers `predict` in its place (ControlNet). cond, uncond: B rows each; without uncond, or at
    scale 1, the prompt alone is computed. rescale: see `core.guidance`. on_denoised(x0, sigma) -> x0 may change each
    answer (inpainting puts the kept picture back). one_by_one: see `SamplingOptions`. takeover: who goes on at low
    noise. calls: answers given so far, on_call told of each. step: the schedule's step at work, counted from 1, kept by
    the caller.
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
        one_by_one: bool = False,
        takeover: Takeover | None = None,
    ) -> None:
        self.model, self.levels = model, levels
        self.cond, self.uncond, self.scale, self.rescale = cond, uncond, scale, rescale
        self.on_denoised, self.one_by_one = on_denoised, one_by_one
        self.takeover = takeover
        self._once = _Once()
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
        output, other = self._guided(x * levels.scale(sigma), levels.time(sigma), need_negative)
        self.calls += 1
        self.on_call(self.calls)
        x0 = levels.denoised(output.float(), x, sigma)
        if self.on_denoised is not None:
            x0 = self.on_denoised(x0, sigma)
        return x0, None if other is None else levels.denoised(other.float(), x, sigma)

    def _guided(self, x: Tensor, time: float, need_negative: bool) -> tuple[Tensor, Tensor | None]:
        """`guided_and_negative` of the network's input x (B, 4, h, w), of all pictures at once or one by one."""
        now = self.takeover if self.takeover is not None and round(time) < self.takeover.below else self
        positives = self._at(now.cond)
        negative = None if now.uncond is None else self._at(now.uncond)[0][0]

        cut = self._once.cut

        def of(rows: slice) -> tuple[Tensor, Tensor | None]:
            t = torch.full((len(x[rows]),), time, device=x.device)
            parts = [(cut(conditioning, rows), weight) for conditioning, weight in positives]
            other = None if negative is None else cut(negative, rows)
            how = self.scale, need_negative, self.rescale, self._once.join
            # The network's guided output and its output without the prompt, each (rows, 4, h, w).
            return guided_and_negative(now.model, x[rows].contiguous(), t, parts, other, *how)

        if not self.one_by_one or x.device.type != "cpu":
            return of(slice(None))
        made = [of(slice(i, i + 1)) for i in range(len(x))]
        others = [other for _, other in made if other is not None]
        return torch.cat([output for output, _ in made]), torch.cat(others) if others else None

    def _at(self, prompt: Conditioning | Prompt) -> Parts:
        return [(prompt, 1.0)] if isinstance(prompt, Conditioning) else prompt.at_call(self.calls, self.step)
