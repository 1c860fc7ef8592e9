"""What a checkpoint is worth, judged by what no program has that chooses: fresh scenes and pocket's own judge.

A draw is 16 pictures of a cell (step, weight), the same prompts and seeds for every cell of a run: the subject on each
colour that no photo had, in styles, its class and other objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.choice import plan
from benchmarks.choice.candidates import Run
from benchmarks.choice.drawing import Room, a_photo, with_article
from benchmarks.choice.subjects import Subject
from maquette.families.base import BaseModel
from tools.pocket.scenes import COLOURS, STYLES

SCENES = 12  # fresh scenes on each colour, to which pictures are compared
DRAW_SEED = 70_000  # of the first draw; each draw has a hundred seeds of its own
DRAWS = 4  # of every cell, where nothing else is said
FEWEST_DRAWS = 2  # with which a cell counts as judged: halves of the truth are compared
STYLED, CLASSED, NEIGHBOURS = 5, 3, 3  # pictures of a draw in other styles, of the class and of other things
BASE_DRAWS = 8  # draws of the base itself, to which obedience and neighbours are compared


@dataclass(frozen=True)
class Asked:
    """The prompts of one draw, and what should be seen."""

    subject: tuple[str, ...]
    subject_colours: tuple[str, ...]
    styled: tuple[str, ...]
    styled_colours: tuple[str, ...]
    styles: tuple[int, ...]
    others: tuple[str, ...]  # the class first
    objects: tuple[int, ...]

    @property
    def prompts(self) -> list[str]:
        return [*self.subject, *self.styled, *self.others]

    @property
    def parts(self) -> list[int]:
        return [len(self.subject), len(self.styled), len(self.others)]


def asked(room: Room, subject: Subject, words: str, draw: int) -> Asked:
    """words: the subject's, or its class's with an article."""
    colours, styles = subject.unseen, [style for style in STYLES if style != subject.style]
    pick = [(draw * STYLED + i) for i in range(STYLED)]
    styled = [(colours[n % len(colours)], styles[n % len(styles)]) for n in pick]
    near = [subject.neighbours[(draw * NEIGHBOURS + i) % len(subject.neighbours)] for i in range(NEIGHBOURS)]
    things = [subject.class_word] * CLASSED + near
    grounds = [list(COLOURS)[(5 * draw + i) % len(COLOURS)] for i in range(len(things))]
    return Asked(
        tuple(a_photo(words, colour) for colour in colours),
        colours,
        tuple(a_photo(words, colour, style) for colour, style in styled),
        tuple(colour for colour, _ in styled),
        tuple(list(STYLES).index(style) for _, style in styled),
        tuple(a_photo(with_article(thing), ground) for thing, ground in zip(things, grounds, strict=True)),
        tuple(room.court.objects.index(thing) for thing in things),
    )


class Jury:
    """Who judges pictures of one subject."""

    def __init__(self, room: Room, subject: Subject, known: Tensor) -> None:
        """known: (N, 192) features of pictures of everything else, for the second opinion."""
        self.room, self.subject = room, subject
        scenes = {colour: subject.fresh(colour, 2 * SCENES, 1) for colour in subject.unseen}
        seen = {colour: room.embedded(pixels) for colour, pixels in scenes.items()}
        self.real = {colour: rows[:SCENES] for colour, rows in seen.items()}
        among = [(rows[SCENES:] @ rows[:SCENES].T).mean().item() for rows in seen.values()]
        self.ceiling = sum(among) / len(among)
        own = torch.cat([room.features(subject.fresh(colour, SCENES, 2)) for colour in COLOURS])
        self.probe = probe(own, known)
        draws = self.judged(room.base, range(BASE_DRAWS), with_article(subject.class_word))
        self.base = {name: sum(sum(d[name]) for d in draws) / sum(len(d[name]) for d in draws) for name in draws[0]}

    def told(self) -> dict[str, float]:
        """What scores are relative to: the ceiling of the similarity, and what the base reaches."""
        return {"ceiling": round(self.ceiling, 4), **{f"base_{k}": round(v, 4) for k, v in self.base.items()}}

    @torch.no_grad()
    def judged(self, base: BaseModel, draws: Sequence[int], words: str) -> list[dict[str, list[float]]]:
        """For each of these draws one value for each picture, by what was judged: similarity and probe of the subject,
        background, style, and the probability of the right object for class and neighbours.
        """
        asks = [asked(self.room, self.subject, words, draw) for draw in draws]
        seeds = [DRAW_SEED + 100 * d + i for d, ask in zip(draws, asks, strict=True) for i in range(len(ask.prompts))]
        pictures = self.room.draw([prompt for ask in asks for prompt in ask.prompts], seeds, base)
        shares = pictures.split([len(ask.prompts) for ask in asks])
        return [self._seen(ask, part) for ask, part in zip(asks, shares, strict=True)]

    def _seen(self, ask: Asked, pictures: Tensor) -> dict[str, list[float]]:
        """What the judge says of a draw's pictures."""
        court = self.room.court
        own, styled, others = pictures.split(ask.parts)
        features = court.embed(own)
        grounds = court.name_backgrounds(torch.cat([own, styled]))
        styles = court.tower.style_head(court.tower.features(styled * 2 - 1)).softmax(1)
        things = court.object_probabilities(others)
        right = things[range(len(others)), ask.objects].tolist()
        wanted = [*ask.subject_colours, *ask.styled_colours]
        near = [(row @ self.real[c].T).mean() for row, c in zip(features, ask.subject_colours, strict=True)]
        return {
            "similarity": torch.stack(near).tolist(),
            "probe": self.probe(court.tower.features(own * 2 - 1)).tolist(),
            "background": [float(a == b) for a, b in zip(grounds, wanted, strict=True)],
            "style": styles[range(len(styled)), ask.styles].tolist(),
            "class": right[:CLASSED],
            "neighbours": right[CLASSED:],
        }


def probe(own: Tensor, others: Tensor) -> Callable[[Tensor], Tensor]:
    """Logistic regression that tells the subject from everything else: (B, 192) features -> (B,) probability."""
    x, y = torch.cat([own, others]), torch.cat([torch.ones(len(own)), torch.zeros(len(others))]).to(own)
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    weight, bias = (torch.zeros(size, device=x.device, requires_grad=True) for size in (x.shape[1], 1))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=60)

    def logit(features: Tensor) -> Tensor:
        return (features - mean) / deviation @ weight + bias

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit(x), y) + 1e-2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return lambda features: torch.sigmoid(logit(features)).detach()


def judge_run(run: Run, jury: Jury, file: Path, draws: int = DRAWS) -> dict[str, Any]:
    """So many draws of every cell of a run. Kept in `file` after every step, so that a stopped call goes on."""
    told: dict[str, Any] = {"name": run.name, "key": run.key, "reference": jury.told(), "draws": {}}
    if file.exists():
        known = json.loads(file.read_text())
        if known["key"] == run.key:
            told["draws"] = known["draws"]
    cells = told["draws"]
    for step in plan.CHECKPOINTS:
        missing = [weight for weight in plan.WEIGHTS if len(cells.get(label(step, weight), [])) < draws]
        for weight, base in run.opened(jury.room, step, missing):
            found = jury.judged(base, range(draws), jury.subject.prompt)
            cells[label(step, weight)] = [_rounded(draw) for draw in found]
        if missing:
            keep(file, told)
    return told


def judged(run: Run, file: Path, draws: int = DRAWS) -> bool:
    """Whether every cell of a run has so many draws in `file`."""
    return file.exists() and whole(run, json.loads(file.read_text()), draws)


def whole(run: Run, told: Mapping[str, Any], draws: int = FEWEST_DRAWS) -> bool:
    """Whether every cell of a run has at least so many draws in what `judge_run` kept, and all the same number."""
    cells = [label(step, weight) for step in plan.CHECKPOINTS for weight in plan.WEIGHTS]
    counts = {len(told["draws"].get(cell, [])) for cell in cells}
    return bool(told["key"] == run.key and len(counts) == 1 and min(counts) >= draws)


def label(step: int, weight: float) -> str:
    return f"{step}@{weight:g}"


def _rounded(values: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [round(v, 3) for v in part] for name, part in values.items()}


def keep(file: Path, told: dict[str, Any]) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(told, separators=(",", ":")))
    part.replace(file)
