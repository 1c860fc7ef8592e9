"""What differs between two models or LoRAs, against the same from whole matrices."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from maquette import adapters
from maquette.cli.main import main
from maquette.errors import MaquetteError
from maquette.families import load, save
from maquette.formats import safetensors, tensor_files
from maquette.weights import stream
from maquette.weights.compare import compare_adapters, compare_models
from tests.sampling.random_loras import random_adapter, write_lora


def outcome(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def test_models_by_block() -> None:
    """One layer twice as large, one block turned around: everything else is alike."""
    here, there = stream.open_model("pocket"), stream.open_model("pocket")
    unet = there.parts["unet"]
    unet["conv_in.weight"] = 2 * unet["conv_in.weight"]
    for name in [name for name in unet if name.startswith("mid_block.")]:
        unet[name] = -unet[name]
    found = compare_models(here, there)
    blocks = {block.name: block for block in found.blocks}
    assert list(blocks)[:3] == ["text encoder", "time and input", "IN00"] and list(blocks)[-1] == "VAE"
    assert blocks["M00"].cosine == pytest.approx(-1) and blocks["M00"].relative == pytest.approx(2, rel=1e-5)
    weight, bias = (here.parts["unet"][f"conv_in.{part}"].double() for part in ("weight", "bias"))
    whole = float(weight.square().sum() + bias.square().sum())
    assert blocks["IN00"].relative == pytest.approx(math.sqrt(float(weight.square().sum()) / whole), rel=1e-4)
    same = [block for name, block in blocks.items() if name not in ("M00", "IN00")]
    assert all(block.difference == 0 and block.cosine == pytest.approx(1) for block in same)
    assert found.whole.tensors == sum(map(len, here.parts.values())) and not found.only_a + found.only_b


def test_models_with_other_tensors() -> None:
    here, there = stream.open_model("pocket"), stream.open_model("pocket")
    there.parts["unet"].pop("conv_in.bias")
    there.parts["unet"]["conv_out.bias"] = torch.zeros(7)
    there.parts["vae"]["new"] = torch.zeros(1)
    found = compare_models(here, there)
    assert found.only_a == ["unet.conv_in.bias", "unet.conv_out.bias"]
    assert sorted(found.only_b) == ["unet.conv_out.bias", "vae.new"]


def test_loras_without_their_matrices() -> None:
    base = load("pocket")
    first, second = random_adapter(base, seed=0), random_adapter(base, seed=1)
    lonely = next(iter(second.modules))
    second.modules.pop(lonely)
    found = compare_adapters(first, second)
    assert found.only_a == [lonely] and found.only_b == []
    a = torch.cat([first.delta(name).flatten() for name in first.modules]).double()
    b = torch.cat([second.delta(n).flatten() if n in second.modules else torch.zeros(first.delta(n).numel())
                   for n in first.modules]).double()  # fmt: skip
    whole = found.whole
    assert whole.a == pytest.approx(float(a @ a), rel=1e-5) and whole.b == pytest.approx(float(b @ b), rel=1e-5)
    assert whole.difference == pytest.approx(float((a - b) @ (a - b)), rel=1e-5)
    assert whole.cosine == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-6)
    assert {"text encoder", "M00"} <= {block.name for block in found.blocks}
    itself = compare_adapters(first, first).whole
    assert itself.cosine == pytest.approx(1) and itself.relative < 1e-6


def test_every_kind_is_compared() -> None:
    torch.manual_seed(0)
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    kinds = {
        "lora": {"lora_down.weight": torch.randn(2, 8), "lora_up.weight": torch.randn(8, 2)},
        "lokr": {"lokr_w1": torch.randn(2, 2), "lokr_w2": torch.randn(4, 4)},
        "full": {"diff": torch.randn(8, 8)},
        "oft": {"oft_blocks": torch.randn(2, 4, 4), "alpha": torch.tensor(0.0)},
    }
    made = {
        kind: adapters.from_state_dict({f"{name}.{p}": t for p, t in f.items()}, {}, kind) for kind, f in kinds.items()
    }
    for kind, one in made.items():
        assert compare_adapters(one, one).whole.cosine == pytest.approx(1), kind
    low, whole = made["lora"].delta(name), made["full"].delta(name)
    cosine = float((low * whole).sum() / low.norm() / whole.norm())
    assert compare_adapters(made["lora"], made["full"]).whole.cosine == pytest.approx(cosine, abs=1e-6)


def test_what_is_not_alike_is_named_and_has_no_figure() -> None:
    torch.manual_seed(0)
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    low = {"lora_down.weight": torch.randn(2, 8), "lora_up.weight": torch.randn(8, 2)}
    dora = low | {"dora_scale": torch.ones(1, 8)}
    wider = {"lora_down.weight": torch.randn(3, 8), "lora_up.weight": torch.randn(8, 3), "dora_scale": torch.ones(1, 8)}
    oft = {"oft_blocks": torch.randn(2, 3, 3), "alpha": torch.tensor(0.0)}
    other = {"lora_down.weight": torch.randn(2, 6), "lora_up.weight": torch.randn(8, 2)}
    made = [
        adapters.from_state_dict({f"{name}.{p}": t for p, t in f.items()}, {}, "it")
        for f in (low, dora, wider, oft, other)
    ]
    for i, one in enumerate(made):
        for j, two in enumerate(made):
            found = compare_adapters(one, two)
            assert found.unlike == ([] if i == j else [name]) and found.only_a == found.only_b == []
            assert found.whole.tensors == (1 if i == j else 0)


def test_changes_of_biases_count() -> None:
    block = "unet.mid_block.attentions.0.transformer_blocks.0"
    bias, norm, query = f"{block}.attn1.to_out.0", f"{block}.norm1", f"{block}.attn1.to_q"
    first = {f"{bias}.diff_b": torch.full((8,), 2.0), f"{norm}.w_norm": torch.ones(8), f"{norm}.b_norm": torch.ones(8)}
    first |= {f"{query}.diff": torch.zeros(8, 8), f"{query}.diff_b": torch.ones(8)}
    second = first | {f"{bias}.diff_b": torch.full((8,), 5.0), f"{query}.diff_b": -torch.ones(8)}
    one, two = (adapters.from_state_dict(state, {}, "it") for state in (first, second))
    whole = compare_adapters(one, two).whole
    assert whole.a == pytest.approx(8 * (4 + 1 + 1 + 1)) and whole.b == pytest.approx(8 * (25 + 1 + 1 + 1))
    assert whole.difference == pytest.approx(8 * (9 + 4)) and whole.tensors == 3


def test_families_are_not_mixed() -> None:
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    state = {f"{name}.lora_down.weight": torch.ones(2, 2048), f"{name}.lora_up.weight": torch.ones(8, 2)}
    large = adapters.from_state_dict(state, {}, "large")
    with pytest.raises(MaquetteError, match=r"large is for Stable Diffusion XL, .* for maquette's pocket base: their"):
        compare_adapters(large, random_adapter(load("pocket")))


def test_the_command_prints_a_table_and_draws_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = load("pocket")
    first, second = write_lora(base, tmp_path / "a.safetensors", 0), write_lora(base, tmp_path / "b.safetensors", 1)
    picture = tmp_path / "bars.png"
    assert outcome("inspect", str(first), "--compare", str(second), "--picture", str(picture)) == 0
    told = capsys.readouterr().out
    assert f"against {second}" in told and "cosine" in told and "\nM00 " in told and "\nall " in told
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG" and drawn.width > 500
    assert outcome("inspect", str(first), "--compare", str(second), "--json") == 0
    comparison = json.loads(capsys.readouterr().out)["comparison"]
    assert comparison["kind"] == "loras" and comparison["whole"]["tensors"] == len(random_adapter(base).modules)
    assert {"block", "tensors", "norm", "norm_of_other", "difference", "relative", "cosine"} == set(comparison["whole"])


def test_models_are_compared_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = stream.open_model("pocket")
    model.parts["unet"]["conv_in.bias"] = model.parts["unet"]["conv_in.bias"] + 1
    save.write_single_file(model, tmp_path / "other.safetensors")
    assert outcome("inspect", "pocket", "--compare", str(tmp_path / "other.safetensors"), "--json") == 0
    blocks = {block["block"]: block for block in json.loads(capsys.readouterr().out)["comparison"]["blocks"]}
    assert blocks["IN00"]["difference"] > 0 and blocks["M00"]["difference"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{lora}", "--picture", "x.png"), "--picture shows a comparison; name the other model or LoRA with --compare"),
        (
            ("{lora}", "--compare", "{lora}", "--picture", "{lora}"),
            "it.safetensors exists already; choose another name",
        ),
        (("{lora}", "--compare", "pocket"), "pocket"),
        (("{embedding}", "--compare", "{lora}"), "is neither a whole model nor a LoRA"),
    ],
)
def test_what_cannot_be_compared(
    tmp_path: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"lora": str(write_lora(load("pocket"), tmp_path / "it.safetensors"))}
    safetensors.save({"emb_params": torch.ones(2, 768)}, tmp_path / "word.safetensors")
    files["embedding"] = str(tmp_path / "word.safetensors")
    assert outcome("inspect", *(argument.format(**files) for argument in arguments)) == 1
    assert message in capsys.readouterr().err
    assert tensor_files.read(files["lora"]).tensors  # nothing was overwritten
