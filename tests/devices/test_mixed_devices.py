"""No tensor is left behind on the CPU, told without a graphics card: with networks on the device "meta", whose tensors
have no contents and refuse to meet the CPU's, a pass forward and back ends in an error wherever one was.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from maquette import methods
from maquette.config import TrainConfig
from maquette.core.denoiser import Conditioning
from maquette.core.guidance import guided
from maquette.families import modules
from maquette.families.base import BaseModel
from maquette.families.sd.model import StableDiffusion
from maquette.families.sd.spec import SD1, TARGETS
from maquette.families.sdxl.model import StableDiffusionXL
from maquette.families.sdxl.spec import SDXL
from maquette.methods.base import MethodSpec
from maquette.training.attaching import unet_slots
from tests.families import tiny


def opened(family: str, channels: int = 4) -> BaseModel:
    """A narrow and shallow base without contents; everything that it makes itself lies on the CPU unless it asks for a
    device.
    """
    configs: dict[str, Any] = {name: part.config for name, part in tiny.shared(family, channels).items()}
    kind, spec = (StableDiffusionXL, SDXL) if family == "sdxl" else (StableDiffusion, SD1)
    encoders = [
        modules.build_text_encoder(configs[name].to_dict() | {"num_hidden_layers": 3}, name == "text_encoder_2")
        for name in ("text_encoder", "text_encoder_2")
        if name in configs
    ]
    base = kind(
        spec=spec, network=modules.build_unet({**configs["unet"], "layers_per_block": 1}),
        vae=modules.build_vae(configs["vae"]), text_encoders=encoders, tokenizers=[], scheduler_config={},
        source=family, content_hash="", targets=TARGETS,
    )  # fmt: skip
    for network in (base.unet, base.vae, *base.text_encoders):
        network.requires_grad_(False)
    return base


def told(base: BaseModel, rows: int = 2) -> Conditioning:
    pooled = torch.empty(rows, 128, device="meta") if base.spec.name == "sdxl" else None
    width = base.unet.config.cross_attention_dim  # type: ignore[union-attr]
    return Conditioning(torch.empty(rows, 77, width, device="meta"), pooled)  # type: ignore[arg-type]


def test_a_tensor_left_behind_is_noticed() -> None:
    base = opened("sd1")
    x, t = torch.zeros(2, 4, 8, 8, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta")
    with pytest.raises(RuntimeError, match="same device"):
        base.predict(x, t, Conditioning(torch.zeros(2, 77, 64)))


@pytest.mark.parametrize("channels", [4, 9])
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@torch.no_grad()
def test_drawing(family: str, channels: int) -> None:
    base = opened(family, channels)
    x, t = torch.zeros(2, 4, 8, 8, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta")
    output = guided(base, x, t, [(told(base), 1.0)], told(base), 7.0)
    assert output.device.type == "meta" and output.shape == (2, 4, 8, 8)
    assert base.decode(output).device.type == "meta"
    mean, std = base.encode_images(torch.zeros(2, 3, 64, 64))
    assert mean.device.type == std.device.type == "meta"
    ids = [torch.zeros(2, 77, dtype=torch.int64)] * len(base.text_encoders)
    assert base.encode_ids(ids).tokens.device.type == "meta"  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["lora", "locon", "dora", "loha", "lokr"])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_gradients(family: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # which refuses to speak of "meta"
    base = opened(family)
    config = TrainConfig.parse({"photos": ".", "method": method, "dtype": "fp32"})
    attached = methods.attach(method, unet_slots(config, base), MethodSpec(rank=4))
    x, t = torch.zeros(2, 4, 8, 8, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta")
    base.predict(x, t, told(base)).square().mean().backward()
    learning = [p for group in attached.parameter_groups().values() for p in group]
    assert learning and all(p.grad is not None and p.grad.device.type == "meta" for p in learning)
