"""Checkpoints as named, memory-mapped tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maquette import families
from maquette.errors import MaquetteError
from maquette.families import checkpoint, save
from maquette.families.layers import named_layers
from maquette.families.trainable import targets
from maquette.formats import safetensors
from maquette.weights import stream
from tests.families import tiny

FAMILIES = ("sd1", "sd2", "sdxl")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: tiny.write_folder(root / family, family) for family in FAMILIES}


@pytest.mark.parametrize("family", [*FAMILIES, "pocket"])
def test_layers_are_those_that_a_lora_is_trained_on(family: str, folders: dict[str, Path]) -> None:
    path = folders.get(family, "pocket")
    base, model = families.load(path), stream.open_model(path)
    found = stream.layers(model)
    everywhere = stream.layers(model, foreign=True)
    trained = targets(base, which=list(base.targets), text_encoder=True)
    assert trained.keys() <= found.keys()
    assert found == everywhere  # there is no layer that Stable Diffusion has not
    for name, (parent, attribute) in trained.items():
        part, layer = found[name]
        assert torch.equal(stream.exact(model, (part, f"{layer}.weight")), getattr(parent, attribute).weight)


def test_every_container_gives_the_same_tensors(folders: dict[str, Path], tmp_path: Path) -> None:
    model = checkpoint.read(folders["sdxl"])
    save.write_single_file(model, tmp_path / "one.safetensors")
    save.write_single_file(model, tmp_path / "one.ckpt")
    expected = stream.tensors(stream.open_model(folders["sdxl"]))
    for name in ("one.safetensors", "one.ckpt"):
        found = stream.tensors(stream.open_model(tmp_path / name))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_layers_are_called_by_network_and_path(folders: dict[str, Path]) -> None:
    layers = stream.layers(stream.open_model(folders["sd1"]))
    path = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    assert layers[f"unet.{path}"] == ("unet", path)
    text = ("text_encoder", "encoder.layers.0.mlp.fc1")
    assert layers["text_encoder.text_model.encoder.layers.0.mlp.fc1"] == text


def test_layers_that_no_stable_diffusion_has_also_keep_the_name_of_files() -> None:
    names = {"unet": ["blocks.0.text_attn.to_k.weight", "conv_in.weight", "conv_in.bias"], "vae": ["x.weight"]}
    own = {"unet.blocks.0.text_attn.to_k": ("unet", "blocks.0.text_attn.to_k"), "unet.conv_in": ("unet", "conv_in")}
    assert named_layers("tiny", names) == own
    written = {"lora_unet_blocks_0_text_attn_to_k": ("unet", "blocks.0.text_attn.to_k")}
    assert named_layers("tiny", names, foreign=True) == own | written


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_named(value: float, folders: dict[str, Path], tmp_path: Path) -> None:
    model = checkpoint.read(folders["sd1"])
    model.parts["unet"]["conv_out.bias"] = torch.tensor([0.0, value, 1.0, 2.0])
    save.write_single_file(model, tmp_path / "broken.safetensors")
    broken = stream.open_model(tmp_path / "broken.safetensors")
    assert stream.exact(broken, ("unet", "conv_in.bias")).dtype == torch.float32
    with pytest.raises(MaquetteError, match=r"broken\.safetensors holds NaN or infinite .*unet: conv_out\.bias"):
        stream.exact(broken, ("unet", "conv_out.bias"))


def test_numbers_whose_sum_is_too_large_are_numbers(folders: dict[str, Path]) -> None:
    large = torch.full((8,), 3e38)
    stream.require_finite(large, "x", ("unet", "large"))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16])
def test_narrow_precisions_are_widened_exactly(dtype: torch.dtype, folders: dict[str, Path], tmp_path: Path) -> None:
    model = checkpoint.read(folders["sd1"])
    path = tmp_path / "narrow.safetensors"
    save.write_single_file(model, path, dtype)
    narrow = stream.open_model(path)
    assert {tensor.dtype for (part, _), tensor in stream.tensors(narrow).items() if part == "unet"} == {dtype}
    name = ("unet", "conv_in.weight")
    expected = model.parts["unet"]["conv_in.weight"].to(dtype).to(torch.float64)
    assert torch.equal(stream.exact(narrow, name, torch.float64), expected)
    info = safetensors.read_header(path).tensors["model.diffusion_model.input_blocks.0.0.weight"]
    assert safetensors.DTYPES[info.dtype] == dtype
