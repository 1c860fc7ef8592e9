"""What does the base predict? Its own loss under each prediction tells, where its file is silent or wrong.

A base that is asked for what it never learned answers wrongly at every level of noise; one that is asked for what it
learned explains most of the target. A rectified-flow SDXL has the very keys and shapes of SDXL.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.noise import NoiseProcess, noise_process

LEVELS = (0.7, 2.0)  # noise over signal, sigma of x0 + sigma n, at which the base is asked
LEARNED = 0.8  # relative loss above which a network has learned nothing that could be told apart
CLEARER = 0.9  # another prediction must explain the photos so many times better,
ERRORS = 2.0  # and by so many standard errors of the paired difference
CELLS = 32  # of a latent's side at most: 256 pixels tell as much, in a quarter of the time
PREDICTIONS = ("epsilon", "v_prediction", "flow")

Predict = Callable[[Tensor, Tensor], Tensor]  # x_t, t -> the network's output


def middle(latents: Tensor) -> Tensor:
    """At most `CELLS` x `CELLS` of (B, C, h, w)."""
    top, left = (max(0, (side - CELLS) // 2) for side in latents.shape[-2:])
    return latents[..., top : top + CELLS, left : left + CELLS]


@torch.no_grad()
def relative_losses(predict: Predict, process: NoiseProcess, x0: Tensor, seed: int = 0) -> Tensor:
    """Squared error over the variance of the target, (levels · B,), of latents x0 (B, C, h, w) at `LEVELS`: 1 is what a
    network reaches that always answers the mean. The same noise for every process.
    """
    random = torch.Generator().manual_seed(seed)
    losses = []
    for level in LEVELS:
        noise = torch.randn(x0.shape, generator=random).to(x0)
        t = torch.full((len(x0),), _timestep(process, level), dtype=process.t_dtype, device=x0.device)
        target = process.target(x0, noise, t)
        error = predict(process.add_noise(x0, noise, t), t).float() - target
        losses.append(error.square().flatten(1).mean(1) / target.var())
    return torch.cat(losses).double().cpu()


def _timestep(process: NoiseProcess, level: float) -> float:
    """The timestep whose signal-to-noise ratio is nearest to that of a level."""
    times = torch.arange(1, len(process)).to(process.t_dtype)
    snr = process.to("cpu").snr(times)
    return float(times[(snr.log() + 2 * torch.tensor(level).log()).abs().argmin()])


def losses_of(predict: Predict, scheduler: Mapping[str, Any], x0: Tensor) -> dict[str, Tensor]:
    """`relative_losses` of every prediction. scheduler: the base's own configuration, for its betas."""
    return {kind: relative_losses(predict, _as(scheduler, kind).to(x0.device), x0) for kind in PREDICTIONS}


def _as(scheduler: Mapping[str, Any], kind: str) -> NoiseProcess:
    if kind == scheduler.get("prediction_type", "epsilon"):
        return noise_process(scheduler)
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return noise_process({**betas, **scheduler, "prediction_type": kind})


def contradiction(predict: Predict, scheduler: Mapping[str, Any], x0: Tensor, base: str) -> str | None:
    """A sentence where the base plainly predicts something else than `scheduler` says. x0: latents of photos.

    A network that has learned nothing (random weights) contradicts nothing. Photos of mere noise mislead: nobody can
    tell their x0, so that the noise is the easier thing to predict.
    """
    said = str(scheduler.get("prediction_type", "epsilon"))
    found = losses_of(predict, scheduler, x0)
    means = {kind: float(losses.mean()) for kind, losses in found.items()}
    best = min(means, key=lambda kind: means[kind])
    if best == said or not means[best] <= min(LEARNED, CLEARER * means[said]) or not math.isfinite(means[said]):
        return None
    difference = found[said] - found[best]
    if len(difference) < 2 or float(difference.mean()) < ERRORS * float(difference.std()) / len(difference) ** 0.5:
        return None
    shares = ", ".join(f"{kind} {loss:.2f}" for kind, loss in sorted(means.items(), key=lambda item: item[1]))
    return (
        f"{base} does not seem to predict {said}: on these photos its relative loss is {shares} (1 is no better than "
        f"the mean). Give prediction_type = {best}, or probe_prediction = false if you are sure."
    )
