"""What a base model is to the rest of the program. Families differ in data, not in code paths elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..core.denoiser import Conditioning
from ..errors import MaquetteError

if TYPE_CHECKING:
    from .unet.unet import UNet2DConditionModel

Control = tuple[Sequence[Tensor], Tensor]
"""What a ControlNet adds to each of a UNet's skips, (B, Ci, h/2^i, w/2^i), and to its middle."""


@dataclass(frozen=True)
class FamilySpec:
    """Facts about a family. Sizes of networks are never here: they are read from the weights."""

    name: str  # "sd1", "sd2", "sdxl", "pocket"
    base_model_version: str  # ss_base_model_version of LoRA files: "sd_v1", "sdxl_base_v1-0", "maquette_pocket"
    architecture: str  # modelspec.architecture without the "/lora" suffix
    native_size: int  # pixels of a side
    latent_factor: int  # pixels per latent cell: 8, pocket 4
    text_parts: tuple[str, ...]  # what adapters call the text encoders: ("te",) or ("te1", "te2")
    latent_channels: int = 4
    patch: int = 1  # cells of a side that the network takes together: 2 of most transformers
    clip_skip: bool = True  # whether another layer of the text encoder than the usual one can be asked for
    zero_negative: bool = False  # whether a negative prompt without words is zeros, not the encoding of ""

    @property
    def size_multiple(self) -> int:
        """Pixels by which both sides of a picture are divisible."""
        return self.latent_factor * self.patch

    def skips(self, clip_skip: int) -> str | None:
        """The sentence for the user when `clip_skip` asks for a layer that this family never uses."""
        if self.clip_skip or clip_skip == 1:
            return None
        return (
            f"clip_skip = {clip_skip} has no effect on SDXL: it always uses the text encoders' layer before the last, "
            "which other programs and model cards call clip skip 2."
        )


@dataclass
class BaseModel:
    """A loaded base: networks, their parameters named as by diffusers and transformers, and what can be done with them.

    `predict`, `encode_text`, `encode_images` and `decode` are the only doors used by trainer, evaluator and sampler.
    """

    spec: FamilySpec
    network: nn.Module  # what is trained and asked at each step: a UNet or a transformer
    vae: nn.Module
    text_encoders: list[nn.Module]
    tokenizers: list[Any]
    scheduler_config: dict[str, Any]  # diffusers scheduler config: betas, prediction_type, timestep_spacing …
    source: str  # what the user named: "pocket", a file or a folder
    content_hash: str  # sha256 that identifies the weights (of the file, or of the folder's weight files)
    targets: Mapping[str, Sequence[str]] = field(default_factory=dict)  # "attention" -> regexes over module names
    vae_source: str = ""  # the file or folder of a VAE that was chosen instead of the model's own
    vae_hash: str = ""  # and the sha256 of its weights
    told_prediction: str = ""  # what the user says that it predicts, where its files say otherwise
    notices: list[str] = field(default_factory=list)  # sentences for the user on what loading decided

    @property
    def unet(self) -> UNet2DConditionModel:
        """The network of a family that has a UNet."""
        return cast("UNet2DConditionModel", self.network)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def networks(self) -> list[nn.Module]:
        return [self.network, self.vae, *self.text_encoders]

    def shared(self) -> BaseModel:
        """The same base again: modules and parameters of its own, around the very numbers of this one.

        Layers of either may be exchanged and parameters given other numbers without the other's noticing, as long as
        nobody writes into a tensor, which nothing here does: a changed weight is always another tensor.
        """
        other = copy.copy(self)
        other.network, other.vae = _shared(self.network), _shared(self.vae)
        other.text_encoders = [_shared(encoder) for encoder in self.text_encoders]
        other.tokenizers, other.notices = list(self.tokenizers), list(self.notices)
        other.scheduler_config = copy.deepcopy(self.scheduler_config)
        return other

    @property
    def input_channels(self) -> int:
        """Channels that the network takes: those of a latent, of an inpainting base more."""
        return self.spec.latent_channels

    @property
    def token_widths(self) -> list[int]:
        """How many of the D numbers of each token come from each text encoder, in their order."""
        return [int(cast(Any, encoder).config.hidden_size) for encoder in self.text_encoders]

    def enable_gradient_checkpointing(self) -> None:
        """Compute each block twice instead of remembering its inner values. Raises MaquetteError where it cannot."""
        enable = getattr(self.network, "enable_gradient_checkpointing", None)
        if enable is None:
            raise MaquetteError(f"gradient_checkpointing is not possible with {self.source}: leave it out.")
        enable()

    def predict(
        self,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        features: dict[str, Tensor] | None = None,
        control: Control | None = None,
    ) -> Tensor:
        """Raw output (B, C, h, w); see `core.denoiser.Denoiser`. features: where given, it gets what every block
        made, by the block's name. control: what a ControlNet adds.
        """
        raise NotImplementedError

    def context(self, x_t: Tensor, conditioning: Conditioning) -> tuple[Any, ...]:
        """What UNet and ControlNet take behind x and t, in the UNet's dtype: tokens; SDXL: pooled and sizes too.

        Tokens of a conditioning with a memo come with the keys and values that layers keep of them.
        """
        raise NotImplementedError

    def encode_text(self, prompts: Sequence[str], clip_skip: int = 1) -> Conditioning:
        """Plain prompts (no weights syntax) -> Conditioning of batch len(prompts), tokens (B, 77, D)."""
        raise NotImplementedError

    def encode_ids(self, ids: Sequence[Tensor], clip_skip: int = 1) -> Conditioning:
        """Windows of tokens, one (B, n) int64 tensor for each text encoder -> Conditioning of batch B."""
        raise NotImplementedError

    def encode_negative(self, prompts: Sequence[str], clip_skip: int = 1) -> Conditioning:
        """As `encode_text`, for negative prompts: of some families one without words is zeros."""
        conditioning = self.encode_text(prompts, clip_skip)
        if not self.spec.zero_negative:
            return conditioning
        said = torch.tensor([float(prompt != "") for prompt in prompts], device=conditioning.tokens.device)
        pooled = None if conditioning.pooled is None else conditioning.pooled * said[:, None].to(conditioning.pooled)
        return replace(
            conditioning, tokens=conditioning.tokens * said[:, None, None].to(conditioning.tokens), pooled=pooled
        )

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> posterior mean and standard deviation, each (B, C, H/f, W/f), unit-scaled."""
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) unit-scaled latents -> (B, 3, H, W) pixels in [0, 1], clamped."""
        raise NotImplementedError


def _shared(network: nn.Module) -> nn.Module:
    """A copy of the modules whose parameters and buffers have the same storage. Tied ones stay tied."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in network.parameters()}
    memo |= {id(buffer): buffer.detach() for buffer in network.buffers()}
    memo |= {id(module): object.__new__(type(module)) for module in network.modules()}
    for module in network.modules():
        made = {name: _copied(value, memo) for name, value in vars(module).items()}
        vars(memo[id(module)]).update(made)
    return cast(nn.Module, memo[id(network)])


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """As copy.deepcopy, which takes its time over the many empty tables of a module."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return type(value)() if isinstance(value, dict) and not value else copy.deepcopy(value, memo)
