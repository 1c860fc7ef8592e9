"""maquette resize: what the command writes and says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from maquette import adapters
from maquette.adapters import kohya_names
from maquette.cli.main import main
from maquette.errors import MaquetteError
from maquette.families import load
from maquette.families.pocket import WEIGHTS
from maquette.stages.resize import ResizeConfig, run
from tests.sampling.random_loras import random_adapter

NAME = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
OTHER = NAME.replace("to_k", "to_v")


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    state = {}
    for name, inner in ((NAME, 768), (OTHER, 768)):
        state |= {f"{name}.lora_down.weight": torch.randn(8, inner), f"{name}.lora_up.weight": torch.randn(40, 8)}
    made = adapters.from_state_dict(state, {"ss_network_dim": "8", "ss_tag_frequency": "{}"}, "made here")
    made.save(tmp_path / "it.safetensors")
    return tmp_path / "it.safetensors"


def outcome(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def test_the_command_writes_a_smaller_file_and_says_what_is_kept(
    lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = lora.read_bytes()
    out = tmp_path / "small.safetensors"
    assert outcome("resize", str(lora), "--rank", "2", "--out", str(out), "--dtype", "fp16") == 0
    told = capsys.readouterr().out
    assert "8 to 2 (2)" in told and "energy kept" in told
    small = adapters.load(out)
    assert {module.rank for module in small.modules.values()} == {2} and lora.read_bytes() == before
    assert small.metadata["ss_network_dim"] == "2" and small.metadata["ss_tag_frequency"] == "{}"
    assert all(t.dtype == torch.float16 for module in small.modules.values() for t in module.factors.values())


def test_json_has_every_module(lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "small.safetensors"
    assert outcome("resize", str(lora), "--energy", "0.5", "--out", str(out), "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert {module["name"] for module in result["modules"]} == {NAME, OTHER}
    assert all(0.5 <= module["kept"] < 1 and module["after"] < module["before"] == 8 for module in result["modules"])
    assert 0.5 <= result["kept"] < 1 and result["size_bytes"] == out.stat().st_size < result["size_before"]


def test_a_target_size(lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.safetensors"
    run(ResizeConfig(lora=lora, out=out, target_size="20kB"))
    assert 15_000 < out.stat().st_size <= 20_000


def test_a_rank_beyond_the_loras_is_said(lora: Path, tmp_path: Path) -> None:
    result = run(ResizeConfig(lora=lora, out=tmp_path / "large.safetensors", rank=16))
    assert result.kept == pytest.approx(1) and result.warnings == [
        "2 of 2 modules have no more than rank 8, which is kept whole: a larger rank would add only zeros."
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"say which rank: --rank 8, a rule \(--energy 0.95, --ratio 10 …\) or --target-size 20MB"),
        ({"energy": 0.9, "ratio": 5}, "energy and ratio are two rules for one rank"),
        ({"energy": 1.5}, "energy"),
        ({"ratio": 0.5}, "ratio"),
        ({"rank": 0}, "rank"),
        ({"target_size": "small"}, "'small' is no size of a file"),
    ],
)
def test_wrong_options(lora: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(MaquetteError, match=message):
        run(ResizeConfig.parse({"lora": lora, "out": tmp_path / "new.safetensors", **options}, "resize"))
    assert not (tmp_path / "new.safetensors").exists()


def test_nothing_is_overwritten(lora: Path, tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=r"it\.safetensors is what is read; choose another name with --out"):
        run(ResizeConfig(lora=lora, out=lora, rank=2))
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(MaquetteError, match="mine exists already; choose another name with --out"):
        run(ResizeConfig(lora=lora, out=tmp_path / "mine", rank=2))
    assert (tmp_path / "mine").read_text() == "precious"


def test_diffusers_reads_what_a_rule_made_rightly(tmp_path: Path) -> None:
    """Ranks differ between layers; with alphas in the file diffusers would take the commonest for all of them."""
    import peft
    from diffusers import StableDiffusionPipeline

    adapter = random_adapter(load("pocket"))
    torch.manual_seed(0)
    for module in adapter.modules.values():
        fall = torch.rand(4) ** 3
        module.factors["lora_down.weight"] *= fall.reshape(-1, *[1] * (module.factors["lora_down.weight"].ndim - 1))
    adapter.save(tmp_path / "it.safetensors")
    result = run(ResizeConfig(lora=tmp_path / "it.safetensors", out=tmp_path / "small.safetensors", energy=0.95))
    assert len({module["after"] for module in result.modules}) > 1
    small = adapters.load(tmp_path / "small.safetensors")
    pipeline = StableDiffusionPipeline.from_pretrained(WEIGHTS, safety_checker=None, torch_dtype=torch.float32)
    pipeline.load_lora_weights(tmp_path / "small.safetensors")
    seen = 0
    for part, model in (("unet", pipeline.unet), ("te", pipeline.text_encoder)):
        for path, layer in model.named_modules():
            if isinstance(layer, peft.tuners.lora.LoraLayer):
                theirs = layer.get_delta_weight(layer.active_adapters[0])
                assert torch.allclose(small.delta(kohya_names.named(part, path)), theirs, atol=1e-5), path
                seen += 1
    assert seen == len(small.modules) == len(adapter.modules)
