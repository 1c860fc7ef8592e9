"""ControlNets: a folder or a single file of either layout as diffusers' ControlNetModel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MaquetteError
from ..formats import controlnet as layout
from ..formats import tensor_files
from . import folders, modules
from .configs import Shapes, unet_config
from .detect import FAMILY_NAMES, identify, unet_family
from .pocket.spec import CONTROLNETS, POCKET

NAMED = {"pocket-canny": CONTROLNETS / "canny"}
"""Those inside the package, by the name that stands for a file."""
_CROSS_ATTENTION = {"768": "sd1", "1024": "sd2", "2048": "sdxl"}
_POCKET_WIDTHS = 3  # of its hint, a quarter as large at the end as at first; all others' are an eighth
_ONLY_UNET = ("out_channels", "up_block_types", "sample_size")


@dataclass(frozen=True)
class ControlNet:
    """A loaded ControlNet. module: diffusers' ControlNetModel, frozen, in eval mode; family: of the bases it fits."""

    module: nn.Module
    family: str
    source: str

    def require_family(self, family: str) -> None:
        """Raise MaquetteError unless a base of `family` can be steered by it."""
        if family != self.family:
            raise MaquetteError(
                f"{self.source} is a ControlNet for {FAMILY_NAMES[self.family]}, which does not fit a base of "
                f"{FAMILY_NAMES.get(family, family)}; choose one made for that family."
            )


def load(path: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> ControlNet:
    """Open a ControlNet for SD1, SD2, SDXL or pocket: a diffusers folder, a file with LDM or diffusers names, or one of
    `NAMED`.

    Raises MaquetteError, naming the file, for anything else and for relatives that are not ControlNetModels.
    """
    source = str(path)
    path = Path(path)
    if not path.exists():
        path = NAMED.get(source, path)
    if not path.exists():
        own = ", ".join(NAMED)
        raise MaquetteError(f"{path} does not exist; give a ControlNet's file or folder, or {own} for pocket.")
    if path.is_dir():
        tensors, config = _read_folder(path)
        family = unet_family(_shapes(tensors)) or _CROSS_ATTENTION.get(str(config.get("cross_attention_dim")))
    else:
        tensors, family = _read_file(path)
        config = controlnet_config(_shapes(tensors), family, str(path)) if family in FAMILY_NAMES else {}
    if family == "sd1" and len(config.get("conditioning_embedding_out_channels", ())) == _POCKET_WIDTHS:
        family = POCKET.name
    if family not in ("sd1", "sd2", "sdxl", POCKET.name):
        raise MaquetteError(f"{path} is a ControlNet of a family that maquette does not know.")
    module = modules.fill(modules.build_controlnet(config), tensors, str(path), dtype, device)
    return ControlNet(module, family, source)


def controlnet_config(shapes: Shapes, family: str, source: str) -> dict[str, Any]:
    """ControlNetModel configuration from diffusers names and shapes: that of the UNet's first half, and the hint's."""
    try:
        config = unet_config({**shapes, "conv_out.weight": (4,)}, family)
        hint = "controlnet_cond_embedding"
        widths = [shapes[f"{hint}.conv_in.weight"][0]]
        blocks = sum(name.startswith(f"{hint}.blocks.") and name.endswith(".weight") for name in shapes)
        widths += [shapes[f"{hint}.blocks.{index}.weight"][0] for index in range(1, blocks, 2)]
        channels = shapes[f"{hint}.conv_in.weight"][1]
    except (KeyError, IndexError, StopIteration) as error:
        raise MaquetteError(f"{source}: its ControlNet is incomplete or of an unknown build ({error}).") from error
    kept = {key: value for key, value in config.items() if key not in _ONLY_UNET}
    sizes = {"conditioning_channels": channels, "conditioning_embedding_out_channels": widths}
    return kept | sizes | {"_class_name": "ControlNetModel"}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _read_folder(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    config = folders.read_json(path / "config.json")
    kind = config.get("_class_name", "ControlNetModel")
    if kind != "ControlNetModel":
        raise MaquetteError(f"{path} holds a {kind}, not a ControlNet.")
    tensors: dict[str, Tensor] = {}
    for file in folders.weight_files(path):
        tensors |= tensor_files.read(file).tensors
    return tensors, config


def _read_file(path: Path) -> tuple[dict[str, Tensor], str | None]:
    file = tensor_files.read(path)
    identity = identify(_shapes(file.tensors))
    if identity.kind != "controlnet":
        raise MaquetteError(f"{path} is not a ControlNet; `maquette inspect` says what it is.")
    if identity.note:
        raise MaquetteError(f"{path} is {identity.note}, which maquette does not open; use the full ControlNet.")
    try:
        return layout.read(file.tensors), identity.family
    except ValueError as error:
        raise MaquetteError(f"{path}: its ControlNet is of an unknown build ({error}).") from error
