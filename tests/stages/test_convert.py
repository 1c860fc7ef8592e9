"""maquette convert: the numbers stay, nothing is overwritten, and the command line says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import maquette
from maquette import adapters
from maquette.cli.main import main
from maquette.errors import MaquetteError
from maquette.families import checkpoint
from maquette.families.pocket import WEIGHTS
from maquette.formats import ldm, safetensors, tensor_files
from maquette.stages.convert import ConvertConfig, ConvertResult, run


def convert(source: object, to: str, out: Path, **options: object) -> ConvertResult:
    return run(ConvertConfig.parse({"source": str(source), "to": to, "out": out, **options}, "convert"))


def equal_parts(a: checkpoint.Checkpoint, b: checkpoint.Checkpoint) -> bool:
    return all(
        a.parts[part].keys() == b.parts[part].keys()
        and all(torch.equal(tensor, b.parts[part][name]) for name, tensor in a.parts[part].items())
        for part in a.parts
    )


def test_folder_to_file_to_folder(tmp_path: Path) -> None:
    convert("pocket", "single-file", tmp_path / "p.safetensors")
    convert(tmp_path / "p.safetensors", "diffusers-dir", tmp_path / "folder")
    original, file, folder = (checkpoint.read(p) for p in (WEIGHTS, tmp_path / "p.safetensors", tmp_path / "folder"))
    assert equal_parts(original, file) and equal_parts(original, folder)
    assert file.spec.name == folder.spec.name == "pocket"


def test_precision(tmp_path: Path) -> None:
    convert("pocket", "single-file", tmp_path / "p.safetensors", dtype="bf16", half_vae=False)
    tensors = tensor_files.read(tmp_path / "p.safetensors").tensors
    assert {t.dtype for n, t in tensors.items() if n.startswith(ldm.UNET)} == {torch.bfloat16}
    assert {t.dtype for n, t in tensors.items() if n.startswith(ldm.VAE)} == {torch.float16}


def test_averaged_weights_only_where_there_are_some(tmp_path: Path) -> None:
    convert("pocket", "single-file", tmp_path / "p.safetensors")
    with pytest.raises(MaquetteError, match=r"p\.safetensors holds no averaged weights"):
        convert(tmp_path / "p.safetensors", "single-file", tmp_path / "q.safetensors", ema=True)
    file = tensor_files.read(tmp_path / "p.safetensors")
    ema = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): tensor + 1
        for name, tensor in file.tensors.items()
        if name.startswith(ldm.UNET)
    }
    safetensors.save(file.tensors | ema, tmp_path / "with.safetensors", file.metadata)
    convert(tmp_path / "with.safetensors", "single-file", tmp_path / "averaged.safetensors", ema=True)
    averaged = tensor_files.read(tmp_path / "averaged.safetensors").tensors
    name = f"{ldm.UNET}input_blocks.0.0.weight"
    assert torch.equal(averaged[name], file.tensors[name] + 1)
    assert not any(name.startswith("model_ema.") for name in averaged)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_text("precious")
    with pytest.raises(MaquetteError, match=r"mine\.safetensors exists already; choose another name with --out"):
        convert("pocket", "single-file", tmp_path / "mine.safetensors")
    assert (tmp_path / "mine.safetensors").read_text() == "precious"


def test_endings_and_names_are_checked(tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=r"must end in \.safetensors or \.ckpt"):
        convert("pocket", "single-file", tmp_path / "model.zip")
    with pytest.raises(MaquetteError, match="to"):
        convert("pocket", "onnx", tmp_path / "x")

    with pytest.raises(
        MaquetteError, match=r"model\.safetensors would be a folder; leave out the ending \.safetensors"
    ):
        convert("pocket", "diffusers-dir", tmp_path / "model.safetensors")
    small_lora(tmp_path / "lora.safetensors")
    for name, target, told in [
        ("x.txt", "kohya", r"x\.txt must end in \.safetensors, or in \.pt, \.bin or \.ckpt for a pickle"),
        ("x", "diffusers", r"x must end in \.safetensors"),
        ("x.safetensors", "peft", r"x\.safetensors would be a folder, which is what PEFT reads"),
    ]:
        with pytest.raises(MaquetteError, match=told):
            convert(tmp_path / "lora.safetensors", target, tmp_path / name)
    with pytest.raises(MaquetteError, match="must end in"):
        maquette.resize(tmp_path / "lora.safetensors", tmp_path / "x.txt", rank=1)
    assert [file.name for file in tmp_path.iterdir()] == ["lora.safetensors"]


@pytest.mark.parametrize(
    ("target", "options", "told"),
    [
        ("kohya", {"lossy": True, "rank": 4}, "lossy has no effect on kohya, which carries every kind"),
        ("kohya", {"rank": 4}, "rank has no effect without lossy: leave it out"),
        ("kohya", {"base": "pocket"}, "base has no effect without lossy"),
        ("peft", {"ema": True}, "ema has no effect on adapters, of which peft is a layout"),
        ("kohya", {"half_vae": False}, "half_vae has no effect on adapters"),
        ("kohya", {"prediction_type": "flow"}, "prediction_type has no effect on adapters"),
        ("single-file", {"lossy": True}, "lossy has no effect on models, of which single-file is a layout"),
    ],
)
def test_options_without_effect_are_refused(target: str, options: dict, told: str, tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=told):
        convert("pocket", target, tmp_path / "x.safetensors", **options)


@pytest.mark.parametrize("target", ["kohya", "comfyui", "diffusers"])
def test_a_textual_inversion_changes_its_form(target: str, tmp_path: Path) -> None:
    vectors, out = torch.randn(2, 768).half(), tmp_path / "new.safetensors"
    torch.save({"string_to_param": {"*": vectors}, "name": "ignored"}, tmp_path / "zkw.pt")
    result = convert(tmp_path / "zkw.pt", target, out)
    content = tensor_files.read(out).tensors
    name = "zkw" if target == "diffusers" else "emb_params"
    assert list(content) == [name] and torch.equal(content[name], vectors) and content[name].dtype == torch.float16
    assert (result.kind, result.family, result.tensors) == ("embedding", "sd1", 1)
    called = "the word was 'zkw'; A1111 and ComfyUI call it by its file's name, 'new'."
    assert result.warnings == ([] if target == "diffusers" else [called])


def test_textual_inversions_of_sdxl_and_what_has_no_form_for_them(tmp_path: Path) -> None:
    both = {"clip_l": torch.randn(2, 768), "clip_g": torch.randn(2, 1280)}
    safetensors.save(both, tmp_path / "word.safetensors", {"note": "kept"})
    convert(tmp_path / "word.safetensors", "diffusers", tmp_path / "x.safetensors", dtype="fp32")
    again = tensor_files.read(tmp_path / "x.safetensors")
    assert again.metadata["note"] == "kept" and again.tensors.keys() == both.keys()
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in both.items())
    with pytest.raises(MaquetteError, match="for which PEFT has no form; convert it with --to kohya, comfyui or diff"):
        convert(tmp_path / "word.safetensors", "peft", tmp_path / "y")
    with pytest.raises(MaquetteError, match="on which --lossy has no effect"):
        convert(tmp_path / "word.safetensors", "comfyui", tmp_path / "y.safetensors", lossy=True)


def test_a_model_is_no_adapter(tmp_path: Path) -> None:
    convert("pocket", "single-file", tmp_path / "a.safetensors")
    convert("pocket", "diffusers-dir", tmp_path / "folder")
    for source in ("pocket", tmp_path / "a.safetensors", tmp_path / "folder"):
        with pytest.raises(MaquetteError, match="is a model or a part of one; convert it with --to single-file or dif"):
            convert(source, "kohya", tmp_path / "x.safetensors")


def small_lora(path: Path) -> None:
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    factors = {"lora_down.weight": torch.ones(4, 8), "lora_up.weight": torch.ones(8, 4), "alpha": torch.tensor(2.0)}
    adapters.from_state_dict({f"{name}.{part}": t for part, t in factors.items()}, {}, "x").save(path)


def test_command_line_converts_an_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_lora(tmp_path / "k.safetensors")
    arguments = [str(tmp_path / "k.safetensors"), "--to", "diffusers", "--out", str(tmp_path / "d.safetensors")]
    with pytest.raises(SystemExit) as leaving:
        main(["convert", *arguments, "--json"])
    assert leaving.value.code in (0, None)
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "adapter" and told["path"] == str(tmp_path / "d.safetensors")
    keys = list(safetensors.load(tmp_path / "d.safetensors"))
    assert sorted(keys) == [
        f"unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_{letter}.weight" for letter in "AB"
    ]


def test_command_line_inspects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_lora(tmp_path / "k.safetensors")
    with pytest.raises(SystemExit) as leaving:
        main(["inspect", str(tmp_path / "k.safetensors")])
    assert leaving.value.code in (0, None)
    said = capsys.readouterr().out
    assert "k.safetensors is a lora adapter" in said and "4 (1 modules)" in said


def test_command_line_names_a_hostile_file_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.ckpt").write_bytes(b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00xR.")
    with pytest.raises(SystemExit) as leaving:
        main(["inspect", str(tmp_path / "bad.ckpt")])
    captured = capsys.readouterr()
    assert leaving.value.code == 1 and captured.out == ""
    assert "os.system" in captured.err and "Traceback" not in captured.err and captured.err.count("\n") == 1


def test_command_line_keeps_the_vaes_precision(tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    with pytest.raises(SystemExit) as leaving:
        main(["convert", "pocket", "--to", "single-file", "--dtype", "fp32", "--no-half-vae", "--out", str(out)])
    assert leaving.value.code in (0, None)
    tensors = tensor_files.read(out).tensors
    assert {t.dtype for n, t in tensors.items() if n.startswith(ldm.VAE)} == {torch.float16}
    assert {t.dtype for n, t in tensors.items() if n.startswith(ldm.UNET)} == {torch.float32}
