"""Adapter files (LoRA and its relatives) and their one in-memory form: names of layers (`module_names`), Kohya's parts.

A module `unet.…` has parts `lora_down.weight`, `lora_up.weight`, `alpha`, …; `adapter_maths` says what they mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MaquetteError
from ..files import atomic_writer, portable, slug
from . import kohya_names, peft_folder, peft_settings, writing
from . import parts as adapter_parts
from .embeddings import Embedding, bundled
from .embeddings import save as save_embedding
from .module_names import unflattened

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PICKLED = (".pt", ".bin", ".ckpt")
_HASHES = ("sshs_model_hash", "sshs_legacy_hash")


@dataclass
class AdapterModule:
    """One adapted layer. factors: Kohya part name -> tensor."""

    factors: dict[str, Tensor]

    @property
    def kind(self) -> str:
        return adapter_parts.kind(self.factors)

    @property
    def rank(self) -> int | None:
        return adapter_parts.rank(self.factors)

    @property
    def alpha(self) -> float | None:
        """The file's alpha; None means "equal to the rank"."""
        return adapter_parts.alpha(self.factors)


@dataclass
class Adapter:
    """An adapter in memory.

    family: "sd1", "sd2", "sdxl", "pocket" or "unknown". method: "lora", "locon", "dora", "loha", "lokr", … or "mixed".
    modules: name of a layer -> its factors. embeddings: words that came with it, `bundle_emb.NAME.…` in the file.
    """

    family: str
    method: str
    modules: dict[str, AdapterModule]
    metadata: dict[str, str] = field(default_factory=dict)
    source: str = "this adapter"
    embeddings: list[Embedding] = field(default_factory=list)
    dialect: str = "Kohya"  # whose names the file had
    notes: list[str] = field(default_factory=list)  # sentences on what had to be assumed

    def delta(self, name: str, base_weight: Tensor | None = None) -> Tensor:
        """Weight change of one module at multiplier 1, float32, in the layer's shape.

        base_weight is needed by DoRA, GLoRA, IA3 and OFT. Raises MaquetteError for an unknown module and for factors
        that do not fit.
        """
        from . import maths as adapter_maths

        if name not in self.modules:
            raise MaquetteError(f"{self.source} has no module {name}.")
        try:
            change = adapter_maths.delta(self.modules[name].factors, base_weight)
        except ValueError as error:
            raise MaquetteError(f"{self.source}: module {name} cannot be applied: {error}.") from error
        return change.reshape(unflattened(tuple(change.shape), name, self.family)) if base_weight is None else change

    def bias_delta(self, name: str) -> Tensor | None:
        """Change of the module's bias at multiplier 1, float32, or None when the adapter has none."""
        from . import maths as adapter_maths

        return adapter_maths.bias_delta(self.modules[name].factors)

    def state_dict(self) -> dict[str, Tensor]:
        """Kohya keys -> tensors."""
        own = {
            f"{self._written(name)}.{part}": tensor
            for name, module in self.modules.items()
            for part, tensor in module.factors.items()
        }
        return own | {key: t for embedding in self.embeddings for key, t in bundled(embedding).items()}

    def _written(self, name: str) -> str:
        """Kohya's name. sd-scripts finds the layers of its own OFT behind a prefix of their own."""
        own, kind = self.metadata.get("ss_network_module") == "networks.oft", self.modules[name].kind
        name = kohya_names.written(self.family, name)
        return name.replace("lora_unet_", "oft_unet_", 1) if own and kind == "oft" else name

    def save(
        self,
        path: str | Path,
        dialect: str = "kohya",
        dtype: torch.dtype | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> list[Path]:
        """Write a file of `writing.TARGETS`, or PEFT's folder; `metadata` is added to the adapter's own. Same content,
        same bytes. A name that ends in .pt, .bin or .ckpt becomes a pickle, which holds no metadata. Words that came
        with it stay where Kohya's and OneTrainer's names are read; else each becomes an embedding's file beside the
        LoRA, as `load_textual_inversion` reads it. Returns the files of words.

        `sshs_model_hash` is computed anew, so that it is true for the file written. Raises MaquetteError for what the
        target cannot carry; nothing is written then.
        """
        if dialect not in writing.TARGETS:
            kept = f"{', '.join(writing.TARGETS[:-1])} or {writing.TARGETS[-1]}"
            raise MaquetteError(f"adapters are written in the dialect {kept}, not {dialect!r}.")
        path = Path(path)
        require_name(path, dialect)
        facts = {**self.metadata, **(metadata or {})}
        facts.pop(peft_settings.METADATA, None)  # its strengths are in the factors: read again they would count twice
        words = {} if dialect in ("kohya", "onetrainer") else self.word_files(path)
        if dialect == "peft":
            self._require_room(self.state_dict(), dtype)
            self._save_for_peft(path, dtype, facts)
        else:
            tensors = self.state_dict() if dialect == "kohya" else self._for(dialect)
            self._require_room(tensors, dtype)
            self._write(tensors, path, facts, dtype)
        for file, word in words.items():
            save_embedding(word, file, "diffusers")
        return list(words)

    def _write(
        self, tensors: Mapping[str, Tensor], path: Path, facts: dict[str, str], dtype: torch.dtype | None
    ) -> None:
        if path.suffix.lower() in PICKLED:
            import torch

            cast = {name: t.to(dtype) if dtype and t.is_floating_point() else t for name, t in tensors.items()}
            with atomic_writer(path) as file:
                torch.save({name: tensor.contiguous() for name, tensor in cast.items()}, file)
            return
        from ..formats import safetensors

        facts.pop("sshs_legacy_hash", None)
        facts["sshs_model_hash"] = safetensors.tensors_sha256(tensors, dtype)
        safetensors.save(tensors, path, facts, dtype)

    def _require_room(self, tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
        """What is written can be read again: no number becomes infinite in float16."""
        import torch

        if dtype is not torch.float16:
            return
        most = torch.finfo(dtype).max
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and tensor.dtype != dtype and float(tensor.float().abs().max()) > most:
                raise MaquetteError(f"{self.source}: {name} holds numbers beyond {most:g}, the most in fp16.")

    def _for(self, target: str) -> dict[str, Tensor]:
        try:
            tensors = writing.keys_of(target, self._factors(), self.family)
        except ValueError as error:
            raise MaquetteError(f"{self.source} cannot be written for {writing.PROGRAMS[target]}: {error}.") from error
        words = self.embeddings if target == "onetrainer" else []
        return tensors | {key: t for embedding in words for key, t in bundled(embedding).items()}

    def _factors(self) -> dict[str, dict[str, Tensor]]:
        return {name: module.factors for name, module in self.modules.items()}

    def _save_for_peft(self, folder: Path, dtype: torch.dtype | None, metadata: Mapping[str, str]) -> None:
        kept = {key: value for key, value in metadata.items() if key not in _HASHES}
        try:
            peft_folder.write(self._factors(), folder, dtype, kept, self.family)
        except ValueError as error:
            raise MaquetteError(f"{self.source} cannot be written for PEFT: {error}.") from error

    def word_files(self, path: Path) -> dict[Path, Embedding]:
        """A free place beside `path` for each word. Raises MaquetteError where a file lies already."""
        stem = path.name.removesuffix(".safetensors")
        found: dict[Path, Embedding] = {}
        for word in self.embeddings:
            file = path.with_name(portable(f"{stem}-{slug(word.name, 'word')}") + ".safetensors")
            if file.exists() or file in found:
                raise MaquetteError(f"{file}, the file of the word {word.name!r}, exists already; choose another name.")
            found[file] = word
        return found


def require_name(path: Path, dialect: str = "kohya") -> None:
    """Raise MaquetteError for a name by which other programs would not take the file for a LoRA."""
    is_file = path.suffix.lower() in (".safetensors", *PICKLED)
    if dialect == "peft" and is_file:
        raise MaquetteError(f"{path} would be a folder, which is what PEFT reads; leave out the ending {path.suffix}.")
    if dialect != "peft" and not is_file:
        raise MaquetteError(f"{path} must end in .safetensors, or in .pt, .bin or .ckpt for a pickle.")


def method_of(modules: Mapping[str, AdapterModule]) -> str:
    """The adapter's method as a person would name it, from what its modules are."""
    kinds = Counter(module.kind for module in modules.values())
    if any("dora_scale" in module.factors for module in modules.values()):
        return "dora"
    main = set(kinds) - {"norm"} if len(kinds) > 1 else set(kinds)
    if main == {"lora", "locon"}:
        return "locon"
    return main.pop() if len(main) == 1 else "mixed"
