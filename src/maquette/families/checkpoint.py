"""A base model as tensors and configurations, before any network is built: what loading and converting share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import MaquetteError
from ..formats import ldm, safetensors, tensor_files
from ..formats.known_hashes import files_sha256
from ..parsing import parse_json
from . import configs, folders
from .base import FamilySpec
from .detect import FAMILY_NAMES, Identity, identify
from .pocket.spec import POCKET, TOKEN_WIDTH
from .prediction import PREDICTIONS, prediction_rule
from .sd.spec import SD1, SD2, SD2_V
from .sdxl.spec import SDXL

Parts = dict[str, dict[str, Tensor]]
EXTRAS = "maquette_extras.safetensors"  # beside model_index.json: what a single file held beyond the parts
FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"  # of diffusers folders whose model predicts velocity


@dataclass
class Checkpoint:
    """parts: "unet", "vae", "text_encoder"[, "text_encoder_2"] -> tensors under diffusers and transformers names.

    Text encoders are without the `text_model.` level. configs: per part. prefixes, extras, metadata: what a single
    file had besides, so that it can be written back as it was. files: the weight files, for the content hash.
    """

    spec: FamilySpec
    parts: Parts
    configs: dict[str, dict[str, Any]]
    scheduler: dict[str, Any]
    source: str
    files: list[Path]
    prefixes: dict[str, str] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    tokenizers: dict[str, Path] = field(default_factory=dict)
    vae_source: str = ""
    vae_hash: str = ""
    told_prediction: str = ""

    def content_hash(self) -> str:
        """sha256 of the file, or over the sha256 of each of the folder's weight files."""
        return files_sha256(self.files)


def read(path: str | Path, prediction_type: str | None = None) -> Checkpoint:
    """Read a diffusers folder or a single file; tensors of .safetensors files are memory-mapped.

    prediction_type: "epsilon", "v_prediction" or "flow" overrides what is found. Raises MaquetteError naming the fault.
    """
    if prediction_type is not None and prediction_type not in PREDICTIONS:
        raise MaquetteError(f"prediction type {prediction_type!r} is unknown; choose epsilon, v_prediction or flow.")
    path = Path(path)
    if not path.exists():
        raise MaquetteError(f'{path} does not exist; give "pocket", a model file or a diffusers model folder.')
    if path.is_dir():
        checkpoint = read_folder(path)
    else:
        checkpoint = read_single_file(path)
    if prediction_type is not None:
        override_prediction(checkpoint, prediction_type)
    return checkpoint


def override_prediction(checkpoint: Checkpoint, prediction_type: str) -> None:
    """Let the model predict what the user says, whatever its file says: "epsilon", "v_prediction" or "flow"."""
    known, family = PREDICTIONS[prediction_type], checkpoint.spec.name
    if known != checkpoint.scheduler.get("prediction_type", "epsilon"):
        checkpoint.told_prediction = known
    if (known == "flow") != (checkpoint.scheduler.get("prediction_type") == "flow"):
        checkpoint.scheduler = configs.scheduler_config(family, known)
    checkpoint.scheduler["prediction_type"] = known
    if family != POCKET.name:
        checkpoint.spec = _spec(family, checkpoint.scheduler)


def read_single_file(path: Path) -> Checkpoint:
    """Read an LDM single file (.safetensors, .ckpt). Configurations come from shapes, or from maquette's own
    metadata.
    """
    file = tensor_files.read(path)
    identity = identify({name: tuple(tensor.shape) for name, tensor in file.tensors.items()})
    prefixes = dict(identity.prefixes)
    _require_base(path, identity, prefixes)
    single = ldm.split(file.tensors, prefixes)
    family = str(identity.family)
    own = own_configuration(path, file.metadata)
    found = own or {
        "configs": derive_configs(single.parts, family, str(path)),
        "scheduler": _scheduler(path, family, identity.variant, single.extras, file.metadata),
    }
    if parts_vae := found["configs"].get("vae"):
        parts_vae["force_upcast"] = bool(parts_vae.get("force_upcast")) and not configs.vae_is_fixed(file.metadata)
    spec = POCKET if own and own.get("family") == "pocket" else _spec(family, found["scheduler"])
    checkpoint = Checkpoint(
        spec,
        single.parts,
        found["configs"],
        found["scheduler"],
        str(path),
        [path],
        prefixes,
        single.extras,
        file.metadata,
    )
    _require_latents(checkpoint)
    return checkpoint


def derive_configs(parts: Mapping[str, Mapping[str, Tensor]], family: str, source: str) -> dict[str, dict[str, Any]]:
    """Configuration of every part from its shapes; MaquetteError when a part is too strange for that."""
    result = {}
    for part, tensors in parts.items():
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        try:
            if part == "unet":
                result[part] = configs.unet_config(shapes, family)
            elif part == "vae":
                result[part] = configs.vae_config(shapes, family)
            else:
                result[part] = configs.text_config(shapes, family, second=part == "text_encoder_2")
        except (KeyError, IndexError, StopIteration) as error:
            raise MaquetteError(f"{source}: its {part} is incomplete or of an unknown build ({error}).") from error
    return result


def read_folder(folder: Path, spec: FamilySpec | None = None) -> Checkpoint:
    """Read a diffusers folder. `spec` is found from the weights unless given."""
    if not (folder / "model_index.json").is_file() and (folder / "config.json").is_file():
        kind = str(folders.read_json(folder / "config.json").get("_class_name"))
        part = {"UNet2DConditionModel": "unet", "AutoencoderKL": "vae"}.get(kind, "")
        raise MaquetteError(
            f"{folder} is one part of a model, not a whole one (no model_index.json){remedy(part, folder)}."
        )
    folders.read_json(folder / "model_index.json")
    if (folder / "text_encoder_2").is_dir() and not (folder / "text_encoder").is_dir():
        raise MaquetteError(f"{folder} {_REFINER}")
    names = ["unet", "vae", "text_encoder"] + (["text_encoder_2"] if (folder / "text_encoder_2").is_dir() else [])
    found = {part: folders.read_json(folder / part / "config.json") for part in names}
    scheduler = folders.read_json(folder / "scheduler" / "scheduler_config.json")
    if scheduler.get("_class_name") == FLOW_SCHEDULER:
        scheduler["prediction_type"] = "flow"
    files = {part: folders.weight_files(folder / part) for part in names}
    parts: Parts = {}
    for part in names:
        tensors: dict[str, Tensor] = {}
        for path in files[part]:
            tensors |= tensor_files.read(path).tensors
        parts[part] = _modern_names(part, tensors)
    shapes = {name: tuple(tensor.shape) for name, tensor in parts["unet"].items()}
    identity = identify(shapes)
    checkpoint = Checkpoint(
        spec or _folder_spec(folder, identity, scheduler, parts),
        parts,
        found,
        {key: value for key, value in scheduler.items() if not key.startswith("_")},
        str(folder),
        [path for part in names for path in files[part]],
        tokenizers={part: path for part in names if (path := folder / _tokenizer_folder(part)).is_dir()},
    )
    if (folder / EXTRAS).is_file():
        _restore_extras(checkpoint, folder / EXTRAS)
    _require_latents(checkpoint)
    return checkpoint


def _tokenizer_folder(part: str) -> str:
    return part.replace("text_encoder", "tokenizer")


def _restore_extras(checkpoint: Checkpoint, path: Path) -> None:
    header = safetensors.read_header(path)
    try:
        records = [parse_json(header.metadata[key], key) for key in ("prefixes", "metadata")]
        if not all(isinstance(one, dict) and all(isinstance(value, str) for value in one.values()) for one in records):
            raise MaquetteError("no table of texts")
    except (KeyError, MaquetteError) as error:
        raise MaquetteError(f"{path} is not as maquette writes it; delete it to go on without.") from error
    checkpoint.prefixes, checkpoint.metadata = records
    checkpoint.extras = safetensors.load(path, header)
    if header.metadata.get("family") == POCKET.name:
        checkpoint.spec = POCKET


def _modern_names(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if part == "vae":
        return {
            (new := ldm.vae_modern_name(name)): tensor[:, :, 0, 0] if new != name and tensor.ndim == 4 else tensor
            for name, tensor in tensors.items()
        }
    if part.startswith("text_encoder"):
        return {n.removeprefix("text_model."): t for n, t in tensors.items() if not n.endswith("position_ids")}
    return dict(tensors)


def latent_factor(vae: Iterable[str]) -> int:
    """Pixels per latent cell of a VAE, from the names of its tensors: each level but the last halves the picture."""
    levels = {match[1] for name in vae if (match := _LEVEL.match(name))}
    return int(2 ** max(0, len(levels) - 1))


_LEVEL = re.compile(r"encoder\.down_blocks\.(\d+)\.")


def _require_latents(checkpoint: Checkpoint) -> None:
    """Refuse a model whose VAE makes latents of another size than its family's."""
    usual = checkpoint.spec.latent_factor
    if "vae" in checkpoint.parts and (found := latent_factor(checkpoint.parts["vae"])) != usual:
        raise MaquetteError(
            f"{checkpoint.source}: its VAE makes one latent cell of {found} x {found} pixels, those of "
            f"{FAMILY_NAMES[checkpoint.spec.name]} one of {usual} x {usual}; maquette cannot use this model."
        )


_REFINER = (
    "is the SDXL refiner, which cannot be used as a base; use the SDXL base model, and this file with it: --refiner."
)


def _require_base(path: Path, identity: Identity, prefixes: Mapping[str, str]) -> None:
    """Refuse by name whatever is not a whole base model."""
    if identity.family == "refiner":
        raise MaquetteError(f"{path} {_REFINER}")
    if identity.kind != "model":
        names = {"unknown": identity.note or "nothing that maquette knows", "lora": "a LoRA", "unet": "a UNet alone"}
        names |= {"vae": "a VAE alone", "controlnet": "a ControlNet", "embedding": "a textual inversion embedding"}
        raise MaquetteError(
            f"{path} is {names[identity.kind]}, not a whole Stable Diffusion model{remedy(identity.kind, path)}."
        )
    if identity.family not in FAMILY_NAMES:
        raise MaquetteError(f"{path} is a diffusion model of a family that maquette does not know.")
    needed = ["unet", "text_encoder"] + (["text_encoder_2"] if identity.family == "sdxl" else [])
    missing = [part for part in needed if part not in prefixes]
    if missing:
        raise MaquetteError(
            f"{path} is a {FAMILY_NAMES[identity.family]} model without its "
            f"{missing[0].replace('_', ' ')}{remedy('unet', path)}."
        )


def remedy(kind: str, path: Path) -> str:
    """How a file that is not a whole model can be used, as the end of a sentence."""
    return {
        "unet": f"; put it into one: maquette convert BASE --unet {path} --to single-file --out NEW.safetensors",
        "vae": f"; use it with one: --base BASE --vae {path}",
        "lora": f"; use it with one: --base BASE --lora-dir {path.parent}, and <lora:{path.stem}:0.8> in the prompt",
    }.get(kind, "")


def own_configuration(path: Path, metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """What `maquette convert` wrote beside the tensors where shapes cannot tell it."""
    if "maquette.configuration" not in metadata:
        return None
    try:
        own = parse_json(metadata["maquette.configuration"], "the configuration")
        if isinstance(own["configs"], dict) and isinstance(own["scheduler"], dict):
            return dict(own)
    except (MaquetteError, KeyError, TypeError) as error:
        raise MaquetteError(f"{path}: the configuration in its metadata is damaged.") from error
    raise MaquetteError(f"{path}: the configuration in its metadata is damaged.")


def _scheduler(
    path: Path, family: str, variant: str, extras: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> dict[str, Any]:
    return configs.scheduler_config(family, prediction_rule(path, family, variant, extras, metadata), "ztsnr" in extras)


def _spec(family: str, scheduler: Mapping[str, Any]) -> FamilySpec:
    if family == "sd2":
        return SD2_V if scheduler.get("prediction_type") == "v_prediction" else SD2
    return {"sd1": SD1, "sdxl": SDXL, "pocket": POCKET}[family]


def _folder_spec(
    folder: Path, identity: Identity, scheduler: Mapping[str, Any], parts: Mapping[str, Mapping[str, Tensor]]
) -> FamilySpec:
    if identity.family == "refiner":
        raise MaquetteError(f"{folder} {_REFINER}")
    if identity.family is None:
        raise MaquetteError(f"{folder}: its unet is not a Stable Diffusion UNet.")
    widths = {tensor.shape[-1] for name, tensor in parts["unet"].items() if name.endswith(".attn2.to_k.weight")}
    if identity.family == "sd1" and widths == {TOKEN_WIDTH} and latent_factor(parts["vae"]) == POCKET.latent_factor:
        return POCKET  # the same architecture, of other sizes
    return _spec(identity.family, scheduler)
