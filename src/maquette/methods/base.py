"""What every method has in common: layers are wrapped in place, and their untouched originals come back afterwards.

A method file offers `attach(slots, spec) -> Attached`. `Attached` knows its parameters, the weight change of each layer
and its state under Kohya's key names; the training loop knows nothing else about methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from ..adapters import maths
from ..adapters.kohya_names import written
from ..adapters.module_names import of_text_encoder
from ..errors import MaquetteError

MAGNITUDE = "dora_scale"
Number = TypeVar("Number", int, float)
Slots = Mapping[str, tuple[nn.Module, str]]
"""Name (`adapters.module_names`) -> (parent module, attribute name) of the layer to adapt."""


@dataclass(frozen=True)
class MethodSpec:
    """What a method needs to know. Alphas default to their ranks, ranks of kernels larger than 1 x 1 to `rank`."""

    rank: int = 16
    alpha: float | None = None
    conv_rank: int | None = None
    conv_alpha: float | None = None
    dropout: float = 0.0  # of each inner value; LoHa has none
    rank_dropout: float = 0.0  # of each of the rank's components, per sample (LoHa: per step)
    module_dropout: float = 0.0  # of the whole adapter of a layer
    rank_stabilized: bool = False  # scale alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732)
    magnitude: bool = False  # DoRA: learn the magnitude of the weights apart from their direction (arXiv 2402.09353)
    magnitude_axis: int = 1  # of the weight: 1, a magnitude per input; 0, one per output
    factor: int = 8  # LoKr: size of the first Kronecker factor; -1: both as equal as they can be
    tokens: int = 4  # textual inversion: number of vectors
    initial_tokens: Mapping[str, Sequence[int]] = field(default_factory=dict)  # ids they begin as, for each part
    name: str = ""  # what calls the vectors
    block_ranks: Mapping[str, int] = field(default_factory=dict)  # part of Kohya's name -> rank; the longest wins
    block_alphas: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    family: str = ""  # of the base, by which Kohya's names follow: those of files, block ranks and random numbers

    def block_rank(self, name: str) -> int | None:
        """The rank that a layer's block has of its own. name: Kohya's."""
        return _longest(self.block_ranks, name)

    def for_module(self, name: str) -> MethodSpec:
        """Return the settings of one layer, by Kohya's name. A block's rank counts for kernels too, and keeps the
        strength alpha / rank unless the block has an alpha of its own.
        """
        rank, alpha = self.block_rank(name), _longest(self.block_alphas, name)
        if rank is None and alpha is None:
            return self
        if rank is None:
            return replace(self, alpha=alpha, conv_alpha=alpha)
        if alpha is None and self.alpha is not None:
            alpha = self.alpha * rank / self.rank
        return replace(self, rank=rank, conv_rank=rank, alpha=alpha, conv_alpha=alpha)

    def for_layer(self, layer: nn.Module) -> tuple[int, float]:
        """Return rank and alpha of a layer, which depend on whether it has a kernel."""
        return self.rank_and_alpha(has_kernel(layer))

    def rank_and_alpha(self, kernel: bool) -> tuple[int, float]:
        """Return rank and alpha of layers with or without a kernel larger than 1 x 1."""
        rank, alpha = self.rank, self.alpha
        if kernel:
            rank = self.conv_rank or rank
            alpha = self.conv_alpha if self.conv_alpha is not None else (alpha if self.conv_rank is None else None)
        return rank, float(rank if alpha is None else alpha)


def _longest(table: Mapping[str, Number], name: str) -> Number | None:
    matching = [pattern for pattern in table if pattern in name]
    return table[max(matching, key=len)] if matching else None


class Attached(Protocol):
    """A method at work on a model."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters to learn, by group: "unet", "text_encoder", and "unet_up", "text_encoder_up" for LoRA+."""
        ...

    def delta(self, name: str) -> Tensor:
        """Weight change of one layer at the current multiplier, float32, in the weight's shape."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything learned, float32, under Kohya's keys: what goes into the file."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state`."""
        ...

    def scale_weight_norms(self, largest: float) -> None:
        """Scale down the factors of every layer whose weight change is longer than this (max-norm regularization)."""
        ...

    def set_multiplier(self, multiplier: float) -> None:
        """0 is the base model, 1 the adapted one."""
        ...

    def detach(self) -> None:
        """Put the original layers back."""
        ...

    def suspended(self) -> Any:
        """Context manager: the original layers are back in place while it lasts."""
        ...


def has_kernel(layer: nn.Module) -> bool:
    """Whether the layer is a convolution larger than 1 x 1."""
    return isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)


def part_of(name: str) -> str:
    """Parameter group of a slot: a module's name, or a whole network ("unet", "te", "te1", "te2")."""
    return "text_encoder" if of_text_encoder(name) or name.startswith("te") else "unet"


def uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    """Kaiming uniform with a = sqrt(5), the usual start of a LoRA's down matrix: U(-1, 1) / sqrt(fan_in)."""
    result: Tensor = (torch.rand(shape, generator=generator) * 2 - 1) / fan_in**0.5
    return result


def drop(inner: Tensor, rank_axis: int, dropout: float, rank_dropout: float) -> Tensor:
    """Drop values (any shape, samples along axis 0) and, for each sample, whole components of the rank."""
    if dropout:
        inner = nn.functional.dropout(inner, dropout)
    if rank_dropout:
        shape = [1] * inner.ndim
        shape[0], shape[rank_axis] = inner.shape[0], inner.shape[rank_axis]
        kept = torch.rand(shape, device=inner.device) >= rank_dropout
        inner = inner * kept.to(inner.dtype) / (1.0 - rank_dropout)
    return inner


class LayerAdapter(nn.Module):
    """The learned part of one layer. Subclasses hold float32 parameters named as in the file (dots become `__`)."""

    alpha: float = 1.0
    reads_weight = False  # whether it needs the layer's weight itself

    def forward(self, x: Tensor, layer: nn.Module) -> Tensor:
        """The adapted layer's output; x may be bf16, the parameters stay float32."""
        raise NotImplementedError

    def factors(self) -> dict[str, Tensor]:
        """Kohya part name -> tensor; `adapters.maths` says which weight change they stand for."""
        parts = {name.replace("__", "."): p.detach() for name, p in self.named_parameters(recurse=False)}
        return {"alpha": torch.tensor(self.alpha), **parts}

    def load_factors(self, factors: Mapping[str, Tensor]) -> None:
        """Inverse of `factors`; raises KeyError or ValueError for what does not fit."""
        with torch.no_grad():
            for name, p in self.named_parameters(recurse=False):
                part = factors[name.replace("__", ".")]
                if part.shape != p.shape:
                    raise ValueError(f"{name.replace('__', '.')} is {tuple(part.shape)}, not {tuple(p.shape)}")
                p.copy_(part)

    def up_parameters(self) -> set[str]:
        """Names of the parameters that LoRA+ teaches faster."""
        return set()


def run_layer(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """The layer's own computation with another weight (in x's dtype)."""
    if isinstance(layer, nn.Conv2d):
        return nn.functional.conv2d(x, weight, layer.bias, layer.stride, layer.padding, layer.dilation)
    return nn.functional.linear(x, weight, cast("Tensor | None", layer.bias))


def weight_of(layer: nn.Module) -> Tensor:
    """The layer's frozen weight."""
    return cast(Tensor, layer.weight)


class AdaptedLayer(nn.Module):
    """Stands where the original layer stood, whose attributes (weight, in_features …) can be read through it."""

    def __init__(self, layer: nn.Module, adapter: LayerAdapter) -> None:
        super().__init__()
        self.layer = layer
        self.adapter = adapter
        self.multiplier = 1.0

    def forward(self, x: Tensor) -> Tensor:
        if self.multiplier == 1.0:
            result: Tensor = self.adapter(x, self.layer)
            return result
        base: Tensor = self.layer(x)
        return base if self.multiplier == 0 else torch.lerp(base, self.adapter(x, self.layer), self.multiplier)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


class AdaptedLayers:
    """`Attached` for every method that works layer by layer."""

    def __init__(self, slots: Slots, family: str, make: Callable[[str, nn.Module], LayerAdapter]) -> None:
        """make: called with Kohya's name of a layer, by which ranks and random numbers go, and the layer."""
        self._written = {name: written(family, name) for name in slots}
        self._slots: dict[str, tuple[nn.Module, str]] = dict(slots)
        self._wrapped: dict[str, AdaptedLayer] = {}
        for name, (parent, attribute) in self._slots.items():
            layer = getattr(parent, attribute)
            if isinstance(layer, AdaptedLayer):
                raise MaquetteError(f"{name} already carries an adapter; detach it before attaching another.")
            device = weight_of(layer).device
            adapter = make(self._written[name], layer)
            self._wrapped[name] = AdaptedLayer(layer, adapter if device.type == "cpu" else adapter.to(device))
        self._put(self._wrapped)

    def _put(self, layers: Mapping[str, nn.Module]) -> None:
        for name, (parent, attribute) in self._slots.items():
            setattr(parent, attribute, layers[name])

    def _original(self) -> dict[str, nn.Module]:
        """The layers below the adapters, which may have been packed (`fast.packed`) since they were attached."""
        return {name: wrapped.layer for name, wrapped in self._wrapped.items()}

    def adapters(self) -> Iterator[tuple[str, LayerAdapter]]:
        """Name and adapter of each layer, in the network's order."""
        return ((name, wrapped.adapter) for name, wrapped in self._wrapped.items())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        groups: dict[str, list[nn.Parameter]] = {}
        for name, adapter in self.adapters():
            up = adapter.up_parameters()
            for parameter_name, p in adapter.named_parameters():
                group = part_of(name) + ("_up" if parameter_name in up else "")
                groups.setdefault(group, []).append(p)
        return groups

    @torch.no_grad()
    def delta(self, name: str) -> Tensor:
        wrapped = self._wrapped[name]
        return maths.delta(wrapped.adapter.factors(), weight_of(wrapped.layer)) * wrapped.multiplier

    def state(self) -> dict[str, Tensor]:
        written = self._written
        return {f"{written[n]}.{part}": t for n, adapter in self.adapters() for part, t in adapter.factors().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Raises MaquetteError when a module is missing, left over, or of another shape."""
        modules: dict[str, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            name, _, part = key.partition(".")
            modules.setdefault(name, {})[part] = tensor
        wrong = sorted(modules.keys() ^ set(self._written.values()))
        if wrong:
            raise MaquetteError(f"The adapter does not fit this model and method: module {wrong[0]} is not in both.")
        for name, adapter in self.adapters():
            try:
                adapter.load_factors(modules[self._written[name]])
            except (KeyError, ValueError) as error:
                raise MaquetteError(f"The adapter does not fit this model and method: {name}: {error}.") from error

    @torch.no_grad()
    def scale_weight_norms(self, largest: float) -> None:
        """As Kohya's scale_weight_norms, without asking the device for the norms. Scaling n factors by q scales their
        product by q^n; DoRA's magnitude is none of them and is left as it is.
        """
        for _, adapter in self.adapters():
            factors = {part: tensor for part, tensor in adapter.factors().items() if part != MAGNITUDE}
            learned: list[Tensor] = [p for name, p in adapter.named_parameters() if name != MAGNITUDE]
            ratio = (largest / torch.linalg.vector_norm(maths.delta(factors)).clamp(min=1e-12)).clamp(max=1.0)
            torch._foreach_mul_(learned, ratio ** (1 / len(learned)))

    def set_multiplier(self, multiplier: float) -> None:
        for wrapped in self._wrapped.values():
            wrapped.multiplier = multiplier

    def detach(self) -> None:
        self._put(self._original())

    @contextmanager
    def suspended(self) -> Iterator[None]:
        self._put(self._original())
        try:
            yield
        finally:
            self._put(self._wrapped)
