"""DreamBooth (arXiv 2208.12242): the weights themselves learn, in float32; the base's own stay aside, untouched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import MaquetteError
from .base import MethodSpec, Slots, part_of


class FullWeights:
    """`Attached` for whole networks. A name is "SLOT.parameter", such as "unet.conv_in.weight"."""

    def __init__(self, slots: Slots) -> None:
        self._parameters: dict[str, nn.Parameter] = {}
        for slot, (parent, attribute) in slots.items():
            for name, parameter in getattr(parent, attribute).named_parameters():
                self._parameters[f"{slot}.{name}"] = parameter
        self._original = {name: parameter.data for name, parameter in self._parameters.items()}
        self._learned = {name: data.float().clone() for name, data in self._original.items()}
        self._multiplier = 1.0
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)
        self._put(self._learned)

    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.data = values[name]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self._parameters.items():
            groups.setdefault(part_of(name), []).append(parameter)
        return groups

    def delta(self, name: str) -> Tensor:
        return (self._learned[name] - self._original[name].float()) * self._multiplier

    def state(self) -> dict[str, Tensor]:
        return dict(self._learned)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Raises MaquetteError when a parameter is missing, left over, or of another shape."""
        wrong = sorted(state.keys() ^ self._learned.keys())
        wrong += [
            name for name in state.keys() & self._learned.keys() if state[name].shape != self._learned[name].shape
        ]
        if wrong:
            raise MaquetteError(f"The weights do not fit this model: {wrong[0]} differs.")
        with torch.no_grad():
            for name, value in self._learned.items():
                value.copy_(state[name])

    def scale_weight_norms(self, largest: float) -> None:
        """Weights have no factors to scale."""
        raise MaquetteError("scale_weight_norms limits adapters; this method has none.")

    def set_multiplier(self, multiplier: float) -> None:
        """Between 0 and 1 the weights are mixed; learning goes on at 1 only."""
        self._multiplier = multiplier
        if multiplier in (0.0, 1.0):
            self._put(self._learned if multiplier else self._original)
        else:
            self._put({n: self._original[n].float().lerp(w, multiplier) for n, w in self._learned.items()})

    def detach(self) -> None:
        self._put(self._original)
        for parameter in self._parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None

    @contextmanager
    def suspended(self) -> Iterator[None]:
        self._put(self._original)
        try:
            yield
        finally:
            self._put(self._learned)


def attach(slots: Slots, spec: MethodSpec) -> FullWeights:
    """Let every parameter of the networks in the slots learn."""
    return FullWeights(slots)
