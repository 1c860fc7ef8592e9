"""maquette extract: what the command writes and says, on the pocket base."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from diffusers import StableDiffusionPipeline

import maquette
from maquette import adapters
from maquette.adapters import kohya_names
from maquette.cli.main import main
from maquette.errors import MaquetteError
from maquette.families import load, save
from maquette.families.pocket import WEIGHTS
from maquette.formats import safetensors, tensor_files
from maquette.sampling.apply_loras import apply_loras
from maquette.stages.extract import ExtractConfig, run
from maquette.weights import stream
from tests.sampling.random_loras import random_adapter


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pocket base with a random LoRA of rank 4 added to its weights."""
    path = tmp_path_factory.mktemp("models") / "tuned.safetensors"
    model = stream.open_model("pocket")
    adapter = random_adapter(load("pocket"))
    for name, (part, key) in stream.layers(model).items():
        if name in adapter.modules:
            weight = model.parts[part][f"{key}.weight"].float()
            model.parts[part][f"{key}.weight"] = weight + adapter.delta(name).reshape(weight.shape)
    save.write_single_file(model, path, torch.float32)
    return path


def outcome(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def test_the_command_finds_the_lora_again(tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.safetensors"
    assert outcome("extract", str(tuned), "--base", "pocket", "--rank", "4", "--out", str(out)) == 0
    told = capsys.readouterr()
    assert "kept" in told.out and "100.00 %" in told.out and f"saved {out}" in told.err
    made, wanted = adapters.load(out), random_adapter(load("pocket"))
    assert made.modules.keys() == wanted.modules.keys() and made.family == "pocket"
    for name in wanted.modules:
        change = wanted.delta(name)
        assert float((made.delta(name).reshape(change.shape) - change).norm()) < 1e-3 * float(change.norm()), name
    assert made.metadata["ss_output_name"] == "mine" and made.metadata["ss_network_dim"] == "4"
    assert made.metadata["maquette.extracted_from"] == "tuned.safetensors minus pocket"


def test_the_base_with_the_lora_predicts_as_the_tuned_model(tuned: Path, tmp_path: Path) -> None:
    """extract, then apply: merged and prompted are the same."""
    run(ExtractConfig(tuned=tuned, base=Path("pocket"), out=tmp_path / "mine.safetensors", rank=4))
    base, whole = load("pocket", dtype=torch.float32), load(tuned, dtype=torch.float32)
    x, t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    with torch.no_grad():
        wanted = whole.predict(x, t, whole.encode_text(["a robot"]))
        without = base.predict(x, t, base.encode_text(["a robot"]))
        with apply_loras(base, [(adapters.load(tmp_path / "mine.safetensors"), 1.0, 1.0)]):
            found = base.predict(x, t, base.encode_text(["a robot"]))
    assert float((found - wanted).abs().max()) < 1e-3 < 0.05 < float((without - wanted).abs().max())


def test_diffusers_opens_what_was_extracted(tuned: Path, tmp_path: Path) -> None:
    """And changes every layer as the tuned model does, so its pictures are the tuned model's."""
    run(ExtractConfig(tuned=tuned, base=Path("pocket"), out=tmp_path / "mine.safetensors", energy=0.999))
    made = adapters.load(tmp_path / "mine.safetensors")
    pipeline = StableDiffusionPipeline.from_pretrained(WEIGHTS, safety_checker=None, torch_dtype=torch.float32)
    pipeline.load_lora_weights(tmp_path / "mine.safetensors")
    seen = 0
    for part, model in (("unet", pipeline.unet), ("te", pipeline.text_encoder)):
        for path, layer in model.named_modules():
            if isinstance(layer, peft.tuners.lora.LoraLayer):
                name = kohya_names.named(part, path)
                theirs = layer.get_delta_weight(layer.active_adapters[0])
                assert torch.allclose(made.delta(name).reshape(theirs.shape), theirs, atol=1e-5), path
                seen += 1
    assert seen == len(made.modules)


def test_json_has_every_layer(tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.safetensors"
    arguments = ("--base", "pocket", "--energy", "0.5", "--dtype", "fp16", "--no-text-encoder", "--json")
    assert outcome("extract", str(tuned), *arguments, "--out", str(out)) == 0
    result = json.loads(capsys.readouterr().out)
    assert all(0.49 < layer["kept"] <= 1 and layer["rank"] <= 4 for layer in result["layers"])
    assert result["left_out"].keys() == {"layers of the text encoders"} and result["size_bytes"] == out.stat().st_size
    assert result["warnings"][0].endswith("where a lora has no place, most of it in layers of the text encoders.")


def test_a_rank_too_small_is_said(tuned: Path, tmp_path: Path) -> None:
    result = run(ExtractConfig(tuned=tuned, base=Path("pocket"), out=tmp_path / "x.safetensors", rank=1))
    assert result.kept < 0.5 and "a larger --rank keeps more." in result.warnings[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"say which rank: --rank 32, or a rule \(--energy 0.9, --ratio 10 …\)"),
        ({"method": "lokr", "energy": 0.5}, "a LoKr's rank follows no rule"),
        ({"rank": 4, "clamp_quantile": 0}, "clamp_quantile"),
        ({"rank": 4, "dora_axis": "output"}, "dora_axis has no effect without dora: leave it out"),
        ({"rank": 4, "conv_rank": 2}, "conv_rank has no effect on the method lora, which leaves convolutions alone"),
        ({"rank": 4, "lokr_factor": 4}, "lokr_factor has no effect on the method lora"),
        ({"method": "lokr", "clamp_quantile": 0.9}, "clamp_quantile has no effect on the method lokr"),
        ({"rank": 4, "method": "loha"}, "method"),
        ({"rank": 4, "base": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_wrong_options(tuned: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    values = {"tuned": tuned, "base": "pocket", "out": tmp_path / "x.safetensors", **options}
    with pytest.raises(MaquetteError, match=message):
        run(ExtractConfig.parse(values, "extract"))
    assert not (tmp_path / "x.safetensors").exists()


def test_models_of_eight_bits(tuned: Path, tmp_path: Path) -> None:
    """The base's numbers are taken as they are stored; what is written has 16 bits."""
    maquette.convert("pocket", "single-file", tmp_path / "base.safetensors")
    for name, source in (("base", tmp_path / "base.safetensors"), ("tuned", tuned)):
        file = tensor_files.read(source)
        narrow = {k: t.to(torch.float8_e4m3fn) if t.is_floating_point() else t for k, t in file.tensors.items()}
        safetensors.save(narrow, tmp_path / f"{name}-8.safetensors", file.metadata)
    base, out = tmp_path / "base-8.safetensors", tmp_path / "x.safetensors"
    result = run(ExtractConfig(tuned=tuned, base=base, out=out, rank=2))
    before, after = (stream.weights(stream.open_model(model)) for model in (base, tuned))
    for layer in result.layers[:3]:
        one, two = before(layer["name"]), after(layer["name"])
        assert one is not None and two is not None
        assert layer["energy"] == pytest.approx(float((two - one).square().sum()), rel=1e-4)
    run(ExtractConfig(tuned=tmp_path / "tuned-8.safetensors", base=base, out=tmp_path / "y.safetensors", rank=2))
    assert {t.dtype for t in safetensors.load(tmp_path / "y.safetensors").values()} == {torch.float16}


def test_nothing_is_overwritten(tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=r"tuned\.safetensors is what is read; choose another name with --out"):
        run(ExtractConfig(tuned=tuned, base=Path("pocket"), out=tuned, rank=4))
