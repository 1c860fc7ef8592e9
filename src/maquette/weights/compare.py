"""What differs between two models, or two LoRAs, block by block: sizes, the difference's size, and the direction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..adapters import maths as adapter_maths
from ..adapters.block_weights import block_of, block_of_layer, blocks
from ..adapters.file import Adapter
from ..adapters.module_names import network_and_path
from ..errors import MaquetteError
from ..families.checkpoint import Checkpoint
from ..families.detect import FAMILY_NAMES
from ..formats import ldm
from ..formats.keys import UNetLayout
from . import stream
from .products import Product, needs_weight, product_of

OTHER = "other"
_TEXTS = {"text_encoder": "text encoder", "text_encoder_2": "second text encoder"}


@dataclass
class Block:
    """Sums over a block's tensors: ||A||², ||B||², ||A − B||² and <A, B>, in float64."""

    name: str
    tensors: int = 0
    a: float = 0.0
    b: float = 0.0
    difference: float = 0.0
    product: float = 0.0

    @property
    def relative(self) -> float:
        """||A − B|| / ||A||, or of B where A is nothing."""
        size = self.a or self.b
        return math.sqrt(max(0.0, self.difference) / size) if size else 0.0

    @property
    def cosine(self) -> float | None:
        """Between A and B as one long vector each; None where one of them is nothing."""
        size = math.sqrt(self.a * self.b)
        return max(-1.0, min(1.0, self.product / size)) if size else None

    def to_json(self) -> dict[str, float | int | str | None]:
        """Norms instead of their squares."""
        return {
            "block": self.name, "tensors": self.tensors, "norm": math.sqrt(self.a), "norm_of_other": math.sqrt(self.b),
            "difference": math.sqrt(max(0.0, self.difference)), "relative": self.relative, "cosine": self.cosine,
        }  # fmt: skip

    def add(self, a: float, b: float, product: float, difference: float | None = None) -> None:
        """One more tensor. Without its difference that follows from the others, to float32's rounding of A and B."""
        self.tensors += 1
        self.a, self.b, self.product = self.a + a, self.b + b, self.product + product
        self.difference += max(0.0, a + b - 2 * product) if difference is None else difference


@dataclass
class Comparison:
    """kind: "models" or "loras". only_a, only_b: names that the other has not, or has in another shape. unlike: modules
    of both whose numbers mean different things, so that no figure has them.
    """

    kind: str
    blocks: list[Block] = field(default_factory=list)
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)

    @property
    def whole(self) -> Block:
        """All blocks together."""
        total = Block("all")
        for block in self.blocks:
            total.add(block.a, block.b, block.product, block.difference)
        total.tensors = sum(block.tensors for block in self.blocks)
        return total


def compare_models(
    a: Checkpoint, b: Checkpoint, on_tensor: Callable[[int, int], None] = lambda done, of: None
) -> Comparison:
    """Every tensor of UNet, text encoders and VAE, streamed. Raises MaquetteError for models of two families."""
    _same_family((a.source, a.spec.name), (b.source, b.spec.name))
    ours, theirs = stream.tensors(a), stream.tensors(b)
    layout = ldm.unet_layout(a.parts["unet"])
    found: dict[str, Block] = {}
    result = Comparison("models")
    for index, (name, tensor) in enumerate(ours.items()):
        if name not in theirs or theirs[name].shape != tensor.shape:
            result.only_a.append(".".join(name))
        elif tensor.is_floating_point():
            x, y = stream.exact(a, name), stream.exact(b, name)
            block = found.setdefault(label := _label(*name, layout), Block(label))
            block.add(_dot(x, x), _dot(y, y), _dot(x, y), _dot(x - y, x - y))
        on_tensor(index + 1, len(ours))
    both = ours.keys() & theirs.keys()
    result.only_b = [".".join(name) for name in theirs if name not in both or ours[name].shape != theirs[name].shape]
    result.blocks = _ordered(found.values(), a.spec.name)
    return result


def compare_adapters(a: Adapter, b: Adapter) -> Comparison:
    """The changes of weights and biases that two adapters make, without forming those of LoRAs. Kinds that need the
    base's weights are compared by their factors, where those of both are alike. Raises MaquetteError for two families.
    """
    _same_family((a.source, a.family), (b.source, b.family))
    found: dict[str, Block] = {}
    result = Comparison("loras")
    for name in dict.fromkeys([*a.modules, *b.modules]):
        ours, theirs = (_changes(one, name) for one in (a, b))
        if ours and theirs and not _are_alike(ours, theirs):
            result.unlike.append(name)
            continue
        if not ours or not theirs:
            (result.only_a if ours else result.only_b).append(name)
        label = _label_of_module(name, a.family if a.family != "unknown" else b.family)
        found.setdefault(label, Block(label)).add(_inner(ours, ours), _inner(theirs, theirs), _inner(ours, theirs))
    result.blocks = _ordered(found.values(), a.family)
    return result


Change = Product | Tensor
_BIASES = ("diff_b", "b_norm")


def _changes(adapter: Adapter, name: str) -> dict[str, Change]:
    """What a module changes: its "weight" and its "bias". Where the weight's change follows only from the base, the
    numbers that are stored stand in its place, under the name of their kind.
    """
    if name not in adapter.modules:
        return {}
    module = adapter.modules[name]
    factors = {part: tensor for part, tensor in module.factors.items() if part not in _BIASES}
    bias = next((module.factors[part] for part in _BIASES if part in module.factors), None)
    found: dict[str, Change] = {} if bias is None else {"bias": bias.float().flatten()}
    if module.kind == "norm":
        return found | ({"weight": factors["w_norm"].float()} if "w_norm" in factors else {})
    if needs_weight(factors):
        kind = f"{module.kind} of DoRA" if "dora_scale" in factors else module.kind
        return found | {
            kind: torch.cat([t.float().flatten() for part, t in sorted(factors.items()) if part != "alpha"])
        }
    if factors.keys() <= {"alpha"}:
        return found
    product = product_of(factors)
    return found | {"weight": adapter_maths.delta(factors).flatten(1) if product is None else product}


def _are_alike(ours: dict[str, Change], theirs: dict[str, Change]) -> bool:
    """Whether the changes are of the same kinds, or of none in one of them, and of the same sizes."""
    stored = [changes.keys() - {"weight", "bias"} for changes in (ours, theirs)]
    both = ours.keys() & theirs.keys()
    return stored[0] == stored[1] and all(_size(ours[key]) == _size(theirs[key]) for key in both)


def _size(change: Change) -> int:
    return change.up.shape[0] * change.down.shape[1] if isinstance(change, Product) else change.numel()


def _inner(ours: dict[str, Change], theirs: dict[str, Change]) -> float:
    """<X, Y> of all that both change."""
    return math.fsum(_product(ours[key], theirs[key]) for key in ours.keys() & theirs.keys())


def _product(x: Change, y: Change) -> float:
    """<X, Y>; of two products tr((B₁ᵀ B₂)(A₂ A₁ᵀ)), r × r matrices."""
    if isinstance(x, Product) and isinstance(y, Product):
        left = x.up.double().mT @ y.up.double()
        right = x.down.double() @ y.down.double().mT
        return float((left * right).sum())
    x, y = (one.up @ one.down if isinstance(one, Product) else one for one in (x, y))
    return _dot(x, y.reshape(x.shape))


def _dot(x: Tensor, y: Tensor) -> float:
    """In float32 row by row, the rows' sum in float64."""
    rows = x.shape[0] if x.ndim > 1 else 1
    return float(torch.einsum("ij,ij->i", x.reshape(rows, -1), y.reshape(rows, -1)).double().sum())


def _label(part: str, name: str, layout: UNetLayout) -> str:
    if part == "vae":
        return "VAE"
    if part in _TEXTS:
        return _TEXTS[part]
    try:
        found = block_of_layer(part, name.rpartition(".")[0], layout)
    except ValueError:
        return OTHER
    return "time and input" if found == "BASE" else found


def _label_of_module(name: str, family: str) -> str:
    found = network_and_path(name)
    if found is None:
        return OTHER
    if found[0] in _TEXTS:
        return _TEXTS[found[0]]
    block = block_of(name, family)
    return "time and input" if block == "BASE" else block


def _ordered(found: Iterable[Block], family: str) -> list[Block]:
    order = ["text encoder", "second text encoder", "time and input", *blocks(family)[1:], "OUT", "VAE", OTHER]
    return sorted(found, key=lambda block: order.index(block.name) if block.name in order else len(order))


def _same_family(a: tuple[str, str], b: tuple[str, str]) -> None:
    if a[1] != b[1] and "unknown" not in (a[1], b[1]):
        raise MaquetteError(
            f"{a[0]} is for {FAMILY_NAMES[a[1]]}, {b[0]} for {FAMILY_NAMES[b[1]]}: their layers are not the same."
        )
