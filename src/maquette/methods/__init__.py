"""What is trained: one file per method, each with `attach(slots, spec) -> Attached`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import MaquetteError

if TYPE_CHECKING:
    from .base import Attached, MethodSpec, Slots


@dataclass(frozen=True)
class Method:
    """A method by name: its file, the groups of UNet layers it adapts by default, and the settings it implies.

    product: what it makes, "adapter", "embedding", or "model" (then its slots are whole networks). rate: its usual
    learning rate as a multiple of LoRA's. embedding: whether a word of its own is learned.
    """

    module: str
    layers: tuple[str, ...] = ("attention", "feed_forward")
    magnitude: bool = False
    product: str = "adapter"
    rate: float = 1.0
    embedding: bool = False
    network_module: str = "networks.lora"  # ss_network_module: which program's loader reads the file


METHODS = {
    "lora": Method("lora"),
    "locon": Method("lora", ("attention", "feed_forward", "conv")),
    "dora": Method("lora", magnitude=True, network_module="lycoris.kohya"),
    "loha": Method("loha", rate=0.5, network_module="lycoris.kohya"),  # both products begin large, so it moves faster
    "lokr": Method("lokr", network_module="lycoris.kohya"),
    "dreambooth": Method("full", (), product="model"),
    "textual-inversion": Method("textual_inversion", (), product="embedding", embedding=True),
    "pivotal": Method("textual_inversion", embedding=True),
}


def attach(method: str, slots: Slots, spec: MethodSpec) -> Attached:
    """Attach a method to layers. Raises MaquetteError for an unknown method."""
    if method not in METHODS:
        raise MaquetteError(f"There is no method {method!r}; choose from {', '.join(METHODS)}.")
    entry = METHODS[method]
    module = import_module(f".{entry.module}", __package__)
    attached: Attached = module.attach(slots, replace(spec, magnitude=spec.magnitude or entry.magnitude))
    return attached
