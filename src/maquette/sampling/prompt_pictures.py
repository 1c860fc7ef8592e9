"""Pictures of several prompts, drawn as `maquette generate` draws each: sample pictures, class pictures, the demo's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.denoiser import Conditioning
from ..families.base import BaseModel
from ..prompts import parse_attention, parse_composable, parse_schedule, strip_comments
from ..prompts.chunks import split_chunks
from ..prompts.encode import Prompt
from .finite import require_finite_picture
from .loop import sample
from .samplers import kind_of


@torch.no_grad()
def draw_prompts(
    base: BaseModel,
    prompts: Sequence[str],
    negative: str = "",
    *,
    seeds: Sequence[int],
    sampler: str,
    steps: int,
    cfg_scale: float,
    width: int,
    height: int,
    clip_skip: int = 1,
) -> Tensor:
    """One picture for each prompt and its seed: (B, 3, height, width) in [0, 1].

    Prompts that are words alone (see `is_plain`) are one batch; of the others those that are the same.
    Raises NotFiniteError for a picture of NaN.
    """
    options: dict[str, Any] = {
        "sampler": sampler, "steps": steps, "cfg_scale": cfg_scale, "width": width, "height": height,
    }  # fmt: skip
    prompt_options: dict[str, Any] = {"clip_skip": clip_skip, "calls_per_step": kind_of(sampler).calls}
    at_once = is_plain(base, negative)
    groups: dict[str | None, list[int]] = {}
    for place, text in enumerate(prompts):
        groups.setdefault(None if at_once and is_plain(base, text) else text, []).append(place)
    latents: dict[int, Tensor] = {}
    for prompt, places in groups.items():
        cond: Conditioning | Prompt
        uncond: Conditioning | Prompt
        if prompt is None:
            cond = base.encode_text([prompts[place] for place in places], clip_skip)
            uncond = base.encode_negative([negative] * len(places), clip_skip)
        else:
            prompt_options |= {"batch": len(places), "composable": True, "zeros": False}
            cond = Prompt(base, strip_comments(prompt), steps, **prompt_options)
            prompt_options |= {"composable": False, "zeros": base.spec.zero_negative}
            uncond = Prompt(base, strip_comments(negative), steps, **prompt_options)
        drawn = sample(base, cond, uncond, seeds=[seeds[place] for place in places], **options)
        latents |= dict(zip(places, drawn, strict=True))
    pixels = base.decode(torch.stack([latents[place] for place in range(len(prompts))]))
    require_finite_picture(pixels, base)
    return pixels


def is_plain(base: BaseModel, prompt: str) -> bool:
    """Whether A1111's prompt language reads a prompt as its words alone, in one chunk of tokens."""
    pieces = parse_attention(prompt)
    return (
        strip_comments(prompt) == prompt
        and parse_composable(prompt) == [(prompt, 1.0)]
        and [text for _, text in parse_schedule(prompt, 1)] == [prompt]
        and pieces in ([[prompt, 1.0]], [["", 1.0]])
        and all(len(split_chunks(pieces, tokenizer)) == 1 for tokenizer in base.tokenizers)
    )
