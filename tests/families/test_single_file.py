"""Single files and folders of all families: against diffusers' own reader, round trips, what is lost (nothing), what
is refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from maquette import families
from maquette.errors import MaquetteError
from maquette.families import checkpoint, save
from maquette.formats import ldm, safetensors, tensor_files

CASES = [(family, channels) for family in ("sd1", "sd2", "sdxl") for channels in (4, 9)]
Folders = dict[tuple[str, int], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("folders")
    return {case: tiny.write_folder(root / f"{case[0]}-{case[1]}", *case) for case in CASES}


@pytest.fixture(scope="module")
def files(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("files")
    made = {}
    for case, folder in folders.items():
        made[case] = root / f"{folder.name}.safetensors"
        save.write_single_file(checkpoint.read(folder), made[case])
    return made


def equal_parts(a: checkpoint.Checkpoint, b: checkpoint.Checkpoint) -> bool:
    return a.parts.keys() == b.parts.keys() and all(equal(a.parts[part], b.parts[part]) for part in a.parts)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


OPENED: dict[str, dict[str, Any]] = {}


def their_tokenizers(config: Path, family: str) -> dict[str, Any]:
    """A family's, which take transformers longer to open than all else: opened once."""
    from transformers import CLIPTokenizer

    if family not in OPENED:
        names = ["tokenizer", "tokenizer_2"] if family == "sdxl" else ["tokenizer"]
        OPENED[family] = {name: CLIPTokenizer.from_pretrained(str(config / name)) for name in names}
    return OPENED[family]


def same_as_diffusers(path: Path, config: Path, family: str, channels: int) -> None:
    """The oracle: diffusers must find every tensor in the file or folder and compute the same text features, prediction
    and picture; a single file by from_single_file with a local configuration.
    """
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    options = {"local_files_only": True, "torch_dtype": torch.float32, **their_tokenizers(config, family)}
    options |= {} if family == "sdxl" else {"safety_checker": None}
    if path.is_dir():
        pipeline = kind.from_pretrained(str(path), **options)
    else:
        pipeline = kind.from_single_file(str(path), config=str(config), **options)
    read = checkpoint.read(path)
    for part, tensors in read.parts.items():
        theirs = {name.removeprefix("text_model."): t for name, t in getattr(pipeline, part).state_dict().items()}
        assert equal({name: tensor.float() for name, tensor in tensors.items()}, theirs), part
    base = families.load(path)
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(1, channels, 8, 8, generator=generator), torch.tensor([300])
    with torch.no_grad():
        text = base.encode_text(["a photo of a cat"])
        ours = base.predict(x[:, :4], t, replace(text, concat=x[:, 4:] if channels > 4 else None))
        if family == "sdxl":
            encoded = pipeline.encode_prompt("a photo of a cat", device="cpu", do_classifier_free_guidance=False)
            sizes = torch.tensor([[64, 64, 0, 0, 64, 64]])
            added = {"text_embeds": encoded[2], "time_ids": sizes}
            theirs = pipeline.unet(x, t, encoded[0], added_cond_kwargs=added).sample
            assert torch.allclose(text.pooled, encoded[2], atol=1e-5)
        else:
            encoded = pipeline.encode_prompt("a photo of a cat", "cpu", 1, False)
            theirs = pipeline.unet(x, t, encoded[0]).sample
        assert torch.allclose(text.tokens, encoded[0], atol=1e-5)
        assert torch.allclose(ours, theirs, atol=1e-5)  # weights at other addresses: float32 sums in another order
        picture = pipeline.vae.decode(x[:, :4] / pipeline.vae.config.scaling_factor).sample / 2 + 0.5
        assert torch.allclose(base.decode(x[:, :4]), picture.clamp(0, 1), atol=1e-5)


@pytest.mark.parametrize("family, channels", CASES)
def test_diffusers_reads_our_file_and_computes_the_same(
    folders: Folders, files: Folders, family: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    same_as_diffusers(files[family, channels], folders[family, channels], family, channels)


@pytest.mark.heavy
@pytest.mark.parametrize("family, channels", CASES)
@pytest.mark.parametrize("container", ["x.safetensors", "x.ckpt", "folder"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_form_is_kept_and_computes_what_diffusers_computes(
    folders: Folders,
    tmp_path: Path,
    family: str,
    channels: int,
    container: str,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Load, save, load, save, load: equal tensors and key names each time, and diffusers' own output."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write = save.write_folder if container == "folder" else save.write_single_file
    source = folders[family, channels]
    write(checkpoint.read(source), tmp_path / container, dtype)
    first = checkpoint.read(tmp_path / container)
    (tmp_path / "again").mkdir()
    write(first, tmp_path / "again" / container)
    second = checkpoint.read(tmp_path / "again" / container)
    assert equal_parts(first, second) and first.extras.keys() == second.extras.keys()
    for one, other in zip(first.files, second.files, strict=True):
        assert equal(tensor_files.read(one).tensors, tensor_files.read(other).tensors), one
    same_as_diffusers(tmp_path / container, source, family, channels)


@pytest.mark.parametrize("family, channels", CASES)
@pytest.mark.parametrize("container", ["x.safetensors", "x.ckpt", "folder"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_write_and_read_keep_every_tensor(
    folders: Folders, tmp_path: Path, family: str, channels: int, container: str, dtype: torch.dtype
) -> None:
    first = checkpoint.read(folders[family, channels])
    for part in ("text_encoder", "text_encoder_2"):  # a short vocabulary keeps the files small
        if part in first.parts:
            table = first.parts[part]["embeddings.token_embedding.weight"]
            first.parts[part]["embeddings.token_embedding.weight"] = table[:500]
            first.configs[part]["vocab_size"] = 500
    expected = {part: {n: t.to(dtype) for n, t in tensors.items()} for part, tensors in first.parts.items()}
    path = tmp_path / container
    (save.write_folder if container == "folder" else save.write_single_file)(first, path, dtype)
    again = checkpoint.read(path)
    assert again.spec == first.spec and again.parts.keys() == expected.keys()
    assert all(equal(again.parts[part], expected[part]) for part in expected)
    assert again.configs["unet"]["in_channels"] == channels


def original(path: Path, family: str) -> dict[str, torch.Tensor]:
    """A file as trainers write it: with what no diffusers folder has room for."""
    tensors = tensor_files.read(path).tensors
    generator = torch.Generator().manual_seed(3)
    prefix = {"sd1": ldm.CLIP, "sd2": ldm.OPEN_CLIP, "sdxl": ldm.XL_CLIP}[family]
    tensors["alphas_cumprod"] = torch.rand(1000, generator=generator)
    if family == "sd2":
        for name in [n for n in tensors if n.startswith(f"{prefix}transformer.resblocks.22.")]:
            tensors[name.replace("resblocks.22", "resblocks.23")] = torch.randn(
                tensors[name].shape, generator=generator
            )
        tensors[f"{prefix}text_projection"] = torch.randn(64, 64, generator=generator)
        tensors[f"{prefix}logit_scale"] = torch.tensor(4.6)
    else:
        tensors[f"{prefix}embeddings.position_ids"] = torch.arange(77)[None]
    for name in [n for n in tensors if n.startswith(ldm.UNET)]:
        flat = "model_ema." + name.removeprefix("model.").replace(".", "")
        tensors[flat] = torch.randn(tensors[name].shape, generator=generator)
    tensors["model_ema.decay"] = torch.tensor(0.9999)
    return tensors


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_file_to_folder_to_file_restores_names_and_tensors(files: Folders, tmp_path: Path, family: str) -> None:
    tensors = original(files[family, 4], family)
    safetensors.save(tensors, tmp_path / "original.safetensors", {"title": "kept"})
    first = checkpoint.read(tmp_path / "original.safetensors")
    save.write_folder(first, tmp_path / "folder")
    save.write_single_file(checkpoint.read(tmp_path / "folder"), tmp_path / "again.safetensors")
    again = tensor_files.read(tmp_path / "again.safetensors")
    assert equal(again.tensors, tensors)
    assert again.metadata["title"] == "kept"


def test_a_text_encoder_without_its_level_keeps_its_names(files: Folders, tmp_path: Path) -> None:
    """Some tools write `cond_stage_model.transformer.encoder…`; such a file must open and be restored as it was."""
    tensors = {
        name.replace(ldm.CLIP, ldm.CLIP_FLAT): t for name, t in tensor_files.read(files["sd1", 4]).tensors.items()
    }
    safetensors.save(tensors, tmp_path / "x.safetensors")
    read = checkpoint.read(tmp_path / "x.safetensors")
    assert equal_parts(read, checkpoint.read(files["sd1", 4]))
    save.write_single_file(read, tmp_path / "y.safetensors")
    assert equal(tensor_files.read(tmp_path / "y.safetensors").tensors, tensors)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_shapes_are_known_without_numbers(files: Folders, family: str) -> None:
    model = checkpoint.read(files[family, 4])
    places = ldm.places(model.parts, model.prefixes).values()
    for place in places:
        own = [model.parts[place.part][name] for name in place.names]
        assert place.shape([tensor.shape for tensor in own]) == tuple(place.joined(own).shape)
    forms = {place.form for place in places} | {"joined" for place in places if len(place.names) > 1}
    assert forms >= ({"", "kernel"} if family == "sd1" else {"", "kernel", "joined"})


def test_averaged_weights_are_found(files: Folders, tmp_path: Path) -> None:
    tensors = original(files["sd1", 4], "sd1")
    single = ldm.split(tensors, ldm.find_prefixes(tensors))
    ema = ldm.ema_unet(single)
    assert ema is not None and ema.keys() == single.parts["unet"].keys()
    assert torch.equal(ema["conv_in.weight"], tensors["model_ema.diffusion_modelinput_blocks00weight"])
    assert ldm.ema_unet(ldm.split(tensor_files.read(files["sd1", 4]).tensors, single.prefixes)) is None


def test_a_folder_that_we_write_is_a_diffusers_folder(files: Folders, tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    save.write_folder(checkpoint.read(files["sdxl", 4]), tmp_path / "folder")
    pipeline = StableDiffusionXLPipeline.from_pretrained(tmp_path / "folder", local_files_only=True)
    base = families.load(tmp_path / "folder")
    for ours, theirs in zip(base.text_encoders, (pipeline.text_encoder, pipeline.text_encoder_2), strict=True):
        assert equal(ours.state_dict(), theirs.state_dict())
    assert equal(base.unet.state_dict(), pipeline.unet.state_dict())
    assert pipeline.tokenizer_2("a", padding="max_length", max_length=5).input_ids == [49406, 320, 49407, 0, 0]
    assert base.tokenizers[1].window("a")[:5] == [49406, 320, 49407, 0, 0]
    assert base.tokenizers[0].window("a")[:5] == [49406, 320, 49407, 49407, 49407]


def test_half_precision_file_keeps_the_vae_whole_when_asked(files: Folders, tmp_path: Path) -> None:
    save.write_single_file(checkpoint.read(files["sd1", 4]), tmp_path / "x.safetensors", torch.float16, half_vae=False)
    tensors = tensor_files.read(tmp_path / "x.safetensors").tensors
    assert {t.dtype for n, t in tensors.items() if n.startswith(ldm.VAE)} == {torch.float32}
    assert {t.dtype for n, t in tensors.items() if not n.startswith(ldm.VAE)} == {torch.float16}


def test_sdxl_in_half_precision_runs_its_vae_in_float32(files: Folders) -> None:
    base = families.load(files["sdxl", 4], dtype=torch.float16)
    assert next(base.vae.parameters()).dtype == torch.float32
    assert next(base.unet.parameters()).dtype == torch.float16


def test_eight_bit_weights_are_read(files: Folders, tmp_path: Path) -> None:
    save.write_single_file(checkpoint.read(files["sd1", 4]), tmp_path / "x.safetensors", torch.float8_e4m3fn)
    base = families.load(tmp_path / "x.safetensors")
    exact = families.load(files["sd1", 4])
    a, b = base.unet.conv_in.weight, exact.unet.conv_in.weight
    assert torch.equal(a, b.to(torch.float8_e4m3fn).float()) and not torch.equal(a, b)


def test_pocket_survives_as_a_single_file(tmp_path: Path) -> None:
    """Its heads, groups and latent size cannot be told from shapes, so they travel in the metadata."""
    pocket = families.load("pocket")
    save.write_single_file(
        checkpoint.read_folder(families.pocket.WEIGHTS, families.pocket.POCKET), tmp_path / "p.safetensors"
    )
    again = families.load(tmp_path / "p.safetensors")
    assert again.spec == pocket.spec and again.scheduler_config == pocket.scheduler_config
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(again.decode(x), pocket.decode(x))
        text = pocket.encode_text(["a cat"])
        assert torch.equal(again.predict(x, torch.tensor([7]), text), pocket.predict(x, torch.tensor([7]), text))
    with pytest.raises(MaquetteError, match=r"only be kept in a .safetensors"):
        save.write_single_file(checkpoint.read(tmp_path / "p.safetensors"), tmp_path / "p.ckpt")


def test_another_vae_can_be_chosen(files: Folders, folders: Folders, tmp_path: Path) -> None:
    tensors = {n: t + 1 for n, t in tensor_files.read(files["sd1", 4]).tensors.items() if n.startswith(ldm.VAE)}
    expected = tensors[f"{ldm.VAE}decoder.conv_in.bias"]
    safetensors.save(tensors, tmp_path / "whole.safetensors")
    safetensors.save({n.removeprefix(ldm.VAE): t for n, t in tensors.items()}, tmp_path / "bare.safetensors")
    for path in (tmp_path / "whole.safetensors", tmp_path / "bare.safetensors"):
        base = families.load(files["sd1", 4], vae=path)
        assert torch.equal(base.vae.decoder.conv_in.bias, expected)
    own = families.load(files["sd1", 4], vae=folders["sd1", 4])
    assert torch.allclose(own.vae.decoder.conv_in.bias, expected - 1, atol=1e-6)
    with pytest.raises(MaquetteError, match="contains no VAE"):
        safetensors.save({"x": torch.zeros(1)}, tmp_path / "no.safetensors")
        families.load(files["sd1", 4], vae=tmp_path / "no.safetensors")


@pytest.mark.parametrize(
    "family, metadata, extra, yaml, expected",
    [
        ("sd1", {}, None, None, "epsilon"),
        ("sd2", {}, None, None, "v_prediction"),
        ("sd2", {"modelspec.prediction_type": "epsilon"}, None, None, "epsilon"),
        ("sd2", {}, ("global_step", 875000), None, "epsilon"),
        ("sd2", {}, ("global_step", 110000), None, "v_prediction"),
        ("sd2", {}, None, "model: {}", "epsilon"),
        ("sd1", {}, None, 'params:\n  parameterization: "v"\n', "v_prediction"),
        ("sdxl", {}, ("v_pred", 0), None, "v_prediction"),
    ],
)
def test_prediction_type_follows_the_documented_rule(
    files: Folders, tmp_path: Path, family: str, metadata: dict, extra: tuple | None, yaml: str | None, expected: str
) -> None:
    tensors = tensor_files.read(files[family, 4]).tensors
    if extra is not None:
        tensors[extra[0]] = torch.tensor(extra[1])
    safetensors.save(tensors, tmp_path / "m.safetensors", metadata)
    if yaml is not None:
        (tmp_path / "m.yaml").write_text(yaml)
    assert checkpoint.read(tmp_path / "m.safetensors").scheduler["prediction_type"] == expected


def test_prediction_type_can_be_overruled(files: Folders) -> None:
    read = checkpoint.read(files["sd2", 4], prediction_type="epsilon")
    assert read.scheduler["prediction_type"] == "epsilon" and read.spec.base_model_version == "sd_v2"
    read = checkpoint.read(files["sd2", 4], prediction_type="v_prediction")
    assert read.spec.base_model_version == "sd_v2_v" and read.spec.native_size == 768
    with pytest.raises(MaquetteError, match="'velocity' is unknown; choose epsilon, v_prediction or flow"):
        checkpoint.read(files["sd2", 4], prediction_type="velocity")


def test_a_written_folder_is_never_overwritten(files: Folders, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("precious")
    with pytest.raises(MaquetteError, match="exists already and is not empty"):
        save.write_folder(checkpoint.read(files["sd1", 4]), tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_content_hash_is_the_files_sha256_and_computed_when_asked(files: Folders) -> None:
    base = families.load(files["sd1", 4])
    assert base.content_hash == safetensors.file_sha256(files["sd1", 4])


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_sdxl_uses_the_layer_before_the_last_whatever_is_asked(files: Folders, clip_skip: int) -> None:
    """A1111 counts that layer as clip skip 2, and so do model cards; sd-scripts passes over the option."""
    base = families.load(files["sdxl", 4])
    ids = [torch.tensor([tokenizer.window("a photo of a cat")]) for tokenizer in base.tokenizers]
    with torch.no_grad():
        found = base.encode_text(["a photo of a cat"], clip_skip=clip_skip).tokens
        layers = [encoder(window).hidden_states[-2] for encoder, window in zip(base.text_encoders, ids, strict=True)]
    assert torch.equal(found, torch.cat(layers, -1))


@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_v_and_zero_terminal_snr_are_written_as_other_programs_read_them(tmp_path: Path, ending: str) -> None:
    """By tensors called `v_pred` and `ztsnr`, which ComfyUI and A1111 look for; they go where they are not true."""
    read = checkpoint.read(tiny.write_folder(tmp_path / "v", "sdxl", prediction="v_prediction"))
    read.scheduler["rescale_betas_zero_snr"] = True
    file = tmp_path / f"v{ending}"
    save.write_single_file(read, file)
    assert {name for name in tensor_files.read(file).tensors if "." not in name} == {"v_pred", "ztsnr"}
    assert "maquette.configuration" not in tensor_files.read(file).metadata
    again = checkpoint.read(file)
    assert again.scheduler["rescale_betas_zero_snr"] is True and again.scheduler["prediction_type"] == "v_prediction"
    other = tmp_path / f"epsilon{ending}"
    save.write_single_file(checkpoint.read(file, prediction_type="flow"), other)
    assert not [name for name in tensor_files.read(other).tensors if "." not in name]


def test_sd2_is_written_without_a_mark_for_v(files: Folders, tmp_path: Path) -> None:
    read = checkpoint.read(files["sd2", 4], prediction_type="v_prediction")
    save.write_single_file(read, tmp_path / "v.safetensors")
    assert not [name for name in safetensors.load(tmp_path / "v.safetensors") if "." not in name]


@pytest.mark.parametrize("mark", ["edm_mean", "edm_vpred.sigma_max"])
def test_models_on_other_noise_levels_are_not_drawn_with(files: Folders, tmp_path: Path, mark: str) -> None:
    """Their tensors are SDXL's, and as SDXL they would draw noise."""
    file = tmp_path / "edm.safetensors"
    safetensors.save(safetensors.load(files["sdxl", 4]) | {mark: torch.tensor(120.0)}, file)
    with pytest.raises(MaquetteError, match=r"edm.safetensors is an EDM model .*can be inspected and converted"):
        families.load(file)
    folder = tmp_path / "folder"
    read = checkpoint.read(file)
    read.scheduler |= {"sigma_data": 0.5}
    read.extras.clear()
    save.write_folder(read, folder)
    with pytest.raises(MaquetteError, match=r"folder is an EDM model"):
        families.load(folder)
