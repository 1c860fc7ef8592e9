"""`maquette train --two-pass`: find step and weight on part of the photos, then train on all of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import TrainConfig
from ..config.runs import EvaluateConfig
from ..data.layouts import read_folder
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener
from ..files import slug
from ..parsing import read_object
from ..run_folder import RunFolder
from ..training import resuming, two_pass
from ..training.two_pass import Found

if TYPE_CHECKING:
    from ..training.train_result import TrainResult


def train_twice(config: TrainConfig, on_event: Listener, cancel: Cancel) -> TrainResult:
    """The result of the second pass, or of a first one that was stopped. Called again after a stop or a kill, with the
    same settings, it goes on where it was.

    Raises MaquetteError as training does, and for fewer than three photos.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise MaquetteError("two_pass trains in one process alone: start it without torchrun.")
    dataset = read_folder(config.photos, config.subject, reg=config.reg, extension=config.caption_extension)
    out = config.out or _free(config.subject or config.photos.resolve().name)
    found = []
    for first in two_pass.first_passes(config, dataset, out):
        assert first.out is not None
        folder = RunFolder(first.out)
        if not (folder.final.exists() and (folder.evaluation.exists() or resuming.has_dropped_state(folder))):
            result = _once(first, lambda event: None if event.kind == "done" else on_event(event), cancel)
            if result.status == "stopped":
                return result
        else:
            two_pass.require_same(resuming.read_config(RunFolder.open(first.out)), first, first.out)
        found.append(_found(folder, on_event))
    second = two_pass.second_pass(config, found, out)
    steps = ", ".join(f"{one.step} on {one.photos} of {one.all} photos" for one in found)
    weight = f" at weight {second.preferred_weight:g}" if second.preferred_weight else ""
    sentence = (
        f"First pass: the best step is {steps}{weight}. So all {found[0].all} are trained for {second.steps} steps."
    )
    on_event(Event("warning", {"message": sentence}))
    result = _once(second, on_event, cancel)
    result.reasons.insert(0, sentence)
    result.weight = second.preferred_weight
    return result


def _free(name: str) -> Path:
    """runs/NAME, or the first of runs/NAME-2 … that is free; one whose passes were interrupted is gone on with."""
    number = 1
    while True:
        place = Path("runs") / (slug(name) if number == 1 else f"{slug(name)}-{number}")
        begun = any(place.parent.glob(f"{place.name}-first*/run.toml"))
        if not place.exists() or (begun and not RunFolder(place).final.exists()):
            return place
        number += 1


def _once(config: TrainConfig, on_event: Listener, cancel: Cancel) -> TrainResult:
    """Train, or go on with what lies there."""
    from . import train

    assert config.out is not None
    if not RunFolder(config.out).config.exists():
        return train.run(config, on_event, cancel)
    two_pass.require_same(resuming.read_config(RunFolder.open(config.out)), config, config.out)
    return train.resume(config.out, None, on_event, cancel)


def _found(folder: RunFolder, on_event: Listener) -> Found:
    """What a finished first pass says; it is evaluated where its own end was too short for that."""
    if not folder.evaluation.exists():
        from .evaluate import run as evaluate

        evaluate(EvaluateConfig(run=folder.path), lambda e: None if e.kind == "done" else on_event(e))
    sentence = read_object(folder.evaluation)
    step, weight = sentence.get("step"), sentence.get("weight")
    if type(step) is not int or step < 1 or not isinstance(weight, float | int) or isinstance(weight, bool):
        raise MaquetteError(f"{folder.evaluation} is damaged; remove {folder.path} and begin again.")
    config = resuming.read_config(folder)
    photos = read_object(folder.dataset)["photos"]
    roles = [photo["role"] for photo in photos]
    trained, held = roles.count("instance"), roles.count("held")
    return Found(step, float(weight), config.schedule_steps or config.steps or step, trained, trained + held)
