"""`maquette convert`: a model or an adapter in another layout, with the same numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .. import adapters
from ..adapters import embeddings, writing
from ..config.weights import ConvertConfig
from ..core.dtypes import DTYPES
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore, until
from ..families import checkpoint, detect, hub, parts, save
from ..families.pocket import POCKET, WEIGHTS
from ..formats import ldm, tensor_files
from ..formats.tensor_files import TensorFile
from ..weights import approximate, stream

_MODEL_TARGETS = ("single-file", "diffusers-dir")
_MODEL_FILES = (".safetensors", ".ckpt")
_WORD_FORMS = {"kohya": "a1111", "comfyui": "a1111", "diffusers": "diffusers"}


@dataclass
class ConvertResult:
    """What was written."""

    path: str
    kind: str
    """Of model, adapter and embedding."""
    family: str
    tensors: int
    size_bytes: int
    words: list[str] = field(default_factory=list)
    """Files of words that came with an adapter and that the other program reads as embeddings."""
    warnings: list[str] = field(default_factory=list)
    """What had to be assumed."""
    modules: int = 0
    """Modules of an adapter, and how many of them are found again in what was written."""
    written: int = 0
    dropped: list[str] = field(default_factory=list)
    """Modules and parts of modules that were left out, with lossy."""
    approximated: list[dict[str, Any]] = field(default_factory=list)
    """name, kind, rank and relative error of modules that were written as a LoRA, with lossy."""

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def run(config: ConvertConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> ConvertResult:
    """Convert. Raises MaquetteError naming the fault; an existing file is never overwritten."""
    on_event = until(cancel, on_event)
    if config.out.exists() and not (config.to == "diffusers-dir" and config.out.is_dir()):
        raise MaquetteError(f"{config.out} exists already; choose another name with --out.")
    result = _convert_model(config) if config.to in _MODEL_TARGETS else _convert_adapter(config)
    on_event(Event("saved", {"path": result.path}))
    for warning in result.warnings:
        on_event(Event("warning", {"message": warning}))
    for word in result.words:
        on_event(Event("saved", {"path": word}))
    if result.words:
        message = (
            f"{config.source} carries a word, for which LoRAs of {config.to} have no place; it lies beside the LoRA: "
            f"load both (load_lora_weights, load_textual_inversion('{result.words[0]}'))."
        )
        on_event(Event("warning", {"message": message}))
    return result


def _convert_model(config: ConvertConfig) -> ConvertResult:
    dtype = DTYPES[config.dtype] if config.dtype else None
    if str(config.source) == "pocket":
        read = checkpoint.read_folder(WEIGHTS, POCKET)
    else:
        source = hub.download(str(config.source)) if hub.is_hub_id(config.source) else config.source
        read = checkpoint.read(source, config.prediction_type)
    if config.unet is not None:
        parts.replace_unet(read, config.unet)
    if config.vae is not None:
        parts.replace_vae(read, config.vae)
    if config.ema:
        averaged = ldm.ema_unet(ldm.SingleFile(read.parts, read.prefixes, read.extras))
        if averaged is None:
            raise MaquetteError(f"{config.source} holds no averaged weights.")
        read.parts["unet"] = averaged
        read.extras = {name: t for name, t in read.extras.items() if not name.startswith("model_ema.")}
    if config.to == "diffusers-dir":
        if config.out.suffix.lower() in _MODEL_FILES:
            raise MaquetteError(f"{config.out} would be a folder; leave out the ending {config.out.suffix}.")
        save.write_folder(read, config.out, dtype, config.half_vae)
        size = sum(file.stat().st_size for file in config.out.rglob("*") if file.is_file())
    else:
        if config.out.suffix.lower() not in _MODEL_FILES:
            raise MaquetteError(f"{config.out} must end in .safetensors or .ckpt.")
        save.write_single_file(read, config.out, dtype, config.half_vae)
        size = config.out.stat().st_size
    count = sum(len(tensors) for tensors in read.parts.values()) + len(read.extras)
    return ConvertResult(str(config.out), "model", read.spec.name, count, size)


def _convert_adapter(config: ConvertConfig) -> ConvertResult:
    if str(config.source) == "pocket" or (config.source / "model_index.json").is_file():
        raise _no_adapter(config)
    file = None if config.source.is_dir() else tensor_files.read(config.source)
    if file is not None:
        found = detect.identify({name: tuple(tensor.shape) for name, tensor in file.tensors.items()})
        if found.kind == "embedding":
            return _convert_embedding(config, file)
        if found.kind in ("model", "unet", "vae"):
            raise _no_adapter(config)
    adapters.require_name(config.out, config.to)
    adapter = adapters.load(config.source, file)
    warnings = list(adapter.notes)
    carried = approximate.Carried(adapter)
    if config.lossy:
        weight_of = stream.weights(stream.open_model(config.base)) if config.base else lambda name: None
        carried = approximate.carried(adapter, config.to, config.rank, weight_of)
    words = carried.adapter.save(config.out, config.to, DTYPES[config.dtype] if config.dtype else None)
    written = [file for file in config.out.rglob("*") if file.is_file()] if config.out.is_dir() else [config.out]
    result = ConvertResult(
        str(config.out),
        "adapter",
        adapter.family,
        sum(len(module.factors) for module in carried.adapter.modules.values()),
        sum(file.stat().st_size for file in written),
        [str(word) for word in words],
        warnings,
        len(adapter.modules),
        len(adapters.load(config.out, finite=False).modules),
        carried.dropped,
        [asdict(one) for one in carried.approximated],
    )
    if carried.approximated:
        worst = max(carried.approximated, key=lambda one: one.error)
        warnings.append(
            f"{len(carried.approximated)} modules are written as LoRAs near to them; relative error "
            f"{carried.error:.3g}, at most {worst.error:.3g} ({worst.name})."
        )
    if carried.dropped:
        lost = f"{len(carried.dropped)} modules or parts have no place there and are left out"
        warnings.append(f"{lost}, for example {carried.dropped[0]}.")
    if config.out.suffix.lower() in adapters.PICKLED and adapter.metadata:
        warnings.append(f"{config.out.name} is a pickle, which holds none of the LoRA's metadata.")
    return result


def _no_adapter(config: ConvertConfig) -> MaquetteError:
    return MaquetteError(
        f"{config.source} is a model or a part of one; convert it with --to single-file or diffusers-dir."
    )


def _convert_embedding(config: ConvertConfig, file: TensorFile) -> ConvertResult:
    """A textual inversion under the names that A1111 and ComfyUI read, or diffusers."""
    if config.to not in _WORD_FORMS:
        targets = f"{', '.join(list(_WORD_FORMS)[:-1])} or {list(_WORD_FORMS)[-1]}"
        raise MaquetteError(
            f"{config.source} is a textual inversion, for which {writing.PROGRAMS[config.to]} has no form; "
            f"convert it with --to {targets}."
        )
    if config.lossy:
        raise MaquetteError(f"{config.source} is a textual inversion, on which --lossy has no effect; leave it out.")
    if config.out.suffix.lower() != ".safetensors":
        raise MaquetteError(f"{config.out} must end in .safetensors.")
    word = embeddings.read(file.tensors, config.source.stem, None, str(config.source))
    form = _WORD_FORMS[config.to]
    dtype = DTYPES[config.dtype] if config.dtype else word.vectors[0].dtype
    embeddings.save(word, config.out, form, file.metadata, dtype)
    result = ConvertResult(str(config.out), "embedding", word.family, len(word.vectors), config.out.stat().st_size)
    if form == "a1111" and word.name != config.out.stem:
        result.warnings.append(
            f"the word was {word.name!r}; A1111 and ComfyUI call it by its file's name, {config.out.stem!r}."
        )
    return result
