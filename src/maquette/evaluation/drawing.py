"""What a checkpoint draws for its judgement: the subject under attributes, and other things; latents.

Through `sampling.loop` and no Pipeline: that draws one prompt at a time with LoRAs out of files, and here many prompts
share each call of the network that is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.wording import Wording
from ..families.base import BaseModel
from ..sampling.infotext import usual_cfg_scale
from ..sampling.loop import sample
from .rows import cells_at_once
from .words import article

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLER = "DDIM"
BARE = 4  # of so many pictures of the subject one is asked for without attribute


@dataclass(frozen=True)
class Plan:
    """Prompts and seeds, the same for every checkpoint. subject_prompts and class_prompts say the same of the subject
    and of its class; asked: the attribute of each, -1 for none.
    """

    wording: Wording
    attributes: tuple[str, ...]
    things: tuple[str, ...]
    subject_prompts: tuple[str, ...]
    class_prompts: tuple[str, ...]
    asked: tuple[int, ...]
    others_prompts: tuple[str, ...]
    seed: int
    steps: int
    cfg_scale: float
    size: tuple[int, int]  # pixels: height, width
    clip_skip: int


@dataclass(frozen=True)
class Drawing:
    """subject: (m, C, h, w), others: (k, C, h, w) latents."""

    subject: Tensor
    others: Tensor


def plan_of(
    base: BaseModel,
    wording: Wording,
    attributes: Sequence[str],
    others: Sequence[str],
    *,
    pictures: int,
    others_drawn: int,
    steps: int,
    cfg_scale: float | None,
    size: tuple[int, ...],
    seed: int,
    clip_skip: int,
) -> Plan:
    """Every fourth picture of the subject without attribute, the others with one of them in turn; a style is never
    asked for without a thing. Raises ValueError for fewer than two attributes or other things: one cannot be told from
    another.
    """
    if len(attributes) < 2 or len(others) < 2:
        raise ValueError("a panel needs two attributes and two other things, or more")
    asked, turn = [], 0
    for i in range(pictures):
        bare = i % BARE == 0 and not wording.style
        asked.append(-1 if bare else turn % len(attributes))
        turn += not bare
    ends = ["" if which < 0 else attributes[which] for which in asked]
    things = tuple(others[:others_drawn])
    return Plan(
        wording,
        tuple(attributes),
        things,
        tuple(wording.of(end) for end in ends),
        tuple(wording.instead(end) for end in ends),
        tuple(asked),
        tuple(f"a photo of {article(thing)}" for thing in things),
        seed,
        steps,
        cfg_scale or usual_cfg_scale(base),
        (size[0], size[1]),
        clip_skip,
    )


def draw(base: BaseModel, plan: Plan, subject_prompts: Sequence[str]) -> Drawing:
    """The plan's pictures by the base as it is now. subject_prompts: those of the subject, or of the class."""
    made = draw_latents(base, plan, [*subject_prompts, *plan.others_prompts], plan.seed * 1000)
    return Drawing(made[: len(subject_prompts)], made[len(subject_prompts) :])


@torch.no_grad()
def draw_latents(base: BaseModel, plan: Plan, prompts: Sequence[str], first_seed: int) -> Tensor:
    """(B, C, h, w): one picture for each prompt, seeds counted up."""
    texts = list(dict.fromkeys(prompts))
    conditioning, nothing = base.encode_text(texts, plan.clip_skip), base.encode_negative([""], plan.clip_skip)
    height, width = plan.size
    factor = base.spec.latent_factor
    at_once = max(1, cells_at_once(base.device) // (height // factor * (width // factor)) // 2)
    parts = []
    for first in range(0, len(prompts), at_once):
        part = prompts[first : first + at_once]
        parts.append(
            sample(
                base,
                conditioning[[texts.index(prompt) for prompt in part]],
                nothing[[0] * len(part)],
                sampler=SAMPLER,
                steps=plan.steps,
                cfg_scale=plan.cfg_scale,
                seeds=range(first_seed + first, first_seed + first + len(part)),
                width=width,
                height=height,
            )
        )
    return torch.cat(parts)


@torch.no_grad()
def decoded(base: BaseModel, latents: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1], on the CPU; one picture at a time goes through the VAE."""
    return torch.cat([base.decode(latent[None]).float().cpu() for latent in latents]).clamp(0, 1)


def picture_of(pixels: Tensor) -> Image:
    """(3, H, W) in [0, 1] -> Pillow image, its numbers rounded."""
    from PIL import Image

    return Image.fromarray((pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())
