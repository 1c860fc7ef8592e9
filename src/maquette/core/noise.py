"""The forward process: what noise does to a latent, what the denoiser must answer, and how much each timestep counts.

Notation of the papers: x0 clean latent, n noise, abar_t = prod(1 - beta); x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) n.
DDPM arXiv 2006.11239, v-prediction arXiv 2202.00512, min-SNR arXiv 2303.09556, zero terminal SNR arXiv 2305.08891.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from ..errors import MaquetteError
from .transfer import to_device_of

PredictionType = Literal["epsilon", "v_prediction", "flow"]
TimestepSampling = Literal["uniform", "logit-normal"]


@dataclass(frozen=True)
class NoiseSchedule:
    """A discrete schedule of T steps. Timesteps t are int64 (B,) in [0, T); latents are (B, C, h, w) on any device."""

    alphas_cumprod: Tensor  # (T,) float32, computed in float64
    prediction_type: PredictionType
    weighing: Tensor | None = None  # (T,) the same before it was made to end in pure noise; its SNR weighs the loss
    t_dtype: ClassVar[torch.dtype] = torch.int64

    @classmethod
    def from_config(cls, config: Mapping[str, Any], zero_terminal_snr: bool | None = None) -> NoiseSchedule:
        """From a diffusers scheduler config. `zero_terminal_snr` overrides its `rescale_betas_zero_snr`."""
        prediction_type = config.get("prediction_type", "epsilon")
        if prediction_type not in ("epsilon", "v_prediction"):
            raise MaquetteError(f"The base predicts {prediction_type}, of which there is no schedule of betas.")
        alphas_cumprod = torch.cumprod(1.0 - _betas(config), dim=0)
        rescale = config.get("rescale_betas_zero_snr", False) if zero_terminal_snr is None else zero_terminal_snr
        if rescale:
            return cls(_zero_terminal(alphas_cumprod).float(), prediction_type, alphas_cumprod.float())
        return cls(alphas_cumprod.float(), prediction_type)

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def to(self, device: torch.device | str) -> NoiseSchedule:
        """The same schedule with its table on `device`, so that a step needs no copy between host and device."""
        weighing = None if self.weighing is None else self.weighing.to(device)
        return NoiseSchedule(self.alphas_cumprod.to(device), self.prediction_type, weighing)

    def sample_timesteps(
        self,
        count: int,
        generator: torch.Generator,
        low: int = 0,
        high: int = 1000,
        sampling: TimestepSampling = "uniform",
    ) -> Tensor:
        """(count,) int64 in [low, high); "logit-normal" (arXiv 2403.03206) prefers the middle."""
        if sampling == "uniform":
            return torch.randint(low, high, (count,), generator=generator)
        u = torch.sigmoid(torch.randn(count, generator=generator))
        return (low + (u * (high - low)).long()).clamp(max=high - 1)

    def _roots(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar_t), sqrt(1 - abar_t), shaped (B, 1, 1, 1)."""
        abar = self.alphas_cumprod[t].reshape(-1, *[1] * (like.ndim - 1))
        return abar.sqrt(), (1.0 - abar).sqrt()

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of the clean latent (eq. 4 of DDPM)."""
        a, s = self._roots(t, x0)
        return a * x0 + s * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the denoiser must answer: the noise, or v = sqrt(abar) n - sqrt(1 - abar) x0."""
        if self.prediction_type == "epsilon":
            return noise
        a, s = self._roots(t, x0)
        return a * noise - s * x0

    def x0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean latent that the denoiser's output stands for. For epsilon it diverges where abar_t = 0."""
        a, s = self._roots(t, x_t)
        if self.prediction_type == "epsilon":
            return (x_t - s * output) / a
        return a * x_t - s * output

    def eps(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise that the denoiser's output stands for."""
        if self.prediction_type == "epsilon":
            return output
        a, s = self._roots(t, x_t)
        return a * output + s * x_t

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio abar / (1 - abar), (B,); 0 at the last step of a zero-terminal-SNR schedule."""
        abar = self.alphas_cumprod[t]
        return abar / (1.0 - abar)

    def loss_weight(
        self,
        t: Tensor,
        min_snr_gamma: float | None = None,
        debiased: bool = False,
        scale_v: bool = False,
        v_like: float = 0.0,
    ) -> Tensor:
        """Weight of each sample's loss, (B,): the product of what is asked for, 1 where nothing is.

        min-SNR: min(snr, g) / snr for epsilon, min(snr, g) / (snr + 1) for v. Debiased estimation (arXiv 2310.08442):
        1 / sqrt(s) for epsilon, 1 / (s + 1) for v, with s = min(snr, 1000). scale_v: s / (s + 1), the error of v
        counted as that of the noise. v_like: 1 + v_like (s + 1) / s, the error of the noise counted as that of v too.
        As in sd-scripts the SNR is that of the schedule before it was made to end in pure noise: at an SNR of 0 these
        weights would be 0 or infinite.
        """
        abar = self.alphas_cumprod if self.weighing is None else self.weighing
        snr = abar / (1.0 - abar)
        snr = snr.clamp(min=snr.masked_fill(snr == 0, torch.inf).min())[t]  # a table may be given that ends in 0
        s = snr.clamp(max=1000.0)
        v = self.prediction_type == "v_prediction"
        weight = torch.ones_like(snr)
        if min_snr_gamma is not None:
            weight = snr.clamp(max=min_snr_gamma) / (snr + 1.0 if v else snr)
        if scale_v:
            weight = weight * s / (s + 1.0)
        if v_like:
            weight = weight * (1.0 + v_like * (s + 1.0) / s)
        if debiased:
            weight = weight / (s + 1.0 if v else s.sqrt())
        return weight


class NoiseProcess(Protocol):
    """What trainer and evaluator ask of a noise process: `NoiseSchedule` (epsilon and v) or `flow.RectifiedFlow`."""

    @property
    def prediction_type(self) -> PredictionType: ...
    @property
    def t_dtype(self) -> torch.dtype: ...
    def __len__(self) -> int: ...
    def to(self, device: torch.device | str) -> NoiseProcess: ...
    def sample_timesteps(
        self, count: int, generator: torch.Generator, low: int, high: int, sampling: TimestepSampling
    ) -> Tensor: ...
    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor: ...
    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor: ...
    def x0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor: ...
    def eps(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor: ...
    def snr(self, t: Tensor) -> Tensor: ...
    def loss_weight(
        self, t: Tensor, min_snr_gamma: float | None, debiased: bool, scale_v: bool, v_like: float
    ) -> Tensor: ...


def noise_process(
    config: Mapping[str, Any], zero_terminal_snr: bool | None = None, shift: float | None = None
) -> NoiseProcess:
    """The noise process of a base, from its (diffusers) scheduler config: `prediction_type`, betas, and a flow's
    `shift`. zero_terminal_snr and shift override what the config says.
    """
    if config.get("prediction_type") == "flow":
        from .flow import RectifiedFlow

        return RectifiedFlow(float(config.get("shift", 1.0)) if shift is None else shift)
    return NoiseSchedule.from_config(config, zero_terminal_snr)


def _betas(config: Mapping[str, Any]) -> Tensor:
    """(T,) float64, as diffusers' schedulers build them."""
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float64)
    steps = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    kind = config.get("beta_schedule", "linear")
    if kind == "linear":
        return torch.linspace(start, end, steps, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    if kind == "squaredcos_cap_v2":
        u = torch.arange(steps + 1, dtype=torch.float64) / steps
        abar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1.0 - abar[1:] / abar[:-1]).clamp(max=0.999)
    raise MaquetteError(f"The base's scheduler has the unknown beta_schedule {kind!r}.")


def _zero_terminal(alphas_cumprod: Tensor) -> Tensor:
    """Shift and scale sqrt(abar) so that the last is 0 and the first unchanged (arXiv 2305.08891, algorithm 1)."""
    root = alphas_cumprod.sqrt()
    first, last = root[0].clone(), root[-1].clone()
    return ((root - last) * (first / (first - last))) ** 2


def offset_noise(
    noise: Tensor,
    strength: float,
    generator: torch.Generator,
    random_strength: bool = False,
    adaptive: float = 0.0,
    x0: Tensor | None = None,
) -> Tensor:
    """Add one random constant per sample and channel, so that brightness can be learned.

    n + s * randn(B, C, 1, 1). s is `strength`, times a uniform number per sample with `random_strength`, plus, but not
    below 0, `adaptive` times the size of each channel's mean in the clean latent x0: more for dark and bright pictures.
    """
    shift = to_device_of(torch.randn(*noise.shape[:2], 1, 1, generator=generator), noise)
    factor = torch.full_like(shift, strength)
    if random_strength:
        factor = factor * to_device_of(torch.rand(noise.shape[0], 1, 1, 1, generator=generator), noise)
    if adaptive and x0 is not None:
        factor = (factor + adaptive * x0.mean(dim=(2, 3), keepdim=True).abs()).clamp(min=0.0)
    return noise + factor * shift


def pyramid_noise(noise: Tensor, levels: int, discount: float, generator: torch.Generator) -> Tensor:
    """Add noise of `levels` grids, coarser and coarser and `discount` times weaker, and rescale to unit deviation.

    As sd-scripts' multires_noise: level i (from 0) is r^i times coarser with an r in [2, 4) drawn for each level,
    weighs discount^i and is enlarged bilinearly to (h, w). So level 0 is white at full weight, and alone stays white.
    """
    batch, channels, height, width = noise.shape
    total = noise
    for level in range(levels):
        coarser = (2.0 + 2.0 * torch.rand(1, generator=generator).item()) ** level
        h, w = max(1, int(height / coarser)), max(1, int(width / coarser))
        coarse = to_device_of(torch.randn(batch, channels, h, w, generator=generator), noise)
        coarse = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
        total = total + coarse * discount**level
        if h == 1 or w == 1:
            break
    return total / total.std()


LossType = Literal["l2", "l1", "huber", "smooth_l1"]


def elementwise_loss(output: Tensor, target: Tensor, kind: LossType = "l2", delta: Tensor | float = 0.1) -> Tensor:
    """Loss of each element, the shape of `output`.

    huber: 2 d (sqrt(e^2 + d^2) - d), smooth_l1: 2 (sqrt(e^2 + d^2) - d); both pseudo-Huber, close to e^2 resp. e^2 / d
    for |e| << d (as sd-scripts scales them). `delta` d: a number, or (B, 1, 1, 1).
    """
    error = output - target
    if kind == "l2":
        return error.square()
    if kind == "l1":
        return error.abs()
    pseudo = 2.0 * ((error.square() + delta**2).sqrt() - delta)
    return pseudo * delta if kind == "huber" else pseudo


HuberSchedule = Literal["constant", "exponential", "snr"]


def huber_delta(schedule: NoiseProcess, t: Tensor, delta: float, kind: HuberSchedule = "constant") -> Tensor:
    """The Huber threshold of each sample, (B,): constant, or falling from 1 toward `delta` with the noise.

    exponential: delta ** (t / T). snr: (1 - delta) / (1 + sigma)^2 + delta with sigma^2 = (1 - abar) / abar.
    """
    if kind == "constant":
        return torch.full(t.shape, delta, device=t.device)
    if kind == "exponential":
        return torch.exp(t.float() / len(schedule) * math.log(delta))
    sigma = schedule.snr(t).reciprocal().sqrt()
    return (1.0 - delta) / (1.0 + sigma).square() + delta


def masked_mean(loss: Tensor, mask: Tensor | None) -> Tensor:
    """Mean loss of each sample, (B,).

    A mask (B, 1, h, w) weighs the elements and its area normalises, so that small subjects learn as fast.
    """
    if mask is None:
        return loss.flatten(1).mean(1)
    weighted = (loss * mask).flatten(1).sum(1)
    return weighted / (mask.flatten(1).sum(1) * loss.shape[1]).clamp(min=1e-6)
