"""What `maquette inspect` says about weights: parts, precision, hashes, damage, and what a merged model is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .. import adapters
from ..adapters import peft_folder
from ..adapters import reading as adapter_reading
from ..adapters.parts import is_finite
from ..errors import MaquetteError
from ..families import detect, folders
from ..families.detect import FAMILY_NAMES, Identity
from ..formats import hashes, ldm, safetensors_header, tensor_files
from ..weights import ancestry
from . import inspect_lora
from .inspect import InspectResult

if TYPE_CHECKING:
    from torch import Tensor

_PART_OF_PREFIX = {
    "unet": "UNet",
    "vae": "VAE",
    "text_encoder": "text encoder",
    "text_encoder_2": "second text encoder",
}
_KINDS = {
    "model": "a whole model",
    "unet": "a UNet alone",
    "vae": "a VAE alone",
    "controlnet": "a ControlNet",
    "lora": "a LoRA or one of its relatives",
    "embedding": "a textual inversion embedding",
    "unknown": "nothing that maquette knows",
}

Files = list[tuple[str, Path]]  # what stands before a file's names, and the file


def look(path: Path, with_hashes: bool) -> InspectResult:
    """At a file or folder of weights, or "pocket". Raises MaquetteError when it is missing, broken or dangerous."""
    named = path
    if str(path) == "pocket" and not path.exists():
        from ..families.pocket import WEIGHTS

        path = WEIGHTS
    if not path.exists():
        raise MaquetteError(f"{path} does not exist; give a file or a folder.")
    if (path / "model_index.json").is_file():
        result = _inspect_folder(path, named)
    else:
        result = _inspect_files(path, _files_of(path) if path.is_dir() else [("", path)], with_hashes)
    result.family_tree = ancestry.tree(result.metadata)
    return result


def _inspect_folder(path: Path, named: Path) -> InspectResult:
    from ..families import checkpoint
    from ..families.pocket import POCKET, WEIGHTS

    read = checkpoint.read_folder(path, POCKET if path == WEIGHTS else None)
    channels = int(read.configs["unet"].get("in_channels", 4))
    variant = {4: "base", 8: "instruct-pix2pix", 9: "inpainting"}.get(channels, f"{channels} input channels")
    identity = Identity("model", read.spec.name, variant, "diffusers")
    result = InspectResult(str(named), "", "model", read.spec.name, variant, "diffusers")
    result.prediction_type = read.scheduler.get("prediction_type", "epsilon")
    result.metadata = read.metadata
    for part, tensors in read.parts.items():
        _count(result, tensors, _PART_OF_PREFIX[part])
    result.size_bytes = sum(file.stat().st_size for file in read.files)
    result.hashes = {"content": read.content_hash()}
    result.sentence = _sentence(identity, result)
    return result


def _files_of(folder: Path) -> Files:
    """The weight files of one part of a model, a ControlNet or a PEFT adapter, which are folders too."""
    adapter = peft_folder.parts_of(folder)
    if adapter:
        return [(f"{part}." if part else "", file) for part, file in adapter.items()]
    try:
        return [("", file) for file in folders.weight_files(folder)]
    except MaquetteError as error:
        raise MaquetteError(
            f"{folder} is neither a model folder (model_index.json) nor a part of one; name a file in it."
        ) from error


def _read(files: Files) -> tensor_files.TensorFile:
    """One file, the shards of one, or the networks of an adapter."""
    whole = tensor_files.TensorFile({})
    for prefix, path in files:
        file = tensor_files.look(path)
        whole.tensors |= {prefix + name: tensor for name, tensor in file.tensors.items()}
        whole.metadata |= {key: value for key, value in file.metadata.items() if key not in whole.metadata}
        whole.pickled = whole.pickled or file.pickled
    return whole


def _inspect_files(path: Path, files: Files, with_hashes: bool) -> InspectResult:
    file = _read(files)
    identity = detect.identify({name: tuple(tensor.shape) for name, tensor in file.tensors.items()})
    result = InspectResult(str(path), "", identity.kind, identity.family, identity.variant, identity.layout)
    result.metadata, result.size_bytes = file.metadata, sum(one.stat().st_size for _, one in files)
    prefixes = dict(identity.prefixes)
    for part, tensors in _by_part(file.tensors, prefixes).items():
        _count(result, tensors, part)
    if identity.kind == "model" and identity.family in ("sd1", "sd2", "sdxl"):
        from ..families import checkpoint
        from ..families.prediction import prediction_rule

        single = ldm.split(file.tensors, prefixes)
        result.averaged_weights = ldm.ema_unet(single) is not None
        variant, family = identity.variant, identity.family
        result.prediction_type = prediction_rule(path, family, variant, single.extras, file.metadata)
        if "maquette.configuration" in file.metadata:
            result.family = checkpoint.read(path).spec.name
    if identity.kind == "lora":
        identity = _describe_lora(result, path, file)
    if identity.kind == "embedding":
        vectors = max((t.shape[0] if t.ndim == 2 else 1 for t in file.tensors.values()), default=0)
        result.embedding = {"vectors": vectors, "width": max(t.shape[-1] for t in file.tensors.values())}
    if with_hashes:
        body = None
        if len(files) == 1:
            only = files[0][1]
            header = None if file.pickled else safetensors_header.read_header(only)
            found = hashes.of(only, header)
            body = found.body
            result.hashes = {"sha256": found.sha256, "autov2": found.autov2, "old": found.old, "autov3": found.autov3}
        _look_for_damage(result, file.tensors, body)
    result.sentence = _sentence(identity, result)
    return result


def _by_part(tensors: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, dict[str, Tensor]]:
    """Tensors grouped under a person's names of the parts; what belongs to none is under "other"."""
    groups: dict[str, dict[str, Tensor]] = {}
    ordered = sorted(prefixes.items(), key=lambda item: -len(item[1]))
    for name, tensor in tensors.items():
        part = next((part for part, prefix in ordered if name.startswith(prefix)), None)
        label = _PART_OF_PREFIX[part] if part else "averaged UNet" if name.startswith("model_ema.") else "other"
        groups.setdefault(label, {})[name] = tensor
    return groups


def _count(result: InspectResult, tensors: Mapping[str, Tensor], part: str) -> None:
    numbers = sum(tensor.numel() for tensor in tensors.values())
    result.parts[part] = {"tensors": len(tensors), "parameters": numbers}
    result.tensors += len(tensors)
    result.parameters += numbers
    counts = Counter(result.dtypes)
    for tensor in tensors.values():
        counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    result.dtypes = dict(counts.most_common())


def _describe_lora(result: InspectResult, path: Path, file: tensor_files.TensorFile) -> Identity:
    """What the adapter is; the same reader as that of every other command, so the same refusals."""
    try:
        adapter = adapters.load(path, None if path.is_dir() else file, finite=False)
    except adapter_reading.ForeignAdapterError as error:
        result.family = None
        return Identity("lora", note=f"a LoRA for {error.architecture}")
    result.lora, result.family, problems = inspect_lora.describe(adapter)
    result.problems += problems
    return Identity("lora", result.family)


def _look_for_damage(result: InspectResult, tensors: Mapping[str, Tensor], body: str | None) -> None:
    broken = [name for name, tensor in tensors.items() if not is_finite(tensor)]
    if broken:
        result.problems.append(f"{len(broken)} tensors hold NaN or infinite numbers, for example {broken[0]}.")
    recorded = result.metadata.get("sshs_model_hash")
    if recorded is not None and body is not None and recorded != body:
        result.problems.append("sshs_model_hash in the metadata is not the hash of the file's tensors.")


def _sentence(identity: Identity, result: InspectResult) -> str:
    what = _KINDS[identity.kind]
    if identity.note:
        what = f"{identity.note}, which maquette does not open"
    if result.lora is not None:
        what = result.lora.called
    family = FAMILY_NAMES.get(str(result.family))
    text = f"{Path(result.path).name} is {what}"
    if family:
        text += f" for {family}" if identity.kind != "model" else f": {family}"
    if identity.variant not in ("", "base"):
        text += f", {identity.variant}"
    if result.prediction_type == "v_prediction":
        text += ", v-prediction"
    return text + "."
