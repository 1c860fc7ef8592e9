"""All of an evaluation: the panel, the search, the choice, and what is to be said and shown of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config.runs import WEIGHTS
from ..families.base import BaseModel
from .candidates import Candidate
from .choice import Choice, Row, choose
from .measures import copying, distances_to, examine
from .panel import Example, Panel, Size, build_panel
from .reasons import reason
from .rule import Prefer
from .search import search
from .tuned import Tuned, tuned
from .validated import caution, require_measurable

Progress = Callable[[str, int, int], None]
HARD = 3.0  # robust standard deviations above the other photos


@dataclass(frozen=True)
class HardPhoto:
    """A photo that stays hard to predict: its loss over the base's, and that of the median photo."""

    name: str
    loss: float
    usual: float


@dataclass(frozen=True)
class Shown:
    """A drawn picture beside the photo nearest to it. pixels: (3, H, W) in [0, 1]."""

    prompt: str
    pixels: Tensor
    photo: int
    copy: bool


@dataclass(frozen=True)
class Verdict:
    """choice: with the reasons in sentences. rows: everything that was measured. held: names of photos held out."""

    choice: Choice
    rows: tuple[Row, ...]
    reasons: tuple[str, ...]
    unit: str
    held: tuple[str, ...]
    hard: tuple[HardPhoto, ...]
    shown: tuple[Shown, ...]

    def to_json(self) -> dict[str, Any]:
        choice = self.choice
        return {
            "step": choice.step,
            "weight": choice.weight,
            "unit": self.unit,
            "prefer": choice.prefer,
            "reasons": list(self.reasons),
            "overtrained": [fault.measure for fault in choice.faults],
            "held_out": list(self.held),
            "hard_photos": [{"photo": h.name, "loss": h.loss, "usual": h.usual} for h in self.hard],
            "rows": [
                {**row.to_json(), "score": score, "error": error}
                for row, score, error in zip(self.rows, choice.scores, choice.errors, strict=True)
            ],
        }


def forwards(size: Size, photos: int) -> int:
    """Passes through the UNet that a cell takes, about."""
    seen = min(photos, size.photos) * size.timesteps + min(photos, size.probed) * size.timesteps * 5 // 2
    pictures = (size.pictures + size.others) * (2 * size.steps + 4 * size.draws) + 3 * size.pictures
    return seen + 2 * (size.kept + size.others) + pictures


def judge(
    base: BaseModel,
    candidates: Sequence[Candidate],
    photos: Sequence[Example],
    subject: str,
    *,
    size: Size,
    cells: int | None,
    weights: Sequence[float] = WEIGHTS,
    prefer: Prefer = "balanced",
    seed: int = 0,
    clip_skip: int = 1,
    cfg_scale: float | None = None,
    on_progress: Progress = lambda what, done, of: None,
) -> Verdict:
    """Measure up to so many (step, weight), all for cells None, and choose. Raises MaquetteError for a file that does
    not fit the base.
    """
    require_measurable(base)
    on_progress("building the panel", 0, 1)
    panel = build_panel(base, photos, subject, size=size, seed=seed, clip_skip=clip_skip, cfg_scale=cfg_scale)
    on_progress("building the panel", 1, 1)
    files = {candidate.step: candidate for candidate in candidates}
    of = min(cells or len(files) * len(weights), len(files) * len(weights))
    opened: dict[int, Tuned] = {}  # one file at a time
    drawn: dict[tuple[int, float], Tensor] = {}
    done = 0

    def measure(step: int, weight: float) -> Row:
        nonlocal done
        if step not in opened:
            opened.clear()
            opened[step] = tuned(base, files[step].file, subject)
        items, drawing = examine(base, opened[step], weight, panel)
        assert drawing is not None
        drawn[step, weight] = drawing.subject
        done += 1
        on_progress("measuring checkpoints", done, of)
        return Row.of(step, weight, items)

    rows = search(list(files), weights, measure, cells, prefer)
    rows.sort(key=lambda row: (row.step, row.weight))
    choice = choose(rows, prefer)
    unit = candidates[0].unit
    return Verdict(
        choice,
        tuple(rows),
        (*reason(choice, rows, unit), *([told] if (told := caution(base)) else [])),
        unit,
        tuple(name for name, held in zip(panel.names, panel.held, strict=True) if held),
        tuple(hard_photos(panel, rows)),
        tuple(_shown(base, panel, drawn[choice.step, choice.weight])),
    )


def hard_photos(panel: Panel, rows: Sequence[Row]) -> list[HardPhoto]:
    """Photos whose loss, over the base's mean loss and the mean over the rows, stands far above the others': caption
    and picture do not agree, or the picture shows something else. The hardest first.

    Far is HARD times the median absolute deviation, scaled to a standard deviation (Iglewicz and Hoaglin 1993).
    """
    loss = losses_over_base(panel, [row.items for row in rows])
    usual = loss.median()
    spread = 1.4826 * (loss - usual).abs().median() + 0.01
    names = [name for name, held in zip(panel.names, panel.held, strict=True) if not held]
    order = loss.argsort(descending=True).tolist()
    return [HardPhoto(names[i], float(loss[i]), float(usual)) for i in order if loss[i] - usual > HARD * spread]


def losses_over_base(panel: Panel, items: Sequence[Mapping[str, Sequence[float]]]) -> Tensor:
    """(n,) of each trained photo the mean over checkpoints of its loss over the base's mean loss at each timestep.

    Over the base's loss on the same photo a planted picture of something else does not stand out: that is large too.
    """
    assert items and len(items[0]["benefit"]) == panel.held.count(False)
    return torch.stack([1.0 - torch.tensor(row["benefit"]) for row in items]).mean(0)


def _shown(base: BaseModel, panel: Panel, latents: Tensor) -> list[Shown]:
    nearest = distances_to(latents, panel.every).argmin(1).tolist()
    copies = copying(latents, panel.every).bool().tolist()
    with torch.no_grad():
        pixels = torch.cat([base.decode(latent[None]).float().cpu() for latent in latents])
    return [
        Shown(prompt, picture, photo, copy)
        for prompt, picture, photo, copy in zip(panel.plan.subject_prompts, pixels, nearest, copies, strict=True)
    ]
