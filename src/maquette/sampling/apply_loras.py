"""Puts LoRAs into a base model's weights for a while, and takes them out again without a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..adapters.file import Adapter
from ..adapters.parts import change_shape
from ..errors import MaquetteError
from ..families.base import BaseModel
from ..families.detect import FAMILY_NAMES
from ..formats.keys import kohya_module_name
from .apply_embeddings import apply_embeddings

LATENT_CHANNELS, INPAINTING_CHANNELS = 4, 9


@dataclass
class Applied:
    """What became of one LoRA: how many of its modules exist in the base, and the names of those that do not."""

    source: str
    matched: int = 0
    unmatched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def warning(self) -> str | None:
        if not self.unmatched:
            return " ".join(self.notes) or None
        return " ".join(self.notes) + (
            f"{self.source}: {len(self.unmatched)} of its {self.matched + len(self.unmatched)} modules do not exist "
            f"in this base and are not applied, for example {self.unmatched[0]}."
        )


@contextmanager
def apply_loras(base: BaseModel, loras: Sequence[tuple[Adapter, float, float]]) -> Iterator[list[Applied]]:
    """Within the block the weights are W + Σ mᵢ ΔWᵢ; afterwards the tensors from before are back. Words that came
    with an adapter (`bundle_emb`) are known within the block.

    loras: (adapter, multiplier for the text encoders, multiplier for the UNet), applied in order; the sum is formed in
    float32 and rounded once. Multiplier 0 leaves the weights untouched. Raises MaquetteError for an adapter of which
    no module, or one of another shape, belongs to this base.
    """
    layers = layers_of(base)
    originals: dict[nn.Parameter, Tensor] = {}
    try:
        with ExitStack() as stack:
            applied = [add_lora(base, layers, adapter, te, unet, originals) for adapter, te, unet in loras]
            stack.enter_context(apply_embeddings(base, [e for adapter, *_ in loras for e in adapter.embeddings]))
            yield applied
    finally:
        for parameter, original in originals.items():
            parameter.data = original


def layers_of(base: BaseModel) -> dict[str, nn.Module]:
    """Kohya name -> module, for everything that has a weight; the UNet under LDM and under diffusers names, for what an
    adapter was made for does not always show.
    """
    found: dict[str, nn.Module] = {}
    usual = getattr(base.unet, "config", {}).get("layers_per_block", 2) == 2  # the LDM names count two layers a block
    naming = {base.spec.name, "sd1", *(["sdxl"] if usual else [])}
    for path, module in base.unet.named_modules():
        if isinstance(getattr(module, "weight", None), Tensor):
            found.update({kohya_module_name(family, "unet", path): module for family in naming})
    for index, (prefix, encoder) in enumerate(zip(base.spec.te_prefixes, base.text_encoders, strict=True)):
        parts = {prefix.removeprefix("lora_"), *(("te", "te1") if index == 0 else ())}
        for path, module in encoder.named_modules():
            if isinstance(getattr(module, "weight", None), Tensor):
                found.update({kohya_module_name(base.spec.name, part, path): module for part in parts})
    return found


@torch.no_grad()
def add_lora(
    base: BaseModel,
    layers: dict[str, nn.Module],
    adapter: Adapter,
    te: float,
    unet: float,
    originals: dict[nn.Parameter, Tensor],
    share: Callable[[str], float] = lambda module: 1.0,
) -> Applied:
    """Add one adapter to the weights; parameters that change for the first time leave their tensor in `originals`.

    layers: of `layers_of`. te, unet: multipliers for the text encoders and the UNet. share: of a
    module's block. Raises as `apply_loras`.
    """
    report = Applied(adapter.source, notes=adapter.notes)
    for name in adapter.modules:
        module = layers.get(name)
        if module is None:
            report.unmatched.append(name)
            continue
        report.matched += 1
        multiplier = (te if name.startswith("lora_te") else unet) * share(name)
        if multiplier == 0:
            continue
        weight: nn.Parameter = module.weight  # type: ignore[assignment]
        try:
            change = _change(adapter, name, weight)
        except MaquetteError as error:
            if adapter.family in FAMILY_NAMES and adapter.family != base.spec.name:
                raise MaquetteError(
                    f"{adapter.source} is a LoRA for {FAMILY_NAMES[adapter.family]} and does not fit {base.source} "
                    f"({FAMILY_NAMES[base.spec.name]}). Use a LoRA that was trained on this kind of base."
                ) from error
            raise
        _add(weight, change, multiplier, originals)
        shift = adapter.bias_delta(name)
        if shift is not None:
            _add(_bias(module, adapter, name), shift, multiplier, originals)
    if not report.matched:
        raise MaquetteError(
            f"{adapter.source} is a LoRA for {FAMILY_NAMES.get(adapter.family, 'another model')}: none of its "
            f"{len(adapter.modules)} modules exists in {base.source} ({FAMILY_NAMES[base.spec.name]}). Use a LoRA that "
            "was trained on this kind of base."
        )
    return report


def _add(parameter: nn.Parameter, change: Tensor, multiplier: float, originals: dict[nn.Parameter, Tensor]) -> None:
    original = originals.setdefault(parameter, parameter.data)
    total = parameter.data.float() + multiplier * change.to(parameter.device)
    parameter.data = total.to(original.dtype, memory_format=torch.preserve_format)


def _bias(module: nn.Module, adapter: Adapter, name: str) -> nn.Parameter:
    bias = getattr(module, "bias", None)
    if not isinstance(bias, nn.Parameter):
        raise MaquetteError(f"{adapter.source}: module {name} changes a bias, but the base's layer has none.")
    return bias


def _change(adapter: Adapter, name: str, weight: Tensor) -> Tensor:
    """The module's change in the weight's shape: 1 × 1 kernels and matrices are the same. Of a first convolution with
    other inputs than the base's, an inpainting model's or an ordinary one's, the latent's channels alone are changed.
    Shapes are compared before anything is computed.
    """
    shape = change_shape(adapter.modules[name].factors)
    seen = weight.float()
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
