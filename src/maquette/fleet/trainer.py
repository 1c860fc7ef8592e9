"""Who trains in a worker: one base kept in memory, LoRAs trained on it one after another."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..config import TrainConfig
from ..errors import MaquetteError
from ..events import Cancel, Listener

if TYPE_CHECKING:
    from ..training.train_result import TrainResult

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


@dataclass(frozen=True, eq=False)
class Training:
    """What an attempt wants trained. goes_on: from the state that lies in its run folder."""

    config: TrainConfig
    on_event: Listener
    cancel: Cancel
    goes_on: bool = False


CameTo = Trained | Exception
"""What a training came to: its outcome, or what ended it."""


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
    def encode(self, config: TrainConfig, cancel: Cancel) -> None:
        """Prepare the photos of a training that comes later, as far as that is done beside the one at work. Called by
        another thread.
        """

    def train(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained: ...
    def resume(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained: ...
    def evaluate(self, config: TrainConfig, cancel: Cancel) -> Judged:
        """Raises Cancelled once `cancel` is set; `generate` too."""

    def generate(self, config: TrainConfig, pack: dict[str, Any], weight: float, cancel: Cancel) -> None: ...
    def alike(self, config: TrainConfig) -> str | None:
        """Trainings of which it is the same can be done together; None: alone. Only asked where there are slots."""

    def together(
        self, first: Sequence[Training], slots: int, more: Callable[[], Training | None],
        ended: Callable[[Training, CameTo], None],
    ) -> None:  # fmt: skip
        """Do trainings that are alike, `slots` at a time. more: asked for another when a slot is free; None: there is
        none now. ended: told of each what it came to, at once.
        """


def load_trainer(name: str) -> Trainer:
    """A trainer by "module:Class"."""
    module, _, attribute = name.partition(":")
    made: Trainer = getattr(importlib.import_module(module), attribute)()
    return made


class WarmFleetTrainer:
    """maquette's own training. Torch is imported here, in the worker, after its graphics card was chosen."""

    def __init__(self) -> None:
        self._warm: Any = None
        self._making = threading.Lock()
        self._base = ""  # of the training at work, or of the last one
        self._threads = 0  # of a processor, as PyTorch has them at first

    def device(self) -> str:
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"

    def versions(self) -> dict[str, str]:
        import torch

        from .. import __version__

        return {"maquette": __version__, "torch": torch.__version__}

    def train(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
        return self.trained(self._begin(config).run(config, on_event, cancel, _cache(config)))

    def resume(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
        assert config.out is not None
        return self.trained(self._begin(config).resume(config.out, {}, on_event, cancel, _cache(config)))

    def trained(self, result: TrainResult) -> Trained:
        """What the fleet keeps of a result."""
        return Trained(result.status, result.file, result.steps, result.chosen, result.weight)

    def alike(self, config: TrainConfig) -> str | None:
        from ..training.slots import compatible

        return compatible(config).key

    def together(
        self, first: Sequence[Training], slots: int, more: Callable[[], Training | None],
        ended: Callable[[Training, CameTo], None],
    ) -> None:  # fmt: skip
        from ..training.slots import SlotRun

        def run_of(training: Training) -> SlotRun:
            def finish(came_to: Any) -> None:
                ended(training, came_to if isinstance(came_to, Exception) else self.trained(came_to))

            config = training.config
            return SlotRun(config, finish, training.on_event, training.cancel, _cache(config))

        def another() -> SlotRun | None:
            training = more()
            return None if training is None else run_of(training)

        self._begin(first[0].config).in_slots([run_of(training) for training in first], slots, another)

    def encode(self, config: TrainConfig, cancel: Cancel) -> None:
        """On a processor alone: a graphics card would be taken from the training at work, and its memory too. A second
        base is not read beside the first.
        """
        import torch

        from ..training.defaults import pick_device

        if pick_device(config.device).type != "cpu" or self._base not in ("", config.base):
            return
        trainer = self._trainer()
        torch.set_num_threads(self._threads_for(config))
        trainer.encode(config, _cache(config), cancel)

    def _begin(self, config: TrainConfig) -> Any:
        """The trainer for a job, with as many threads as `maquette train` has."""
        import torch

        self._base = config.base
        trainer = self._trainer()
        torch.set_num_threads(self._threads_for(config))
        return trainer

    def _threads_for(self, config: TrainConfig) -> int:
        """Set before `environment.one_thread_for` would for a while: the thread that prepares encodes all the time."""
        from ..training.environment import suits_one_thread

        return 1 if suits_one_thread(config.base) else self._threads

    def _trainer(self) -> Any:
        with self._making:  # two threads ask for it
            if self._warm is None:
                import torch

                from ..training.warm import WarmTrainer

                self._threads = torch.get_num_threads()
                self._warm = WarmTrainer()
            return self._warm

    def evaluate(self, config: TrainConfig, cancel: Cancel) -> Judged:
        from ..config.runs import EvaluateConfig
        from ..stages import evaluate

        assert config.out is not None
        verdict = evaluate.run(EvaluateConfig(run=config.out, device=config.device), cancel=cancel)
        row = next(row for row in verdict.rows if row["step"] == verdict.step and row["weight"] == verdict.weight)
        return Judged(verdict.step, verdict.weight, not verdict.overtrained, float(row["score"]))

    def generate(self, config: TrainConfig, pack: dict[str, Any], weight: float, cancel: Cancel) -> None:
        from ..stages import generate

        assert config.out is not None
        for values in pack_of(config, pack, weight):
            generate.run(generate.GenerateConfig.parse(values, "the pack"), cancel=cancel)


NOT_OF_A_PACK = ("out", "lora_dir", "base")  # keys of a drawing that the fleet decides


def require_pack(pack: dict[str, Any], name: str) -> None:
    """Raise MaquetteError for a pack that cannot be drawn, before anything is trained. name: of its file."""
    from ..sampling.draw_settings import GenerateConfig

    for key in NOT_OF_A_PACK:
        if key in pack:
            raise MaquetteError(f"{name}: {key} is not a pack's: the fleet decides it. Leave it out.")
    try:
        found = pack_of(TrainConfig.parse({"photos": "photos"}), pack, 1.0)
    except MaquetteError as error:
        raise MaquetteError(f"{name}: {error}") from error
    for values in found:
        GenerateConfig.parse(values, name)


def pack_of(config: TrainConfig, pack: dict[str, Any], weight: float) -> list[dict[str, Any]]:
    """The settings of each prompt of a pack: keys of `maquette generate`, and `prompts`, a list of them. {subject}
    becomes the job's subject, and the LoRA is added to prompts that name none. Raises MaquetteError.
    """
    prompts = pack.get("prompts", [pack["prompt"]] if "prompt" in pack else [])
    if not isinstance(prompts, list) or not prompts or not all(isinstance(one, str) for one in prompts):
        raise MaquetteError('The pack has no prompts: give prompts = ["a portrait of {subject}"].')
    shared = {key: value for key, value in pack.items() if key not in ("prompts", "prompt", *NOT_OF_A_PACK)}
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
