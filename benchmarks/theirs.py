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


def _like(ours: nn.Module, kind: Any) -> Any:
    with torch.device("meta"):
        made = kind.from_config(dict(ours.config))  # type: ignore[arg-type]
    made.load_state_dict(ours.state_dict(), assign=True)
    return made.requires_grad_(False).eval()
