"""Writing a base model: as a single file (LDM layout, .safetensors or .ckpt) or as a diffusers folder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.dtypes import computed
from ..errors import MaquetteError
from ..files import unfinished
from ..formats import ldm, pickle_writer, safetensors, streaming
from ..formats.streaming import Entry
from ..formats.tokenizer import EMBEDDED
from .checkpoint import EXTRAS, FLOW_SCHEDULER, Checkpoint, derive_configs
from .configs import scheduler_config
from .pocket.spec import POCKET

_PIPELINES = {
    ("sd", 4): "StableDiffusionPipeline",
    ("sd", 9): "StableDiffusionInpaintPipeline",
    ("sd", 8): "StableDiffusionInstructPix2PixPipeline",
    ("sdxl", 4): "StableDiffusionXLPipeline",
    ("sdxl", 9): "StableDiffusionXLInpaintPipeline",
    ("sdxl", 8): "StableDiffusionXLInstructPix2PixPipeline",
}
_CLASSES = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "tokenizer_2": ("transformers", "CLIPTokenizer"),
}


@dataclass(frozen=True)
class Writing:
    """How a model is written: by default its own tensors, by one thread.

    pieces: (part, name, dtype in the file) -> the numbers to write in that tensor's place, in pieces of any shape that
    follow one another; the checkpoint's own tensors say the shapes. memory: bytes that computing one as a whole needs.
    metadata: more of it; finish: the same keys with values that are known only at the end, and as long. beside: other
    work for the threads. on_bytes: see `streaming.write`. widened: (part, name) of those that become 16 bits where they
    have 8 and no dtype is asked for.
    """

    pieces: Callable[[str, str, torch.dtype], Iterable[Tensor]] | None = None
    memory: Callable[[str, str], int] = lambda part, name: 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    finish: Callable[[], Mapping[str, str]] | None = None
    beside: Sequence[Callable[[], None]] = ()
    threads: int = 1
    on_bytes: Callable[[int], None] | None = None
    widened: Container[tuple[str, str]] = ()


def write_single_file(
    checkpoint: Checkpoint,
    path: str | Path,
    dtype: torch.dtype | None = None,
    half_vae: bool = True,
    writing: Writing = Writing(),
) -> None:
    """Write one file with the key names that the model came with, or the family's usual ones. `.ckpt` is a pickle.

    dtype: cast floating-point weights while writing; half_vae False keeps the VAE in its own precision. Where the
    shapes do not tell the configuration (the pocket base), it is put into the metadata, and only .safetensors will do.
    """
    path = Path(path)
    metadata = _metadata(checkpoint) | dict(writing.metadata)
    pickled = path.suffix.lower() == ".ckpt"
    if pickled and "maquette.configuration" in metadata:
        raise MaquetteError(f"{path}: this model's configuration can only be kept in a .safetensors file.")
    prefixes = {**ldm.standard_prefixes(checkpoint.spec.name, checkpoint.parts), **checkpoint.prefixes}
    checkpoint.extras = _marked(checkpoint)
    entries = {
        name: Entry(tensor.dtype, tuple(tensor.shape), partial(_whole, tensor))
        for name, tensor in checkpoint.extras.items()
    }
    for name, place in ldm.places(checkpoint.parts, prefixes).items():
        cast = None if place.part == "vae" and not half_vae else dtype
        entries[name] = _entry(checkpoint, place, cast, writing)
    finish = writing.finish
    (pickle_writer if pickled else streaming).write(
        entries,
        path,
        metadata,
        (lambda: metadata | dict(finish())) if finish else None,
        writing.beside,
        writing.threads,
        writing.on_bytes,
    )


def _marked(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The extras, with the empty tensors by which ComfyUI and A1111 tell v-prediction and zero terminal SNR, and
    without those that are no longer true. SD2's files have no `v_pred`: there v is what programs expect.
    """
    family, scheduler = checkpoint.spec.name, checkpoint.scheduler
    if family == POCKET.name:
        return checkpoint.extras
    v = scheduler.get("prediction_type") == "v_prediction"
    kept = {name: t for name, t in checkpoint.extras.items() if name not in ("v_pred", "ztsnr")}
    wanted = {"v_pred": v and (family != "sd2" or "v_pred" in checkpoint.extras), "ztsnr": _zero_terminal(scheduler)}
    return kept | {name: checkpoint.extras.get(name, torch.empty(0)) for name, true in wanted.items() if true}


def _zero_terminal(scheduler: Mapping[str, Any]) -> bool:
    return bool(scheduler.get("rescale_betas_zero_snr"))


def _whole(tensor: Tensor) -> Iterable[Tensor]:
    return (tensor,)


def _entry(checkpoint: Checkpoint, place: ldm.Place, dtype: torch.dtype | None, writing: Writing) -> Entry:
    """What stands in a file at one place of it."""
    own = [checkpoint.parts[place.part][name] for name in place.names]
    stored = dtype if dtype is not None and own[0].is_floating_point() else own[0].dtype
    if dtype is None and any((place.part, name) in writing.widened for name in place.names):
        stored = computed(stored)
    shape = place.shape([tensor.shape for tensor in own])
    pieces_of = writing.pieces or (lambda part, name, dtype: (checkpoint.parts[part][name],))

    def pieces() -> Iterator[Tensor]:
        for name, one in zip(place.names, own, strict=True):
            found = pieces_of(place.part, name, stored)
            if place.form == "transposed":
                yield torch.cat([piece.reshape(-1) for piece in found]).reshape(one.shape).T
            else:
                yield from found

    return Entry(stored, shape, pieces, sum(writing.memory(place.part, name) for name in place.names))


def _metadata(checkpoint: Checkpoint) -> dict[str, str]:
    predicts = checkpoint.scheduler.get("prediction_type", "epsilon")
    metadata = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": checkpoint.spec.architecture,
        "modelspec.resolution": f"{checkpoint.spec.native_size}x{checkpoint.spec.native_size}",
        **checkpoint.metadata,
        "modelspec.prediction_type": "v" if predicts == "v_prediction" else predicts,
    }
    metadata.pop("maquette.configuration", None)
    metadata.pop("maquette.vae_fp16", None)
    if checkpoint.spec.name == "sdxl" and checkpoint.configs.get("vae", {}).get("force_upcast") is False:
        metadata["maquette.vae_fp16"] = "yes"
    if not _is_derivable(checkpoint):
        own = {"family": checkpoint.spec.name, "configs": checkpoint.configs, "scheduler": checkpoint.scheduler}
        metadata["maquette.configuration"] = json.dumps(own, sort_keys=True)
    return metadata


def _is_derivable(checkpoint: Checkpoint) -> bool:
    """Whether a reader finds the same configuration from the shapes, `modelspec.prediction_type` and `ztsnr`."""
    family = checkpoint.spec.name
    if family == POCKET.name:
        return False
    derived = derive_configs(checkpoint.parts, family, checkpoint.source)
    silent = {
        "_class_name",
        "sample_size",
        "architectures",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "force_upcast",
    }
    for part, config in derived.items():
        actual = checkpoint.configs[part]
        if actual.get("norm_num_groups", 32) != 32 or actual.get("num_attention_heads") not in (
            None,
            config.get("num_attention_heads"),
        ):
            return False
        count = len(config.get("block_out_channels", [])) or 1
        for name, value in config.items():
            if name not in silent and name in actual and _listed(actual[name], count) != _listed(value, count):
                return False
    scheduler = checkpoint.scheduler
    usual = scheduler_config(family, str(scheduler.get("prediction_type", "epsilon")), _zero_terminal(scheduler))
    names = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "rescale_betas_zero_snr", "shift")
    return all(scheduler.get(name, usual[name]) == usual[name] for name in names if name in usual)


def _listed(value: Any, count: int) -> Any:
    return list(value) if isinstance(value, list | tuple) else [value] * count if isinstance(value, int) else value


def write_folder(
    checkpoint: Checkpoint,
    folder: str | Path,
    dtype: torch.dtype | None = None,
    half_vae: bool = True,
    writing: Writing = Writing(),
) -> None:
    """Write a diffusers folder. It appears complete or not at all; an existing folder with files in it is refused.

    Text encoders get the `text_model.` level, which every version of transformers reads. What the folder layout has
    no place for goes into `maquette_extras.safetensors`, so that a single file can be restored exactly.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MaquetteError(f"{folder} exists already and is not empty; choose another name with --out.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=unfinished(folder), dir=folder.parent) as temporary:
        root = Path(temporary) / "model"
        root.mkdir()
        write_configuration(checkpoint, root)
        for number, part in enumerate(checkpoint.parts):
            own = replace(writing, beside=() if number else writing.beside)
            _write_weights(checkpoint, root / part, part, None if part == "vae" and not half_vae else dtype, own)
        if checkpoint.extras or checkpoint.prefixes or writing.metadata or checkpoint.spec.name == "pocket":
            written = checkpoint.metadata | dict(writing.finish() if writing.finish else writing.metadata)
            notes = {"family": checkpoint.spec.name} | {
                "prefixes": json.dumps(checkpoint.prefixes),
                "metadata": json.dumps(written),
            }
            safetensors.save(checkpoint.extras, root / EXTRAS, notes)
        if folder.exists():
            folder.rmdir()
        os.replace(root, folder)


def write_configuration(checkpoint: Checkpoint, root: Path) -> None:
    """All of a diffusers folder except weights: what diffusers needs beside a single file to open it offline."""
    for part in checkpoint.parts:
        _write_json(root / part / "config.json", checkpoint.configs[part])
        if part.startswith("text_encoder"):
            _write_tokenizer(root / part.replace("text_encoder", "tokenizer"), checkpoint, part)
    usual = FLOW_SCHEDULER if checkpoint.scheduler.get("prediction_type") == "flow" else "DDIMScheduler"
    scheduler = {"_class_name": usual, **checkpoint.scheduler}
    _write_json(root / "scheduler" / "scheduler_config.json", scheduler)
    _write_json(root / "model_index.json", _model_index(checkpoint, scheduler["_class_name"]))


def _write_weights(
    checkpoint: Checkpoint, folder: Path, part: str, dtype: torch.dtype | None, writing: Writing
) -> None:
    text = part.startswith("text_encoder")
    entries = {}
    for name in checkpoint.parts[part]:
        written = f"text_model.{name}" if text and not name.startswith("text_projection") else name
        entries[written] = _entry(checkpoint, ldm.Place(part, (name,)), dtype, writing)
    file = folder / ("model.safetensors" if text else "diffusion_pytorch_model.safetensors")
    streaming.write(entries, file, {"format": "pt"}, None, writing.beside, writing.threads, writing.on_bytes)


def _write_tokenizer(folder: Path, checkpoint: Checkpoint, part: str) -> None:
    """The model's own tokenizer files where it has them, else the embedded CLIP vocabulary with the family's
    padding.
    """
    own = checkpoint.tokenizers.get(part)
    if own is not None:
        shutil.copytree(own, folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in _clip_tokenizer(checkpoint.spec.name == "sd2" or part == "text_encoder_2").items():
        (folder / name).write_text(text, encoding="utf-8")


@cache
def _clip_tokenizer(pads_with_zero: bool) -> dict[str, str]:
    """Names and contents of the embedded tokenizer's files."""
    vocabulary = json.loads(EMBEDDED.read_text(encoding="utf-8"))
    facts = json.loads((EMBEDDED.parent / "tokenizer_config.json").read_text(encoding="utf-8"))
    if pads_with_zero:
        vocabulary["padding"] |= {"pad_id": 0, "pad_token": "!"}
        facts["pad_token"] = "!"
    return {"tokenizer.json": _json(vocabulary), "tokenizer_config.json": _json(facts)}


def _model_index(checkpoint: Checkpoint, scheduler: str) -> dict[str, Any]:
    family = "sdxl" if checkpoint.spec.name == "sdxl" else "sd"
    channels = int(checkpoint.configs["unet"].get("in_channels", 4))
    index: dict[str, Any] = {"_class_name": _PIPELINES.get((family, channels), _PIPELINES[family, 4])}
    index["scheduler"] = ["diffusers", scheduler]
    for part in checkpoint.parts:
        index[part] = list(_CLASSES[part])
        if part.startswith("text_encoder"):
            tokenizer = part.replace("text_encoder", "tokenizer")
            index[tokenizer] = list(_CLASSES[tokenizer])
    empty = ["feature_extractor", "image_encoder"] + ([] if family == "sdxl" else ["safety_checker"])
    index |= {name: [None, None] for name in empty}
    if family == "sdxl":
        index["force_zeros_for_empty_prompt"] = True
    else:
        index["requires_safety_checker"] = False
    return index


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_json(content), encoding="utf-8")


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2 if len(content) < 200 else None, ensure_ascii=False, sort_keys=True) + "\n"
