"""Several subjects at once on one frozen network: N runs, each in a slot of its own, computed in one batch.

A run keeps everything of its own: seeds, photos, optimizer, learning rate and its schedule, clipping, files. Only the
passes through the network are shared (`methods.slots`). A slot that ends, or whose run fails, is given to the next run
before the next step; what happens in one slot is never seen in another.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ..config import TrainConfig
from ..core.denoiser import Conditioning
from ..errors import MaquetteError, OutOfMemory
from ..events import Cancel, Cancelled, Listener, ignore
from ..families import load
from ..families.kept import kept_meanwhile
from ..fast import packed
from ..methods.base import AdaptedLayers
from ..methods.slots import SlotLayers
from . import memory
from .attaching import unet_slots
from .batches import Batch
from .job import Job
from .objective import LossTerm, Objective
from .preparing import opened
from .process_settings import process_settings
from .running import begun
from .train_result import TrainResult
from .trainer import Trainer

ALIKE = (
    "base", "vae", "prediction_type", "device", "dtype", "deterministic", "gradient_checkpointing", "batch_size",
    "resolution", "layers", "block_ranks",
)  # fmt: skip
"""Keys in which the runs of a group agree: they decide the network, and which shapes its passes have."""


@dataclass(frozen=True)
class Compatibility:
    """Runs with one key can be trained together; `reason` says why one cannot share a network at all."""

    key: str | None
    reason: str | None = None


def compatible(config: TrainConfig) -> Compatibility:
    """With which others a run can share a network."""
    alone = {
        f"method = {config.method}": config.method != "lora",
        "two_pass": config.two_pass,
        "text_encoder": config.text_encoder,
        "dropout": bool(config.dropout or config.rank_dropout or config.module_dropout),
        "prior_preservation": config.prior_preservation,
        "compile": config.compile,
        "dtype = fp16": config.dtype == "fp16",
        "torchrun": int(os.environ.get("WORLD_SIZE", "1")) > 1,
    }
    reason = next((name for name, true in alone.items() if true), None)
    if reason is not None:
        return Compatibility(None, f"{reason}: such a run is trained alone, not in a slot.")
    return Compatibility(json.dumps(config.model_dump(mode="json", include=set(ALIKE)), sort_keys=True))


CameTo = TrainResult | Exception
"""A run's result, or what ended it."""


@dataclass(frozen=True, eq=False)
class SlotRun:
    """A run for a slot, and who hears of it. ended: told once what it came to, before the others' next step."""

    config: TrainConfig
    ended: Callable[[CameTo], None]
    on_event: Listener = ignore
    cancel: Cancel = field(default_factory=Cancel)
    cache: Path | None = None  # see `running.begun`


def train_together(
    configs: Sequence[TrainConfig],
    slots: int,
    listeners: Sequence[Listener] | None = None,
    cancels: Sequence[Cancel] | None = None,
    caches: Sequence[Path | None] | None = None,
) -> list[CameTo]:
    """Train runs that are `compatible`, `slots` of them at a time; the others follow as slots become free.

    listeners, cancels, caches: one for each run. Returns what each came to, in their order: its result, or what ended
    it. Raises MaquetteError for runs that cannot share a network.
    """
    ended: dict[int, CameTo] = {}
    runs = [
        SlotRun(
            config, partial(ended.__setitem__, number), listeners[number] if listeners else ignore,
            cancels[number] if cancels else Cancel(), caches[number] if caches else None,
        )
        for number, config in enumerate(configs)
    ]  # fmt: skip
    train_in_slots(runs, min(slots, len(configs)))
    return [ended[number] for number in range(len(configs))]


def train_in_slots(runs: Sequence[SlotRun], slots: int, more: Callable[[], SlotRun | None] = lambda: None) -> None:
    """Train runs that are `compatible`, `slots` of them at a time, until each has ended. more: asked for one that is
    compatible with them whenever a slot is free and none of `runs` waits; None where there is none now.

    Raises MaquetteError for runs that cannot share a network, and whatever ends all of them; of those that were at work
    nothing is told then.
    """
    configs = [run.config for run in runs]
    _require_compatible(configs, slots)
    with kept_meanwhile(configs[0].base), process_settings(configs[0]):
        _Group(runs, slots, more).run()


def _require_compatible(configs: Sequence[TrainConfig], slots: int) -> None:
    if not configs or slots < 1:
        raise MaquetteError("Training several subjects at once takes one run and one slot at least.")
    found = [compatible(config) for config in configs]
    reason = next((one.reason for one in found if one.reason), None)
    if reason is not None:
        raise MaquetteError(reason)
    if len({one.key for one in found}) > 1:
        raise MaquetteError(f"Runs in slots of one network must agree in {', '.join(ALIKE)}.")


class SlotNetwork:
    """One frozen network for the passes of several jobs."""

    def __init__(self, config: TrainConfig, slots: int) -> None:
        """config: any of the group's, since they agree on what matters here. slots: how many there will be."""
        self.base, _ = opened(config, load)
        self._slots = slots
        if config.gradient_checkpointing:
            self.base.enable_gradient_checkpointing()
        self.layers = SlotLayers(unet_slots(config, self.base))
        self.objective: Objective | None = None

    def put(self, slot: int, job: Job) -> None:
        """Seat a job. The first one's photos decide how weights are laid out, as they do for a job alone."""
        self.layers.put(slot, cast(AdaptedLayers, job.attached))
        if self.objective is None:
            self.objective = Objective(job.config, self.base)
            if self.base.device.type == "cpu" and packed.install(self.base.network):
                batch, conditioning = job.first_batch()
                rows = [*range(len(batch))] * self._slots
                with torch.no_grad():
                    self.objective.warm_up(batch.rows(rows), conditioning[rows])

    def gradients(self, seated: Mapping[int, tuple[Job, int]]) -> dict[int, tuple[Tensor, list[Batch]]]:
        """Compute a step's gradients for each slot's job and the number of its step, which differ from slot to slot.

        Returns each one's mean loss () and the photos seen, as `Job.gradients` does.
        """
        terms_of = {slot: job.terms(step) for slot, (job, step) in seated.items()}
        losses = {slot: torch.zeros((), device=self.base.device) for slot in seated}
        for turn in zip_longest(*(terms for _, terms in terms_of.values())):
            alike: dict[object, list[tuple[int, LossTerm, float]]] = {}
            for slot, asked in zip(terms_of, turn, strict=True):
                if asked is not None:
                    alike.setdefault(_shapes(asked[0]), []).append((slot, *asked))
            for members in alike.values():
                self._learn(members, losses)
        return {slot: (losses[slot], batches) for slot, (batches, _) in terms_of.items()}

    def _learn(self, members: Sequence[tuple[int, LossTerm, float]], losses: dict[int, Tensor]) -> None:
        """One pass over terms of one shape, a slot's each: the gradients of the sum of their losses."""
        assert self.objective is not None
        asked = [term.asked for _, term, _ in members if term.asked is not None]
        self.layers.seats.taken = tuple(slot for slot, *_ in members)
        try:
            x_t, t = torch.cat([one[0] for one in asked]), torch.cat([one[1] for one in asked])
            output = self.objective.predict(x_t, t, Conditioning.cat([one[2] for one in asked]))
            found = []
            for (slot, term, factor), part in zip(members, output.chunk(len(members)), strict=True):
                assert term.judge is not None
                loss = term.judge(part).sum() * factor
                losses[slot] += loss.detach()
                found.append(loss)
            torch.autograd.backward(found)
        finally:
            self.layers.seats.taken = ()


def _shapes(term: LossTerm) -> object:
    """Terms for which it is the same can be asked in one pass."""
    if term.asked is None:
        raise ValueError(f"a term of {term.name} asks the base more than once")
    x_t, _, conditioning = term.asked
    return x_t.shape, tuple(None if x is None else x.shape for x in conditioning.fields())


@dataclass
class _Seated:
    """A run at work in a slot. held: its folder and what else it holds."""

    run: SlotRun
    trainer: Trainer
    held: ExitStack


class _Group:
    """The runs of `train_in_slots`: those that wait, and those that are seated."""

    def __init__(self, runs: Sequence[SlotRun], slots: int, more: Callable[[], SlotRun | None]) -> None:
        self.first, self.slots, self.more = runs[0].config, slots, more
        self.waiting = deque(runs)
        self.seated: dict[int, _Seated] = {}

    def run(self) -> None:
        network = SlotNetwork(self.first, self.slots)
        try:
            while self._fill(network):
                self._step(network)
        finally:
            for one in self.seated.values():
                one.held.close()

    def _fill(self, network: SlotNetwork) -> bool:
        """Give free slots to waiting runs. Returns whether any slot is taken."""
        while len(self.seated) < self.slots:
            run = self.waiting.popleft() if self.waiting else self.more()
            if run is None:
                break
            if run.cancel.is_set():
                run.ended(Cancelled("Stopped before it had begun; nothing was written."))
            else:
                self._seat(network, run, next(slot for slot in range(self.slots) if slot not in self.seated))
        return bool(self.seated)

    def _seat(self, network: SlotNetwork, run: SlotRun, slot: int) -> None:
        """Begin a run in a slot."""
        held = ExitStack()
        try:
            _require_compatible([self.first, run.config], self.slots)
            trainer = held.enter_context(begun(run.config, run.on_event, run.cancel, run.cache, computes=False))
            trainer.begin(0)
            network.put(slot, trainer.job)
        except Exception as error:  # whatever ends a run is what it came to
            run.ended(_closed(held, error))
        else:
            self.seated[slot] = _Seated(run, trainer, held)

    def _step(self, network: SlotNetwork) -> None:
        """One step of every run that is seated."""
        began = {slot: one.trainer.start_step() for slot, one in self.seated.items()}
        try:
            found = network.gradients({s: (one.trainer.job, one.trainer.step) for s, one in self.seated.items()})
        except RuntimeError as error:
            if not memory.exhausted(error):
                raise
            message = f"The memory does not suffice for {len(self.seated)} subjects at once; give fewer slots."
            for slot in [*self.seated]:
                self._leave(network, slot, OutOfMemory(message))
            return
        for slot, one in [*self.seated.items()]:
            try:
                one.trainer.end_step(began[slot], *found[slot])
                one.trainer.after_step()
                over = one.trainer.stop or one.trainer.step >= one.trainer.steps
                result: CameTo | None = one.trainer.end() if over else None
            except Exception as error:  # as above
                result = error
            if result is not None:
                self._leave(network, slot, result)

    def _leave(self, network: SlotNetwork, slot: int, came_to: CameTo) -> None:
        """Free a slot."""
        one = self.seated.pop(slot)
        network.layers.remove(slot)
        if not isinstance(came_to, TrainResult):
            came_to = _closed(one.held, came_to)
        try:
            one.held.close()
        except Exception as error:  # its last lines could not be written
            came_to = error
        one.run.ended(came_to)


def _closed(held: ExitStack, error: Exception) -> Exception:
    """Leave what is held because of an error. Returns it as those who hold it explain it."""
    try:
        held.__exit__(type(error), error, error.__traceback__)
    except Exception as explained:
        return explained
    return error
