"""The benchmarks' files of random weights open as the family that they are named after."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.load import write_random
from maquette import families
from tests.families import tiny

PARTS = {"text_encoder": "te", "text_encoder_2": "te2"}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_narrow_file_opens(family: str, tmp_path: Path) -> None:
    networks = {PARTS.get(name, name): network for name, network in tiny.modules(family).items()}
    if family == "sdxl":
        networks["te1"] = networks.pop("te")
    write_random(networks, family, tmp_path / "random.safetensors")
    base = families.load(tmp_path / "random.safetensors")
    assert base.spec.name == family
    assert base.encode_text(["a photo of a robot"]).tokens.shape[-1] == networks["unet"].config.cross_attention_dim
    expected = {name: weight.shape for name, weight in networks["unet"].state_dict().items()}
    assert {name: weight.shape for name, weight in base.unet.state_dict().items()} == expected
    assert all(bool(torch.isfinite(weight).all()) for weight in base.unet.parameters())
