"""`maquette demo`: the whole road on pictures that the program draws itself, ending in a before/after picture."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import adapters
from ..config import TrainConfig
from ..config.photos import CheckConfig
from ..config.runs import DemoConfig
from ..demo.mascot import COLOURS_UNSEEN, SUBJECT, write_photos
from ..demo.settings import TRAINING
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore
from ..families import load
from ..formats.png import write_png
from ..report import run_page as report
from ..report.sheet import sheet
from ..run_folder import RunFolder
from ..sampling.apply_loras import apply_loras
from ..sampling.images import to_image
from ..sampling.prompt_pictures import draw_prompts
from ..training.environment import one_thread_for
from . import check, train

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..families.base import BaseModel

BYSTANDER = "cat"  # an ordinary object of the base, to see that the LoRA leaves it alone
FIRST_SEED = 1
ZOOM = 2


@dataclass
class DemoResult:
    """What the demonstration left behind."""

    run: str
    photos: str
    status: str  # "finished", or "stopped" and ready to go on
    file: str | None  # the LoRA
    report: str
    before_after: str | None
    seconds: float
    training_seconds: float
    figures: list[str] = field(default_factory=list)  # what `maquette check` says of the photos
    reasons: list[str] = field(default_factory=list)  # why this checkpoint
    commands: list[str] = field(default_factory=list)  # to go on with

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(config: DemoConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> DemoResult:
    """Draw the photos, check them, train, and draw with and without the LoRA.

    Setting `cancel` ends the training after the step at work, all saved. Raises MaquetteError when the photos cannot
    be written or the disk is too full.
    """
    began = time.perf_counter()
    path = free_run(config.out)
    photos = path.with_name(f"{path.name}-photos")
    write_photos(photos)
    on_event(Event("saved", {"path": str(photos)}))
    checked = _check(photos, path, config, on_event)
    chosen = {"photos": photos, "subject": SUBJECT, "out": path, "steps": config.steps, "seed": config.seed}
    settings = TrainConfig.parse(chosen | TRAINING, "the demo")
    trained = train.run(settings, _without(on_event, "done", "finding"), cancel)  # checked before
    folder = RunFolder.open(path)
    resolved = TrainConfig.read(folder.config)
    picture = None
    if trained.status == "finished":
        picture = path / "before_after.png"
        on_event(Event("progress", {"what": "drawing before and after", "done": 0, "of": 1}))
        write_png(before_after(folder, trained.weight or 1.0), picture)
        on_event(Event("progress", {"what": "drawing before and after", "done": 1, "of": 1}))
        resolved = resolved.model_copy(update={"sample_prompts": prompts()[:1]})
    result = DemoResult(
        run=str(path),
        photos=str(photos),
        status=trained.status,
        file=trained.file,
        report=trained.report,
        before_after=str(picture) if picture else None,
        seconds=time.perf_counter() - began,
        training_seconds=trained.seconds,
        figures=checked.figures(),
        reasons=trained.reasons,
        commands=report.commands(folder, resolved).splitlines(),
    )
    on_event(Event("done", result.to_json()))
    return result


def free_run(out: Path) -> Path:
    """`out`, or `out`-2, -3 … where something lies there already."""

    def names() -> Iterator[Path]:
        yield out
        yield from (out.with_name(f"{out.name}-{number}") for number in count(2))

    return next(path for path in names() if not path.exists() or (path.is_dir() and not any(path.iterdir())))


def _check(photos: Path, path: Path, config: DemoConfig, on_event: Listener) -> check.CheckResult:
    """The findings of `maquette check`; what it would warn of is told, what it would refuse is an error."""
    settings = CheckConfig(photos=photos, subject=SUBJECT, out=path, steps=config.steps)
    result = check.run(settings, _without(on_event, "done"))
    if result.blocking:
        raise MaquetteError(result.blocking[0].message)
    for problem in result.problems:
        on_event(Event("warning", {"message": problem.message}))
    return result


def _without(on_event: Listener, *kinds: str) -> Listener:
    """A listener for a part of the work, whose end is not the end."""

    def listen(event: Event) -> None:
        if event.kind not in kinds:
            on_event(event)

    return listen


def prompts() -> list[str]:
    """The subject on every background colour that no photo has, and one ordinary object."""
    places = {colour: f"on {'an' if colour[0] in 'aeiou' else 'a'} {colour} background" for colour in COLOURS_UNSEEN}
    return [f"a photo of {SUBJECT} {place}" for place in places.values()] + [
        f"a photo of a {BYSTANDER} {places['purple']}"
    ]


@one_thread_for("pocket")
def before_after(folder: RunFolder, weight: float = 1.0) -> Image:
    """The same prompts and seeds drawn by the base alone, and below by the base with the run's LoRA at its weight."""
    config = TrainConfig.read(folder.config)
    base, questions = load(config.base), prompts()
    without = draw(base, questions, config)
    with apply_loras(base, [(adapters.load(folder.final), weight, weight)]):
        trained = draw(base, questions, config)
    return sheet(
        without + trained,
        columns=len(questions),
        labels_top=[prompt.removeprefix("a photo of ") for prompt in questions],
        labels_left=["the base alone", f"with {folder.final.name} at {weight:g}"],
        title=f"Before and after learning “{SUBJECT}”: prompts that no photo showed, the same seeds in both rows",
        zoom=ZOOM,
    )


@torch.no_grad()
def draw(base: BaseModel, questions: Sequence[str], config: TrainConfig) -> list[Image]:
    """One picture per prompt, with the sampling of the run's sample pictures and seeds counted up."""
    size = base.spec.native_size
    decoded = draw_prompts(
        base,
        questions,
        seeds=range(FIRST_SEED, FIRST_SEED + len(questions)),
        sampler="DDIM",
        steps=config.sample_steps,
        cfg_scale=config.sample_cfg_scale or 4.0,
        width=size,
        height=size,
        clip_skip=config.clip_skip,
    )
    return [to_image(pixels) for pixels in decoded]
