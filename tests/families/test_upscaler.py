"""Upscalers: the three layouts of ESRGAN's files, wrapped or not, the compact network, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from maquette.errors import MaquetteError
from maquette.families import upscaler
from maquette.formats import safetensors

Tensors = dict[str, Tensor]


def weights(doublings: int = 2, width: int = 8, growth: int = 4, blocks: int = 2, inside: int = 3) -> Tensors:
    """A random RRDBNet under Real-ESRGAN's names."""
    random = torch.Generator().manual_seed(0)
    shapes = {"conv_first": (width, inside), "conv_body": (width, width), "conv_hr": (width, width)}
    shapes |= {f"conv_up{i + 1}": (width, width) for i in range(doublings)} | {"conv_last": (3, width)}
    for block in range(blocks):
        for dense in (1, 2, 3):
            for i in range(1, 6):
                out = growth if i < 5 else width
                shapes[f"body.{block}.rdb{dense}.conv{i}"] = (out, width + (i - 1) * growth)
    made: Tensors = {}
    for name, (out, into) in shapes.items():
        made[f"{name}.weight"] = torch.randn(out, into, 3, 3, generator=random) * 0.15
        made[f"{name}.bias"] = torch.randn(out, generator=random) * 0.1
    return made


def second_names(tensors: Tensors) -> Tensors:
    """ESRGAN's own names of its second publication."""

    def rename(name: str) -> str:
        name = re.sub(r"^body\.(\d+)\.rdb(\d)", r"RRDB_trunk.\1.RDB\2", name)
        name = name.replace("conv_body", "trunk_conv").replace("conv_hr", "HRconv")
        return re.sub(r"^conv_up(\d)", r"upconv\1", name)

    return {rename(name): tensor for name, tensor in tensors.items()}


def first_names(tensors: Tensors, doublings: int, blocks: int = 2) -> Tensors:
    """Of its first: numbers in a row of layers, with a doubling before and an activation behind each convolution."""
    places = {"conv_first": 0, "conv_body": -1, "conv_hr": 3 * doublings + 2, "conv_last": 3 * doublings + 4}
    places |= {f"conv_up{i}": 3 * i for i in range(1, doublings + 1)}

    def rename(name: str) -> str:
        if match := re.fullmatch(r"body\.(\d+)\.rdb(\d)\.conv(\d)\.(\w+)", name):
            return f"model.1.sub.{match[1]}.RDB{match[2]}.conv{match[3]}.0.{match[4]}"
        head, _, kind = name.rpartition(".")
        return f"model.1.sub.{blocks}.{kind}" if head == "conv_body" else f"model.{places[head]}.{kind}"

    return {rename(name): tensor for name, tensor in tensors.items()}


def expected(t: Tensors, x: Tensor, doublings: int) -> Tensor:
    """The paper's network, written out for two blocks."""

    def conv(name: str, y: Tensor) -> Tensor:
        return F.conv2d(y, t[f"{name}.weight"], t[f"{name}.bias"], padding=1)

    def act(y: Tensor) -> Tensor:
        return torch.where(y > 0, y, 0.2 * y)

    first = y = conv("conv_first", x)
    for block in range(2):
        begun = y
        for dense in (1, 2, 3):
            name = f"body.{block}.rdb{dense}.conv"
            x1 = act(conv(name + "1", y))
            x2 = act(conv(name + "2", torch.cat([y, x1], 1)))
            x3 = act(conv(name + "3", torch.cat([y, x1, x2], 1)))
            x4 = act(conv(name + "4", torch.cat([y, x1, x2, x3], 1)))
            y = y + 0.2 * conv(name + "5", torch.cat([y, x1, x2, x3, x4], 1))
        y = begun + 0.2 * y
    y = first + conv("conv_body", y)
    for i in range(1, doublings + 1):
        y = act(conv(f"conv_up{i}", y.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    return conv("conv_last", act(conv("conv_hr", y)))


def picture(height: int = 10, width: int = 12) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("doublings", [0, 1, 2, 3])
@pytest.mark.parametrize("layout", ["real", "second", "first"])
def test_layouts_of_every_scale(tmp_path: Path, doublings: int, layout: str) -> None:
    own = weights(doublings)
    named = {"real": own, "second": second_names(own), "first": first_names(own, doublings)}[layout]
    safetensors.save(named, tmp_path / "up.safetensors")
    made = upscaler.load(tmp_path / "up.safetensors")
    assert made.scale == 2**doublings and not any(p.requires_grad for p in made.module.parameters())
    assert made.module.state_dict().keys() == own.keys()
    x = picture()
    assert torch.allclose(made.module(x), expected(own, x, doublings), atol=1e-5)


@pytest.mark.parametrize("inside, folded", [(12, 2), (48, 4)])
def test_networks_that_take_pixels_together_first(tmp_path: Path, inside: int, folded: int) -> None:
    own = weights(2, inside=inside)
    torch.save({"params_ema": own, "params": {n: t * 0 for n, t in own.items()}}, tmp_path / "x.pth")
    made = upscaler.load(tmp_path / "x.pth")
    assert made.scale == 4 // folded
    x = picture(11, 13)
    assert made.module(x).shape == (1, 3, 11 * made.scale, 13 * made.scale)
    even = picture(8, 12)
    assert torch.allclose(made.module(even), expected(own, F.pixel_unshuffle(even, folded), 2), atol=1e-5)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_compact_networks(tmp_path: Path, scale: int) -> None:
    random = torch.Generator().manual_seed(0)
    own: Tensors = {}
    for i, (into, out) in enumerate([(3, 6), (6, 6), (6, 3 * scale**2)]):
        own[f"body.{2 * i}.weight"] = torch.randn(out, into, 3, 3, generator=random) * 0.2
        own[f"body.{2 * i}.bias"] = torch.randn(out, generator=random)
        if i < 2:
            own[f"body.{2 * i + 1}.weight"] = torch.rand(out, generator=random)
    torch.save({"params": own}, tmp_path / "c.pth")
    made = upscaler.load(tmp_path / "c.pth")
    y = x = picture()
    for i in range(3):
        y = F.conv2d(y, own[f"body.{2 * i}.weight"], own[f"body.{2 * i}.bias"], padding=1)
        y = F.prelu(y, own[f"body.{2 * i + 1}.weight"]) if i < 2 else y
    y = F.pixel_shuffle(y, scale) + x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    assert made.scale == scale and torch.allclose(made.module(x), y, atol=1e-5)


@pytest.mark.parametrize(
    "names, what",
    [
        (["layers.0.residual_group.blocks.0.attn.qkv.weight"], "a SwinIR, which maquette does not run"),
        (["layers.0.residual_group.overlap_attn.qkv.weight"], "a HAT, which"),
        (["layers.0.blocks.0.attn.attns.0.rpe_biases"], "a DAT, which"),
        (["conv_first.weight", "RRDB_trunk.0.RDB1.conv1x1.weight"], "an ESRGAN\\+, which"),
        (["stylegan_decoder.style_mlp.1.weight"], "a GFPGAN \\(it mends faces\\), which"),
        (["something.weight"], "no upscaler that maquette knows; take an ESRGAN"),
    ],
)
def test_others_are_refused_by_name(tmp_path: Path, names: list[str], what: str) -> None:
    safetensors.save({name: torch.zeros(4, 4) for name in names}, tmp_path / "other.safetensors")
    with pytest.raises(MaquetteError, match=f"other.safetensors is {what}"):
        upscaler.load(tmp_path / "other.safetensors")


def test_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match="does not exist; give an upscaler's file"):
        upscaler.load(tmp_path / "none.pth")
    own = weights()
    del own["body.0.rdb1.conv1.weight"]
    safetensors.save(own, tmp_path / "part.safetensors")
    with pytest.raises(MaquetteError, match=r"part.safetensors: its upscaler is incomplete .*body.0.rdb1.conv1.weight"):
        upscaler.load(tmp_path / "part.safetensors")
    own = weights()
    del own["body.1.rdb2.conv3.bias"]
    safetensors.save(own, tmp_path / "part.safetensors")
    with pytest.raises(MaquetteError, match=r"it lacks 1 tensors, e.g. body.1.rdb2.conv3.bias"):
        upscaler.load(tmp_path / "part.safetensors")
