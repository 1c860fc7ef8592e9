"""Networks that enlarge pictures: ESRGAN's RRDBNet in its three layouts, and Real-ESRGAN's compact SRVGG.

ESRGAN arXiv 1809.00219 (residual in residual dense blocks, figure 4), Real-ESRGAN arXiv 2107.10833.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MaquetteError
from ..formats import tensor_files
from . import modules

_RESIDUAL = 0.2  # beta of ESRGAN, section 3.1

# What is built otherwise, by a part of a name that only it has.
_STRANGERS = {
    ".conv1x1.": "an ESRGAN+",
    "overlap_attn.": "a HAT",
    ".attn.attns.": "a DAT",
    "residual_group.blocks.": "a SwinIR",
    "residual_layer.": "an OmniSR",
    "block_1.c1_r.": "a SPAN",
    "first_conv.": "a network of another kind",
    "stylegan_decoder.": "a GFPGAN (it mends faces)",
}


@dataclass(frozen=True)
class Upscaler:
    """A loaded network, frozen: pictures (B, 3, H, W) in [0, 1] -> (B, 3, scale H, scale W)."""

    module: nn.Module
    scale: int
    source: str


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees all before it; a fifth of the result is added to x."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for i in range(1, 5):
            setattr(self, f"conv{i}", nn.Conv2d(width + (i - 1) * growth, growth, 3, padding=1))
        self.conv5 = nn.Conv2d(width + 4 * growth, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        seen = x
        for i in range(1, 5):
            seen = torch.cat([seen, _leaky(getattr(self, f"conv{i}")(seen))], dim=1)
        result: Tensor = x + _RESIDUAL * self.conv5(seen)
        return result


class ResidualBlock(nn.Module):
    """Three dense blocks; a fifth of the result is added to x."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        result: Tensor = x + _RESIDUAL * self.rdb3(self.rdb2(self.rdb1(x)))
        return result


class RRDBNet(nn.Module):
    """ESRGAN's generator, under Real-ESRGAN's names.

    doublings: how often it doubles the size. folded: pixels of a side that it takes together first, which Real-ESRGAN's
    networks for smaller scales do.
    """

    def __init__(self, width: int, growth: int, blocks: int, doublings: int, folded: int = 1) -> None:
        super().__init__()
        self.folded, self.scale = folded, 2**doublings // folded
        self.conv_first = nn.Conv2d(3 * folded**2, width, 3, padding=1)
        self.body = nn.ModuleList(ResidualBlock(width, growth) for _ in range(blocks))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        for i in range(1, doublings + 1):
            setattr(self, f"conv_up{i}", nn.Conv2d(width, width, 3, padding=1))
        self.doublings = doublings
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, scale H, scale W); sides that do not divide are filled up."""
        height, width = x.shape[-2:]
        if self.folded > 1:
            x = F.pad(x, (0, -width % self.folded, 0, -height % self.folded), "reflect")
            x = F.pixel_unshuffle(x, self.folded)
        first = y = self.conv_first(x)
        for block in self.body:
            y = block(y)
        y = first + self.conv_body(y)
        for i in range(1, self.doublings + 1):
            y = _leaky(getattr(self, f"conv_up{i}")(F.interpolate(y, scale_factor=2, mode="nearest")))
        out: Tensor = self.conv_last(_leaky(self.conv_hr(y)))
        return out[:, :, : height * self.scale, : width * self.scale]


class CompactNet(nn.Module):
    """SRVGGNetCompact: convolutions and PReLUs at the small size, then the pixels of a square out of channels."""

    def __init__(self, width: int, layers: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        widths = [3, *[width] * layers]
        self.body = nn.ModuleList()
        for before, after in pairwise(widths):
            self.body += [nn.Conv2d(before, after, 3, padding=1), nn.PReLU(after)]
        self.body.append(nn.Conv2d(width, 3 * scale**2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, scale H, scale W)."""
        y = x
        for layer in self.body:
            y = layer(y)
        return F.pixel_shuffle(y, self.scale) + F.interpolate(x, scale_factor=float(self.scale), mode="nearest")


def load(path: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Upscaler:
    """Open an upscaler's file, .pth (read without running anything in it) or .safetensors.

    Raises MaquetteError, naming the file, for anything else, by name where it is a network of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise MaquetteError(f"{path} does not exist; give an upscaler's file (ESRGAN, .pth or .safetensors).")
    tensors = _unwrapped(tensor_files.read(path).tensors)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if stranger := next((what for mark, what in _STRANGERS.items() if any(mark in name for name in shapes)), None):
        raise MaquetteError(f"{path} is {stranger}, which maquette does not run; take an ESRGAN or Real-ESRGAN model.")
    try:
        if rename := _layout(shapes):
            tensors = {rename(name): tensor for name, tensor in tensors.items()}
            build = _rrdb({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        elif "body.0.weight" in shapes and "body.1.weight" in shapes:
            build = _compact(shapes)
        else:
            raise MaquetteError(f"{path} is no upscaler that maquette knows; take an ESRGAN or Real-ESRGAN model.")
    except (KeyError, IndexError, ValueError) as error:
        raise MaquetteError(f"{path}: its upscaler is incomplete or of an unknown build ({error}).") from error
    with modules.unfilled():
        module = build()
    scale = int(cast(Any, module).scale)
    return Upscaler(modules.fill(module, tensors, str(path), dtype, device), scale, str(path))


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the level that BasicSR puts around a network: the averaged weights where there are any."""
    for level in ("params_ema.", "params."):
        if any(name.startswith(level) for name in tensors):
            return {n.removeprefix(level): t for n, t in tensors.items() if n.startswith(level)}
    return dict(tensors)


def _layout(shapes: Mapping[str, tuple[int, ...]]) -> Callable[[str], str] | None:
    """How an RRDBNet's names become those of Real-ESRGAN; None for a file that is none."""
    if "conv_first.weight" in shapes and "conv_body.weight" in shapes:
        return lambda name: name
    if "conv_first.weight" in shapes and "trunk_conv.weight" in shapes:
        return _from_basicsr
    if "model.0.weight" in shapes and any(".sub." in name for name in shapes):
        last = sorted({int(m[1]) for name in shapes if (m := re.match(r"model\.(\d+)\.(?:weight|bias)$", name))})
        names = ["conv_first", *(f"conv_up{i}" for i in range(1, len(last) - 2)), "conv_hr", "conv_last"]
        places = dict(zip(last, names, strict=True))
        return lambda name: _from_first(name, places)
    return None


def _from_basicsr(name: str) -> str:
    """`RRDB_trunk.3.RDB1.conv1.weight`, `trunk_conv`, `upconv1`, `HRconv`: the names of ESRGAN's second publication."""
    name = re.sub(r"^RRDB_trunk\.(\d+)\.RDB(\d)\.", r"body.\1.rdb\2.", name)
    return re.sub(
        r"^upconv(\d)\.", r"conv_up\1.", name.replace("trunk_conv.", "conv_body.").replace("HRconv.", "conv_hr.")
    )


def _from_first(name: str, places: Mapping[int, str]) -> str:
    """`model.1.sub.3.RDB1.conv1.0.weight`, `model.3.weight`: its first names; places: of convolutions by number."""
    if match := re.fullmatch(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.(weight|bias)", name):
        return f"body.{match[1]}.rdb{match[2]}.conv{match[3]}.{match[4]}"
    if match := re.fullmatch(r"model\.1\.sub\.\d+\.(weight|bias)", name):
        return f"conv_body.{match[1]}"
    match = re.fullmatch(r"model\.(\d+)\.(weight|bias)", name)
    if match is None:
        raise ValueError(name)
    return f"{places[int(match[1])]}.{match[2]}"


def _rrdb(shapes: Mapping[str, tuple[int, ...]]) -> Callable[[], nn.Module]:
    width, inside = shapes["conv_first.weight"][:2]
    growth = shapes["body.0.rdb1.conv1.weight"][0]
    blocks = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("body."))
    doublings = sum(name.startswith("conv_up") and name.endswith(".weight") for name in shapes)
    folded = math.isqrt(inside // 3)
    if 3 * folded**2 != inside or folded > 2**doublings:
        raise ValueError(f"{inside} channels at its beginning")
    return lambda: RRDBNet(width, growth, blocks, doublings, folded)


def _compact(shapes: Mapping[str, tuple[int, ...]]) -> Callable[[], nn.Module]:
    width = shapes["body.0.weight"][0]
    last = max(int(name.split(".")[1]) for name in shapes)
    scale = math.isqrt(shapes[f"body.{last}.weight"][0] // 3)
    return lambda: CompactNet(width, last // 2, scale)
