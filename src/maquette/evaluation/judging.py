"""What a picture shows, by which text the frozen base denoises it best ("Your diffusion model is secretly a zero-shot
classifier", arXiv 2303.16203).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.noise import NoiseSchedule
from ..families.base import BaseModel
from .drawing import Drawing, Plan
from .rows import Rows, answers
from .words import article

DISTRACTORS = 3  # texts of other attributes or things for each picture
NOISE_LEVELS = (0.5, 0.7, 0.3)  # shares of the schedule's steps, of one draw each


@dataclass(frozen=True)
class Margins:
    """For each picture whose prompt asks for something: share of distractors that fit worse (B,), and by how much the
    mean distractor fits worse, in parts of the picture's mean error, (B,). of_subject: which pictures those are.
    """

    subject_share: Tensor
    subject_margin: Tensor
    others_share: Tensor
    others_margin: Tensor


@torch.no_grad()
def errors(
    base: BaseModel, latents: Tensor, texts: Sequence[Sequence[str]], schedule: NoiseSchedule, draws: int, seed: int,
    clip_skip: int = 1,
) -> Tensor:  # fmt: skip
    """Mean squared denoising error of each picture (B, C, h, w) under each of its K texts: (B, K).

    All texts of a picture see the same noise; the error is that of the noise whatever the base predicts.
    """
    count, kinds = len(latents), len(texts[0])
    random = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, kinds, device=latents.device)
    for draw in range(draws):
        t = torch.full((count,), int(NOISE_LEVELS[draw % len(NOISE_LEVELS)] * len(schedule)), device=latents.device)
        noise = torch.randn(latents.shape, generator=random).to(latents)
        x_t = schedule.add_noise(latents, noise, t)
        again = [i for i in range(count) for _ in range(kinds)]
        rows = Rows(x_t[again], t[again], tuple(text for own in texts for text in own))
        said = schedule.eps(answers(base, rows, clip_skip), rows.x_t, rows.t)
        error = (said - noise[again]).square().flatten(1).mean(1).unflatten(0, (count, kinds))
        total += error / error.mean(1, keepdim=True)
    return total / draws


def margins(
    base: BaseModel, drawn: Drawing, plan: Plan, schedule: NoiseSchedule, draws: int, seed: int, clip_skip: int = 1
) -> Margins:
    """What the pictures of a drawing show, among what they might."""
    places = [i for i, which in enumerate(plan.asked) if which >= 0]
    wording = plan.wording
    asked_texts = [wording.instead(attribute) for attribute in plan.attributes]
    subject_texts = [[asked_texts[which] for which in _and_others(plan.asked[i], len(asked_texts))] for i in places]
    things = [f"a photo of {article(thing)}" for thing in plan.things]
    # a thing may have become the subject, but not a style
    more = [] if wording.style else [wording.instead()]
    others_texts = [
        [*(things[which] for which in _and_others(i, len(things), DISTRACTORS - len(more))), *more]
        for i in range(len(things))
    ]
    found = []
    for latents, texts in ((drawn.subject[places], subject_texts), (drawn.others, others_texts)):
        error = errors(base, latents, texts, schedule, draws, seed, clip_skip)
        asked, rest = error[:, :1], error[:, 1:]
        found += [(rest > asked).float().mean(1), rest.mean(1) - asked[:, 0]]
    return Margins(*found)


def _and_others(which: int, of: int, distractors: int = DISTRACTORS) -> list[int]:
    """A number and the next others, around."""
    return [(which + step) % of for step in range(min(distractors + 1, of))]
