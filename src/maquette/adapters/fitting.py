"""An adapter's change of a layer in the shape of a base's weight, or one sentence on why it does not fit."""

from __future__ import annotations

import math

from torch import Tensor

from ..core.channels import INPAINTING_CHANNELS, LATENT_CHANNELS
from ..errors import MaquetteError
from .file import Adapter
from .parts import change_shape


def fitted_change(adapter: Adapter, name: str, weight: Tensor) -> Tensor:
    """The module's change at multiplier 1 in the weight's shape, float32, or float64 where the weight is.

    1 × 1 kernels and matrices are the same. Of a first convolution with other inputs than the base's, an inpainting
    model's or an ordinary one's, the latent's channels alone are changed. Shapes are compared before anything is
    computed. Raises MaquetteError for a module of another shape.
    """
    shape = change_shape(adapter.modules[name].factors)
    seen: Tensor = weight  # as it is: only kinds that compute with it make a float32 copy of it
    if shape is not None and weight.ndim == 4 and len(shape) > 1:
        seen = _with_inputs(seen, shape[1])
    if shape is not None and (shape[0] != seen.shape[0] or math.prod(shape) != seen.numel()):
        raise MaquetteError(
            f"{adapter.source} does not fit this base: module {name} changes a weight of {tuple(shape)}, "
            f"here it is {tuple(weight.shape)}. The LoRA was trained on another kind of base."
        )
    change = adapter.delta(name, seen)
    return change if change.shape == weight.shape else _with_inputs(change, weight.shape[1])


def _with_inputs(kernel: Tensor, inputs: int) -> Tensor:
    """(out, 4 or 9, kh, kw) with 4 or 9 inputs, where one is asked for and the other is there; new ones are 0."""
    there = kernel.shape[1] if kernel.ndim == 4 else inputs
    if {there, inputs} != {LATENT_CHANNELS, INPAINTING_CHANNELS}:
        return kernel
    if inputs < there:
        return kernel[:, :inputs]
    padded = kernel.new_zeros(kernel.shape[0], inputs, *kernel.shape[2:])
    padded[:, :there] = kernel
    return padded
