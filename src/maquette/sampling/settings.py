"""A1111's settings of samplers and noise as keys of a configuration, and how infotext says them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ..config import StageConfig
from ..formats.png import number_text
from .sources import NoiseSource

if TYPE_CHECKING:
    from .loop import SamplingOptions
    from .samplers import SamplerKind


class SamplerSettings(StageConfig):
    """How the sampler goes, and where its noise comes from."""

    group: ClassVar[str] = "Sampler"

    cfg_rescale: float = Field(default=0.0, ge=0, le=1)
    """Share of the guided prediction that gets its deviation without guidance back: 0.7 for zero terminal SNR."""
    eta: float | None = Field(default=None, ge=0, le=1)
    """Share of the noise that a sampler adds again at each step; otherwise 1, with DDIM 0."""
    s_churn: float = Field(default=0.0, ge=0, le=100)
    """Noise added before each step of Euler, Heun and DPM2 (Karras et al. 2022)."""
    s_tmin: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """The lowest level at which s_churn adds noise."""
    s_tmax: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """The highest level at which s_churn adds noise; 0 for all."""
    s_noise: float = Field(default=1.0, ge=0, le=10)
    """Factor of the noise that is added at steps."""
    discard_penultimate_sigma: bool = False
    """Leave out the level before the last, as DPM2 and DPM++ 3M SDE always do."""
    noise_source: NoiseSource = "CPU"
    """Whose random numbers: "CPU", "NV" (those of NVIDIA's cards, on any machine; A1111's default there) or "GPU"."""
    ensd: int = Field(default=0, ge=-(2**62), le=2**62)
    """A1111's eta noise seed delta: added to the seed for the noise of the steps of ancestral samplers."""

    def sampling_options(self) -> SamplingOptions:
        """As the drawing takes them."""
        from .loop import SamplingOptions
        from .noise import NoiseOptions

        return SamplingOptions(
            eta=self.eta,
            s_churn=self.s_churn,
            s_tmin=self.s_tmin,
            s_tmax=self.s_tmax,
            s_noise=self.s_noise,
            discard=self.discard_penultimate_sigma,
            cfg_rescale=self.cfg_rescale,
            noise=NoiseOptions(self.noise_source, self.ensd),
        )

    def noise_values(self, *samplers: str) -> dict[str, Any]:
        """ENSD and RNG of A1111's infotext, in its order; None is left out. samplers: of each pass.

        A1111 writes ENSD for ancestral samplers alone; here for all whose noise it changes.
        """
        from .samplers import kind_of

        counts = any(self._noisy(kind_of(sampler)) for sampler in samplers)
        return {"ENSD": self.ensd or None if counts else None, "RNG": self.noise_source}

    def _noisy(self, kind: SamplerKind) -> bool:
        """Whether a sampler takes noise from the picture's own generator with these settings."""
        if kind.brownian or not kind.takes("noise"):
            return False
        if kind.takes("s_churn"):
            return self.s_churn > 0
        return not kind.takes("eta") or (kind.usual_eta if self.eta is None else self.eta) > 0

    def sampler_values(self, *samplers: str) -> dict[str, Any]:
        """What A1111's infotext says further on, of settings that are not the usual ones and change the picture."""
        from .samplers import kind_of

        kinds = [kind_of(sampler) for sampler in samplers]
        own = [kind for kind in kinds if kind.takes("eta") and self.eta not in (None, kind.usual_eta)]
        churned = any(kind.takes("s_churn") for kind in kinds)
        noised = any(kind.takes("s_noise") for kind in kinds)
        values = {
            "CFG Rescale": self.cfg_rescale or None,
            "Eta DDIM" if own and own[0].by_timesteps else "Eta": self.eta if own else None,
            "Sigma churn": self.s_churn or None if churned else None,
            "Sigma tmin": self.s_tmin or None if churned else None,
            "Sigma tmax": self.s_tmax or None if churned else None,
            "Sigma noise": self.s_noise if self.s_noise != 1 and noised else None,
        }
        shown = {key: None if value is None else number_text(value) for key, value in values.items()}
        discards = self.discard_penultimate_sigma and not all(kind.discard for kind in kinds)
        return {**shown, "Discard penultimate sigma": "True" if discards else None}
