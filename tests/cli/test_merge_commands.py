"""maquette merge and maquette blend from the command line, on the pocket base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maquette import families
from maquette.cli.main import main
from tests.sampling.random_loras import write_lora


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_merge_then_blend_then_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora = write_lora(families.load("pocket"), tmp_path / "me.safetensors")
    merged, blended = tmp_path / "merged.safetensors", tmp_path / "blended.safetensors"
    assert run("merge", "pocket", "--lora", f"{lora}:0.8,lbw=ALL0.5", "--out", merged, "--json") == 0
    out, progress = capsys.readouterr()
    told = json.loads(out)
    assert told["family"] == "pocket" and told["changed"] > 50 and told["gb_per_second"] > 0
    assert "merging, MB" in progress and "GB/s" in progress and f"saved {merged}" in progress.replace("\n", "")
    assert run("blend", "pocket", merged, "--alpha", "0.3", "--out", blended) == 0
    capsys.readouterr()
    assert run("inspect", blended, "--no-hashes") == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("made from:")
    assert lines[start + 1] == "  weighted-sum, multiplier 0.3"
    assert any("LoRA: me.safetensors (" in line and "0.8, lbw ALL0.5" in line for line in lines)


def test_a_lora_made_of_several_is_told_where_it_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora, out = write_lora(families.load("pocket"), tmp_path / "me.safetensors"), tmp_path / "both.safetensors"
    assert run("merge", "--to", "lora", "--lora", lora, "--lora", f"{lora}:0.5", "--out", out) == 0
    assert f"saved {out}" in capsys.readouterr().err.replace("\n", "")


def test_faults_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("merge", "pocket", "--lora", "nowhere.safetensors", "--out", tmp_path / "x.safetensors") == 1
    assert capsys.readouterr().err.startswith("error: nowhere.safetensors")
    assert run("blend", "pocket", "--out", tmp_path / "x.safetensors") == 1
    assert "takes 2 models, not 1" in capsys.readouterr().err
    assert run("merge", "pocket", "--out", tmp_path / "x.safetensors") == 2
    assert list(tmp_path.iterdir()) == []
