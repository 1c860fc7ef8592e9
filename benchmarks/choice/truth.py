"""What a checkpoint is worth, judged by what no program has that chooses: fresh scenes and pocket's own judge.

A draw is PICTURES of a cell (step, weight), the same prompts and seeds for every cell of a run: the subject on each
colour that no photo had, in styles, its class and other objects. All cells get one draw, those that come near the best
get more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.choice import plan
from benchmarks.choice.candidates import Run
from benchmarks.choice.drawing import Room, a_photo, with_article
from benchmarks.choice.subjects import Subject
from benchmarks.choice.utility import Cell, standing
from maquette.families.base import BaseModel
from tools.pocket.scenes import COLOURS, STYLES

SCENES = 12  # fresh scenes on each colour, to which pictures are compared
DRAW_SEED = 70_000  # of the first draw; each draw has a hundred seeds of its own
NEAR = (0.2, 0.1, 0.05)  # after each draw: how far below the best a cell may lie to be drawn again
STYLED, CLASSED = 4, 2  # pictures in other styles and of the class
BASE_DRAWS = 6  # draws of the base itself, to which obedience and neighbours are compared


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


def asked(room: Room, subject: Subject, words: str, draw: int) -> Asked:
    """words: the subject's, or its class's with an article."""
    colours, styles = subject.unseen, [style for style in STYLES if style != subject.style]
    pick = [(draw * STYLED + i) for i in range(STYLED)]
    styled = [(colours[n % len(colours)], styles[n % len(styles)]) for n in pick]
    things = [subject.class_word] * CLASSED + list(subject.neighbours)
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
        words, draws = with_article(subject.class_word), []
        for draw in range(BASE_DRAWS):
            draws.append(self.judged(room.base, draw, words))
        self.base = {name: sum(sum(d[name]) for d in draws) / sum(len(d[name]) for d in draws) for name in draws[0]}

    def told(self) -> dict[str, float]:
        """What scores are relative to: the ceiling of the similarity, and what the base reaches."""
        return {"ceiling": round(self.ceiling, 4), **{f"base_{k}": round(v, 4) for k, v in self.base.items()}}

    @torch.no_grad()
    def judged(self, base: BaseModel, draw: int, words: str) -> dict[str, list[float]]:
        """One value for each picture, by what was judged: similarity and probe of the subject, background, style, and
        the probability of the right object for class and neighbours."""
        court, ask = self.room.court, asked(self.room, self.subject, words, draw)
        first = DRAW_SEED + 100 * draw
        pictures = self.room.draw(ask.prompts, list(range(first, first + len(ask.prompts))), base)
        own, styled, others = pictures.split([len(ask.subject), len(ask.styled), len(ask.others)])
        features = court.embed(own)
        grounds = court.name_backgrounds(torch.cat([own, styled]))
        styles = court.tower.style_head(court.tower.features(styled * 2 - 1)).softmax(1)
        things = court.object_probabilities(others)
        right = [things[i, k].item() for i, k in enumerate(ask.objects)]
        wanted = [*ask.subject_colours, *ask.styled_colours]
        return {
            "similarity": [
                (row @ self.real[c].T).mean().item() for row, c in zip(features, ask.subject_colours, strict=True)
            ],
            "probe": self.probe(court.tower.features(own * 2 - 1)).tolist(),
            "background": [float(a == b) for a, b in zip(grounds, wanted, strict=True)],
            "style": [styles[i, k].item() for i, k in enumerate(ask.styles)],
            "class": right[:CLASSED],
            "neighbours": right[CLASSED:],
        }


def probe(own: Tensor, others: Tensor) -> Callable[[Tensor], Tensor]:
    """Logistic regression that tells the subject from everything else: (B, 192) features -> (B,) probability."""
    x, y = torch.cat([own, others]), torch.cat([torch.ones(len(own)), torch.zeros(len(others))])
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    weight, bias = torch.zeros(x.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
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


def judge_run(run: Run, jury: Jury, file: Path) -> dict[str, Any]:
    """One more draw of a run: of all cells the first time, later of those near the best. Kept in `file` after every
    step, so that a stopped draw goes on.
    """
    told: dict[str, Any] = {"name": run.name, "key": run.key, "reference": jury.told(), "turns": 0, "draws": {}}
    if turns(run, file) is not None:
        known = json.loads(file.read_text())
        told |= {"turns": known["turns"], "draws": known["draws"]}
    turn, draws = told["turns"], told["draws"]
    every = [(step, weight) for step in plan.CHECKPOINTS for weight in plan.WEIGHTS]
    wanted = every if turn == 0 else near(told, every, NEAR[turn - 1])
    for step in sorted({step for step, _ in wanted}):
        missing = [w for s, w in wanted if s == step and len(draws.get(label(s, w), [])) <= turn]
        for weight, base in run.opened(jury.room, step, missing):
            found = jury.judged(base, turn, jury.subject.prompt)
            draws.setdefault(label(step, weight), []).append(_rounded(found))
        if missing:
            _keep(file, told)
    told["turns"] = turn + 1
    _keep(file, told)
    return told


def turns(run: Run, file: Path) -> int | None:
    """How many draws of a run are whole; None where nothing has been drawn of it."""
    if not file.exists():
        return None
    known = json.loads(file.read_text())
    return int(known["turns"]) if known["key"] == run.key else None


def near(told: dict[str, Any], cells: Iterable[Cell], share: float) -> list[Cell]:
    """The cells whose worth, by what has been drawn so far, is within that share of the best's."""
    worth = standing({**told, "draws": {k: parts[: told["turns"]] for k, parts in told["draws"].items()}})
    best = max(worth.values())
    return [cell for cell in cells if worth[cell] >= best * (1 - share)]


def label(step: int, weight: float) -> str:
    return f"{step}@{weight:g}"


def _rounded(values: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [round(v, 3) for v in part] for name, part in values.items()}


def _keep(file: Path, told: dict[str, Any]) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(told, separators=(",", ":")))
    part.replace(file)
