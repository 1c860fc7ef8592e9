"""Who trains in a worker: one base kept in memory, LoRAs trained on it one after another."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..config import TrainConfig
from ..errors import MaquetteError
from ..events import Cancel, Listener

USUAL = "maquette.fleet.trainer:WarmFleetTrainer"


@dataclass
class Trained:
    """What the fleet needs to know of a training."""

    status: str  # "finished" or "stopped"
    file: str | None
    steps: int
    chosen: int | None = None
    weight: float | None = None
    resumed_from: str = ""


@dataclass(frozen=True)
class Training:
    """What an attempt wants trained. goes_on: from the state that lies in its run folder."""

    config: TrainConfig
    on_event: Listener
    cancel: Cancel
    goes_on: bool = False


@dataclass
class Judged:
    """What the evaluation says of a LoRA. accepted: its chosen checkpoint passes no limit of overtraining."""

    step: int
    weight: float
    accepted: bool
    score: float


class Trainer(Protocol):
    """What a worker can do. Made once per worker; nothing of one job may be left for the next."""

    def device(self) -> str:
        """The name by which the price table knows it: "cpu", or that of the graphics card."""

    def versions(self) -> dict[str, str]: ...
    def train(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained: ...
    def resume(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained: ...
    def evaluate(self, config: TrainConfig) -> Judged: ...
    def generate(self, config: TrainConfig, pack: dict[str, Any], weight: float) -> None: ...
    def alike(self, config: TrainConfig) -> str | None:
        """Trainings of which it is the same can be done together; None: alone. Only asked where there are slots."""

    def together(self, trainings: Sequence[Training]) -> list[Trained | Exception]:
        """What each of several trainings that are alike came to."""


def load_trainer(name: str) -> Trainer:
    """A trainer by "module:Class"."""
    module, _, attribute = name.partition(":")
    made: Trainer = getattr(importlib.import_module(module), attribute)()
    return made


class WarmFleetTrainer:
    """maquette's own training. Torch is imported here, in the worker, after its graphics card was chosen."""

    def __init__(self) -> None:
        self._warm: Any = None

    def device(self) -> str:
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"

    def versions(self) -> dict[str, str]:
        import torch

        from .. import __version__

        return {"maquette": __version__, "torch": torch.__version__}

    def train(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
        return _trained(self._trainer().run(config, on_event, cancel, _cache(config)))

    def resume(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
        assert config.out is not None
        return _trained(self._trainer().resume(config.out, {}, on_event, cancel, _cache(config)))

    def alike(self, config: TrainConfig) -> str | None:
        from ..training.slots import compatible

        return compatible(config).key

    def together(self, trainings: Sequence[Training]) -> list[Trained | Exception]:
        configs = [one.config for one in trainings]
        found = self._trainer().together(
            configs, len(configs), [one.on_event for one in trainings], [one.cancel for one in trainings],
            [_cache(config) for config in configs],
        )  # fmt: skip
        return [one if isinstance(one, Exception) else _trained(one) for one in found]

    def _trainer(self) -> Any:
        if self._warm is None:
            from ..training.warm import WarmTrainer

            self._warm = WarmTrainer()
        return self._warm

    def evaluate(self, config: TrainConfig) -> Judged:
        from ..config.runs import EvaluateConfig
        from ..stages import evaluate

        assert config.out is not None
        verdict = evaluate.run(EvaluateConfig(run=config.out, device=config.device))
        row = next(row for row in verdict.rows if row["step"] == verdict.step and row["weight"] == verdict.weight)
        return Judged(verdict.step, verdict.weight, not verdict.overtrained, float(row["score"]))

    def generate(self, config: TrainConfig, pack: dict[str, Any], weight: float) -> None:
        from ..stages import generate

        assert config.out is not None
        for values in pack_of(config, pack, weight):
            generate.run(generate.GenerateConfig.parse(values, "the pack"))


def pack_of(config: TrainConfig, pack: dict[str, Any], weight: float) -> list[dict[str, Any]]:
    """The settings of each prompt of a pack: keys of `maquette generate`, and `prompts`, a list of them. {subject}
    becomes the job's subject, and the LoRA is added to prompts that name none. Raises MaquetteError.
    """
    prompts = pack.get("prompts", [pack["prompt"]] if "prompt" in pack else [])
    if not isinstance(prompts, list) or not prompts or not all(isinstance(one, str) for one in prompts):
        raise MaquetteError('The pack has no prompts: give prompts = ["a portrait of {subject}"].')
    shared = {key: value for key, value in pack.items() if key not in ("prompts", "prompt", "out", "lora_dir", "base")}
    out = Path(config.out or "lora")
    found = []
    for prompt in prompts:
        text = prompt.replace("{subject}", config.subject or "")
        if "<lora:" not in text:
            text += f" <lora:{out.name}:{weight:g}>"
        found.append({**shared, "prompt": text, "base": config.base, "lora_dir": out, "out": out / "pictures"})
    return found


def _cache(config: TrainConfig) -> Path:
    """Encoded photos lie in the attempt's own folder, and go with it."""
    assert config.out is not None
    return config.out.parent / ".cache"


def _trained(result: Any) -> Trained:
    return Trained(result.status, result.file, result.steps, result.chosen, result.weight)
