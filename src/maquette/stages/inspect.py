"""`maquette inspect`: what a file or folder is, in words and figures. Reads only, runs nothing that the file
contains.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import StageConfig
from ..errors import MaquetteError
from ..families import checkpoint, detect, folders
from ..families.detect import FAMILY_NAMES, Identity
from ..families.pocket import POCKET, WEIGHTS
from ..formats import adapters, hashes, ldm, safetensors, tensor_files
from ..run import Event, Listener, ignore

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


class InspectConfig(StageConfig):
    """What `maquette inspect` looks at."""

    path: Path
    """File or diffusers folder."""
    hashes: bool = True
    """Compute hashes and look for damaged numbers, which reads the whole file."""


@dataclass
class LoraFacts:
    """An adapter: its method, ranks and alphas with how many modules have them, and how well it fits its family."""

    method: str
    ranks: dict[str, int]
    alphas: dict[str, int]
    modules: int
    matched: int
    unmatched: list[str]
    trigger_words: list[str]


@dataclass
class InspectResult:
    """Everything found. Fields that do not apply are empty or None."""

    path: str
    sentence: str
    kind: str
    family: str | None = None
    variant: str = ""
    layout: str = ""
    prediction_type: str | None = None
    parts: dict[str, dict[str, int]] = field(default_factory=dict)
    dtypes: dict[str, int] = field(default_factory=dict)
    tensors: int = 0
    parameters: int = 0
    averaged_weights: bool = False
    size_bytes: int = 0
    hashes: dict[str, str | None] = field(default_factory=dict)
    lora: LoraFacts | None = None
    embedding: dict[str, int] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def run(config: InspectConfig, on_event: Listener = ignore) -> InspectResult:
    """Look at a file or folder. Raises MaquetteError when it is missing, broken or dangerous."""
    path = config.path
    if str(path) == "pocket" and not path.exists():
        path = WEIGHTS
    if not path.exists():
        raise MaquetteError(f"{path} does not exist; give a file or a folder.")
    if (path / "model_index.json").is_file():
        result = _inspect_folder(path, config.path)
    else:
        files = _files_of(path) if path.is_dir() else [path]
        result = _inspect_files(path, files, config.hashes)
    on_event(Event("done", {"path": str(path)}))
    return result


def _inspect_folder(path: Path, named: Path) -> InspectResult:
    read = checkpoint.read_folder(path, POCKET if path == WEIGHTS else None)
    channels = int(read.configs["unet"].get("in_channels", 4))
    variant = {4: "base", 8: "instruct-pix2pix", 9: "inpainting"}.get(channels, f"{channels} input channels")
    identity = Identity("model", read.spec.name, variant, "diffusers")
    result = InspectResult(str(named), "", "model", read.spec.name, variant, "diffusers")
    result.prediction_type = read.scheduler.get("prediction_type", "epsilon")
    for part, tensors in read.parts.items():
        _count(result, tensors, _PART_OF_PREFIX[part])
    result.size_bytes = sum(file.stat().st_size for file in read.files)
    result.hashes = {"content": read.content_hash()}
    result.sentence = _sentence(identity, result)
    return result


def _files_of(folder: Path) -> list[Path]:
    """The weight files of one part of a model, a ControlNet or a PEFT adapter, which are folders too."""
    adapter = folder / "adapter_model.safetensors"
    if adapter.is_file():
        return [adapter]
    try:
        return folders.weight_files(folder)
    except MaquetteError as error:
        raise MaquetteError(
            f"{folder} is neither a model folder (model_index.json) nor a part of one; name a file in it."
        ) from error


def _read(files: list[Path]) -> tensor_files.TensorFile:
    """One file, or the shards of one."""
    whole = tensor_files.read(files[0])
    for path in files[1:]:
        whole.tensors |= tensor_files.read(path).tensors
    return whole


def _inspect_files(path: Path, files: list[Path], with_hashes: bool) -> InspectResult:
    file = _read(files)
    identity = detect.identify({name: tuple(tensor.shape) for name, tensor in file.tensors.items()})
    result = InspectResult(str(path), "", identity.kind, identity.family, identity.variant, identity.layout)
    result.metadata, result.size_bytes = file.metadata, sum(one.stat().st_size for one in files)
    prefixes = dict(identity.prefixes)
    for part, tensors in _by_part(file.tensors, prefixes).items():
        _count(result, tensors, part)
    if identity.kind == "model" and identity.family in ("sd1", "sd2", "sdxl"):
        single = ldm.split(file.tensors, prefixes)
        result.averaged_weights = ldm.ema_unet(single) is not None
        variant, family = identity.variant, identity.family
        result.prediction_type = checkpoint.prediction_rule(path, family, variant, single.extras, file.metadata)
        if "maquette.configuration" in file.metadata:
            result.family = checkpoint.read(path).spec.name
    if identity.kind == "lora":
        _describe_lora(result, file)
    if identity.kind == "embedding":
        vectors = max((t.shape[0] if t.ndim == 2 else 1 for t in file.tensors.values()), default=0)
        result.embedding = {"vectors": vectors, "width": max(t.shape[-1] for t in file.tensors.values())}
    if with_hashes:
        body = None
        if len(files) == 1:
            header = None if file.pickled else safetensors.read_header(files[0])
            found = hashes.of(files[0], header)
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


def _describe_lora(result: InspectResult, file: tensor_files.TensorFile) -> None:
    """Method, ranks, and which modules the family knows."""
    from ..families import kohya_names

    adapter = adapters.from_state_dict(file.tensors, file.metadata, result.path)
    families = [adapter.family] if adapter.family != "unknown" else ["sd1", "sd2", "sdxl", "pocket"]
    known = {family: {key.partition(".")[0] for key in kohya_names(family, conv=True)} for family in families}
    fits = {family: [name for name in adapter.modules if name in names] for family, names in known.items()}
    best = max(fits, key=lambda family: len(fits[family]))
    result.family = adapter.family if adapter.family != "unknown" else best if fits[best] else None
    ranks = Counter(str(module.rank) for module in adapter.modules.values() if module.rank is not None)
    alphas = Counter(f"{module.alpha:g}" for module in adapter.modules.values() if module.alpha is not None)
    unmatched = sorted(set(adapter.modules) - set(fits[best]))
    result.lora = LoraFacts(
        adapter.method,
        dict(ranks.most_common()),
        dict(alphas.most_common()),
        len(adapter.modules),
        len(fits[best]),
        unmatched,
        trigger_words(file.metadata),
    )
    if unmatched:
        result.problems.append(
            f"{len(unmatched)} of {len(adapter.modules)} modules are not layers of "
            f"{FAMILY_NAMES.get(str(result.family), 'any family')}, for example {unmatched[0]}."
        )


def trigger_words(metadata: Mapping[str, str]) -> list[str]:
    """Words that the file itself names as its trigger, else the tags that stand in nearly every training caption."""
    phrase = metadata.get("modelspec.trigger_phrase", "").strip()
    if phrase:
        return [word.strip() for word in phrase.split(",") if word.strip()]
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", "{}"))
        counts: Counter[str] = Counter()
        for tags in folders.values():
            counts.update({str(tag).strip(): int(count) for tag, count in tags.items()})
    except (ValueError, TypeError, AttributeError):
        return []
    most = max(counts.values(), default=0)
    return [tag for tag, count in counts.most_common(3) if count >= 0.9 * most]


def _look_for_damage(result: InspectResult, tensors: Mapping[str, Tensor], body: str | None) -> None:
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not _finite(tensor)]
    if broken:
        result.problems.append(f"{len(broken)} tensors hold NaN or infinite numbers, for example {broken[0]}.")
    told = result.metadata.get("sshs_model_hash")
    if told is not None and body is not None and told != body:
        result.problems.append("sshs_model_hash in the metadata is not the hash of the file's tensors.")


def _finite(tensor: Tensor) -> bool:
    if tensor.dtype.itemsize == 1:  # 8-bit floats have no isfinite
        tensor = tensor.to(torch.float16)
    return bool(torch.isfinite(tensor).all())


def _sentence(identity: Identity, result: InspectResult) -> str:
    what = _KINDS[identity.kind]
    if identity.note:
        what = f"{identity.note}, which maquette does not open"
    if result.lora is not None:
        what = f"a {result.lora.method} adapter"
    family = FAMILY_NAMES.get(str(result.family))
    text = f"{Path(result.path).name} is {what}"
    if family:
        text += f" for {family}" if identity.kind != "model" else f": {family}"
    if identity.variant not in ("", "base"):
        text += f", {identity.variant}"
    if result.prediction_type == "v_prediction":
        text += ", v-prediction"
    return text + "."
