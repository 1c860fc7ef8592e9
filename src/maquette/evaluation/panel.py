"""The panel: photos, class pictures and prompts under fixed noise, with the base's own answers, computed once a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..config.base import Kind
from ..core.noise import NoiseSchedule
from ..data.wording import Wording
from ..errors import MaquetteError
from ..families.base import BaseModel
from .drawing import Drawing, Plan, draw, draw_latents, plan_of
from .encoders import Encoder
from .example import Example
from .features import Eye, Look, make_eye
from .judging import Margins, margins
from .references import Describe, References, by_encoder, make_references
from .rows import Rows, answers, answers_of, stratified
from .rule import RULE, STYLE_RULE, Rule
from .words import attributes_of, changes_look, others_of

STYLE_REFERENCES = 4  # photos of a style show many things, so as many times more are compared
GALLERY_SEED = 500  # of the class pictures that photos are told from; none of them is drawn for another use


@dataclass(frozen=True)
class Size:
    """How much is measured. photos: at most so many of those trained, and of those held out; probed: of these asked
    without caption. timesteps: of each photo. kept: class pictures, and others: other things whose change is measured;
    these are drawn once more by every checkpoint. pictures: drawn of the subject; references: photos with which each of
    them is compared. steps: denoising steps of a drawing. draws: noises of each judgement.
    """

    photos: int = 16
    probed: int = 6
    timesteps: int = 4
    kept: int = 6
    others: int = 6
    pictures: int = 16
    references: int = 8
    steps: int = 10
    draws: int = 2


QUICK = Size(probed=4, kept=4, others=4, pictures=8, references=4, steps=6, draws=1)
SMALL = Size(probed=4, kept=4, others=4, pictures=8, references=4, steps=8, draws=1)
STANDARD = Size()
LARGE = Size(photos=40, probed=10, timesteps=8, kept=10, others=10, pictures=24, steps=20, draws=3)


@dataclass(frozen=True)
class Panel:
    """n photos, T timesteps. What a checkpoint is asked is in `rows`, what the base says to the same in `base`.

    photos: (n, C, h, w) latents. target: (n T, C, h, w) what should be answered of the photos. held: n times whether
    a photo was held out. every: (N, C, h, w) latents of all photos, not of the chosen n alone. eye: what pictures are
    judged by. drawn: what the base drew for the class under the prompts and seeds with which checkpoints draw the
    subject; look, margins: what the eye and the judge say of it. references: what the subject should look like there;
    describe: by what drawings are compared with them, None for the eye's statistics.
    """

    names: tuple[str, ...]
    held: tuple[bool, ...]
    photos: Tensor
    every: Tensor = field(repr=False)
    timesteps: int
    rows: dict[str, Rows]
    target: Tensor
    base: dict[str, Tensor]
    empty: dict[str, Tensor] = field(repr=False)
    plan: Plan = field(repr=False)
    eye: Eye = field(repr=False)
    drawn: Drawing = field(repr=False)
    look: Look = field(repr=False)
    references: References = field(repr=False)
    describe: Describe | None = field(repr=False)
    margins: Margins = field(repr=False)
    schedule: NoiseSchedule = field(repr=False)
    noisy: Tensor = field(repr=False)  # which of the rows "subject" the rows "edits" are
    draws: int = 2
    clip_skip: int = 1
    seed: int = 0

    @property
    def subject(self) -> str:
        return self.plan.wording.subject

    @property
    def style(self) -> bool:
        """Whether the subject is a style."""
        return self.plan.wording.style

    @property
    def rule(self) -> Rule:
        """By which files measured on this panel are chosen."""
        return STYLE_RULE if self.style else RULE


@torch.no_grad()
def build_panel(
    base: BaseModel,
    photos: Sequence[Example],
    subject: str,
    *,
    kind: Kind | None = None,
    class_word: str | None = None,
    attributes: Sequence[str] | None = None,
    others: Sequence[str] | None = None,
    size: Size = STANDARD,
    seed: int = 0,
    clip_skip: int = 1,
    cfg_scale: float | None = None,
    encoder: Encoder | None = None,
) -> Panel:
    """Encode the photos, draw the class and other things with the base, and ask the base everything that checkpoints
    will be asked. kind, class_word: as `Wording.for_subject` has them. encoder: measures likeness instead of the base.
    Raises MaquetteError without a photo that training saw.
    """
    wording = Wording.for_subject(subject, kind, class_word)
    picked = _chosen(photos, size.photos, seed)
    chosen = [photos[i] for i in picked]
    schedule = NoiseSchedule.from_config(base.scheduler_config).to(base.device)
    encoded = [base.encode_images(e.pixels[None].to(base.device))[0].float() for e in photos]
    every, latents = torch.cat(encoded), torch.cat([encoded[i] for i in picked])
    plan = plan_of(
        base,
        wording,
        attributes or attributes_of(base.spec, wording.style),
        others or others_of(base.spec, wording.class_word),
        pictures=size.pictures,
        others_drawn=size.others,
        steps=size.steps,
        cfg_scale=cfg_scale,
        size=tuple(chosen[0].pixels.shape[-2:]),
        seed=seed,
        clip_skip=clip_skip,
    )
    drawn = draw(base, plan, plan.class_prompts)
    random = torch.Generator().manual_seed(seed)
    rows, target = _rows(chosen, latents, schedule, size, plan, drawn, random)
    texts = {name: [wording.caption_instead(prompt) for prompt in part.prompts] for name, part in rows.items()}
    own = answers_of(base, {name: part.asking(texts[name]) for name, part in rows.items()}, clip_skip)
    empty = {name: answers(base, rows[name].asking([""] * len(rows[name])), clip_skip) for name in ("kept", "others")}
    gallery = draw_latents(base, plan, plan.class_prompts, seed * 1000 + GALLERY_SEED)
    eye = make_eye(base, every, gallery, wording, schedule, seed, clip_skip)
    look = eye.look(drawn.subject)
    describe = eye.statistics if encoder is None else by_encoder(base, encoder)
    seen = look.statistics if encoder is None else describe(drawn.subject)
    asked_of, each = _compared(plan), (STYLE_REFERENCES if wording.style else 1) * size.references
    references = make_references(describe, base, photos, asked_of, each, drawn.subject, seen, describe(gallery))
    return Panel(
        tuple(e.name for e in chosen),
        tuple(e.held for e in chosen),
        latents,
        every,
        size.timesteps,
        rows,
        target,
        own,
        empty,
        plan,
        eye,
        drawn,
        look,
        references,
        None if encoder is None else describe,
        margins(base, drawn, plan, schedule, size.draws, seed, clip_skip),
        schedule,
        torch.arange(len(rows["subject"]), device=base.device) % size.timesteps < (size.timesteps + 1) // 2,
        size.draws,
        clip_skip,
        seed,
    )


def _chosen(photos: Sequence[Example], most: int, seed: int) -> list[int]:
    """Which photos: at most so many of those trained, and of those held out, drawn by the seed."""
    seen, held = ([i for i, e in enumerate(photos) if e.held is side] for side in (False, True))
    if not seen:
        raise MaquetteError("The panel needs at least one photo that training saw.")
    if len({tuple(e.pixels.shape) for e in photos}) > 1:
        raise ValueError("all photos of a panel have one size")
    random = torch.Generator().manual_seed(seed)
    found = []
    for part in (seen, held):
        found += [part[i] for i in sorted(torch.randperm(len(part), generator=random)[:most].tolist())]
    return found


def _compared(plan: Plan) -> list[int]:
    """The attribute of each picture that can be compared with references, -1 for the others; of a style all are -1, as
    the photos themselves are what a picture in it should look like.
    """
    return [-1 if plan.wording.style or changes_look(plan.attributes[which]) else which for which in plan.asked]


def _rows(
    chosen: Sequence[Example],
    latents: Tensor,
    schedule: NoiseSchedule,
    size: Size,
    plan: Plan,
    drawn: Drawing,
    random: torch.Generator,
) -> tuple[dict[str, Rows], Tensor]:
    """Every question, and the right answers to those on the photos."""
    n, times = len(latents), stratified(schedule, size.timesteps)
    noise = torch.randn((n, len(times), *latents.shape[1:]), generator=random).to(latents)
    noise[:, 1::2] = -noise[:, 0 : len(times) // 2 * 2 : 2]  # antithetic in pairs of neighbouring timesteps
    noise = noise.flatten(0, 1)  # (n T, C, h, w)
    x0, t = latents.repeat_interleave(len(times), 0), times.repeat(n)
    x_t = schedule.add_noise(x0, noise, t)
    bare, plain = plan.wording.of(), plan.wording.instead()
    few = torch.arange(len(t), device=t.device) < size.probed * len(times)
    noisy = few & ((torch.arange(len(t), device=t.device) % len(times)) < (len(times) + 1) // 2)
    asked = [plan.attributes[i % len(plan.attributes)] for i in range(size.probed * ((len(times) + 1) // 2))]
    one = Rows(x_t[few], t[few], (bare,) * (min(size.probed, n) * len(times)))
    ends = asked[: min(size.probed, n) * ((len(times) + 1) // 2)]
    rows = {
        "photos": Rows(x_t, t, tuple(e.caption for e in chosen for _ in times)),
        "subject": one,
        "class": one.asking([plain] * len(one)),
        "edits": Rows(x_t[noisy], t[noisy], tuple(plan.wording.of(attribute) for attribute in ends)),
        "kept": _kept(drawn.subject[: size.kept], plan.class_prompts[: size.kept], times, schedule, random),
        "others": _kept(drawn.others, plan.others_prompts, times, schedule, random),
    }
    return rows, schedule.target(x0, noise, t)


def _kept(
    latents: Tensor, prompts: Sequence[str], times: Tensor, schedule: NoiseSchedule, random: torch.Generator
) -> Rows:
    """Each picture at two of the timesteps, in turn."""
    count = len(latents)
    which = torch.arange(2 * count, device=times.device) % len(times)
    x0, t = torch.cat([latents, latents]), times[which]
    noise = torch.randn(x0.shape, generator=random).to(x0)
    return Rows(schedule.add_noise(x0, noise, t), t, tuple(prompts[:count]) * 2)
