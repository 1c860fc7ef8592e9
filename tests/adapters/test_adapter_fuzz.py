"""Random adapters out of true parts and names: each is applied and written again, or refused in one sentence."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from maquette import adapters
from maquette.adapters import dialects
from maquette.adapters import parts as adapter_parts
from maquette.errors import MaquetteError

NAMES = [
    "lora_unet_mid_block_attentions_0_proj_in", "lora_te_text_model_encoder_layers_0_mlp_fc1", "lora_unet", "",
    "unet.conv_in", "diffusion_model.input_blocks.1.1.proj_in", "base_model.model.mid_block.attentions.0.proj_in",
    "lycoris_conv_in", "oft_unet_conv_in", f"lora_unet_{'9' * 900}", "lora_unet_down_blocks_99999999_resnets_0_conv1",
    "diffusion_model.input_blocks.-1.0.x", "lora_unet_input_blocks_0_1_proj_in", "diffusion_model.", "a.b",
    "text_encoders.clip_g.transformer.text_projection", "bundle_emb.x", "lora_te3_x",
    "lora_unet_middle_block_3_proj_in",
    "lora_unet_output_blocks_5_2_conv",
]  # fmt: skip
TYPES = [torch.float16, torch.int64, torch.bool, torch.complex64, torch.float64, torch.float8_e4m3fn]
SETTINGS = [
    "{}",
    "[]",
    '{"unet.lora_alpha": 2}',
    '{"unet.alpha_pattern": {"a.*": 1}}',
    '{"unet.r": 0, "unet.alpha": 2}',
]
WEIGHTS = [None, torch.ones(4, 4), torch.ones(4, 4, 4, 4), torch.ones(4), torch.ones(16, 16)]


def odd(choose: random.Random) -> Tensor:
    shape = [choose.choice([0, 1, 1, 2, 2, 4, 4, 8]) for _ in range(choose.choice([0, 1, 2, 2, 2, 3, 4, 4, 5]))]
    tensor = torch.randn(shape) * choose.choice([1.0] * 18 + [float("nan"), float("inf")])
    return tensor.to(choose.choice(TYPES)) if choose.random() < 0.3 else tensor


def module(choose: random.Random) -> dict[str, Tensor]:
    """Mostly the parts of one kind, mostly of shapes that fit."""
    if choose.random() < 0.3:
        parts = choose.sample([*dialects._FACTORS, *dialects._REFUSED], choose.choice([1, 2, 3]))
    else:
        kind = choose.choice(list(adapter_parts._KINDS.values()))
        parts = [
            *(kind.needs or kind.tell),
            *choose.sample(sorted(kind.may), min(len(kind.may), choose.choice([0, 1]))),
        ]
    fits, dimensions = choose.random() < 0.6, choose.choice([2, 2, 3, 4])
    made = {}
    for part in parts:
        number = part in ("alpha", "scale", "on_input") and choose.random() < 0.9
        made[part] = torch.tensor(2.0) if number else torch.randn([4] * dimensions) if fits else odd(choose)
    return made


def attempt(choose: random.Random, folder: Path) -> bool:
    """Whether the adapter was taken; then it can be applied or does not fit, and what is written is read again."""
    names = choose.sample(NAMES, choose.choice([1, 1, 2]))
    tensors = {f"{name}.{part}": tensor for name in names for part, tensor in module(choose).items()}
    metadata = {"lora_adapter_metadata": choose.choice(SETTINGS)} if choose.random() < 0.2 else {}
    try:
        adapter = adapters.from_state_dict(tensors, metadata, "x")
    except MaquetteError as error:
        assert len(str(error)) < 2600
        return False
    for name in adapter.modules:
        for weight in WEIGHTS:
            try:
                change = adapter.delta(name, weight)
            except MaquetteError:
                continue
            assert weight is None or change.shape == weight.shape
        adapter.bias_delta(name)
    adapter.save(folder / "x.safetensors")
    assert adapters.load(folder / "x.safetensors").modules.keys() == adapter.modules.keys()
    try:
        adapter.save(folder / "y.safetensors", "diffusers")
    except MaquetteError as error:
        assert "cannot be written for diffusers" in str(error)
    return True


@pytest.mark.parametrize("number", [500, pytest.param(10_000, marks=pytest.mark.heavy)])
def test_nothing_trips_the_reader_of_adapters(tmp_path: Path, number: int) -> None:
    choose = random.Random(number)
    torch.manual_seed(number)
    taken = sum(attempt(choose, tmp_path) for _ in range(number))
    assert taken > number // 20
