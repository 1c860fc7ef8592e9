"""Adapters written as PEFT's folders: PEFT itself must load them and change every layer by the same amount."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette import adapters, families
from maquette.adapters import kohya_names
from maquette.errors import MaquetteError
from maquette.families.base import BaseModel
from maquette.formats import safetensors
from maquette.methods.lokr import split
from maquette.stages.convert import ConvertConfig
from maquette.stages.convert import run as run_convert
from maquette.stages.inspect import InspectConfig
from maquette.stages.inspect import run as run_inspect

peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return families.load("pocket")


def adapter(base: BaseModel, text_encoder: bool, dora: bool = False) -> adapters.Adapter:
    """Another rank and alpha in every module."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    targets = families.targets(base, which=("attention", "conv"), text_encoder=text_encoder)
    for index, (name, (parent, attribute)) in enumerate(targets.items()):
        weight = parent.get_submodule(attribute).weight
        rank = 1 + index % 3
        tensors[f"{name}.lora_down.weight"] = torch.randn(rank, *weight.shape[1:], generator=generator)
        ones = [1] * (weight.ndim - 2)
        tensors[f"{name}.lora_up.weight"] = torch.randn(len(weight), rank, *ones, generator=generator)
        tensors[f"{name}.alpha"] = torch.tensor(0.5 + index % 4)
        if dora:
            tensors[f"{name}.dora_scale"] = 1 + torch.rand(len(weight), *[1] * (weight.ndim - 1), generator=generator)
    return adapters.from_state_dict(tensors, {"ss_base_model_version": "maquette_pocket", "note": "kept"}, "made here")


def layers(model: torch.nn.Module) -> dict[str, Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = ((n, m) for n, m in model.named_modules() if isinstance(m, BaseTunerLayer))
    return {name.removeprefix("base_model.model."): layer for name, layer in found}


def agree(ours: adapters.Adapter, model: torch.nn.Module, folder: Path, part: str) -> int:
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loaded = layers(peft.PeftModel.from_pretrained(copy.deepcopy(model), str(folder)))
    for path, layer in loaded.items():
        weight = plain[f"{path}.weight"].float()
        layer.merge()
        theirs = layer.get_base_layer().weight.float() - weight
        change = ours.delta(kohya_names.named(part, path), weight)
        assert theirs.abs().max() > 1e-3 and torch.allclose(change, theirs, atol=1e-4), path
    return len(loaded)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_peft_loads_the_unets_folder(base: BaseModel, tmp_path: Path, dora: bool) -> None:
    ours = adapter(base, text_encoder=False, dora=dora)
    ours.save(tmp_path / "out", "peft")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert agree(ours, base.unet, tmp_path / "out", "unet") == len(ours.modules)
    again = adapters.load(tmp_path / "out")
    assert again.modules.keys() == ours.modules.keys()


def lycoris(base: BaseModel, kind: str, tucker: bool = False) -> adapters.Adapter:
    """LoHa or LoKr on attention and convolutions, with another rank and alpha in every module."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(*shape, generator=generator)

    tensors = {}
    for index, (name, (parent, attribute)) in enumerate(
        families.targets(base, which=("attention", "conv"), text_encoder=True).items()
    ):
        weight = parent.get_submodule(attribute).weight
        out, inner, *kernel = weight.shape
        flat, rank = weight[0].numel(), 1 + index % 3
        if kind == "loha":
            made = {f"hada_w{i}_a": random(out, rank) for i in (1, 2)}
            made |= {f"hada_w{i}_b": random(rank, flat) for i in (1, 2)}
            if tucker and kernel and kernel != [1, 1]:
                made = {f"hada_w{i}_{s}": random(rank, side) for i in (1, 2) for s, side in (("a", out), ("b", inner))}
                made |= {f"hada_t{i}": random(rank, rank, *kernel) for i in (1, 2)}
        else:
            (a, c), (b, d) = split(out, 4), split(inner, 4)
            made = {"lokr_w1": random(a, b)} if index % 2 else {"lokr_w1_a": random(a, 2), "lokr_w1_b": random(2, b)}
            low = index % 3 and rank < max(c, d) / 2
            tail = c, rank, rank, d * flat // inner
            made |= {"lokr_w2_a": random(*tail[:2]), "lokr_w2_b": random(*tail[2:])} if low else {
                "lokr_w2": random(c, d, *kernel)
            }  # fmt: skip
        tensors |= {f"{name}.{part}": tensor for part, tensor in made.items()}
        tensors[f"{name}.alpha"] = torch.tensor(0.5 + index % 4)
    return adapters.from_state_dict(tensors, {"ss_base_model_version": "maquette_pocket"}, "made here")


@pytest.mark.parametrize(("kind", "tucker"), [("loha", False), ("loha", True), ("lokr", False)])
def test_peft_loads_loha_and_lokr(base: BaseModel, tmp_path: Path, kind: str, tucker: bool) -> None:
    ours = lycoris(base, kind, tucker)
    ours.save(tmp_path / "out", "peft")
    count = agree(ours, base.unet, tmp_path / "out" / "unet", "unet")
    count += agree(ours, base.text_encoders[0], tmp_path / "out" / "text_encoder", "te")
    assert count == len(ours.modules)
    again = adapters.load(tmp_path / "out")
    assert again.modules.keys() == ours.modules.keys()
    for name in ours.modules:
        assert torch.allclose(again.delta(name), ours.delta(name).reshape(again.delta(name).shape), atol=1e-5), name


def test_factors_that_no_configuration_of_peft_gives_are_refused(tmp_path: Path) -> None:
    name = "unet.mid_block.attentions.0.proj_in"
    lokr = {f"{name}.lokr_w1": torch.ones(3, 5), f"{name}.lokr_w2": torch.ones(10, 10)}
    with pytest.raises(MaquetteError, match="one decompose_factor for all layers of a LoKr, and none gives the sides"):
        adapters.from_state_dict(lokr, {}, "f").save(tmp_path / "x", "peft")
    loha = {f"{name}.hada_w{i}_a": torch.ones(8, i) for i in (1, 2)}
    loha |= {f"{name}.hada_w{i}_b": torch.ones(i, 8) for i in (1, 2)}
    with pytest.raises(MaquetteError, match=r"one rank for both products of a LoHa, .*proj_in has 1 and 2"):
        adapters.from_state_dict(loha, {}, "f").save(tmp_path / "x", "peft")
    conv = "unet.mid_block.resnets.0.conv"
    both = {f"{conv}1.hada_w{i}_a": torch.ones(8, 2) for i in (1, 2)}
    both |= {f"{conv}1.hada_w{i}_b": torch.ones(2, 72) for i in (1, 2)}
    both |= {f"{conv}2.hada_w{i}_{s}": torch.ones(2, 8) for i in (1, 2) for s in "ab"}
    both |= {f"{conv}2.hada_t{i}": torch.ones(2, 2, 3, 3) for i in (1, 2)}
    with pytest.raises(MaquetteError, match="Tucker's form in all convolutions of a LoHa or in none"):
        adapters.from_state_dict(both, {}, "f").save(tmp_path / "x", "peft")
    first = {f"unet.conv_in.{part}": both[f"{conv}1.{part}"] for part in ("hada_w1_a", "hada_w1_b", "hada_w2_a")}
    first["unet.conv_in.hada_w2_b"] = first["unet.conv_in.hada_w1_b"]
    tucker = {key: t for key, t in both.items() if key.startswith(f"{conv}2.")}
    with pytest.raises(MaquetteError, match="Tucker's form in all convolutions of a LoHa or in none"):
        adapters.from_state_dict(tucker | first, {}, "f").save(tmp_path / "x", "peft")
    mixed = loha | {f"{conv}1.lora_down.weight": torch.ones(1, 8), f"{conv}1.lora_up.weight": torch.ones(8, 1)}
    with pytest.raises(MaquetteError, match=r"one kind of adapter in a folder; .*proj_in is loha, .*conv1 is lora"):
        adapters.from_state_dict(mixed, {}, "f").save(tmp_path / "x", "peft")
    assert list(tmp_path.iterdir()) == []


def test_text_encoders_get_folders_of_their_own(base: BaseModel, tmp_path: Path) -> None:
    ours = adapter(base, text_encoder=True)
    safe = tmp_path / "k.safetensors"
    ours.save(safe)
    told = run_convert(ConvertConfig(source=safe, to="peft", out=tmp_path / "out")).to_json()
    assert told["size_bytes"] == sum(file.stat().st_size for file in (tmp_path / "out").rglob("*.*"))
    count = agree(ours, base.unet, tmp_path / "out" / "unet", "unet")
    count += agree(ours, base.text_encoders[0], tmp_path / "out" / "text_encoder", "te")
    assert count == len(ours.modules)
    again = adapters.load(tmp_path / "out")
    assert again.modules.keys() == ours.modules.keys() and again.metadata["note"] == "kept"
    for name, module in ours.modules.items():
        assert torch.allclose(again.delta(name), ours.delta(name), atol=1e-5), module.rank
    run_convert(ConvertConfig(source=tmp_path / "out", to="kohya", out=tmp_path / "back.safetensors"))
    assert adapters.load(tmp_path / "back.safetensors").modules.keys() == ours.modules.keys()


def test_sdxls_encoders_keep_their_numbers(tmp_path: Path) -> None:
    names = [f"lora_te{i}_text_model_encoder_layers_0_mlp_fc1" for i in (1, 2)]
    names.append("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k")
    tensors = {}
    for name in names:
        tensors |= {f"{name}.lora_down.weight": torch.ones(2, 2048), f"{name}.lora_up.weight": torch.ones(4, 2)}
    adapters.from_state_dict(tensors, {}, "x").save(tmp_path / "out", "peft")
    again = adapters.load(tmp_path / "out")
    assert again.family == "sdxl" and sorted({key.partition(".")[0] for key in again.state_dict()}) == sorted(names)
    keys_of_second = safetensors.read_header(tmp_path / "out" / "text_encoder_2" / "adapter_model.safetensors").tensors
    assert sorted(keys_of_second)[0] == "base_model.model.text_model.encoder.layers.0.mlp.fc1.lora_A.weight"


def test_what_peft_has_no_form_for_is_refused(tmp_path: Path) -> None:
    name = "unet.mid_block.attentions.0.proj_in"
    oft = {f"{name}.oft_blocks": torch.ones(2, 2, 2)}
    with pytest.raises(MaquetteError, match=r"f cannot be written for PEFT: .*of the kind OFT"):
        adapters.from_state_dict(oft, {}, "f").save(tmp_path / "x", "peft")
    mixed = {}
    for suffix in ("proj_in", "proj_out"):
        path = name.replace("proj_in", suffix)
        mixed |= {f"{path}.lora_down.weight": torch.ones(1, 4), f"{path}.lora_up.weight": torch.ones(4, 1)}
    mixed[f"{name}.dora_scale"] = torch.ones(4, 1)
    with pytest.raises(MaquetteError, match="cannot mix LoRA and DoRA"):
        adapters.from_state_dict(mixed, {}, "f").save(tmp_path / "x", "peft")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x").mkdir()
    with pytest.raises(MaquetteError, match="x exists already"):
        mixed.pop(f"{name}.dora_scale")
        adapters.from_state_dict(mixed, {}, "f").save(tmp_path / "x", "peft")
    with pytest.raises(MaquetteError, match=r"x is a folder without adapter_model\.safetensors; name a LoRA file"):
        adapters.load(tmp_path / "x")


def test_a_peft_folder_is_inspected(base: BaseModel, tmp_path: Path) -> None:
    ours = adapter(base, text_encoder=False)
    ours.save(tmp_path / "out", "peft")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"] and set(config["rank_pattern"].values()) <= {1, 2, 3}
    found = run_inspect(InspectConfig(path=tmp_path / "out"))
    assert found.lora is not None and found.lora.modules == len(ours.modules) == found.lora.matched
