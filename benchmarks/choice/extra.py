"""A small sweep of what the plan of the choice leaves out: other methods at two rates, and training without a knob.

Each training leaves one file WORK/NAME.json, whole or not there; one that was stopped is begun anew. Several processes
may work in one folder: none takes what another is at.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import maquette
from benchmarks.choice import plan
from benchmarks.choice.drawing import Room
from benchmarks.choice.subjects import Subject
from benchmarks.choice.together import share
from benchmarks.choice.training import PHOTOS, write_photos
from benchmarks.choice.truth import Jury, label
from benchmarks.choice.utility import Cell, cell_of, worth
from maquette.evaluation.tuned import tuned

PEOPLE = range(2, 10)  # of the plan's subjects, all of them sprites
HELD_OUT = (3, 5, 7, 9, 11, 13, 15, 17)  # of those on which nothing is fitted
STEPS = 80  # of plan.BATCH, at a constant rate: what is compared moves about half as far as a run by default
FULL_WEIGHT, LESS = 1.0, 0.7
KNOBLESS, KNOBLESS_DRAWS = "without a knob", 3
TIMES = 3  # how much higher the second rate is

DEFAULTS = {
    "textual-inversion": 1e-2,
    "loha": 1e-3,
    "dora": 2e-3,
    "locon": 2e-3,
    "pivotal": 2e-3,
    "lokr": 2e-3,
    "lora": 2e-3,
}
RATES = {method: (rate, rate * TIMES) for method, rate in DEFAULTS.items()}  # the default for batches of 8, and another


@dataclass(frozen=True)
class Extra:
    """One training. rate: 0, the default, or 1; method KNOBLESS: everything by default, the choice included."""

    subject: int
    method: str
    rate: int = 0

    @property
    def name(self) -> str:
        return f"{self.subject:02}-{self.method.replace(' ', '-')}-{('default', 'high')[self.rate]}"


def extras() -> Iterator[Extra]:
    """The trainings: first those without a knob, then method by method on every subject at each of its rates."""
    yield from (Extra(subject, KNOBLESS) for subject in HELD_OUT)
    for method, rates in RATES.items():
        for subject in PEOPLE:
            yield from (Extra(subject, method, rate) for rate in range(len(rates)))


def sweep(work: Path, people: Sequence[Subject], room: Room, known: Tensor, until: float) -> None:
    """Train and judge what is not there yet; nothing is begun after `until`, seconds since 1970."""
    every = {extra.name: extra for extra in extras()}
    juries: dict[int, Jury] = {}

    def file(name: str) -> Path:
        return work / f"{name}.json"

    def train_and_judge(name: str) -> None:
        extra, began = every[name], time.process_time()
        if extra.subject not in juries:
            juries[extra.subject] = Jury(room, people[extra.subject], known)
        told = one(extra, juries[extra.subject], work / "at work" / name)
        part = file(name).with_suffix(".part")
        part.write_text(json.dumps(told, separators=(",", ":")))
        part.replace(file(name))
        print(f"{time.strftime('%H:%M:%S')} {name}: {time.process_time() - began:.0f} s of processor", flush=True)

    share(list(every), work / "locks", until, train_and_judge, lambda name: file(name).exists())


def one(extra: Extra, jury: Jury, folder: Path) -> dict[str, Any]:
    """Train and judge one; `folder` is made anew and removed."""
    if folder.exists():
        shutil.rmtree(folder)
    photos = folder / "photos"
    write_photos(photos, jury.subject, "captioned")
    began = time.perf_counter()
    options: dict[str, Any] = {"subject": jury.subject.prompt, "out": folder / "run", "sample_prompts": []}
    if extra.method != KNOBLESS:
        rate = RATES[extra.method][extra.rate]
        options |= {"method": extra.method, "learning_rate": rate, "steps": STEPS, "batch_size": plan.BATCH}
        options |= {"lr_scheduler": "constant", "save_every_steps": STEPS, "seed": extra.subject, "choose": False}
    result = maquette.train(photos, **options)
    assert result.file is not None
    if extra.method == KNOBLESS:
        step, weight = result.chosen or result.step, result.weight or FULL_WEIGHT
        last = result.file if step == result.step else sorted((folder / "run/checkpoints").glob("*.safetensors"))[-1]
        cells = {(step, weight): Path(result.file), (result.step, FULL_WEIGHT): Path(last)}
    else:
        weights = (FULL_WEIGHT,) if extra.method == "textual-inversion" else (LESS, FULL_WEIGHT)
        step, weight = STEPS, FULL_WEIGHT
        cells = {(STEPS, w): Path(result.file) for w in weights}
    draws = KNOBLESS_DRAWS if extra.method == KNOBLESS else 1
    told = {
        "name": extra.name, "subject": extra.subject, "subject_name": jury.subject.name, "method": extra.method,
        "rate": extra.rate, "photos": PHOTOS["captioned"], "steps": result.step, "chosen": [step, weight],
        "seconds": round(time.perf_counter() - began, 1), "reference": jury.told(),
        "draws": {label(*cell): judged(jury, file, cell[1], draws) for cell, file in cells.items()},
    }  # fmt: skip
    shutil.rmtree(folder)
    return told


def judged(jury: Jury, file: Path, weight: float, draws: int) -> list[dict[str, list[float]]]:
    """What the jury says of a file at a weight, draw by draw; a learned word changes what prompts say."""
    with tuned(jury.room.base, file, jury.subject.prompt)(weight) as base:
        jury.room.forget()
        found = jury.judged(base, range(draws), jury.subject.prompt)
    jury.room.forget()
    return [{name: [round(v, 3) for v in values] for name, values in draw.items()} for draw in found]


def worths(told: dict[str, Any]) -> dict[Cell, float]:
    """By (step, weight) the mean worth of the draws."""
    reference = told["reference"]
    return {cell_of(n): sum(worth(d, reference) for d in draws) / len(draws) for n, draws in told["draws"].items()}
