"""The measures of the DreamBooth paper (arXiv 2208.12242, section 4), on DreamBench's prompts.

The prompts are those of the data set that came with the paper (google/dreambooth, CC BY 4.0): 25 for things and 25 for
what lives, of which half are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.captions import caption_for_class, class_of
from ..data.wording import Wording
from ..families.base import BaseModel
from .drawing import decoded, draw_latents, plan_of
from .encoders import Encoder
from .example import Example
from .tuned import Tuned
from .words import attributes_of, others_of

STEPS = 25
PLACES = (
    "in the jungle", "in the snow", "on the beach", "on a cobblestone street", "on top of pink fabric",
    "on top of a wooden floor", "with a city in the background", "with a mountain in the background",
    "with a blue house in the background", "on top of a purple rug in a forest",
)  # fmt: skip
THINGS = (
    "with a wheat field in the background", "with a tree and autumn leaves in the background",
    "with the Eiffel Tower in the background", "floating on top of water", "floating in an ocean of milk",
    "on top of green grass with sunflowers around it", "on top of a mirror",
    "on top of the sidewalk in a crowded street", "on top of a dirt road", "on top of a white rug",
)  # fmt: skip
LIVING = (
    "wearing a red hat", "wearing a santa hat", "wearing a rainbow scarf", "wearing a black top hat and a monocle",
    "in a chef outfit", "in a firefighter outfit", "in a police outfit", "wearing pink glasses",
    "wearing a yellow shirt", "in a purple wizard outfit",
)  # fmt: skip
KINDS = ("red", "purple", "shiny", "wet", "cube shaped")


def prompts(subject: str, living: bool) -> list[str]:
    """The 25 prompts of a subject, or of a class in its place."""
    return [
        *(f"a {subject} {where}" for where in (*PLACES, *(LIVING if living else THINGS))),
        *(f"a {kind} {subject}" for kind in KINDS),
    ]


@dataclass(frozen=True)
class Scores:
    """A row of the paper's tables. None: not measured, for want of the encoder, or of a second picture of a prompt."""

    name: str
    dino: float | None = None
    clip_i: float | None = None
    clip_t: float | None = None
    pres: float | None = None
    div: float | None = None


def table(
    base: BaseModel,
    change: Tuned,
    weight: float,
    photos: Sequence[Example],
    subject: str,
    *,
    clip: Encoder | None,
    dino: Encoder | None,
    living: bool = False,
    per_prompt: int = 1,
    seed: int = 0,
    clip_skip: int = 1,
    cfg_scale: float | None = None,
) -> list[dict[str, Any]]:
    """The rows "real images", the base asked for the class, and the trained file, as JSON has them."""
    real = torch.stack([photo.pixels for photo in photos]) / 2 + 0.5
    class_word = class_of(subject)
    size = tuple(photos[0].pixels.shape[-2:])
    plan = plan_of(
        base, Wording(subject, class_word), attributes_of(base.spec), others_of(base.spec, class_word), pictures=0,
        others_drawn=0, steps=STEPS, cfg_scale=cfg_scale, size=size, seed=seed, clip_skip=clip_skip,
    )  # fmt: skip
    subject_prompts, plain = (
        [p for p in prompts(word, living) for _ in range(per_prompt)] for word in (subject, class_word)
    )
    first = seed * 1000

    def draw(changed: BaseModel, texts: Sequence[str]) -> Tensor:
        return decoded(base, draw_latents(changed, plan, texts, first))

    before = draw(base, plain)
    with change(weight) as changed:
        drawn = draw(changed, subject_prompts)
        of_class = draw(changed, [caption_for_class(class_word)] * max(4, per_prompt))
    rows = [
        _among_photos(real, clip, dino),
        _scores(f"base, asked for {class_word}", before, plain, real, clip, dino, per_prompt, None),
        _scores("trained", drawn, plain, real, clip, dino, per_prompt, of_class),
    ]
    return [asdict(row) for row in rows]


def _among_photos(real: Tensor, clip: Encoder | None, dino: Encoder | None) -> Scores:
    """The paper's "real images": how alike the photos are among themselves."""
    found = [None if e is None or len(real) < 2 else apart(e.images(real)) for e in (dino, clip)]
    return Scores("real images", *found)


def _scores(
    name: str, drawn: Tensor, texts: Sequence[str], real: Tensor, clip: Encoder | None, dino: Encoder | None,
    per_prompt: int, of_class: Tensor | None,
) -> Scores:  # fmt: skip
    clip_i = clip_t = by_dino = pres = div = None
    if clip is not None:
        seen = clip.images(drawn)
        clip_i = alike(seen, clip.images(real))
        clip_t = float((seen * clip.texts(texts)).sum(1).mean())
    if dino is not None:
        seen, photos = dino.images(drawn), dino.images(real)
        by_dino = alike(seen, photos)
        pres = None if of_class is None else alike(dino.images(of_class), photos)
        if per_prompt > 1:
            div = 1.0 - sum(map(apart, seen.split(per_prompt))) / (len(seen) // per_prompt)
    return Scores(name, by_dino, clip_i, clip_t, pres, div)


def alike(drawn: Tensor, photos: Tensor) -> float:
    """Mean cosine of all pairs of a picture (B, D) and a photo (n, D): CLIP-I, DINO, and of class pictures PRES."""
    return float((drawn @ photos.T).mean())


def apart(vectors: Tensor) -> float:
    """Mean cosine of all pairs of different ones of (n, D)."""
    n = len(vectors)
    among = vectors @ vectors.T
    return float((among.sum() - among.trace()) / (n * (n - 1)))
