"""What the steps of a run are computed from, and how: the terms of a step's loss, and their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..core.denoiser import Conditioning
from ..core.seeds import seeded
from ..data.dataset import Dataset, Problem
from ..families.base import BaseModel
from ..fast.graphs import Graphs
from ..methods.base import Attached
from . import optim, probe
from .batches import Batch, LatentDataset
from .ema import EMA
from .grad_scaler import GradScaler
from .objective import LossTerm, Objective
from .prior import Prior
from .probe import middle
from .prompt_cache import PromptCache

_ASKED = 4  # photos on which the base is asked what it predicts


@dataclass
class Job:
    """Everything the loop needs. `base` is what the user named; `computing`, the same networks, is trained on and may
    know a word more.
    """

    config: TrainConfig  # with every default filled in
    base: BaseModel
    computing: BaseModel
    dataset: Dataset
    attached: Attached
    optimizer: torch.optim.Optimizer
    ema: EMA | None
    objective: Objective
    texts: PromptCache
    instance: LatentDataset
    regularization: LatentDataset | None
    prior: Prior | None
    scaler: GradScaler
    graphs: Graphs | None = None  # passes recorded on a graphics card
    findings: list[Problem] = field(default_factory=list)  # what `maquette check` would say

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for group in self.attached.parameter_groups().values() for p in group]

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint is due after so many steps."""
        config = self.config
        if config.save_every_epochs is None:
            return step % (config.save_every_steps or step) == 0
        seen, epochs = (config.batch_size or 1), config.save_every_epochs * self.dataset.samples("instance")
        return step * seen // epochs > (step - 1) * seen // epochs

    def gradients(self, step: int) -> tuple[Tensor, list[Batch]]:
        """Compute a step's gradients, times the loss scale. Returns its mean loss () and the photos seen."""
        total = torch.zeros((), device=self.base.device)
        batches, terms = self.terms(step)
        for term, factor in terms:
            total += self._learn(term, factor)
        return total, batches

    def terms(self, step: int) -> tuple[list[Batch], Iterator[tuple[LossTerm, float]]]:
        """A step's photos, and what is to be learned from them: terms and the factors of their summed losses. Each is
        made when it is asked for.

        With regularization images the loss is the mean of the photos' and theirs, as in sd-scripts, where they are
        half of a batch.
        """
        config = self.config
        random = seeded(config.seed, "step", step)
        torch.manual_seed(int(torch.randint(2**62, (), generator=random)))  # the adapters' dropouts draw from this
        self.objective.rank_rows.start_step()
        batches = self.instance.batches(step, config.batch_size or 1, config.gradient_accumulation, random)
        return batches, self._terms(step, batches, random)

    def _terms(self, step: int, batches: list[Batch], random: torch.Generator) -> Iterator[tuple[LossTerm, float]]:
        config = self.config
        size, parts = config.batch_size or 1, config.gradient_accumulation
        half = 1.0 if self.regularization is None else 0.5
        for batch in batches:
            for part, captions in self._alike(batch, batch.captions):
                conditioning = _sized(self.texts(captions), part)
                yield self.objective.denoising(part, conditioning, random), half / size
            if self.prior is not None:
                held, asked = self.prior.part(batch, random)
                factor = len(batch) / len(held) / size * config.prior_loss_weight
                for part, prompts in self._alike(held, asked):
                    now, original = _sized(self.texts(prompts), part), _sized(self.texts.original(prompts), part)
                    yield self.objective.prior_loss(part, now, original, self.attached, random), factor
        if self.regularization is not None:
            share = config.prior_share
            for batch in self.regularization.batches(step, size, parts, random, share):
                for part, captions in self._alike(batch, batch.captions):
                    question = self.objective.denoising(part, _sized(self.texts(captions), part), random)
                    yield question, half * config.prior_loss_weight / (size * share)

    def _alike(self, batch: Batch, prompts: list[str]) -> list[tuple[Batch, list[str]]]:
        """The batch in parts whose prompts take equally many windows: none is filled up for the sake of another."""
        groups = self.texts.alike(prompts)
        if len(groups) == 1:
            return [(batch, prompts)]
        return [(batch.rows(group), [prompts[i] for i in group]) for group in groups]

    def _learn(self, question: LossTerm, factor: float) -> Tensor:
        """Add the gradients of factor x the question's losses. Returns that sum, ()."""
        if self.graphs is not None and not question.empty:
            return self.graphs.learn(question.name, question.compute, question.inputs, factor)
        loss = question.losses().sum() * factor
        if loss.requires_grad:  # not where all of a batch's photos are another process's
            (loss * self.scaler.scale if self.scaler.active else loss).backward()
        return loss.detach()

    @torch.no_grad()
    def warm_up(self) -> None:
        """One pass forward over the first batch of step 0, so that whatever a layer decides at its first use does not
        depend on the step at which a run goes on.
        """
        self.attached.set_multiplier(0.0)
        self.objective.warm_up(*self.first_batch())
        self.attached.set_multiplier(1.0)

    def first_batch(self) -> tuple[Batch, Conditioning]:
        """Of step 0, with what the base is told."""
        config = self.config
        random = seeded(config.seed, "step", 0)
        batch = self.instance.batches(0, config.batch_size or 1, config.gradient_accumulation, random)[0]
        part, captions = self._alike(batch, batch.captions)[0]
        return part, _sized(self.texts(captions), part)

    @torch.no_grad()
    def contradiction(self) -> str | None:
        """A sentence where the base's own loss on a few photos says that it predicts something else (`probe`)."""
        random = seeded(self.config.seed, "probe", 0)
        batch = self.instance.batches(0, _ASKED, 1, random)[0]
        part, captions = self._alike(batch, batch.captions)[0]
        conditioning = _sized(self.texts(captions), part)
        masked = None if conditioning.concat is None else middle(conditioning.concat)
        conditioning = replace(conditioning, concat=masked)
        self.attached.set_multiplier(0.0)
        found = probe.contradiction(
            lambda x, t: self.objective.predict(x, t, conditioning),
            self.base.scheduler_config, middle(part.x0), self.config.base,
        )  # fmt: skip
        self.attached.set_multiplier(1.0)
        return found

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds: the averaged weights where there is an average, float32."""
        with optim.evaluation_weights(self.optimizer):
            if self.ema is not None:
                self.ema.swap()
            state = {key: value.clone() for key, value in self.attached.state().items()}
            if self.ema is not None:
                self.ema.swap()
        return state


def _sized(conditioning: Conditioning, batch: Batch) -> Conditioning:
    """Add what the photos decide: SDXL's time ids (of families with a pooled vector), and inpainting channels."""
    sizes = None if conditioning.pooled is None else batch.time_ids
    return replace(conditioning, time_ids=sizes, concat=batch.concat)


def photo_names(job: Job, batches: list[Batch]) -> list[str]:
    """The files that a step saw."""
    seen = dict.fromkeys(index for batch in batches for index in batch.photos)
    return [str(Path(job.instance.photos[index].name)) for index in seen]
