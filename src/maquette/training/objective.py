"""Losses of a training step: the denoising loss of photos, and prior preservation without pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import TrainConfig
from ..core import noise as N
from ..core.denoiser import Conditioning
from ..core.transfer import to_device_of
from ..families.base import BaseModel
from ..methods.base import Attached
from .batches import Batch
from .distributed import RankRows


@dataclass(frozen=True)
class LossTerm:
    """A loss to be computed: compute(*inputs) returns the loss of each photo, (B,). name: which kind it is.

    asked: what the base is asked, for those who ask it of several terms at once: x_t, t and the conditioning. judge:
    its answer -> the losses. None where the base is asked more than once.
    """

    name: str
    compute: Callable[..., Tensor]
    inputs: tuple[Tensor | None, ...]
    asked: tuple[Tensor, Tensor, Conditioning] | None = None
    judge: Callable[[Tensor], Tensor] | None = None

    @property
    def empty(self) -> bool:
        """Whether none of the photos is this process's."""
        return self.inputs[0] is None or not len(self.inputs[0])

    def losses(self) -> Tensor:
        """Compute the losses (B,), with gradients."""
        if self.empty:
            return torch.zeros(0)
        return self.compute(*self.inputs)


class Objective:
    """Loss of batches against a base that carries adapters."""

    def __init__(self, config: TrainConfig, base: BaseModel) -> None:
        self.config = config
        self.base = base
        zero = config.zero_terminal_snr or None
        self.schedule = N.noise_process(base.scheduler_config, zero, config.timestep_shift).to(base.device)
        self._highest = min(config.max_timestep, len(self.schedule))
        self.rank_rows = RankRows()

    def denoising(self, batch: Batch, conditioning: Conditioning, random: torch.Generator) -> LossTerm:
        """Return the weighted denoising losses of the rows that this rank computes."""
        noise, x_t, t = self._noised(batch.x0, random)
        x0, mask = batch.x0, batch.mask
        if (rows := self.rank_rows.rows(len(batch))) is not None:
            noise, x_t, t, x0 = noise[rows], x_t[rows], t[rows], x0[rows]
            conditioning, mask = conditioning[rows], None if mask is None else mask[rows]
        target = self.schedule.target(x0, noise, t)
        rebuild = conditioning.rebuild

        def denoising(x_t: Tensor, t: Tensor, target: Tensor, mask: Tensor | None, *parts: Tensor) -> Tensor:
            return self._loss(self.predict(x_t, t, rebuild(*parts)), target, t, mask)

        def judge(output: Tensor) -> Tensor:
            return self._loss(output, target, t, mask)

        inputs = (x_t, t, target, mask, *conditioning.fields())
        return LossTerm("photos", denoising, inputs, (x_t, t, conditioning), judge)

    def warm_up(self, batch: Batch, conditioning: Conditioning) -> None:
        """Run the denoiser once without a loss, so that layers decide what they decide at their first use."""
        t = torch.zeros(len(batch), dtype=self.schedule.t_dtype, device=batch.x0.device)
        self.predict(batch.x0, t, conditioning)

    def prior_loss(
        self,
        batch: Batch,
        conditioning: Conditioning,
        original: Conditioning,
        attached: Attached,
        random: torch.Generator,
    ) -> LossTerm:
        """Return how far each class prediction is from the untrained base's own: prior preservation without pictures.

        conditioning: the class prompt through the text encoder as it is now; original: as it was before training.
        """
        _, x_t, t = self._noised(batch.x0, random)
        if (rows := self.rank_rows.rows(len(batch))) is not None:
            x_t, t, conditioning, original = x_t[rows], t[rows], conditioning[rows], original[rows]

        rebuild = conditioning.rebuild

        def drifting(x_t: Tensor, t: Tensor, *parts: Tensor) -> Tensor:
            half = len(parts) // 2
            attached.set_multiplier(0.0)
            with torch.no_grad():
                target = self.predict(x_t, t, rebuild(*parts[half:]))
            attached.set_multiplier(1.0)
            return self._loss(self.predict(x_t, t, rebuild(*parts[:half])), target, t, None)

        return LossTerm("drift", drifting, (x_t, t, *conditioning.fields(), *original.fields()))

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The model's output, float32. Weights that are float32 in a run of half precision are cast for each use."""
        weight = next(self.base.network.parameters())
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.config.dtype)
        with torch.autocast(weight.device.type, half, enabled=half is not None and weight.dtype == torch.float32):
            return self.base.predict(x_t, t, conditioning).float()

    def _noised(self, x0: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """noise, x_t and t: (B, C, h, w) twice and (B,)."""
        config = self.config
        low, high = min(config.min_timestep, self._highest - 1), self._highest
        t = self.schedule.sample_timesteps(len(x0), random, low, high, config.timestep_sampling)
        t = to_device_of(t, x0, cast=False)
        noise = to_device_of(torch.randn(x0.shape, generator=random), x0)
        if config.noise_offset or config.noise_offset_adaptive:
            noise = N.offset_noise(
                noise, config.noise_offset, random, config.noise_offset_random, config.noise_offset_adaptive, x0
            )
        if config.pyramid_noise_levels:
            noise = N.pyramid_noise(noise, config.pyramid_noise_levels, config.pyramid_noise_discount, random)
        seen = noise
        if config.input_perturbation:
            strength = torch.full((len(x0), 1, 1, 1), config.input_perturbation)
            if config.input_perturbation_random:
                strength = strength * torch.rand(strength.shape, generator=random)
            seen = noise + to_device_of(strength * torch.randn(x0.shape, generator=random), x0)
        return noise, self.schedule.add_noise(x0, seen, t), t

    def _loss(self, output: Tensor, target: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
        config = self.config
        delta = N.huber_delta(self.schedule, t, config.huber_delta, config.huber_schedule).reshape(-1, 1, 1, 1)
        loss = N.masked_mean(N.elementwise_loss(output, target, config.loss_type, delta), mask)
        scale_v = config.scale_v_pred_loss_like_noise_pred and self.schedule.prediction_type == "v_prediction"
        v_like = config.v_pred_like_loss if self.schedule.prediction_type == "epsilon" else 0.0
        gamma, debiased = config.min_snr_gamma or None, config.debiased_estimation
        return loss * self.schedule.loss_weight(t, gamma, debiased, scale_v, v_like)
