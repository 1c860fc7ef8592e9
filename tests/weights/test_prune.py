"""Blocks of a LoRA are dropped by what they change of the base's predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maquette import adapters
from maquette.adapters.file import Adapter
from maquette.cli.main import main
from maquette.errors import MaquetteError
from maquette.families import load
from maquette.families.base import BaseModel
from maquette.sampling.apply_loras import apply_loras
from maquette.weights.prune import Probe, group, prune
from tests.sampling.random_loras import random_adapter


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load("pocket", dtype=torch.float32)


def planted(base: BaseModel, strength: float = 0.02) -> Adapter:
    """Strong in the middle, a thousandth of that elsewhere in the UNet."""
    adapter = random_adapter(base, text_encoder=False, strength=strength)
    for name, module in adapter.modules.items():
        if "mid_block" not in name:
            module.factors["lora_up.weight"] = module.factors["lora_up.weight"] * 0.001
    return adapter


def test_the_weak_blocks_are_dropped_and_the_strong_one_stays(base: BaseModel) -> None:
    adapter = planted(base)
    before = {name: t.clone() for name, t in base.unet.state_dict().items()}
    made = prune(adapter, base, limit=0.05, prompt="a robot")
    assert made.effects[0].block == "M00" and made.effects[0].effect > 0.9
    assert "M00" not in made.dropped and len(made.dropped) >= len(made.effects) - 2
    assert made.effect <= 0.05
    assert {name for name in adapter.modules if "mid_block" in name} <= set(made.adapter.modules)
    assert made.adapter.metadata["maquette.pruned"] == ", ".join(made.dropped)
    assert all(torch.equal(t, before[name]) for name, t in base.unet.state_dict().items())


def test_the_effect_is_that_of_the_predictions(base: BaseModel) -> None:
    """By hand, at the first place of the road: pure noise at 95 % of the schedule."""
    adapter = random_adapter(base)
    probe = Probe(base, adapter, "a robot", seed=3)
    x, t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3)), torch.tensor([int(0.95 * 999)])
    with torch.no_grad():
        assert torch.allclose(probe.without[0], base.predict(x, t, base.encode_text(["a robot"])), atol=1e-5)
        with apply_loras(base, [(adapter, 1.0, 1.0)]):
            assert torch.allclose(probe.with_lora[0], base.predict(x, t, base.encode_text(["a robot"])), atol=1e-5)
    assert probe.effect(adapter) == 0 and probe.effect(replace(adapter, modules={})) == pytest.approx(1)
    text = [name for name in adapter.modules if name.startswith("text_encoder")]
    rest = replace(adapter, modules={n: m for n, m in adapter.modules.items() if n not in text})
    difference = sum(
        float((a - b).square().sum()) for a, b in zip(probe.predictions(rest), probe.with_lora, strict=True)
    )
    whole = sum(float((a - b).square().sum()) for a, b in zip(probe.without, probe.with_lora, strict=True))
    assert probe.effect(rest) == pytest.approx((difference / whole) ** 0.5, rel=1e-4)


def test_chosen_blocks_are_dropped(base: BaseModel) -> None:
    adapter = random_adapter(base)
    made = prune(adapter, base, ["BASE", "M00"])
    assert made.dropped == ["BASE", "M00"] and 0 < made.effect < 1
    assert not [name for name in made.adapter.modules if "mid_block" in name or name.startswith("text_encoder")]
    assert len(made.adapter.modules) + sum(len(group(adapter)[name]) for name in made.dropped) == len(adapter.modules)
    with pytest.raises(MaquetteError, match=r"has no block IN99; its blocks are BASE, IN"):
        prune(adapter, base, ["IN99"])
    with pytest.raises(MaquetteError, match="nothing would be left"):
        prune(adapter, base, list(group(adapter)))


def test_a_lora_of_nothing_is_said(base: BaseModel) -> None:
    with pytest.raises(MaquetteError, match="changes nothing of what pocket predicts"):
        prune(random_adapter(base, strength=0.0), base)


def outcome(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def test_the_command(base: BaseModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "it.safetensors", tmp_path / "small.safetensors"
    planted(base).save(file, metadata={"modelspec.trigger_phrase": "zkw robot"})
    assert outcome("prune", str(file), "--base", "pocket", "--out", str(out)) == 0
    told = capsys.readouterr().out
    assert "of the effect is lost" in told and "left out" in told
    assert out.stat().st_size < file.stat().st_size and adapters.load(out).family == "pocket"
    arguments = ("--base", "pocket", "--limit", "0", "--json", "--out", str(tmp_path / "same.safetensors"))
    assert outcome("prune", str(file), *arguments) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["dropped"] == [] and result["prompt"] == "zkw robot"
    assert {"block", "modules", "bytes", "effect", "dropped"} == set(result["blocks"][0])
    assert "no block could be left out within 0 %" in printed.err
    assert outcome("prune", str(file), "--base", "pocket", "--out", str(file)) == 1
    assert "is what is read" in capsys.readouterr().err
    assert outcome("prune", str(file), *arguments, "--blocks", "M00") == 1
    assert "limit has no effect beside blocks" in capsys.readouterr().err
