"""Adapters of other programs: every module's weight change must equal the one that the program itself computes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette import adapters, families
from maquette.adapters import kohya_names
from maquette.errors import MaquetteError
from maquette.families.base import BaseModel
from maquette.families.pocket.spec import WEIGHTS
from maquette.formats import safetensors

peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return families.load("pocket")


def randomise(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if any(mark in name for mark in ("lora_A", "lora_B", "hada_", "lokr_")):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
        elif "magnitude" in name:
            parameter.data = parameter.data * 1.1


def peft_layers(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer):
            yield name.removeprefix("base_model.model."), layer


def true_delta(layer: Any, dora: bool = False) -> torch.Tensor:
    """The change that peft's merge makes to the weight."""
    before = layer.get_base_layer().weight.data.clone()
    layer.merge()
    after = layer.get_base_layer().weight.data.clone()
    layer.get_base_layer().weight.data = before
    layer.merged_adapters.clear()
    return after - before


TARGETS = ["to_q", "to_k", "to_out.0", "ff.net.0.proj", "conv1", "proj_in"]
CASES = {
    "lora": lambda: peft.LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS),
    "lora-patterns": lambda: peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=TARGETS,
        rank_pattern={"attn2.to_k": 2},
        alpha_pattern={"conv1": 3, "attn1.to_q": 8},
    ),
    "lora-rs": lambda: peft.LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, use_rslora=True),
    "dora": lambda: peft.LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, use_dora=True),
    "loha": lambda: peft.LoHaConfig(r=4, alpha=6, target_modules=TARGETS),
    "loha-effective": lambda: peft.LoHaConfig(r=4, alpha=6, target_modules=TARGETS, use_effective_conv2d=True),
    "lokr": lambda: peft.LoKrConfig(r=4, alpha=6, target_modules=TARGETS),
    "lokr-both": lambda: peft.LoKrConfig(
        r=2, alpha=6, target_modules=TARGETS, decompose_both=True, use_effective_conv2d=True
    ),
    "lokr-whole": lambda: peft.LoKrConfig(r=64, alpha=6, target_modules=["to_q"]),
}


@pytest.mark.parametrize("case", CASES)
def test_peft_folder(base: BaseModel, tmp_path: Path, case: str) -> None:
    model = peft.get_peft_model(copy.deepcopy(base.unet), CASES[case]())
    randomise(model)
    model.save_pretrained(tmp_path)
    adapter = adapters.load(tmp_path)
    layers = dict(peft_layers(model))
    assert len(adapter.modules) == len(layers) > 10
    for path, layer in layers.items():
        weight = layer.get_base_layer().weight
        ours, theirs = adapter.delta(kohya_names.named("unet", path), weight), true_delta(layer)
        assert theirs.abs().max() > 1e-3
        assert torch.allclose(ours, theirs, atol=1e-5), path  # adding to the weight and subtracting again rounds


@pytest.fixture
def pipeline() -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(WEIGHTS, safety_checker=None, torch_dtype=torch.float32)


def lora_state(base: BaseModel, alpha: float | None = None) -> adapters.Adapter:
    """A Kohya LoRA on every target of the pocket base, with another rank and alpha in every module."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for index, (name, (parent, attribute)) in enumerate(families.targets(base, text_encoder=True).items()):
        weight = parent.get_submodule(attribute).weight
        rank = 1 + index % 4
        tensors[f"{name}.lora_down.weight"] = torch.randn(rank, *weight.shape[1:], generator=generator)
        tensors[f"{name}.lora_up.weight"] = torch.randn(
            len(weight), rank, *[1] * (weight.ndim - 2), generator=generator
        )
        tensors[f"{name}.alpha"] = torch.tensor(alpha or 0.5 + index % 3)
    return adapters.from_state_dict(tensors, {"ss_base_model_version": "maquette_pocket"}, "made here")


def test_what_we_write_for_diffusers_it_applies_exactly(base: BaseModel, pipeline: Any, tmp_path: Path) -> None:
    """Every module, although ranks and alphas differ: diffusers reads a Kohya file of that kind wrongly."""
    adapter = lora_state(base)
    adapter.save(tmp_path / "x.safetensors", dialect="diffusers")
    pipeline.load_lora_weights(tmp_path / "x.safetensors")
    seen = 0
    for part, model in (("unet", pipeline.unet), ("te", pipeline.text_encoder)):
        for path, layer in peft_layers(model):
            name = kohya_names.named(part, path)
            theirs = layer.get_delta_weight(layer.active_adapters[0])
            assert torch.allclose(adapter.delta(name), theirs, atol=1e-4), path
            seen += 1
    assert seen == len(adapter.modules)


def test_what_we_write_for_diffusers_we_read_again(base: BaseModel, tmp_path: Path) -> None:
    adapter = lora_state(base)
    adapter.save(tmp_path / "x.safetensors", dialect="diffusers")
    again = adapters.load(tmp_path / "x.safetensors")
    assert again.modules.keys() == adapter.modules.keys()
    assert all(torch.allclose(again.delta(name), adapter.delta(name), atol=1e-5) for name in adapter.modules)


def test_what_diffusers_writes_with_its_alphas(base: BaseModel, pipeline: Any, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline
    from diffusers.training_utils import _collate_lora_metadata
    from peft.utils import get_peft_model_state_dict

    config = peft.LoraConfig(r=4, lora_alpha=10, target_modules=["to_q", "to_v"], alpha_pattern={"attn2.to_v": 3})
    pipeline.unet.add_adapter(config)
    pipeline.text_encoder.add_adapter(peft.LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "fc1"]))
    for model in (pipeline.unet, pipeline.text_encoder):
        randomise(model)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        get_peft_model_state_dict(pipeline.unet),
        get_peft_model_state_dict(pipeline.text_encoder),
        **_collate_lora_metadata({"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}),
    )
    adapter = adapters.load(tmp_path / "pytorch_lora_weights.safetensors")
    for part, model in (("unet", pipeline.unet), ("te", pipeline.text_encoder)):
        for path, layer in peft_layers(model):
            ours = adapter.delta(kohya_names.named(part, path))
            assert torch.allclose(ours, layer.get_delta_weight("default"), atol=1e-5), path


@pytest.mark.parametrize(
    "old, name",
    [
        (
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
        ),
        (
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q.lora.down.weight",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q",
        ),
        (
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight",
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
        ),
        ("lycoris_mid_block_attentions_0_proj_in.lora_down.weight", "unet.mid_block.attentions.0.proj_in"),
        (
            "lycoris_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
            "text_encoder.text_model.encoder.layers.0.mlp.fc1",
        ),
        ("base_model.model.mid_block.resnets.0.conv1.lora_A.weight", "unet.mid_block.resnets.0.conv1"),
    ],
)
def test_old_names(old: str, name: str) -> None:
    up = old.replace(".down.", ".up.").replace("lora_down", "lora_up").replace("lora_A", "lora_B")
    adapter = adapters.from_state_dict({old: torch.ones(2, 8), up: torch.ones(4, 2)}, {}, "test")
    assert list(adapter.modules) == [name]
    assert torch.equal(adapter.delta(name), torch.full((4, 8), 2.0))


def test_sdxl_layers_get_the_names_of_sd_scripts() -> None:
    tensors = {}
    for path, width in (
        ("unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k", 2048),
        ("unet.up_blocks.0.resnets.2.time_emb_proj", 8),
        ("text_encoder.encoder.layers.0.mlp.fc1", 8),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", 8),
    ):
        tensors |= {f"{path}.lora_A.weight": torch.ones(2, width), f"{path}.lora_B.weight": torch.ones(4, 2)}
    adapter = adapters.from_state_dict(tensors, {}, "test")
    assert adapter.family == "sdxl"
    assert sorted({key.partition(".")[0] for key in adapter.state_dict()}) == [
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1",
        "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k",
        "lora_unet_output_blocks_2_0_emb_layers_1",
    ]


def test_sdxl_files_with_diffusers_names_behind_kohyas_prefix() -> None:
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{name}.lora_down.weight": torch.ones(2, 2048), f"{name}.lora_up.weight": torch.ones(4, 2)}
    adapter = adapters.from_state_dict(tensors, {}, "test")
    assert list(adapter.modules) == ["unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"]
    written = {key.partition(".")[0] for key in adapter.state_dict()}
    assert written == {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"}


def test_kinds_that_diffusers_cannot_load_are_refused(tmp_path: Path) -> None:
    name = "unet.mid_block.attentions.0.proj_in"
    tensors = {f"{name}.hada_w{i}_{side}": torch.ones(2, 2) for i in (1, 2) for side in "ab"}
    with pytest.raises(MaquetteError, match=rf"cannot be written for diffusers: .*{name}, which is of the kind loha"):
        adapters.from_state_dict(tensors, {}, "f").save(tmp_path / "x.safetensors", dialect="diffusers")
    assert not list(tmp_path.iterdir())
    with pytest.raises(MaquetteError, match="comfyui, onetrainer or attn-procs, not 'onnx'"):
        adapters.from_state_dict(tensors, {}, "f").save(tmp_path / "x.safetensors", dialect="onnx")


def test_a_broken_peft_configuration_is_named(tmp_path: Path) -> None:
    safetensors.save(
        {f"base_model.model.conv_in.lora_{letter}.weight": torch.ones(2, 2) for letter in "AB"},
        tmp_path / "adapter_model.safetensors",
    )
    for text in ("{", "[]"):
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(MaquetteError, match=r"adapter_config\.json"):
            adapters.load(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 4}))
    assert adapters.load(tmp_path).modules["unet.conv_in"].alpha == 4
