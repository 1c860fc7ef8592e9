"""`maquette merge`: LoRAs put into a checkpoint for good, or several LoRAs made one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..adapters import block_weights
from ..adapters.embeddings import save as save_embedding
from ..adapters.file import Adapter
from ..adapters.reading import load
from ..config.weights import MergeConfig
from ..core.dtypes import DTYPES, PRECISIONS
from ..core.lowrank import RankRule
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore, until
from ..families.checkpoint import Checkpoint
from ..weights import combine, merge, stream
from ..weights.ancestry import Ancestry, Parent, roles
from . import lora_option
from .lora_option import LoraOption
from .writing_model import WrittenModel, drop_averages, refuse_taken, write


def run(config: MergeConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> WrittenModel:
    """Merge. Raises MaquetteError naming the fault; nothing is written then."""
    on_event = until(cancel, on_event)
    options = [lora_option.parse(text) for text in config.loras]
    if not any(option.te or option.unet for option in options):
        raise MaquetteError("Every LoRA has the weight 0, so nothing would be merged; give one another: FILE:0.8.")
    sources = [option.file for option in options] + ([config.base] if config.base else [])
    if config.to == "lora" and config.out.suffix.lower() != ".safetensors":
        raise MaquetteError(f"{config.out} must end in .safetensors.")
    refuse_taken(config.out, sources)
    presets = block_weights.read_presets(config.block_presets) if config.block_presets else None
    if config.to == "lora":
        result = _to_lora(config, options, presets)
        on_event(Event("saved", {"path": result.path}))
    else:
        result = _into_checkpoint(config, options, presets, on_event)
    for warning in result.warnings:
        on_event(Event("warning", {"message": warning}))
    for word in result.words:
        on_event(Event("saved", {"path": word}))
    return result


def _into_checkpoint(
    config: MergeConfig, options: Sequence[LoraOption], presets: dict[str, str] | None, on_event: Listener
) -> WrittenModel:
    if config.base is None:
        raise MaquetteError("name the base model that the LoRAs are merged into, or give --to lora.")
    if config.rank is not None:
        raise MaquetteError("a rank is for --to lora; a checkpoint has none.")
    model = stream.open_model(config.base)
    loras = [option.opened(model.spec.name, presets) for option in options]
    made = merge.plan(model, loras, config.lossy)
    words = _word_files(config.out, [lora.adapter for lora in loras])
    warnings = [note for lora in loras for note in lora.adapter.notes]
    warnings += [_left_out(lora.adapter, names) for lora, names in zip(loras, made.unmatched, strict=True) if names]
    drop_averages(model, warnings)
    precision = PRECISIONS[config.precision]
    ancestry = _ancestry(model, options)

    def pieces(part: str, name: str, dtype: torch.dtype) -> Iterable[torch.Tensor]:
        return merge.pieces(model, made, part, name, dtype, precision)

    memory = partial(merge.memory, model, made, precision)
    result = write(config, model, pieces, memory, len(made.changes), ancestry, "merging", on_event, made.changes)
    for file, word in words.items():
        save_embedding(word, file)
    result.words, result.warnings = [str(file) for file in words], warnings
    if words:
        result.warnings.append(
            f"{len(words)} words came with the LoRAs, for which a checkpoint has no place; they lie beside it as "
            "embeddings."
        )
    return result


def _left_out(adapter: Adapter, names: Sequence[str]) -> str:
    return f"{adapter.source}: {len(names)} modules are no layers of this base and were left out, such as {names[0]}."


def _word_files(out: Path, adapters: Sequence[Adapter]) -> dict[Path, Any]:
    """A free place beside the model for each word that comes with a LoRA."""
    found: dict[Path, Any] = {}
    for adapter in adapters:
        stem = out.with_suffix("") if out.suffix.lower() in (".safetensors", ".ckpt") else out
        again = found.keys() & (own := adapter.word_files(stem)).keys()
        if again:
            raise MaquetteError(f"two LoRAs bring a word that would become {min(again)}; merge one after the other.")
        found |= own
    return found


def _ancestry(model: Checkpoint, options: Sequence[LoraOption]) -> Ancestry:
    parents = [Parent(model.source, model.files, model.metadata)]
    parents += [Parent(str(option.file), files_of(option.file), {}, "lora") for option in options]

    def recipe(found: Sequence[str]) -> dict[str, Any]:
        listed = [{"hash": h, "weight": o.weight} for h, o in zip(found[1:], options, strict=True)]
        return {"interp_method": "merge LoRA", **roles(found[:1]), "loras": listed}

    return Ancestry(parents, recipe)


def files_of(path: Path) -> list[Path]:
    """A LoRA's file, or the files of PEFT's folder."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _to_lora(config: MergeConfig, options: Sequence[LoraOption], presets: dict[str, str] | None) -> WrittenModel:
    model = stream.open_model(config.base) if config.base else None
    found = stream.layers(model, foreign=True) if model else {}

    def weight_of(name: str) -> torch.Tensor | None:
        if model is None or name not in found:
            return None
        part, path = found[name]
        return stream.exact(model, (part, f"{path}.weight"))

    weighted = []
    for option in options:
        adapter = load(option.file)
        lora = option.of(adapter, model.spec.name if model else adapter.family, presets)
        weighted.append(combine.Weighted(adapter, lora.multiplier))
    dtype = DTYPES[config.dtype] if config.dtype else torch.float32
    rule = RankRule(config.rank) if config.rank else None
    made = combine.combine(weighted, rule, weight_of, dtype)
    made.adapter.save(config.out)
    warnings = [note for one in weighted for note in one.adapter.notes]
    if made.error > 1e-3:
        warnings.append(f"the result is {made.error:.1%} of the changes away from them (Frobenius norm); raise --rank.")
    size, count = config.out.stat().st_size, len(made.adapter.modules)
    return WrittenModel(
        str(config.out), made.adapter.family, len(made.adapter.state_dict()), count, size, 0.0, 0.0, [], warnings
    )
