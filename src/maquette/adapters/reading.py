"""Adapter files opened: from a file's keys and tensors to an adapter's modules under their names, whole or not at all.

Everything that makes an adapter unusable is found here, so that every command refuses it for the same reason: another
architecture, names that no Stable Diffusion has, parts that are missing, do not fit or are no numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import limits
from ..errors import MaquetteError
from ..formats import tensor_files
from ..parsing import read_json
from . import architectures, dialects, peft_folder
from . import parts as adapter_parts
from .dialects import Module
from .embeddings import unbundled
from .family import family_of
from .file import Adapter, AdapterModule, method_of
from .kohya_names import NETWORKS
from .peft_settings import Settings, Strengths, of_metadata

if TYPE_CHECKING:
    from torch import Tensor


class ForeignAdapterError(MaquetteError):
    """An adapter for another architecture, which has a name."""

    def __init__(self, source: str, architecture: str) -> None:
        super().__init__(f"{source} is a LoRA for {architecture}, which maquette does not open.")
        self.architecture = architecture


def load(path: str | Path, file: tensor_files.TensorFile | None = None, finite: bool = True) -> Adapter:
    """Read an adapter file of any dialect, .safetensors or pickled; for PEFT also its folder.

    file: what lies in `path`, when it was read already. finite: refuse values that are no numbers. Raises MaquetteError
    when it is broken or holds no adapter.
    """
    path = Path(path)
    if path.is_dir():
        parts = peft_folder.parts_of(path)
        if not parts:
            raise MaquetteError(f"{path} is a folder without {peft_folder.WEIGHTS}; name a LoRA file.")
        if "" not in parts:
            return _load_parts(parts, str(path), finite)
        path = parts[""]
    file = file or tensor_files.read(path)
    config = path.parent / peft_folder.CONFIG
    is_peft = any(key.startswith("base_model.model.") for key in file.tensors)
    settings = {"": _read_config(config)} if is_peft and config.is_file() else {}
    found = adapter_of(file.tensors, file.metadata, str(path), settings, finite)
    if is_peft and not settings and all(module.alpha is None for module in found.modules.values()):
        found.notes.append(
            f"{path} is of PEFT, which keeps the strength (lora_alpha) in {peft_folder.CONFIG}; that is not beside it, "
            "so alpha is taken for the rank."
        )
    return found


def _load_parts(parts: Mapping[str, Path], source: str, finite: bool) -> Adapter:
    """A folder with a PEFT folder for each network."""
    whole = tensor_files.TensorFile({})
    settings: dict[str, Settings] = {}
    for part, weights in parts.items():
        file = tensor_files.read(weights)
        whole.tensors |= {f"{part}.{key.removeprefix('base_model.model.')}": t for key, t in file.tensors.items()}
        whole.metadata |= file.metadata
        settings[part] = _read_config(weights.with_name(peft_folder.CONFIG))
    whole.metadata.pop("format", None)
    return adapter_of(whole.tensors, whole.metadata, source, settings, finite)


def _read_config(path: Path) -> dict[str, Any]:
    content = read_json(path, limits.CONFIGURATION_BYTES, "configuration")
    if not isinstance(content, dict):
        raise MaquetteError(f"{path} does not hold a JSON object.")
    return content


def from_state_dict(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    source: str,
    config: Mapping[str, Any] | None = None,
) -> Adapter:
    """Adapter from keys and tensors of any dialect; `config` is PEFT's.

    Every key must be understood, for a dropped key would be a silent fault. Raises MaquetteError.
    """
    return adapter_of(tensors, metadata, source, {"": config} if config else {})


def adapter_of(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    source: str,
    settings: Mapping[str, Settings],
    finite: bool = True,
) -> Adapter:
    """Adapter of any dialect. settings: PEFT's configuration of each network ("unet", "text_encoder" …), or one for all
    under ""; without any, what the metadata says.

    finite: also read every value and refuse those that are no numbers. Raises MaquetteError.
    """
    words, rest = unbundled(tensors, source)
    try:
        found, strange = dialects.read(rest)
    except ValueError as error:
        raise MaquetteError(f"{source} cannot be read as a LoRA: {error}.") from error
    _refuse_strangers(found, strange, metadata, source)
    for module in found:
        try:
            adapter_parts.check(module.factors, finite)
        except ValueError as error:
            raise MaquetteError(f"{source}: {_fault(module.name, str(error))}.") from error
    try:
        _add_strengths(found, settings or of_metadata(metadata, source))
    except ValueError as error:
        raise MaquetteError(f"{source}: {error}.") from error
    family = family_of(found, metadata)
    if family == "refiner":
        raise ForeignAdapterError(source, "the SDXL refiner")
    modules: dict[str, AdapterModule] = {}
    for module in found:
        name = module.layer_name
        if name in modules:
            once = f"{name[:160]} twice, once as {module.name[:160]}"
            raise MaquetteError(f"{source} changes the layer {once}; nothing was loaded.")
        modules[name] = AdapterModule(_plain(module.factors))
    dialect = Counter(module.layer.by for module in found).most_common(1)[0][0]
    return Adapter(family, method_of(modules), modules, dict(metadata), source, words, dialect)


def _fault(name: str, why: str) -> str:
    name = name if len(name) <= 160 else f"{name[:150]}…"
    return f"module {name} cannot be applied: {why}" if why.startswith("its ") else f"{name}.{why}"


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
            strengths[layer.part] = Strengths(settings.get(NETWORKS[layer.part], settings.get("", {})))
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
    matrix as `diff_b`, ComfyUI's `diff` of a norm as `w_norm`.
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
    if adapter_parts.kind(factors) == "full" and "diff" in factors and factors["diff"].ndim == 1:
        names = {"diff": "w_norm", "diff_b": "b_norm"}
        return {names[part]: tensor for part, tensor in factors.items() if part in names}
    return factors


def _number(value: float) -> Tensor:
    import torch

    return torch.tensor(value)
