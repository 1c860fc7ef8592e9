"""Several checkpoints as one, tensor by tensor: a tree of formulas over models whose numbers stay on the disk.

The first model of the tree, A, says which tensors the result has, their types, and how it is configured. Formulas whose
numbers depend on those in the same place alone are computed in tiles that the processor's cache holds; the others on
whole tensors. Intermediate models never exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ..adapters.block_weights import BASE, BlockWeights, block_of_layer
from ..core.seeds import seeded
from ..errors import MaquetteError
from ..families.checkpoint import Checkpoint
from ..families.detect import FAMILY_NAMES
from ..formats import ldm
from ..formats.keys import UNetLayout
from ..formats.streaming import TILE
from . import merge
from .modes import MODES, Formula, Numbers
from .stream import Name, require_finite, require_storable, within

TEXT = ("text_encoder", "text_encoder_2")
EXTRA_CHANNELS = {9: "inpainting", 8: "instruct-pix2pix"}  # of conv_in, whose first 4 are those of every other model


@dataclass(frozen=True)
class Shares:
    """α for each tensor. The first that says something counts: layers (part of a tensor's diffusers name -> α, the
    longest), blocks, parts ("unet", "text_encoder", "vae" -> α), alpha.
    """

    alpha: float
    parts: Mapping[str, float] = field(default_factory=dict)
    blocks: BlockWeights | None = None
    layers: Mapping[str, float] = field(default_factory=dict)

    def of(self, name: Name, layout: UNetLayout) -> float:
        """α of one tensor. layout: of the UNet, for its blocks' numbers."""
        part, own = name
        whole = f"{part}.{own}"
        patterns = [pattern for pattern in self.layers if pattern in whole]
        if patterns:
            return self.layers[max(patterns, key=len)]
        why = self.parts.get("text_encoder" if part in TEXT else part)
        if self.blocks is not None and (part == "unet" or why is None):
            return self.blocks.of_block(BASE if part != "unet" else block_of_layer(part, own, layout))
        return self.alpha if why is None else why


@dataclass(frozen=True)
class Model:
    """A checkpoint as an input."""

    checkpoint: Checkpoint


@dataclass(frozen=True)
class Blend:
    """A formula over two or three inputs. seed: for what DARE and DELLA drop by chance."""

    mode: str
    inputs: tuple[Node, ...]
    shares: Shares
    beta: float = 0.0
    density: float = 0.5
    spread: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class WithLoras:
    """LoRAs put into an input. plan: made for the model that says the names."""

    inner: Node
    plan: merge.Plan


Node = Model | Blend | WithLoras


def models(node: Node) -> list[Checkpoint]:
    """Every checkpoint of a tree, A first, each once."""
    if isinstance(node, Model):
        return [node.checkpoint]
    inner = [node.inner] if isinstance(node, WithLoras) else list(node.inputs)
    found = [checkpoint for one in inner for checkpoint in models(one)]
    return list({id(checkpoint): checkpoint for checkpoint in found}.values())


def check(node: Node) -> list[str]:
    """Raise MaquetteError where models do not belong together; return what a person should know.

    All are of one family. What a model has of a part (UNet, VAE, text encoder), it has of A's shapes; a part that it
    lacks stays A's.
    """
    first, *others = models(node)
    notes: list[str] = []
    for other in others:
        _require_family(first, other)
        if other.scheduler.get("prediction_type") != first.scheduler.get("prediction_type"):
            notes.append(
                f"{first.source} predicts {first.scheduler.get('prediction_type')}, {other.source} "
                f"{other.scheduler.get('prediction_type')}; the result is said to predict what the first does."
            )
        for part, named in first.parts.items():
            if part not in other.parts:
                notes.append(f"{other.source} has no {part.replace('_', ' ')}: that of {first.source} stays as it is.")
                continue
            _require_shapes(first, other, part)
            more = other.parts[part].keys() - named.keys()
            if more:
                why = f"{len(more)} tensors that {first.source} lacks, such as {min(more)}"
                notes.append(f"{other.source} holds {why}: left out.")
    return notes


def _require_family(first: Checkpoint, other: Checkpoint) -> None:
    if other.spec.name != first.spec.name:
        raise MaquetteError(
            f"{first.source} is {FAMILY_NAMES[first.spec.name]}, {other.source} is {FAMILY_NAMES[other.spec.name]}: "
            "only models of one kind can be blended."
        )


def _require_shapes(first: Checkpoint, other: Checkpoint, part: str) -> None:
    for name, tensor in first.parts[part].items():
        found = other.parts[part].get(name)
        if found is None:
            raise MaquetteError(
                f"{other.source} lacks {part}: {name}, which {first.source} has; they cannot be blended."
            )
        a, b = tuple(tensor.shape), tuple(found.shape)
        if a == b or (part == "unet" and name == "conv_in.weight" and a[1] in EXTRA_CHANNELS and _narrow(a, b)):
            continue
        if part == "unet" and name == "conv_in.weight" and b[1] in EXTRA_CHANNELS and _narrow(b, a):
            raise MaquetteError(
                f"{other.source} is an {EXTRA_CHANNELS[b[1]]} model and {first.source} is not: name it first, as A."
            )
        raise MaquetteError(
            f"{part}: {name} is {a} in {first.source} and {b} in {other.source}; they cannot be blended."
        )


def _narrow(wide: tuple[int, ...], narrow: tuple[int, ...]) -> bool:
    return narrow[1] == 4 and wide[0] == narrow[0] and wide[2:] == narrow[2:]


class Evaluation:
    """The tensors of a tree's result. precision: of the arithmetic."""

    def __init__(self, node: Node, precision: torch.dtype = torch.float32, kept: frozenset[str] = frozenset()) -> None:
        """kept: parts that are A's as they are, whatever the formulas say."""
        self.node, self.precision, self.kept = node, precision, kept
        self.first = models(node)[0]
        self.layout = ldm.unet_layout(self.first.parts["unet"])

    def changed(self) -> int:
        """How many tensors are computed rather than taken over from A."""
        names = ((part, name) for part, named in self.first.parts.items() for name in named)
        return sum(self.source(self.node, name) is not self.first for name in names)

    def source(self, node: Node, name: Name) -> Checkpoint | None:
        """The model whose tensor is the result's, untouched; None where it has to be computed."""
        if name[0] in self.kept:
            return self.first
        if isinstance(node, Model):
            return node.checkpoint
        if isinstance(node, WithLoras):
            return None if name in node.plan.changes else self.source(node.inner, name)
        return self.source(node.inputs[0], name) if self._is_first(node, name) else None

    def _is_first(self, node: Blend, name: Name) -> bool:
        """Whether a formula gives back its first input: α is 0, or an input lacks the part, or these are no floats."""
        absent = any(name[0] not in one.parts for inner in node.inputs for one in models(inner))
        still = MODES[node.mode].still and node.beta == 0 and node.shares.of(name, self.layout) == 0
        return absent or still or not self.first.parts[name[0]][name[1]].is_floating_point()

    def _in_tiles(self, node: Node, name: Name) -> bool:
        """Whether a tensor can be computed tile by tile."""
        if isinstance(node, Model):
            return node.checkpoint.parts[name[0]][name[1]].shape == self.first.parts[name[0]][name[1]].shape
        if isinstance(node, WithLoras):
            return name not in node.plan.changes and self._in_tiles(node.inner, name)
        if self._is_first(node, name):
            return self._in_tiles(node.inputs[0], name)
        return MODES[node.mode].rows and all(self._in_tiles(inner, name) for inner in node.inputs)

    def memory(self, part: str, name: str) -> int:
        """Bytes that computing a tensor takes, where tiles will not do."""
        if self.source(self.node, (part, name)) is not None or self._in_tiles(self.node, (part, name)):
            return 0
        return (len(models(self.node)) + 3) * self.precision.itemsize * self.first.parts[part][name].numel()

    def tensor(self, name: Name) -> Tensor:
        """One tensor of the result as a whole."""
        return self._numbers(self.node, name, flat=False)(_ALL)

    def pieces(self, part: str, name: str, dtype: torch.dtype) -> Iterable[Tensor]:
        """What stands in the new file in a tensor's place, one piece after the other: flat tiles, or the tensor as a
        whole. Raises MaquetteError for numbers that are none.
        """
        source = self.source(self.node, (part, name))
        if source is not None:
            yield from merge.checked(source.parts[part][name], source.source, (part, name), dtype)
            return
        count = self.first.parts[part][name].numel()
        flat = count > TILE and self._in_tiles(self.node, (part, name))
        numbers_of, most = self._numbers(self.node, (part, name), flat), torch.finfo(dtype).max
        at_once = self._at_once((part, name), dtype) if flat else None
        for place in (slice(start, start + TILE) for start in range(0, count, TILE)) if flat else (_ALL,):
            if at_once is not None and torch.isfinite((rounded := at_once(place)).sum(dtype=torch.float32)):
                yield rounded
                continue
            numbers = numbers_of(place)
            if not within(numbers, most):
                self._blame((part, name), place, numbers, dtype)
            yield numbers

    def _at_once(self, name: Name, dtype: torch.dtype) -> Callable[[slice], Tensor] | None:
        """What computes slices of a formula that `rounds_once`, of models alone, in the file's own type of two bytes,
        where that is theirs, too: the bits are those of the way over float32 tensors.
        """
        node = self.node
        if not isinstance(node, Blend) or dtype.itemsize != 2 or self.precision != torch.float32:
            return None
        mode, own = MODES[node.mode], [one for one in node.inputs if isinstance(one, Model)]
        rows = [one.checkpoint.parts[name[0]][name[1]].reshape(-1) for one in own]
        if not mode.rounds_once or [row.dtype for row in rows] != [dtype] * mode.models:
            return None
        alpha = Numbers(node.shares.of(name, self.layout))
        return lambda place: mode.formula([row[place] for row in rows], alpha)

    def _blame(self, name: Name, place: slice, numbers: Tensor, dtype: torch.dtype) -> None:
        """Raise MaquetteError naming the input that holds no numbers, or the type that is too narrow."""
        for model in models(self.node):
            if name[0] in model.parts:
                require_finite(model.parts[name[0]][name[1]].reshape(-1)[place].float(), model.source, name)
        require_finite(numbers, "the blend", name)
        require_storable(numbers, "the blend", name, dtype)

    def _numbers(self, node: Node, name: Name, flat: bool) -> Callable[[slice], Tensor]:
        """What computes a tensor: of a slice of it where it is flat, otherwise as a whole. All that does not depend on
        the place is done here, once, for a tensor has hundreds of tiles.
        """
        if isinstance(node, Model):
            return self._own(node.checkpoint.parts[name[0]][name[1]], flat)
        if isinstance(node, WithLoras):
            inner, plan = self._numbers(node.inner, name, flat), node.plan
            return (lambda place: merge.with_changes(inner(place), plan, name)) if name in plan.changes else inner
        if self._is_first(node, name):
            return self._numbers(node.inputs[0], name, flat)
        mode = MODES[node.mode]
        inputs = [self._numbers(inner, name, flat) for inner in node.inputs]
        sources = [models(inner)[0].source for inner in node.inputs]
        settings = Numbers(
            node.shares.of(name, self.layout), node.beta, node.density, node.spread, partial(seeded, node.seed, *name)
        )

        def computed(place: slice) -> Tensor:
            values = [one(place) for one in inputs]
            if not mode.tells:
                for source, value in zip(sources, values, strict=True):
                    require_finite(value, source, name)
            return _over_channels(mode.formula, values, settings)

        return computed

    def _own(self, tensor: Tensor, flat: bool) -> Callable[[slice], Tensor]:
        precision = self.precision
        if not flat:
            return lambda place: tensor.to(precision)
        row = tensor.reshape(-1)
        return lambda place: row[place].to(precision)


_ALL = slice(None)


def _over_channels(formula: Formula, values: Sequence[Tensor], settings: Numbers) -> Tensor:
    """A formula over tensors of one shape, or over the first 4 input channels, the others being A's."""
    if all(one.shape == values[0].shape for one in values):
        return formula(values, settings)
    merged = formula([one[:, :4].contiguous() for one in values], settings)
    return torch.cat([merged, values[0][:, 4:]], 1)
