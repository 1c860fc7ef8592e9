"""Networks from a configuration and tensors: built on the meta device, then assigned, so no weight is initialised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import MaquetteError
from ..formats.mapping import unread
from .clip.text_model import CLIPTextModel, CLIPTextModelWithProjection
from .unet import ControlNetModel, UNet2DConditionModel
from .vae import AutoencoderKL


class _NoInitialization(TorchFunctionMode):
    """Leaves out torch.nn.init: of meta tensors it draws nothing, but loads PyTorch's compiler, a second or more."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


@contextmanager
def unfilled() -> Iterator[None]:
    """Modules that are made within have meta tensors, which nobody fills."""
    with torch.device("meta"), _NoInitialization():
        yield


def build_unet(config: Mapping[str, Any]) -> nn.Module:
    """A UNet on the meta device. Raises MaquetteError for a configuration that no Stable Diffusion has."""
    with unfilled():
        return UNet2DConditionModel(config)


def build_vae(config: Mapping[str, Any]) -> nn.Module:
    """An autoencoder on the meta device. Raises MaquetteError for a configuration that no Stable Diffusion has."""
    with unfilled():
        return AutoencoderKL(config)


def build_controlnet(config: Mapping[str, Any]) -> nn.Module:
    """A ControlNet on the meta device. Raises MaquetteError for a configuration that none of Stable Diffusion has."""
    with unfilled():
        return ControlNetModel(config)


def build_text_encoder(config: Mapping[str, Any], projection: bool = False) -> nn.Module:
    """CLIP's text encoder on the meta device. Raises MaquetteError for a configuration that no CLIP has."""
    with unfilled():
        return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def fill(
    module: nn.Module, tensors: Mapping[str, Tensor], source: str, dtype: torch.dtype, device: torch.device | str
) -> nn.Module:
    """Give a meta-device module its weights. Every name and shape must agree. Returns the module in eval mode, frozen.

    Floating-point tensors are cast to dtype; one that has it already is used as it lies in the mapped file, and others'
    pages of that file leave the memory as they are cast.
    """
    expected = module.state_dict()
    missing, strange = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or strange:
        fault = (
            f"lacks {len(missing)} tensors, e.g. {missing[0]}" if missing else f"has unknown tensors, e.g. {strange[0]}"
        )
        raise MaquetteError(f"{source} does not fit its configuration: it {fault}.")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
            raise MaquetteError(f"{source} does not fit its configuration: {name} has the shape {shapes}.")
    module.load_state_dict({name: _taken(tensor, dtype, device) for name, tensor in tensors.items()}, assign=True)
    return module.requires_grad_(False).eval()


def _taken(tensor: Tensor, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """The tensor of a type on a device; what a mapped file's took of the memory goes where a copy was made."""
    taken = tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None).contiguous()
    if taken.data_ptr() != tensor.data_ptr():
        unread(tensor)
    return taken
