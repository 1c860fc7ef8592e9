"""From a file's keys and tensors to an adapter's modules under their names, whole or not at all.

Everything that makes an adapter unusable is found here, so that every command refuses it for the same reason: another
architecture, names that no Stable Diffusion has, parts that are missing, do not fit or are no numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import MaquetteError
from . import architectures, dialects, embeddings
from . import parts as adapter_parts
from .dialects import Module
from .peft_settings import Settings, Strengths, of_metadata

if TYPE_CHECKING:
    from torch import Tensor

BUNDLE = "bundle_emb."  # how A1111 and Kohya's relatives name an embedding inside a LoRA file
_CROSS_ATTENTION_WIDTH = {768: "sd1", 1024: "sd2", 1280: "refiner", 2048: "sdxl"}
_NETWORKS = {"unet": "unet", "te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}
_FAMILY_OF_VERSION = (("sdxl", "sdxl"), ("sd_v2", "sd2"), ("sd_v1", "sd1"))


class ForeignAdapterError(MaquetteError):
    """An adapter for another architecture, which has a name."""

    def __init__(self, source: str, architecture: str) -> None:
        super().__init__(f"{source} is a LoRA for {architecture}, which maquette does not open.")
        self.architecture = architecture


@dataclass
class Reading:
    """modules: name (`module_names`) -> Kohya's part name -> tensor. dialect: whose names the file has. words: its
    embeddings.
    """

    family: str
    dialect: str
    modules: dict[str, dict[str, Tensor]]
    words: list[embeddings.Embedding] = field(default_factory=list)


def read(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    source: str,
    settings: Mapping[str, Settings],
    finite: bool = True,
) -> Reading:
    """An adapter of any dialect. settings: PEFT's configuration of each network ("unet", "text_encoder" …), or one for
    all under ""; without any, what the metadata says.

    finite: also read every value and refuse those that are no numbers. Raises MaquetteError.
    """
    words, rest = unbundled(tensors, source)
    try:
        modules, strange = dialects.read(rest)
    except ValueError as error:
        raise MaquetteError(f"{source} cannot be read as a LoRA: {error}.") from error
    _refuse_strangers(modules, strange, metadata, source)
    for module in modules:
        try:
            adapter_parts.check(module.factors, finite)
        except ValueError as error:
            raise MaquetteError(f"{source}: {_fault(module.name, str(error))}.") from error
    try:
        _add_strengths(modules, settings or of_metadata(metadata, source))
    except ValueError as error:
        raise MaquetteError(f"{source}: {error}.") from error
    family = _family(modules, metadata)
    if family == "refiner":
        raise ForeignAdapterError(source, "the SDXL refiner")
    result: dict[str, dict[str, Tensor]] = {}
    for module in modules:
        name = dialects.name_of(module)
        if name in result:
            once = f"{name[:160]} twice, once as {module.name[:160]}"
            raise MaquetteError(f"{source} changes the layer {once}; nothing was loaded.")
        result[name] = _plain(module.factors)
    dialect = Counter(module.layer.by for module in modules).most_common(1)[0][0]
    return Reading(family, dialect, result, words)


def _fault(name: str, why: str) -> str:
    name = name if len(name) <= 160 else f"{name[:150]}…"
    return f"module {name} cannot be applied: {why}" if why.startswith("its ") else f"{name}.{why}"


def unbundled(tensors: Mapping[str, Tensor], source: str) -> tuple[list[embeddings.Embedding], dict[str, Tensor]]:
    """The embeddings among a file's tensors, and the others."""
    bundles: dict[str, dict[str, Tensor]] = {}
    rest = {}
    for key, tensor in tensors.items():
        if key.startswith(BUNDLE):
            name, _, part = key.removeprefix(BUNDLE).partition(".")
            bundles.setdefault(name, {})[part] = tensor
        else:
            rest[key] = tensor
    return [embeddings.read(parts, name, name, source) for name, parts in bundles.items()], rest


def _refuse_strangers(
    modules: Sequence[Module], strange: Sequence[str], metadata: Mapping[str, str], source: str
) -> None:
    if not modules:
        example = f", for example {strange[0][:100]!r}" if strange else ""
        raise MaquetteError(
            f"{source} holds no LoRA that maquette knows: none of its {len(strange)} entries is a part of one{example}."
        )
    unknown = [module for module in modules if module.layer.path is None]
    if unknown and not any(module.layer.part == "unet" and module.layer.path for module in modules):
        name = foreign(modules, metadata)
        if name is not None:
            raise ForeignAdapterError(source, name)
    if strange:
        raise MaquetteError(
            f"{source} mixes {len(modules)} adapter modules with {len(strange)} entries that are not understood, "
            f"for example {strange[0][:100]!r}; nothing was loaded."
        )
    dotted = [module.name for module in unknown if not module.name.startswith(("lora_", "oft_"))]
    if dotted:
        raise MaquetteError(
            f"{source} changes {len(dotted)} layers that no Stable Diffusion has, for example {dotted[0][:100]!r}; "
            "nothing was loaded."
        )


def foreign(modules: Sequence[Module], metadata: Mapping[str, str]) -> str | None:
    """The other architecture that the modules with unknown names belong to, or None."""
    unknown = [module for module in modules if module.layer.path is None]
    widths = {tensor.shape[1] for module in unknown for tensor in module.factors.values() if tensor.ndim == 2}
    return architectures.named([module.name for module in unknown], metadata, widths)


def _add_strengths(modules: Sequence[Module], settings: Mapping[str, Settings]) -> None:
    """Write the alphas that PEFT and diffusers keep beside the tensors into the modules."""
    strengths: dict[str, Strengths] = {}
    for module in modules:
        factors, layer = module.factors, module.layer
        if layer.part not in strengths:
            strengths[layer.part] = Strengths(settings.get(_NETWORKS[layer.part], settings.get("", {})))
        rank = adapter_parts.rank(factors)
        if "alpha" in factors or "scale" in factors:
            continue
        if rank is not None:
            alpha = strengths[layer.part].alpha(layer.written, rank)
            factors |= {} if alpha is None else {"alpha": _number(alpha)}
        elif "lokr_w1" in factors:  # Kohya's form has no alpha there, PEFT's has
            factors["lokr_w1"] = factors["lokr_w1"] * strengths[layer.part].scale_without_rank(layer.written)


def _plain(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same change in parts that every program reads: a `scale` as the alpha that gives it, the bias of PEFT's up
    matrix as `diff_b`.
    """
    scale = adapter_parts.scale(factors)
    if "lora_up.bias" in factors:
        shift = factors.pop("lora_up.bias").float() * scale
        factors["diff_b"] = shift + factors["diff_b"].float() if "diff_b" in factors else shift
    if "scale" in factors:
        rank = adapter_parts.rank(factors)
        if rank:
            factors["alpha"] = _number(scale * rank)
        else:
            factor = next(part for part in ("lokr_w1", "diff", "weight") if part in factors)
            factors[factor] = factors[factor].float() * scale
        factors.pop("scale")
    return factors


def _number(value: float) -> Tensor:
    import torch

    return torch.tensor(value)


def _family(modules: Sequence[Module], metadata: Mapping[str, str]) -> str:
    """Which base an adapter is for: pocket says so itself; else the text width of cross-attention, layers that only one
    family has, the metadata, and last the names that only SDXL's trainers give.
    """
    version = metadata.get("ss_base_model_version", "")
    if version.startswith("maquette_pocket"):
        return "pocket"
    by_version = next((family for prefix, family in _FAMILY_OF_VERSION if version.startswith(prefix)), None)
    width = _text_width(modules)
    if width is not None and width in _CROSS_ATTENTION_WIDTH:
        return _CROSS_ATTENTION_WIDTH[width]
    by_layers = _family_by_layers(modules)
    if by_layers == "sdxl" or (by_layers and by_version in (None, "sdxl")):
        return by_layers
    if by_version is not None:
        return by_version
    if any(module.layer.part == "te1" or module.layer.ldm for module in modules):
        return "sdxl"
    return "unknown"


def _text_width(modules: Sequence[Module]) -> int | None:
    for module in modules:
        path = module.layer.path
        if path and module.layer.part == "unet" and path.endswith(("attn2.to_k", "attn2.to_v")):
            width = adapter_parts.in_features(module.factors)
            if width is not None:
                return width
    return None


def _family_by_layers(modules: Sequence[Module]) -> str | None:
    """From blocks that only SDXL or only the smaller ones have; pocket has one of SDXL's too, not at its width."""
    for module in modules:
        part, path = module.layer.part, module.layer.path or ""
        deep = ".transformer_blocks." in path and ".transformer_blocks.0." not in path
        if part == "te2" or deep or path.startswith("add_embedding.") or _wide_at(module, "up_blocks.0.attentions."):
            return "sdxl"
    for module in modules:
        part, path = module.layer.part, module.layer.path or ""
        if part == "te" and path.endswith(("q_proj", "k_proj", "v_proj")):
            return {768: "sd1", 1024: "sd2"}.get(adapter_parts.in_features(module.factors) or 0)
        if path.startswith(("down_blocks.0.attentions.", "down_blocks.3.")):
            return "sd1"  # SD2 has them too; which of both does not show without its text width
    return None


def _wide_at(module: Module, block: str) -> bool:
    inputs = adapter_parts.in_features(module.factors)
    return (module.layer.path or "").startswith(block) and inputs is not None and inputs % 1280 == 0
