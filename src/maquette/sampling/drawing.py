"""Settings and prompts on a base, ready to draw: pictures read, batch after batch of latents and pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..core.denoiser import Conditioning
from ..errors import MaquetteError
from ..events import Event, Listener
from ..families.base import BaseModel
from ..families.controlnet import ControlNet
from ..families.sdxl.refiner import NEGATIVE_SCORE, SCORE, Refiner, size_numbers
from ..families.upscaler import Upscaler
from ..prompts.encode import Prompt
from .beginning import Canvas, guides_of
from .control import Controlled, Guide, marked
from .decoding import decoded
from .denoiser import Takeover
from .draw_settings import DrawSettings
from .ending import Ends, HalfDrawn
from .enlarging import Enlargement, enlarged, require_same_latents
from .finite import require_finite_picture
from .hot_loras import HotLoras
from .infotext import cfg_scale
from .loop import SamplingOptions, sample
from .lora_tags import Wish
from .preview import Previews
from .samplers import kind_of
from .steps import encoded_steps

Prompts = tuple[Prompt, Prompt]
"""The prompt and the negative one."""


@dataclass(frozen=True)
class Pass:
    """One way from noise, or from a picture, to latents. loras: who draws; wishes: the LoRAs that shall be in its
    weights; takeover: who ends it.
    """

    loras: HotLoras
    wishes: Sequence[Wish]
    sampler: str
    steps: int
    cfg_scale: float
    cond: Prompt
    uncond: Prompt
    width: int
    height: int
    guides: list[Guide]
    takeover: Takeover | None = None

    @property
    def base(self) -> BaseModel:
        return self.loras.base

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
            model=controlled or self.loras.denoiser,
            on_denoised=keep,
            takeover=self.takeover,
            on_step=after,
            callback=on_call,
        )


class Drawing:
    """Everything that stays the same from batch to batch. LoRAs and embeddings are in the base while it is made."""

    def __init__(
        self,
        loras: HotLoras,
        wishes: Sequence[Wish],
        prompts: Prompts,
        settings: DrawSettings,
        canvas: Canvas,
        load: Callable[[str], ControlNet],
    ) -> None:
        """The first drawing, by the base of `loras`, which has them. load: opens a ControlNet."""
        self.base, self.settings, self.canvas, self.load = loras.base, settings, canvas, load
        self.begin = canvas.beginning(self.base, settings)
        if self.begin is not None:
            prompts = prompts[0].mapped(self.begin.with_mask), prompts[1].mapped(self.begin.with_mask)
        guides = guides_of(settings, self.base, canvas, load)
        scale, size = cfg_scale(settings, self.base), (canvas.width, canvas.height)
        told = settings.sampler_and_steps()
        self.first = Pass(loras, wishes, *told, scale, *self._marked(prompts), *size, guides)
        self.second: Pass | None = None
        self.enlargement: Enlargement | None = None
        self.upscaler: str | Upscaler = settings.hires_upscaler

    def _marked(self, prompts: Prompts) -> Prompts:
        """Which side each is on, for ControlNets that guide one side alone."""
        if not self.settings.controls:
            return prompts
        return prompts[0].mapped(lambda c: marked(c, 1.0)), prompts[1].mapped(lambda c: marked(c, 0.0))

    def add_hires(self, loras: HotLoras, wishes: Sequence[Wish], prompts: Prompts, upscaler: str | Upscaler) -> None:
        """Prepare the second drawing by the base of `loras`, which has them."""
        settings, base = self.settings, loras.base
        self.upscaler = upscaler
        require_same_latents(self.base, base, upscaler)
        factor = max(base.spec.latent_factor, 8)
        self.enlargement = size = Enlargement.of(settings, self.canvas.width, self.canvas.height, factor)
        guides = guides_of(settings, base, self.canvas, self.load, size)
        scale, sides = settings.hires_cfg_scale or self.first.cfg_scale, (size.kept_width, size.kept_height)
        told = settings.sampler_and_steps(again=True)
        self.second = Pass(loras, wishes, *told, scale, *self._marked(prompts), *sides, guides)

    def add_refiner(self, refiner: Refiner, prompts: Prompts) -> None:
        """Have the refiner end the last drawing. Raises MaquetteError for another base than SDXL."""
        last = self.second or self.first
        if last.base.spec.name != "sdxl":
            raise MaquetteError(
                f"{refiner.source} goes on with latents of Stable Diffusion XL, and {last.base.source} draws others."
            )
        cond, uncond = (
            prompt.mapped(partial(_sized, numbers=size_numbers(last.width, last.height, score)))
            for prompt, score in zip(prompts, (SCORE, NEGATIVE_SCORE), strict=True)
        )
        below = 1000.0 - 1000.0 * self.settings.refiner_switch_at
        last = replace(last, takeover=Takeover(refiner, cond, uncond, round(below, 6)))
        if self.second is None:
            self.first = last
        else:
            self.second = last

    def pixels(
        self,
        seeds: Sequence[int],
        varied: int,
        batch: int,
        fold: Callable[[Pass], None],
        on_event: Listener,
        ends: Ends,
    ) -> Tensor:
        """(B, 3, H, W) in [0, 1] of one batch. varied: its first variation seed; fold: puts a pass's LoRAs in."""
        settings, last = self.settings, self.first
        again = 0 if self.second is None else self.second.steps
        each = settings.steps + again
        before, total = batch * each, settings.batch_count * each
        fold(last)
        report = reporter(on_event, before, settings.steps, total)
        after = self._followed(last, self.steps(), on_event, ends)
        try:
            latents = self.latents(seeds, varied, report, after)
            if self.second is not None:
                last = self.second
                fold(last)
                report = reporter(on_event, before + settings.steps, again, total)
                after = self._followed(last, again, on_event, ends)
                latents = self.hires_latents(latents, seeds, varied, report, after, on_event)
        except HalfDrawn as half:
            latents = half.latents
        return decoded(last.base, latents, on_event, settings.exact_batch)

    def _followed(self, at_work: Pass, steps: int, on_event: Listener, ends: Ends) -> Callable[[int, Tensor], None]:
        """What is done after each step, of so many: LoRAs that begin or end there, previews, an end that is asked."""
        previews = Previews(at_work.base, self.settings.preview_every, on_event)
        scheduled = any(wish.scheduled for wish in at_work.wishes)

        def at(step: int) -> None:
            if scheduled:
                at_work.loras.set([wish.at(step, steps) for wish in at_work.wishes])

        def after(i: int, x0: Tensor) -> None:
            at(i + 1)
            previews.after(i, x0)
            ends.after_step(x0)

        at(0)
        return after

    def steps(self) -> int:
        """Steps that the first drawing does, which from a picture are fewer."""
        if self.begin is None:
            return self.settings.steps
        return self.first.done_from(self.settings.strength, self.settings.exact_steps)

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
