"""Adapter files (LoRA and its relatives) and their one in-memory form: Kohya module names and Kohya part names.

A module `lora_unet_…` has parts `lora_down.weight`, `lora_up.weight`, `alpha`, …; `adapter_maths` says what they mean.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import MaquetteError
from . import adapter_maths, dialects, embeddings, peft_folder, safetensors, tensor_files

_MODULE = re.compile(r"^(lora_unet|lora_te[12]?|oft_unet)_(.+)$")
_KERNEL_3X3 = re.compile(r"(resnets_\d+_conv[12]|samplers_0_conv|in_layers_2|out_layers_3|_0_op|_[12]_conv)$")
_BUNDLE = "bundle_emb."
_HASHES = ("sshs_model_hash", "sshs_legacy_hash")
_CROSS_ATTENTION_WIDTH = {768: "sd1", 1024: "sd2", 2048: "sdxl"}


@dataclass
class AdapterModule:
    """One adapted layer. factors: Kohya part name -> tensor."""

    factors: dict[str, Tensor]

    @property
    def kind(self) -> str:
        return adapter_maths.kind(self.factors)

    @property
    def rank(self) -> int | None:
        return adapter_maths.rank(self.factors)

    @property
    def alpha(self) -> float | None:
        """The file's alpha; None means "equal to the rank"."""
        return adapter_maths.alpha(self.factors)


@dataclass
class Adapter:
    """An adapter in memory.

    family: "sd1", "sd2", "sdxl", "pocket" or "unknown". method: "lora", "locon", "dora", "loha", "lokr", … or "mixed".
    modules: Kohya module name -> its factors. embeddings: words that came with it, `bundle_emb.NAME.…` in the file.
    """

    family: str
    method: str
    modules: dict[str, AdapterModule]
    metadata: dict[str, str] = field(default_factory=dict)
    source: str = "this adapter"
    embeddings: list[embeddings.Embedding] = field(default_factory=list)

    def delta(self, name: str, base_weight: Tensor | None = None) -> Tensor:
        """Weight change of one module at multiplier 1, float32, in the layer's shape.

        base_weight is needed by DoRA only. Raises MaquetteError for an unknown module and for factors that do not fit.
        """
        if name not in self.modules:
            raise MaquetteError(f"{self.source} has no module {name}.")
        try:
            change = adapter_maths.delta(self.modules[name].factors, base_weight)
        except ValueError as error:
            raise MaquetteError(f"{self.source}: module {name} cannot be applied: {error}.") from error
        if change.ndim == 2 and _KERNEL_3X3.search(name) and change.shape[1] % 9 == 0:
            change = change.reshape(change.shape[0], -1, 3, 3)
        return change

    def bias_delta(self, name: str) -> Tensor | None:
        """Change of the module's bias at multiplier 1, float32, or None when the adapter has none."""
        return adapter_maths.bias_delta(self.modules[name].factors)

    def state_dict(self) -> dict[str, Tensor]:
        """Kohya keys -> tensors."""
        own = {f"{name}.{part}": t for name, module in self.modules.items() for part, t in module.factors.items()}
        return own | {key: t for embedding in self.embeddings for key, t in _bundled(embedding).items()}

    def save(
        self,
        path: str | Path,
        dialect: str = "kohya",
        dtype: torch.dtype | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write a .safetensors file, or PEFT's folder; `metadata` is added to the adapter's own. Same content, same
        bytes.

        `sshs_model_hash` is computed anew, so that it is true for the file written.
        """
        if dialect not in ("kohya", "diffusers", "peft"):
            raise MaquetteError(f"adapters are written in the dialect kohya, diffusers or peft, not {dialect!r}.")
        if dialect != "kohya" and self.embeddings:
            raise MaquetteError(
                f"{self.source} carries the word {self.embeddings[0].name!r}, for which LoRA files of {dialect} have "
                "no place; keep Kohya's form."
            )
        if dialect == "peft":
            return self._save_for_peft(Path(path), dtype, {**self.metadata, **(metadata or {})})
        tensors = self.state_dict()
        if dialect == "diffusers":
            try:
                tensors = dialects.to_diffusers({name: module.factors for name, module in self.modules.items()})
            except ValueError as error:
                raise MaquetteError(f"{self.source} cannot be written for diffusers: {error}.") from error
        facts = {**self.metadata, **(metadata or {})}
        facts.pop("sshs_legacy_hash", None)
        facts["sshs_model_hash"] = safetensors.tensors_sha256(tensors, dtype)
        safetensors.save(tensors, path, facts, dtype)

    def _save_for_peft(self, folder: Path, dtype: torch.dtype | None, metadata: Mapping[str, str]) -> None:
        told = {key: value for key, value in metadata.items() if key not in _HASHES}
        try:
            peft_folder.write({name: module.factors for name, module in self.modules.items()}, folder, dtype, told)
        except ValueError as error:
            raise MaquetteError(f"{self.source} cannot be written for PEFT: {error}.") from error


def load(path: str | Path) -> Adapter:
    """Read an adapter file of any dialect, .safetensors or pickled; for PEFT also its folder.

    Raises MaquetteError when it is broken or holds no adapter.
    """
    path = Path(path)
    if path.is_dir():
        parts = peft_folder.parts_of(path)
        if not parts:
            raise MaquetteError(f"{path} is a folder without {peft_folder.WEIGHTS}; name a LoRA file.")
        if "" not in parts:
            return _load_parts(parts, str(path))
        path = path / peft_folder.WEIGHTS
    file = tensor_files.read(path)
    config = path.parent / "adapter_config.json"
    is_peft = any(key.startswith("base_model.model.") for key in file.tensors) and config.is_file()
    return from_state_dict(file.tensors, file.metadata, str(path), _read_config(config) if is_peft else {})


def _load_parts(parts: Mapping[str, Path], source: str) -> Adapter:
    """A folder with a PEFT folder for each network."""
    whole: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for part, folder in parts.items():
        file = tensor_files.read(folder / peft_folder.WEIGHTS)
        config = _read_config(folder / peft_folder.CONFIG)
        named = {f"{part}.{key.removeprefix('base_model.model.')}": t for key, t in file.tensors.items()}
        told = {"lora_adapter_metadata": json.dumps({f"{part}.{key}": value for key, value in config.items()})}
        found = dialects.to_kohya(named, told, {})
        if part == "text_encoder" and "text_encoder_2" in parts:
            found = {key.replace("lora_te_", "lora_te1_", 1): tensor for key, tensor in found.items()}
        whole |= found
        metadata |= file.metadata
    metadata.pop("format", None)
    return from_state_dict(whole, metadata, source)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MaquetteError(f"{path} cannot be read as JSON: {str(error)[:120]}.") from error
    if not isinstance(content, dict):
        raise MaquetteError(f"{path} does not hold a JSON object.")
    return content


def from_state_dict(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], source: str, config: Mapping[str, Any] | None = None
) -> Adapter:
    """Adapter from keys and tensors of any dialect; `config` is PEFT's.

    Every key must be understood, for a dropped key would be a silent fault.
    """
    modules: dict[str, AdapterModule] = {}
    strange = []
    words, tensors = _unbundled(tensors, source)
    for key, tensor in dialects.to_kohya(tensors, metadata, config or {}).items():
        name, _, part = key.partition(".")
        if _MODULE.match(name) and part in adapter_maths.KNOWN_PARTS:
            modules.setdefault(name, AdapterModule({})).factors[part] = tensor
        else:
            strange.append(key)
    if not modules:
        raise MaquetteError(f"{source} holds no LoRA that maquette knows; `maquette inspect` says what it is.")
    if strange:
        raise MaquetteError(
            f"{source} mixes {len(modules)} adapter modules with {len(strange)} entries that are not understood, "
            f"for example {strange[0]!r}; nothing was loaded."
        )
    family = family_of(modules, metadata)
    if family == "sdxl":
        renamed = dialects.sgm_names(modules)
        modules = {renamed.get(name, name): module for name, module in modules.items()}
    return Adapter(family, method_of(modules), modules, dict(metadata), source, words)


def _unbundled(tensors: Mapping[str, Tensor], source: str) -> tuple[list[embeddings.Embedding], dict[str, Tensor]]:
    """The embeddings among a file's tensors, and the others."""
    bundles: dict[str, dict[str, Tensor]] = {}
    rest = {}
    for key, tensor in tensors.items():
        if key.startswith(_BUNDLE):
            name, _, part = key.removeprefix(_BUNDLE).partition(".")
            bundles.setdefault(name, {})[part] = tensor
        else:
            rest[key] = tensor
    return [embeddings.read(parts, name, name, source) for name, parts in bundles.items()], rest


def _bundled(embedding: embeddings.Embedding) -> dict[str, Tensor]:
    """The keys that A1111 reads: a name without dots, then `string_to_param.*`, or SDXL's two parts."""
    parts = ("string_to_param.*",) if len(embedding.vectors) == 1 else ("clip_l", "clip_g")
    name = embedding.name.replace(".", "_")
    return {f"{_BUNDLE}{name}.{part}": t for part, t in zip(parts, embedding.vectors, strict=True)}


def method_of(modules: Mapping[str, AdapterModule]) -> str:
    """The adapter's method as a person would name it, from what its modules are."""
    kinds = Counter(module.kind for module in modules.values())
    if any("dora_scale" in module.factors for module in modules.values()):
        return "dora"
    main = set(kinds) - {"norm"} if len(kinds) > 1 else set(kinds)
    if main == {"lora", "locon"}:
        return "locon"
    return main.pop() if len(main) == 1 else "mixed"


def family_of(modules: Mapping[str, AdapterModule], metadata: Mapping[str, str]) -> str:
    """Which base an adapter is for: pocket says so itself; else the text width of cross-attention, names, metadata."""
    version = metadata.get("ss_base_model_version", "")
    if version.startswith("maquette_pocket"):
        return "pocket"
    for name, module in modules.items():
        if name.endswith(("attn2_to_k", "attn2_to_v")) and "lora_down.weight" in module.factors:
            width = module.factors["lora_down.weight"].shape[1]
            if width in _CROSS_ATTENTION_WIDTH:
                return _CROSS_ATTENTION_WIDTH[width]
    if any(
        name.startswith(("lora_te1_", "lora_te2_")) or re.match(r"lora_unet_(in|out)put_blocks", name)
        for name in modules
    ):
        return "sdxl"
    for prefix, family in (("sdxl", "sdxl"), ("sd_v2", "sd2"), ("sd_v1", "sd1")):
        if version.startswith(prefix):
            return family
    return "unknown"
