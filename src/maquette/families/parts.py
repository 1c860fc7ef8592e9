"""Single parts out of other files: a VAE or a UNet that takes the place of a model's own."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..errors import MaquetteError
from ..formats import ldm, tensor_files
from ..formats.known_hashes import files_sha256
from . import configs, folders
from .checkpoint import Checkpoint, own_configuration
from .detect import FAMILY_NAMES, Identity, identify, unet_family

_SCALES = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}


def replace_vae(checkpoint: Checkpoint, path: Path) -> None:
    """Put the VAE of another file or folder in the place of the model's own, and note where it came from."""
    tensors, config = read_vae(path, checkpoint.spec.name)
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    if factor != checkpoint.spec.latent_factor or config.get("latent_channels", 4) != 4:
        raise MaquetteError(f"{path} is a VAE of other latents than those of {checkpoint.source}; choose another.")
    checkpoint.parts["vae"], checkpoint.configs["vae"] = tensors, config
    checkpoint.vae_source, checkpoint.vae_hash = str(path), files_sha256(_files(path, "vae"))


def replace_unet(checkpoint: Checkpoint, path: Path) -> None:
    """Put the UNet of a UNet-only file or folder, or of a whole model, in the place of the model's own.

    Raises MaquetteError when it is of another family or was made for another text width.
    """
    tensors = _read_unet(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes == {name: tuple(tensor.shape) for name, tensor in checkpoint.parts["unet"].items()}:
        _put_unet(checkpoint, tensors, checkpoint.configs["unet"])
        return
    family, found = checkpoint.spec.name, unet_family(shapes)
    if found != family:
        family_name = FAMILY_NAMES.get(str(found), "an unknown family")
        raise MaquetteError(f"{path} holds a UNet of {family_name}, but {checkpoint.source} is {FAMILY_NAMES[family]}.")
    try:
        config = configs.unet_config(shapes, family)
    except (KeyError, IndexError, StopIteration) as error:
        raise MaquetteError(f"{path}: its unet is incomplete or of an unknown build ({error}).") from error
    if config["cross_attention_dim"] != checkpoint.configs["unet"]["cross_attention_dim"]:
        raise MaquetteError(f"{path} holds a UNet for text encoders of another width than {checkpoint.source} has.")
    _put_unet(checkpoint, tensors, config)


def _put_unet(checkpoint: Checkpoint, tensors: dict[str, Tensor], config: configs.Config) -> None:
    checkpoint.parts["unet"], checkpoint.configs["unet"] = tensors, config
    checkpoint.extras = {name: t for name, t in checkpoint.extras.items() if not name.startswith("model_ema.")}


def read_vae(path: Path, family: str) -> tuple[dict[str, Tensor], configs.Config]:
    """Tensors and configuration of a VAE: a VAE-only file of either layout, a whole model's file, or a diffusers
    folder. Raises MaquetteError for one of another family, where that can be told.
    """
    if path.is_dir():
        folder = path / "vae" if (path / "vae").is_dir() else path
        config = folders.read_json(folder / "config.json")
        scale = config.get("scaling_factor")
        if family in _SCALES and scale in _SCALES.values() and scale != _SCALES[family]:
            raise MaquetteError(f"{path} is not a VAE for {FAMILY_NAMES[family]}: its latents are scaled by {scale}.")
        return {ldm.vae_modern_name(n): _flat(n, t) for n, t in _tensors(folder).items()}, config
    if not path.is_file():
        raise MaquetteError(f"{path} does not exist; give a VAE's file or folder.")
    file = tensor_files.read(path)
    identity = _identify(file.tensors)
    prefixes = dict(identity.prefixes)
    own = own_configuration(path, file.metadata) or {}
    of = "pocket" if own.get("family") == "pocket" else identity.family
    if identity.kind == "model" and of not in (None, family):
        family_name = FAMILY_NAMES[str(of)]
        raise MaquetteError(
            f"{path} is a model of {family_name}; its VAE does not fit {FAMILY_NAMES.get(family, family)}."
        )
    if identity.kind == "vae" and identity.layout == "diffusers":
        tensors = {ldm.vae_modern_name(name): _flat(name, tensor) for name, tensor in file.tensors.items()}
    elif "vae" in prefixes:
        tensors = ldm.split(file.tensors, {"vae": prefixes["vae"]}).parts["vae"]
    else:
        raise MaquetteError(f"{path} contains no VAE; `maquette inspect` says what it is.")
    try:
        config = configs.vae_config({name: tuple(tensor.shape) for name, tensor in tensors.items()}, family)
    except (KeyError, IndexError) as error:
        raise MaquetteError(f"{path}: its VAE is incomplete or of an unknown build ({error}).") from error
    if own and isinstance(own["configs"].get("vae"), dict):
        config |= own["configs"]["vae"]
    if configs.vae_is_fixed(file.metadata):
        config["force_upcast"] = False
    return tensors, config


def _flat(name: str, tensor: Tensor) -> Tensor:
    """Old folders hold the attention's projections as 1x1 convolutions."""
    return tensor[:, :, 0, 0] if ldm.vae_modern_name(name) != name and tensor.ndim == 4 else tensor


def _read_unet(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        return _tensors(path / "unet" if (path / "unet").is_dir() else path)
    if not path.is_file():
        raise MaquetteError(f"{path} does not exist; give a UNet's file or folder.")
    tensors = tensor_files.read(path).tensors
    identity = _identify(tensors)
    if identity.kind == "unet" and identity.layout == "diffusers":
        return tensors
    if "unet" not in dict(identity.prefixes):
        raise MaquetteError(f"{path} contains no UNet; `maquette inspect` says what it is.")
    return ldm.split(tensors, {"unet": dict(identity.prefixes)["unet"]}).parts["unet"]


def _identify(tensors: dict[str, Tensor]) -> Identity:
    return identify({name: tuple(tensor.shape) for name, tensor in tensors.items()})


def _files(path: Path, part: str) -> list[Path]:
    if path.is_dir():
        return folders.weight_files(path / part if (path / part).is_dir() else path)
    return [path]


def _tensors(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in folders.weight_files(folder):
        tensors |= tensor_files.read(file).tensors
    return tensors
