"""Noise levels of a base: sigma for each timestep and back, and what the network's output says of the clean latent.

Samplers work with x = x0 + sigma n (Karras et al. 2206.00364); the network was trained with x_t = sqrt(abar_t) x0 +
sqrt(1 - abar_t) n (DDPM 2006.11239). Both are one picture at two scales: x = x_t / sqrt(abar_t), sigma_t =
sqrt((1 - abar_t) / abar_t). Flow models (2403.03206) have x = (1 - sigma) x0 + sigma n at one scale.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from ..core.noise import NoiseSchedule

Prediction = Literal["epsilon", "v_prediction", "flow"]
Spacing = Literal["leading", "trailing", "linspace"]

_NEARLY_ZERO = 4.8973451890853435e-08  # abar that A1111 puts for the 0 of a zero-terminal-SNR schedule


@dataclass(frozen=True)
class NoiseLevels:
    """sigmas: of timestep 0, 1, …, T - 1, rising. Levels and timesteps between two of them lie on a line in log sigma.

    prediction: what the network answers. spacing, offset: how the base's own timesteps are chosen. last: the level that
    DDIM ends at after timestep 0. xl: SDXL, for which Align Your Steps has a table of its own.
    """

    sigmas: Sequence[float]
    prediction: Prediction = "epsilon"
    spacing: Spacing = "leading"
    offset: int = 1
    last: float = 0.0
    xl: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], xl: bool = False) -> NoiseLevels:
        """From a base's scheduler config, as diffusers writes it."""
        if config.get("prediction_type") == "flow":
            return cls.flow(float(config.get("shift", 1.0)))
        schedule = NoiseSchedule.from_config(config)
        abars = [max(abar, _NEARLY_ZERO) for abar in schedule.alphas_cumprod.double().tolist()]
        sigmas = [math.sqrt((1.0 - abar) / abar) for abar in abars]
        spacing = config.get("timestep_spacing", "leading")
        last = 0.0 if config.get("set_alpha_to_one", False) else sigmas[0]
        return cls(sigmas, schedule.prediction_type, spacing, int(config.get("steps_offset", 0)), last, xl)

    @classmethod
    def flow(cls, shift: float = 1.0, steps: int = 1000) -> NoiseLevels:
        """Levels of a rectified flow (2403.03206, equation 23): shift u / (1 + (shift - 1) u), u = 1 / T … 1."""
        uniform = [(t + 1) / steps for t in range(steps)]
        return cls([shift * u / (1.0 + (shift - 1.0) * u) for u in uniform], "flow", "linspace")

    @cached_property
    def _logs(self) -> list[float]:
        return [math.log(sigma) for sigma in self.sigmas]

    @property
    def sigma_min(self) -> float:
        return self.sigmas[0]

    @property
    def sigma_max(self) -> float:
        return self.sigmas[-1]

    def t_to_sigma(self, t: float) -> float:
        """Level of a timestep in [0, T - 1], whole or not."""
        low = min(max(int(t), 0), len(self.sigmas) - 1)
        share = t - low
        if share <= 0 or low + 1 == len(self.sigmas):
            return self.sigmas[low]
        return math.exp((1.0 - share) * self._logs[low] + share * self._logs[low + 1])

    def sigma_to_t(self, sigma: float) -> float:
        """Timestep of a level, whole for a level of the table; levels beyond its ends have the end's."""
        log = math.log(max(sigma, 1e-10))
        low = bisect_right(self._logs, log) - 1
        if low < 0:
            return 0.0
        if low + 1 >= len(self.sigmas):
            return float(len(self.sigmas) - 1)
        return low + (log - self._logs[low]) / (self._logs[low + 1] - self._logs[low])

    def time(self, sigma: float) -> float:
        """The number that the network is told for a level."""
        return sigma * len(self.sigmas) if self.prediction == "flow" else self.sigma_to_t(sigma)

    def timesteps(self, steps: int) -> list[int]:
        """The base's own timesteps, falling, as diffusers' "trailing" and "linspace" choose them.

        "leading" is A1111's DDIM: every (T // steps)th plus 1, which are more than `steps` where they do not divide T.
        """
        last = len(self.sigmas) - 1
        if self.spacing == "trailing":
            ratio = len(self.sigmas) / steps
            return [max(0, round(len(self.sigmas) - i * ratio) - 1) for i in range(steps)]
        if self.spacing == "linspace":
            return [round(last - i * last / max(1, steps - 1)) for i in range(steps)]
        every = max(1, len(self.sigmas) // steps)
        return [min(t + self.offset, last) for t in range(0, len(self.sigmas), every)][::-1]

    def scale(self, sigma: float) -> float:
        """c_in: what brings x to the scale that the network knows, sqrt(abar)."""
        return 1.0 if self.prediction == "flow" else 1.0 / math.sqrt(sigma * sigma + 1.0)

    def noised(self, x0: Tensor, noise: Tensor, sigma: float) -> Tensor:
        """x of a clean latent at a level, in the samplers' scale."""
        return x0 * (1.0 - sigma if self.prediction == "flow" else 1.0) + noise * sigma

    def denoised(self, output: Tensor, x: Tensor, sigma: float) -> Tensor:
        """The clean latent x0 that the network's output for x at a level stands for; all of one shape.

        epsilon: x - sigma eps. v (2202.00512), v = sqrt(abar) n - sqrt(1 - abar) x0: x / (sigma² + 1) -
        v sigma / sqrt(sigma² + 1). flow, u = n - x0: x - sigma u.
        """
        if self.prediction == "v_prediction":
            return x / (sigma * sigma + 1.0) - output * (sigma / math.sqrt(sigma * sigma + 1.0))
        return x - output * sigma


_LCM_TIMESTEPS = 50  # that latent consistency models are distilled for


class LcmLevels(NoiseLevels):
    """Levels of a latent consistency model (Luo et al. 2310.04378): the network knows 50 timesteps, 19, 39 … 999."""

    @classmethod
    def of(cls, levels: NoiseLevels) -> LcmLevels:
        """The 50 among a base's levels."""
        every = len(levels.sigmas) // _LCM_TIMESTEPS
        return cls(levels.sigmas[every - 1 :: every], levels.prediction, xl=levels.xl)

    def time(self, sigma: float) -> float:
        """The timestep nearest in log sigma."""
        return 20.0 * round(self.sigma_to_t(sigma)) + 19.0

    def denoised(self, output: Tensor, x: Tensor, sigma: float) -> Tensor:
        """c_out x0 + c_skip x (2303.01469, equation 5) with sigma_data = 1/2 and 10 t: nearly x0 at all of the 50."""
        scaled = 10.0 * self.time(sigma)
        x0 = super().denoised(output, x, sigma)
        return x0 * (scaled / math.sqrt(scaled**2 + 0.25)) + x * (0.25 / (scaled**2 + 0.25))
