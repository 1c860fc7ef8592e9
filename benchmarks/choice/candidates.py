"""The checkpoints of a run of the benchmark, opened at any weight."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.choice import plan
from benchmarks.choice.drawing import Room
from benchmarks.choice.subjects import TRIGGER
from maquette.evaluation.tuned import Source, tuned
from maquette.families.base import BaseModel
from maquette.formats import ldm, safetensors


@dataclass(frozen=True)
class Run:
    """A finished training of the work folder."""

    folder: Path
    told: dict[str, Any]

    @staticmethod
    def read(folder: Path) -> Run:
        return Run(folder, json.loads((folder / "run.json").read_text()))

    @property
    def name(self) -> str:
        return str(self.told["name"])

    @property
    def key(self) -> str:
        return str(self.told["key"])

    @property
    def prompt(self) -> str:
        return f"{TRIGGER} {self.told['subject_told']['class_word']}"

    def source(self, step: int) -> Source:
        """What `maquette.evaluation` takes as a checkpoint: the file, or a whole model's UNet as a state."""
        file = self.folder / "checkpoints" / f"{step:06}.safetensors"
        return unet_state(file) if self.told["method"] == "dreambooth" else file

    def opened(self, room: Room, step: int, weights: Sequence[float]) -> Iterator[tuple[float, BaseModel]]:
        """The base as the checkpoint changes it at each weight, in turn."""
        if not weights:
            return
        at = tuned(room.base, self.source(step), self.prompt)
        for weight in weights:
            with at(weight) as base:
                yield weight, base


def unet_state(file: Path) -> Mapping[str, Tensor]:
    """A kept UNet under the names that a DreamBooth run's state has."""
    parts = ldm.split(safetensors.load(file), {"unet": ldm.UNET}).parts
    return {f"unet.{name}": tensor for name, tensor in parts["unet"].items()}


def finished(work: Path, subjects: int) -> list[Run]:
    """The trainings that are done, in the order of the plan."""
    folders = [work / "runs" / setting.name for setting in plan.settings(subjects)]
    return [Run.read(folder) for folder in folders if (folder / "run.json").exists()]
