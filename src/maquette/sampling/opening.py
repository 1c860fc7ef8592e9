"""A base as it is opened for drawing: number type, device, and what makes it quick there."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Literal, TypeVar

import torch

from .. import families
from ..config import Prediction
from ..core.dtypes import DTYPES
from ..errors import MaquetteError
from ..families.base import BaseModel
from ..fast import processor, resting

Dtype = Literal["auto", "fp32", "bf16", "fp16"]
Model = TypeVar("Model", bound=BaseModel)


def opened(
    path: str | PathLike[str], vae: str | None, prediction_type: Prediction, dtype: Dtype, device: str
) -> tuple[BaseModel, list[str]]:
    """The base, and what the user is told about it. Raises MaquetteError."""
    kind, place = _place(dtype, device)
    base = families.load(fspath(path), kind, place, vae, prediction_type)
    return base, [*processor.notices(dtype, kind), *base.notices]


def require_unasked(**opening: str | None) -> None:
    """Raise MaquetteError for settings of opening a base, where it is open already and they would be without effect."""
    if asked := [key for key, value in opening.items() if value not in (None, "auto")]:
        raise MaquetteError(f"The base is open already: give {' and '.join(asked)} where it is opened.")


def require_drawable(base: BaseModel) -> None:
    """Raise MaquetteError for a base that takes what drawing has not: pictures to edit, or depth."""
    latent = base.spec.latent_channels
    if base.input_channels not in (latent, 2 * latent + 1):
        raise MaquetteError(
            f"{base.source} takes {base.input_channels} channels (an editing or depth model), which drawing cannot "
            "feed; draw with an ordinary base or an inpainting model."
        )


def quickened(base: Model) -> Model:
    """The same base, whose network draws quicker on a processor: the same numbers but for rounding, and its tensors.
    Raises MaquetteError for one that cannot be drawn with.
    """
    require_drawable(base)
    if base.device.type == "cpu":
        resting.install(base.network)
    return base


def _place(dtype: Dtype, device: str) -> tuple[torch.dtype, str]:
    """dtype and device to load a base with."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        on_cuda = torch.device(device).type == "cuda"
    except RuntimeError as error:
        raise MaquetteError(f"There is no device {device!r}; give auto, cpu or cuda.") from error
    if on_cuda and not torch.cuda.is_available():
        raise MaquetteError("This machine has no CUDA device that PyTorch can use; leave out the device or give cpu.")
    name = dtype if dtype != "auto" else ("fp16" if on_cuda else "fp32")
    return processor.computing(DTYPES[name], torch.device(device)), device
