"""Settings on a base, ready to draw: prompts encoded, pictures read, batch after batch of latents and pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..core.denoiser import Conditioning, Denoiser
from ..errors import MaquetteError
from ..events import Event, Listener
from ..families.base import BaseModel
from ..families.controlnet import ControlNet
from ..families.sdxl.refiner import NEGATIVE_SCORE, SCORE, Refiner, size_numbers
from ..families.upscaler import Upscaler
from ..prompts.encode import Prompt
from .beginning import Canvas, guides_of
from .control import Controlled, Guide, marked
from .denoiser import Takeover
from .draw_settings import DrawSettings
from .enlarging import Enlargement, enlarged, require_same_latents
from .finite import require_finite_picture
from .hot_loras import HotLoras
from .infotext import cfg_scale
from .loop import SamplingOptions, sample
from .samplers import kind_of
from .steps import encoded_steps
from .words import Words


@dataclass(frozen=True)
class Pass:
    """One way from noise, or from a picture, to latents. base: who draws, asked by model; takeover: who ends it."""

    base: BaseModel
    model: Denoiser
    sampler: str
    steps: int
    cfg_scale: float
    cond: Prompt
    uncond: Prompt
    width: int
    height: int
    guides: list[Guide]
    takeover: Takeover | None = None

    def done_from(self, strength: float, exact: bool) -> int:
        """Steps that are done from a picture at a denoising strength."""
        t_enc = encoded_steps(self.steps, strength, exact)[1]
        return max(1, t_enc if kind_of(self.sampler).by_timesteps else t_enc + 1)

    def drawn(
        self,
        seeds: Sequence[int],
        options: SamplingOptions,
        begin: Tensor | None,
        strength: float,
        keep: Callable[[Tensor, float], Tensor] | None,
        on_call: Callable[[int, int], None],
        on_step: Callable[[int, Tensor], None],
    ) -> Tensor:
        """Latents (B, 4, h, w), one for each seed. begin: (B, 4, h, w) or None for noise; keep: after each answer."""
        steps = self.steps if begin is None else self.done_from(strength, options.exact_steps)
        controlled = Controlled(self.base, self.guides, steps) if self.guides else None

        def after(i: int, x0: Tensor) -> None:
            if controlled is not None:
                controlled.step = i + 1
            on_step(i, x0)

        return sample(
            self.base,
            self.cond,
            self.uncond,
            sampler=self.sampler,
            steps=self.steps,
            cfg_scale=self.cfg_scale,
            seeds=seeds,
            width=self.width,
            height=self.height,
            init_latents=begin,
            denoising_strength=strength,
            options=options,
            model=controlled or self.model,
            on_denoised=keep,
            takeover=self.takeover,
            on_step=after,
            callback=on_call,
        )


class Drawing:
    """Everything that stays the same from batch to batch. LoRAs and embeddings are in the base while it is made.

    loras: the base as it is asked. refiner: who takes over in the last drawing, if anyone.
    """

    def __init__(
        self,
        loras: HotLoras,
        settings: DrawSettings,
        canvas: Canvas,
        words: Words,
        load: Callable[[str], ControlNet],
        refiner: Refiner | None = None,
    ) -> None:
        self.base, self.settings, self.canvas = loras.base, settings, canvas
        base = loras.base
        self.load, self.refiner = load, refiner
        self.begin = canvas.beginning(base, settings)
        scale = cfg_scale(settings, base)
        cond, uncond = self._prompts(base, words.plain, words.negative, settings.sampler, settings.steps)
        guides = guides_of(settings, base, canvas, load)
        size = canvas.width, canvas.height
        self.first = Pass(base, loras.denoiser, settings.sampler, settings.steps, scale, cond, uncond, *size, guides)
        if not settings.hires:
            self.first = self._refined(self.first, words)
        self.second: Pass | None = None
        self.enlargement: Enlargement | None = None
        self.upscaler: str | Upscaler = settings.hires_upscaler

    def steps(self) -> int:
        """Steps that the first drawing does, which from a picture are fewer."""
        if self.begin is None:
            return self.settings.steps
        return self.first.done_from(self.settings.strength, self.settings.exact_steps)

    def add_hires(self, words: Words, loras: HotLoras, upscaler: str | Upscaler) -> None:
        """Prepare the second drawing by the base of `loras`, which has them."""
        settings, base = self.settings, loras.base
        self.upscaler = upscaler
        require_same_latents(self.base, base, upscaler)
        factor = max(base.spec.latent_factor, 8)
        self.enlargement = size = Enlargement.of(settings, self.canvas.width, self.canvas.height, factor)
        sampler, steps = settings.hires_sampler or settings.sampler, settings.hires_steps or settings.steps
        prompts = self._prompts(base, words.plain, words.negative, sampler, steps, first=settings)
        guides = guides_of(settings, base, self.canvas, self.load, size)
        scale = settings.hires_cfg_scale or self.first.cfg_scale
        self.second = Pass(
            base, loras.denoiser, sampler, steps, scale, *prompts, size.kept_width, size.kept_height, guides
        )
        self.second = self._refined(self.second, words, first=settings)

    def _refined(self, last: Pass, words: Words, first: DrawSettings | None = None) -> Pass:
        """The last drawing, with the refiner at its end where there is one. Raises MaquetteError for another base."""
        refiner, settings = self.refiner, self.settings
        if refiner is None:
            return last
        if last.base.spec.name != "sdxl":
            raise MaquetteError(
                f"{refiner.source} goes on with latents of Stable Diffusion XL, and {last.base.source} draws others."
            )
        prompts = self._encoded(refiner, words.plain, words.negative, last.sampler, last.steps, first)
        cond, uncond = (
            prompt.mapped(partial(_sized, numbers=size_numbers(last.width, last.height, score)))
            for prompt, score in zip(prompts, (SCORE, NEGATIVE_SCORE), strict=True)
        )
        below = 1000.0 - 1000.0 * settings.refiner_switch_at
        return replace(last, takeover=Takeover(refiner, cond, uncond, round(below, 6)))

    def _prompts(
        self, base: BaseModel, plain: str, negative: str, sampler: str, steps: int, first: DrawSettings | None = None
    ) -> tuple[Prompt, Prompt]:
        cond, uncond = self._encoded(base, plain, negative, sampler, steps, first)
        if first is None and self.begin is not None:
            cond, uncond = cond.mapped(self.begin.with_mask), uncond.mapped(self.begin.with_mask)
        if self.settings.controls:
            cond, uncond = cond.mapped(lambda c: marked(c, 1.0)), uncond.mapped(lambda c: marked(c, 0.0))
        return cond, uncond

    def _encoded(
        self, base: BaseModel, plain: str, negative: str, sampler: str, steps: int, first: DrawSettings | None
    ) -> tuple[Prompt, Prompt]:
        settings, calls = self.settings, kind_of(sampler).calls
        options: dict[str, Any] = {
            "clip_skip": settings.clip_skip,
            "emphasis": settings.emphasis,
            "batch": settings.batch_size,
            "counting": settings.prompt_editing,
            "calls_per_step": calls,
        }
        if first is not None:
            counted = kind_of(first.sampler).calls if settings.prompt_editing == "A1111" else 1
            options["first_pass"] = first.steps * counted
        cond = Prompt(base, plain, steps, **options)
        options |= {"composable": False, "zeros": base.spec.zero_negative}
        uncond = Prompt(base, negative, steps, **options)
        return cond, uncond

    @torch.no_grad()
    def latents(
        self,
        seeds: Sequence[int],
        variation_seed: int,
        on_call: Callable[[int, int], None],
        on_step: Callable[[int, Tensor], None],
    ) -> Tensor:
        """Of the first drawing: (B, 4, h, w)."""
        settings = self.settings
        options = settings.batch_options(self.base.spec.latent_factor, variation_seed)
        start = None if self.begin is None else self.begin.for_seeds(list(seeds), options.noise)
        keep = None if self.begin is None else self.begin.keeping()
        strength = settings.strength if self.begin is not None else 1.0
        x = self.first.drawn(seeds, options, start, strength, keep, on_call, on_step)
        return x if keep is None else keep(x, 0.0)

    @torch.no_grad()
    def hires_latents(
        self,
        latents: Tensor,
        seeds: Sequence[int],
        variation_seed: int,
        on_call: Callable[[int, int], None],
        on_step: Callable[[int, Tensor], None],
        on_event: Listener,
    ) -> Tensor:
        """Of the second drawing, which begins from the first's latents."""
        assert self.second is not None and self.enlargement is not None
        require_finite_picture(latents, self.base)
        start = enlarged(self.base, self.second.base, latents, self.enlargement, self.upscaler, on_event)
        options = self.settings.batch_options(self.second.base.spec.latent_factor, variation_seed, exact_steps=True)
        strength = self.settings.strength
        return self.second.drawn(seeds, options, start, strength, None, on_call, on_step)


def _sized(conditioning: Conditioning, numbers: Tensor) -> Conditioning:
    """The conditioning with size numbers, (1, n), for each of its rows."""
    tokens = conditioning.tokens
    return replace(conditioning, time_ids=numbers.to(tokens.device).expand(len(tokens), -1))


def reporter(on_event: Listener, done: int, share: int, of: int) -> Callable[[int, int], None]:
    """on_call of a pass that is `share` steps of `of`, of which `done` are behind it."""

    def report(call: int, calls: int) -> None:
        on_event(Event("progress", {"what": "drawing", "done": done + call * share // calls, "of": of}))

    return report
