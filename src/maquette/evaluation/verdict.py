"""All of an evaluation: the panel, the search, the choice, and what is to be said and shown of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..config.base import Kind
from ..config.runs import WEIGHTS
from ..errors import MaquetteError
from ..families.base import BaseModel
from .candidates import Candidate
from .choice import Choice, Row, choose, score
from .drawing import decoded
from .encoders import Encoder
from .example import Example
from .faces import FaceJudge
from .faces import sentence as face_sentence
from .measures import copying, distances_to, examine
from .noise import Noise, between_seeds, joined, of_twins
from .panel import Panel, Size, build_panel
from .reasons import reason
from .rule import PANEL_NOISE, Prefer
from .search import main_weight, search
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
    """A drawn picture beside the photo nearest to it. pixels: (3, H, W) in [0, 1]; reference: the same of what its
    likeness is measured by, one of several, None where that is not measured.
    """

    prompt: str
    pixels: Tensor
    photo: int
    copy: bool
    reference: Tensor | None = None


@dataclass(frozen=True)
class Verdict:
    """choice: with the reasons in sentences. rows: everything that was measured. held: names of photos held out.
    noise: what was seen of it, where that was asked for.
    """

    choice: Choice
    rows: tuple[Row, ...]
    reasons: tuple[str, ...]
    unit: str
    held: tuple[str, ...]
    hard: tuple[HardPhoto, ...]
    shown: tuple[Shown, ...]
    noise: Noise | None = None

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
            "noise": None if self.noise is None else asdict(self.noise),
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


class Cells:
    """Measures (step, weight) of files on a panel, with one file open at a time. drawn: latents of each cell."""

    def __init__(
        self, base: BaseModel, candidates: Sequence[Candidate], panel: Panel, on_measured: Callable[[], None],
        faces: FaceJudge | None = None,
    ) -> None:  # fmt: skip
        self.base, self.panel, self.on_measured, self.faces = base, panel, on_measured, faces
        self.files = {candidate.step: candidate.file for candidate in candidates}
        self.drawn: dict[tuple[int, float], Tensor] = {}
        self._opened: tuple[int, Tuned] | None = None

    def __call__(self, step: int, weight: float) -> Row:
        if self._opened is None or self._opened[0] != step:
            self._opened = step, tuned(self.base, self.files[step], self.panel.subject)
        items, drawing = examine(self.base, self._opened[1], weight, self.panel)
        assert drawing is not None
        self.drawn[step, weight] = drawing.subject
        if self.faces is not None:
            items |= self.faces(decoded(self.base, drawing.subject))
        self.on_measured()
        return Row.of(step, weight, items)


def judge(
    base: BaseModel,
    candidates: Sequence[Candidate],
    photos: Sequence[Example],
    subject: str,
    *,
    kind: Kind | None = None,
    size: Size,
    cells: int | None,
    weights: Sequence[float] = WEIGHTS,
    prefer: Prefer = "balanced",
    seed: int = 0,
    seeds: int = 1,
    twin: Sequence[Candidate] = (),
    clip_skip: int = 1,
    cfg_scale: float | None = None,
    faces: FaceJudge | None = None,
    encoder: Encoder | None = None,
    on_progress: Progress = lambda what, done, of: None,
) -> Verdict:
    """Measure up to so many (step, weight), all for cells None, and choose. seeds: panels on which the same cells are
    measured. twin: checkpoints of a run of the same settings, some at the same steps. How far both differ is the noise
    below which files count as equal. faces: measures whose face is drawn, too. encoder: measures likeness. Raises
    MaquetteError for a file that does not fit the base, and for a twin without such steps.
    """
    require_measurable(base)
    _require_common(candidates, twin)
    for first in (*candidates[:1], *twin[:1]):
        with tuned(base, first.file, subject)(1.0):
            pass  # a file of another base is told before the panel is built
    done, of = 0, min(cells or len(candidates) * len(weights), len(candidates) * len(weights)) * seeds

    def on_measured() -> None:
        nonlocal done
        done += 1
        on_progress("measuring checkpoints", done, max(of, done))

    def panel_of(which: int) -> Panel:
        on_progress("building the panel", which - seed, seeds)
        made = build_panel(
            base, photos, subject, kind=kind, size=size, seed=which, clip_skip=clip_skip, cfg_scale=cfg_scale,
            encoder=encoder,
        )  # fmt: skip
        on_progress("building the panel", which - seed + 1, seeds)
        return made

    panel = panel_of(seed)
    if faces is not None:
        faces.look_at_class(decoded(base, panel.drawn.subject))
    measure = Cells(base, candidates, panel, on_measured, faces)
    rows = search(list(measure.files), weights, measure, cells, prefer, panel.rule)
    rows.sort(key=lambda row: (row.step, row.weight))
    panels = [rows]
    for again in range(seed + 1, seed + seeds):
        other = Cells(base, candidates, panel_of(again), on_measured, faces)
        panels.append([other(row.step, row.weight) for row in rows])
    noises = [between_seeds(panels, prefer, panel.rule)] if seeds > 1 else []
    noises += _of_twin(measure, Cells(base, twin, panel, on_measured), rows, prefer)
    noise = max(noises, key=lambda one: one.difference, default=None)
    every = joined(panels) if seeds > 1 else rows
    choice = choose(every, prefer, panel.rule)
    floor = floor_of(noise, seeds, score(choice.best.values, prefer, panel.rule))
    if noise is not None:
        choice = choose(every, prefer, panel.rule, floor)
    unit = candidates[0].unit
    by_whom = encoder and f"Likeness is measured by {encoder.name}, not by the base's own features."
    more = (noise and noise.sentence(floor), face_sentence(choice.row), by_whom, caution(base, panel.style))
    return Verdict(
        choice,
        tuple(every),
        (*reason(choice, every, unit), *(said for said in more if said)),
        unit,
        tuple(name for name, held in zip(panel.names, panel.held, strict=True) if held),
        tuple(hard_photos(panel, rows)),
        tuple(_shown(base, panel, measure.drawn[choice.step, choice.weight])),
        noise,
    )


def floor_of(noise: Noise | None, seeds: int, best: float) -> float:
    """By how much scores may differ from the best one and count as equal: the noise that was measured. A twin on the
    same panel says nothing of the panel's own, which is then taken to be the usual one.
    """
    measured = 0.0 if noise is None else noise.difference
    return measured if seeds > 1 else max(measured, PANEL_NOISE * best)


def _require_common(candidates: Sequence[Candidate], twin: Sequence[Candidate]) -> None:
    """Raise MaquetteError for a twin none of whose checkpoints is of a step of these."""
    if twin and not {(one.step, one.unit) for one in twin} & {(one.step, one.unit) for one in candidates}:
        steps = ", ".join(str(one.step) for one in candidates)
        raise MaquetteError(
            f"The twin run in {twin[0].file.parent} has no checkpoint at any of the {candidates[0].unit}s {steps}: "
            "name a run of the same settings that saved as often."
        )


def _of_twin(run: Cells, twin: Cells, rows: Sequence[Row], prefer: Prefer) -> list[Noise]:
    """Of a twin's checkpoints, at the weight at which most steps were measured; where the twin has none of these steps,
    at those that both have.
    """
    weight = main_weight(rows)
    wanted = [row for row in rows if row.weight == weight and row.step in twin.files]
    wanted = wanted or [run(step, weight) for step in run.files if step in twin.files]
    noise = of_twins(wanted, [twin(row.step, weight) for row in wanted], prefer, run.panel.rule)
    return [] if noise is None else [noise]


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
    rows = [-1] * len(latents) if panel.style else panel.references.row_of
    like = [(panel.references.pixels[row, 0] + 1) / 2 if row >= 0 else None for row in rows]
    seen = zip(panel.plan.subject_prompts, decoded(base, latents), nearest, copies, like, strict=True)
    return [Shown(*values) for values in seen]
