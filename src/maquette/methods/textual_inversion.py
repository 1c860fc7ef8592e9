"""Textual inversion (arXiv 2208.01618) and pivotal tuning (embedding and LoRA together, arXiv 2106.05744).

Only the new rows of the token embedding learn: they lie in a table of their own behind the frozen one, so that nothing
has to be masked or put back after a step. An embedding's slots are the token embeddings, named as its parts in a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ..adapters.embeddings import BUNDLE
from ..core.vocabulary import ExtendedEmbedding, repeated
from ..errors import MaquetteError
from .base import Attached, MethodSpec, Slots

PARTS = ("emb_params", "clip_l", "clip_g")


class Vectors:
    """`Attached` for token embeddings. A name is the part's: "emb_params", or "clip_l" and "clip_g"."""

    def __init__(self, slots: Slots, spec: MethodSpec) -> None:
        self._slots = dict(slots)
        self._tables: dict[str, nn.Embedding] = {}
        self._wrapped: dict[str, ExtendedEmbedding] = {}
        self._begin: dict[str, Tensor] = {}
        for name, (parent, attribute) in self._slots.items():
            table = getattr(parent, attribute)
            if isinstance(table, ExtendedEmbedding):
                raise MaquetteError(
                    "The text encoder already carries an embedding; detach it before attaching another."
                )
            start = repeated(table.weight[list(spec.initial_tokens[name])].detach().float(), spec.tokens)
            self._tables[name], self._begin[name] = table, start
            self._wrapped[name] = ExtendedEmbedding(table, nn.Parameter(start.clone()))
        self._put(self._wrapped)

    def _put(self, tables: Mapping[str, nn.Module]) -> None:
        for name, (parent, attribute) in self._slots.items():
            setattr(parent, attribute, tables[name])

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"embedding": [table.vectors for table in self._wrapped.values()]}

    def delta(self, name: str) -> Tensor:
        """How far the vectors have moved from the word they began as, (n, D)."""
        return self._wrapped[name].vectors.detach() - self._begin[name]

    def state(self) -> dict[str, Tensor]:
        return {name: table.vectors.detach() for name, table in self._wrapped.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Raises MaquetteError for another number of vectors, another width, or parts missing or left over."""
        wrong = sorted(state.keys() ^ self._wrapped.keys())
        wrong += [n for n in state.keys() & self._wrapped.keys() if state[n].shape != self._begin[n].shape]
        if wrong:
            raise MaquetteError(f"The embedding does not fit this model and method: {wrong[0]} differs.")
        with torch.no_grad():
            for name, table in self._wrapped.items():
                table.vectors.copy_(state[name])

    def scale_weight_norms(self, largest: float) -> None:
        """Vectors have no factors to scale."""
        raise MaquetteError("scale_weight_norms limits adapters; this method has none.")

    def set_multiplier(self, multiplier: float) -> None:
        """An embedding is called or not: prompts without its name are the base's own, whatever the multiplier."""

    def detach(self) -> None:
        self._put(self._tables)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        self._put(self._tables)
        try:
            yield
        finally:
            self._put(self._wrapped)


class Pivotal:
    """`Attached` of an embedding and an adapter that learn together; one file holds both."""

    def __init__(self, vectors: Vectors, adapter: Attached, name: str) -> None:
        self._vectors, self._adapter, self._name = vectors, adapter, name

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return self._adapter.parameter_groups() | self._vectors.parameter_groups()

    def delta(self, name: str) -> Tensor:
        return (self._vectors if name in PARTS else self._adapter).delta(name)

    def state(self) -> dict[str, Tensor]:
        return self._adapter.state() | bundled(self._vectors.state(), self._name)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        mine = bundled({part: torch.empty(0) for part in self._vectors.state()}, self._name)
        parts = dict(zip(mine, self._vectors.state(), strict=True))
        missing = [key for key in parts if key not in state]
        if missing:
            raise MaquetteError(f"The file does not fit this model and method: it lacks {missing[0]}.")
        self._vectors.load_state({parts[key]: state[key] for key in parts})
        self._adapter.load_state({key: tensor for key, tensor in state.items() if key not in parts})

    def scale_weight_norms(self, largest: float) -> None:
        self._adapter.scale_weight_norms(largest)

    def set_multiplier(self, multiplier: float) -> None:
        self._adapter.set_multiplier(multiplier)

    def detach(self) -> None:
        self._adapter.detach()
        self._vectors.detach()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(self._adapter.suspended())
            stack.enter_context(self._vectors.suspended())
            yield


def bundled(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """An embedding's parts under the keys it has inside a LoRA file."""
    keys = {"emb_params": "string_to_param.*", "clip_l": "clip_l", "clip_g": "clip_g"}
    return {f"{BUNDLE}{name.replace('.', '_')}.{keys[part]}": tensor for part, tensor in state.items()}


def attach(slots: Slots, spec: MethodSpec) -> Attached:
    """Vectors in the slots that are embedding parts; with layers among the slots, LoRA on those too."""
    from . import lora

    vectors = Vectors({name: slot for name, slot in slots.items() if name in PARTS}, spec)
    layers = {name: slot for name, slot in slots.items() if name not in PARTS}
    return Pivotal(vectors, lora.attach(layers, spec), spec.name) if layers else vectors
