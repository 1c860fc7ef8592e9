"""An adapter's change of a layer, or one sentence on why it does not fit."""

from __future__ import annotations

from torch import Tensor

from ..errors import MaquetteError
from . import maths
from .file import Adapter


def fitted_change(adapter: Adapter, name: str, weight: Tensor) -> Tensor:
    """The module's change at multiplier 1 in the weight's shape, float32, or float64 where the weight is; see
    `maths.delta`. Raises MaquetteError for a module of another shape.
    """
    try:
        return maths.delta(adapter.modules[name].factors, weight, other_inputs=True)
    except ValueError as error:
        raise explained(error, adapter, name, weight) from error


def explained(error: ValueError, adapter: Adapter, name: str, weight: Tensor) -> MaquetteError:
    """Why a module's change of a weight cannot be computed, for the user."""
    if isinstance(error, maths.Misfit):
        return MaquetteError(
            f"{adapter.source} does not fit this base: module {name} changes a weight of {error.shape}, "
            f"here it is {tuple(weight.shape)}. The LoRA was trained on another kind of base."
        )
    return MaquetteError(f"{adapter.source}: module {name} cannot be applied: {error}.")
