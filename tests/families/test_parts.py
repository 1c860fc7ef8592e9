"""A VAE or a UNet that takes the place of a model's own; what SDXL's VAE does in fp16; folders in every state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

from maquette import families
from maquette.cli.main import main
from maquette.errors import MaquetteError
from maquette.families import checkpoint, save
from maquette.formats import ldm, safetensors, tensor_files
from maquette.formats.png import parse_infotext
from maquette.stages.convert import ConvertConfig
from maquette.stages.convert import run as run_convert
from maquette.stages.generate import GenerateConfig
from maquette.stages.generate import run as run_generate
from maquette.stages.inspect import InspectConfig
from maquette.stages.inspect import run as run_inspect

Folders = dict[str, Path]
VAE_BIAS = "decoder.conv_in.bias"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("parts")
    return {family: tiny.write_folder(root / family, family) for family in ("sd1", "sdxl")}


@pytest.fixture(scope="module")
def files(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("files")
    for family, folder in folders.items():
        save.write_single_file(checkpoint.read(folder), root / f"{family}.safetensors")
    return {family: root / f"{family}.safetensors" for family in folders}


@pytest.fixture
def other_vae(files: Folders, tmp_path: Path) -> Path:
    tensors = {n: t + 0.5 for n, t in tensor_files.read(files["sd1"]).tensors.items() if n.startswith(ldm.VAE)}
    safetensors.save({n.removeprefix(ldm.VAE): t for n, t in tensors.items()}, tmp_path / "vae.safetensors")
    return tmp_path / "vae.safetensors"


@pytest.fixture
def other_unet(files: Folders, tmp_path: Path) -> Path:
    tensors = {n: t + 0.5 for n, t in tensor_files.read(files["sd1"]).tensors.items() if n.startswith(ldm.UNET)}
    safetensors.save(tensors, tmp_path / "unet.safetensors")
    return tmp_path / "unet.safetensors"


def test_a_chosen_vae_is_named_and_hashed(files: Folders, other_vae: Path) -> None:
    base = families.load(files["sd1"], vae=other_vae)
    own = families.load(files["sd1"])
    assert torch.equal(base.vae.decoder.conv_in.bias, own.vae.decoder.conv_in.bias + 0.5)
    assert (base.vae_source, base.vae_hash) == (str(other_vae), safetensors.file_sha256(other_vae))
    assert (own.vae_source, own.vae_hash) == ("", "") and base.content_hash == own.content_hash


def test_generate_draws_with_the_chosen_vae_and_says_so(files: Folders, other_vae: Path, tmp_path: Path) -> None:
    made = {}
    for name, vae in (("own", None), ("other", str(other_vae))):
        config = GenerateConfig(
            prompt="a cat", base=str(files["sd1"]), vae=vae, out=tmp_path / name, width=64, height=64, steps=2, seed=1
        )
        made[name] = run_generate(config)
    own, other = (parse_infotext(made[name].infotexts[0]) for name in ("own", "other"))
    assert other["VAE"] == "vae.safetensors" and other["VAE hash"] == safetensors.file_sha256(other_vae)[:10]
    assert "VAE" not in own and own["Model hash"] == other["Model hash"]
    assert made["own"].images[0].tobytes() != made["other"].images[0].tobytes()


def test_a_vae_of_another_family_is_refused(files: Folders, folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match="is a model of Stable Diffusion XL; its VAE does not fit"):
        families.load(files["sd1"], vae=files["sdxl"])
    with pytest.raises(MaquetteError, match=r"is not a VAE for Stable Diffusion 1: its latents are scaled by 0\.13025"):
        families.load(files["sd1"], vae=folders["sdxl"])
    with pytest.raises(MaquetteError, match="nowhere does not exist; give a VAE's file or folder"):
        families.load(files["sd1"], vae=tmp_path / "nowhere")


def test_single_parts_are_no_bases_and_the_sentence_says_what_to_do(other_unet: Path, other_vae: Path) -> None:
    with pytest.raises(MaquetteError, match=r"unet\.safetensors is a UNet alone, .*convert BASE --unet .*unet\.safete"):
        families.load(other_unet)
    with pytest.raises(MaquetteError, match=r"vae\.safetensors is a VAE alone, .*--base BASE --vae .*vae\.safetensors"):
        families.load(other_vae)
    with pytest.raises(MaquetteError, match="is a UNet alone"):
        run_convert(ConvertConfig(source=other_unet, to="diffusers-dir", out=other_unet.parent / "x"))


@pytest.mark.parametrize("form", ["ldm", "bare", "diffusers", "folder"])
def test_convert_puts_a_unet_and_a_vae_into_a_model(
    files: Folders, other_unet: Path, other_vae: Path, tmp_path: Path, form: str
) -> None:
    tensors = tensor_files.read(other_unet).tensors
    unet = other_unet
    if form == "bare":
        unet = tmp_path / "bare.safetensors"
        safetensors.save({n.removeprefix(ldm.UNET): t for n, t in tensors.items()}, unet)
    if form in ("diffusers", "folder"):
        unet = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
        safetensors.save(ldm.split(tensors, {"unet": ldm.UNET}).parts["unet"], unet)
        unet = unet.parent if form == "folder" else unet
    out = tmp_path / "whole.safetensors"
    run_convert(ConvertConfig(source=files["sd1"], to="single-file", out=out, unet=unet, vae=other_vae))
    whole, source = tensor_files.read(out).tensors, tensor_files.read(files["sd1"]).tensors
    assert whole.keys() == source.keys()
    for name, tensor in whole.items():
        changed = name.startswith((ldm.UNET, ldm.VAE))
        assert torch.equal(tensor, source[name] + 0.5 if changed else source[name]), name


def test_a_unet_of_another_family_is_not_put_in(files: Folders, tmp_path: Path) -> None:
    config = ConvertConfig(source=files["sd1"], to="single-file", out=tmp_path / "x.safetensors", unet=files["sdxl"])
    with pytest.raises(MaquetteError, match=r"holds a UNet of Stable Diffusion XL, but .* is Stable Diffusion 1\."):
        run_convert(config)


@pytest.fixture(scope="module")
def pocket_parts(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The pocket base in every form in which its parts can be given."""
    root = tmp_path_factory.mktemp("pocket")
    run_convert(ConvertConfig(source="pocket", to="single-file", out=root / "whole.safetensors"))
    run_convert(ConvertConfig(source="pocket", to="diffusers-dir", out=root / "folder"))
    part = "diffusion_pytorch_model.safetensors"
    return {
        "whole": root / "whole.safetensors", "folder": root / "folder",
        "vae alone": root / "folder" / "vae" / part, "unet alone": root / "folder" / "unet" / part,
    }  # fmt: skip


@pytest.mark.parametrize("form", ["whole", "folder", "vae alone"])
def test_pockets_own_vae_given_as_a_file_draws_as_it_does(pocket_parts: Folders, form: str) -> None:
    own, given = families.load("pocket"), families.load("pocket", vae=pocket_parts[form])
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(own.decode(latents), given.decode(latents))


def test_pockets_vae_is_refused_by_name_elsewhere(files: Folders, pocket_parts: Folders) -> None:
    with pytest.raises(MaquetteError, match="is a model of maquette's pocket base; its VAE does not fit"):
        families.load(files["sd1"], vae=pocket_parts["whole"])


@pytest.mark.parametrize("form", ["whole", "folder", "unet alone"])
def test_convert_puts_a_unet_into_pocket(pocket_parts: Folders, tmp_path: Path, form: str) -> None:
    out = tmp_path / "new.safetensors"
    run_convert(ConvertConfig(source="pocket", to="single-file", out=out, unet=pocket_parts[form]))
    assert out.read_bytes() == pocket_parts["whole"].read_bytes()


def test_sdxl_in_fp16_says_that_its_vae_runs_in_fp32(files: Folders) -> None:
    base = families.load(files["sdxl"], dtype=torch.float16)
    assert next(base.vae.parameters()).dtype == torch.float32
    assert base.notices == [
        "The VAE of Stable Diffusion XL overflows in fp16 and runs in fp32 here; one that is fixed for fp16 can be "
        "named with --vae."
    ]
    for whole in (families.load(files["sdxl"]), families.load(files["sd1"], dtype=torch.float16)):
        assert whole.notices == [] and next(whole.vae.parameters()).dtype == next(whole.unet.parameters()).dtype


@pytest.mark.parametrize("told", ["folder", "title", "converted"])
def test_a_fixed_vae_runs_in_fp16(files: Folders, folders: Folders, tmp_path: Path, told: str) -> None:
    vae = tmp_path / "vae"
    tensors = safetensors.load(folders["sdxl"] / "vae" / "diffusion_pytorch_model.safetensors")
    safetensors.save(tensors, vae / "diffusion_pytorch_model.safetensors", {"modelspec.title": "SDXL VAE fp16 fix"})
    config = json.loads((folders["sdxl"] / "vae" / "config.json").read_text()) | {"force_upcast": False}
    (vae / "config.json").write_text(json.dumps(config))
    if told == "converted":
        whole = tmp_path / "whole.safetensors"
        run_convert(ConvertConfig(source=files["sdxl"], to="single-file", out=whole, vae=vae))
        base = families.load(whole, dtype=torch.float16)
    else:
        path = vae if told == "folder" else vae / "diffusion_pytorch_model.safetensors"
        base = families.load(files["sdxl"], dtype=torch.float16, vae=path)
    assert next(base.vae.parameters()).dtype == torch.float16 and base.notices == []


def folder_like(folders: Folders, target: Path, form: str) -> Path:
    """sd1's folder as other programs leave it: .bin files, an fp16 variant, or weights in several files."""
    import shutil

    shutil.copytree(folders["sd1"], target)
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        tensors = safetensors.load(target / part / f"{name}.safetensors")
        (target / part / f"{name}.safetensors").unlink()
        if form == "bin":
            torch.save(
                tensors, target / part / f"{name.replace('model', 'pytorch_model') if name == 'model' else name}.bin"
            )
        elif form == "fp16":
            safetensors.save(tensors, target / part / f"{name}.fp16.safetensors", dtype=torch.float16)
        else:
            names, index = sorted(tensors), {}
            for number, chosen in enumerate((names[::2], names[1::2]), 1):
                shard = f"{name}-0000{number}-of-00002.safetensors"
                safetensors.save({n: tensors[n] for n in chosen}, target / part / shard)
                index |= dict.fromkeys(chosen, shard)
            (target / part / f"{name}.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return target


@pytest.mark.parametrize("form", ["bin", "fp16", "shards"])
def test_folders_in_every_state(folders: Folders, tmp_path: Path, form: str) -> None:
    read = checkpoint.read(folder_like(folders, tmp_path / form, form))
    expected = checkpoint.read(folders["sd1"])
    dtype = torch.float16 if form == "fp16" else torch.float32
    assert read.spec == expected.spec
    for part, tensors in expected.parts.items():
        assert read.parts[part].keys() == tensors.keys()
        assert all(torch.equal(read.parts[part][name], tensor.to(dtype)) for name, tensor in tensors.items())
    found = run_inspect(InspectConfig(path=tmp_path / form / "unet"))
    assert (found.kind, found.family, found.tensors) == ("unet", "sd1", len(expected.parts["unet"]))


def test_a_missing_shard_is_named(folders: Folders, tmp_path: Path) -> None:
    folder = folder_like(folders, tmp_path / "shards", "shards")
    (folder / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MaquetteError, match=r"00002-of-00002\.safetensors is missing; .*index\.json names it"):
        families.load(folder)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_eight_bit_files_are_told_and_converted(files: Folders, tmp_path: Path, dtype: torch.dtype) -> None:
    save.write_single_file(checkpoint.read(files["sd1"]), tmp_path / "x.safetensors", dtype)
    found = run_inspect(InspectConfig(path=tmp_path / "x.safetensors"))
    assert list(found.dtypes) == [str(dtype).removeprefix("torch.")] and not found.problems
    run_convert(
        ConvertConfig(source=tmp_path / "x.safetensors", to="single-file", out=tmp_path / "y.ckpt", dtype="fp16")
    )
    small, back = tensor_files.read(tmp_path / "x.safetensors").tensors, tensor_files.read(tmp_path / "y.ckpt").tensors
    assert small.keys() == back.keys() and all(torch.equal(back[n], t.half()) for n, t in small.items())


def test_eight_channels_are_an_editing_model(tmp_path: Path) -> None:
    folder = tiny.write_folder(tmp_path / "edit", "sd1", 8)
    run_convert(ConvertConfig(source=folder, to="single-file", out=tmp_path / "edit.safetensors"))
    found = run_inspect(InspectConfig(path=tmp_path / "edit.safetensors"))
    assert found.sentence == "edit.safetensors is a whole model: Stable Diffusion 1, instruct-pix2pix."
    run_convert(ConvertConfig(source=tmp_path / "edit.safetensors", to="diffusers-dir", out=tmp_path / "again"))
    index = json.loads((tmp_path / "again" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionInstructPix2PixPipeline"
    base = families.load(tmp_path / "again")
    assert base.unet.config.in_channels == 8


@pytest.mark.parametrize("command", ["generate", "regularize", "train"])
def test_the_command_lines_take_a_vae(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    from PIL import Image

    Image.new("RGB", (64, 64), "red").save(tmp_path / "photos" / "a.png")
    rest = {
        "generate": ["a cat", "--out", str(tmp_path / "o")],
        "regularize": [str(tmp_path / "o"), "--prompt", "a cat", "--count", "1"],
        "train": [str(tmp_path / "photos"), "--subject", "zkw cat", "--out", str(tmp_path / "o")],
    }[command]
    with pytest.raises(SystemExit) as leaving:
        main([command, *rest, "--vae", str(tmp_path / "no-vae.safetensors")])
    error = capsys.readouterr().err
    assert leaving.value.code == 1 and "no-vae.safetensors does not exist; give a VAE's file or folder" in error
