"""diffusers' networks with the weights of ours: rivals of the benchmarks, oracles of the tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def unet(ours: nn.Module) -> Any:
    """diffusers' UNet2DConditionModel, whose parameters are the tensors of ours; frozen, in eval mode."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return _like(ours, UNet2DConditionModel)


def controlnet(ours: nn.Module) -> Any:
    """diffusers' ControlNetModel, whose parameters are the tensors of ours; frozen, in eval mode."""
    from diffusers.models.controlnets.controlnet import ControlNetModel

    return _like(ours, ControlNetModel)


def vae(ours: nn.Module) -> Any:
    """diffusers' AutoencoderKL, whose parameters are the tensors of ours; frozen, in eval mode."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return _like(ours, AutoencoderKL)


def text_encoder(ours: nn.Module) -> Any:
    """transformers' CLIPTextModel or CLIPTextModelWithProjection with copies of the weights of ours; frozen, in eval
    mode.
    """
    import transformers

    config: Any = ours.config
    made = getattr(transformers, type(ours).__name__)(transformers.CLIPTextConfig(**config))
    made.load_state_dict(ours.state_dict())
    example = next(ours.parameters())
    return made.to(example.device, example.dtype).requires_grad_(False).eval()


def _like(ours: nn.Module, kind: Any) -> Any:
    with torch.device("meta"):
        made = kind.from_config(dict(ours.config))  # type: ignore[arg-type]
    made.load_state_dict(ours.state_dict(), assign=True)
    return made.requires_grad_(False).eval()
