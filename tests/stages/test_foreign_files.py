"""Files of other programs and architectures: one reader, so one reason for every command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from maquette import adapters
from maquette.adapters.file import Adapter
from maquette.cli.main import main
from maquette.errors import MaquetteError
from maquette.formats import png, safetensors
from maquette.stages.convert import ConvertConfig
from maquette.stages.convert import run as convert
from maquette.stages.inspect import InspectConfig, InspectResult
from maquette.stages.inspect import run as inspect
from maquette.stages.inspect_lora import trigger_words

Tensors = dict[str, torch.Tensor]


def lora(*names: str, width: int = 64, forms: tuple[str, str] = ("lora_down.weight", "lora_up.weight")) -> Tensors:
    return {
        f"{n}.{part}": torch.ones(*size) for n in names for part, size in zip(forms, ((2, width), (8, 2)), strict=True)
    }


def ab(*names: str, width: int = 64) -> Tensors:
    return lora(*names, width=width, forms=("lora_A.weight", "lora_B.weight"))


def write(path: Path, tensors: Tensors, **metadata: str) -> Path:
    safetensors.save(tensors, path, metadata)
    return path


FOREIGN: list[tuple[str, Tensors, dict[str, str]]] = [
    ("Flux", ab("diffusion_model.double_blocks.0.img_attn.qkv", "diffusion_model.single_blocks.0.linear1"), {}),
    ("Flux", ab("transformer.single_transformer_blocks.0.attn.to_k", "transformer.transformer_blocks.0.attn.to_q"), {}),
    ("Flux", lora("lora_unet_double_blocks_0_img_attn_qkv", "lora_te1_text_model_encoder_layers_0_mlp_fc1"), {}),
    ("Flux", lora("lora_transformer_single_transformer_blocks_3_attn_to_q"), {}),
    ("Flux", ab("transformer.transformer_blocks.0.attn.to_q", width=3072), {}),
    (
        "Flux",
        lora(
            *(f"double_blocks.0.processor.{name}_lora{i}" for name in ("qkv", "proj") for i in (1, 2)),
            "single_blocks.0.processor.qkv_lora",
            forms=("down.weight", "up.weight"),
        ),
        {},
    ),  # of XLabs
    ("Flux 2", ab("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj"), {}),
    ("Flux 2", ab("diffusion_model.double_blocks.0.img_attn.qkv", width=6144), {}),
    ("Chroma", lora("lora_unet_double_blocks_0_img_attn_qkv"), {"modelspec.architecture": "chroma/lora"}),
    ("Chroma", ab("diffusion_model.distilled_guidance_layer.layers.0.in_layer"), {}),
    ("Stable Diffusion 3", lora("lora_unet_joint_blocks_0_x_block_attn_qkv"), {}),
    ("Stable Diffusion 3", ab("transformer.transformer_blocks.0.attn.to_q", width=1536), {}),
    ("Stable Diffusion 3", ab("transformer.transformer_blocks.0.attn.add_k_proj"), {"ss_base_model_version": "sd3m"}),
    ("Wan", ab("diffusion_model.blocks.0.self_attn.q", "diffusion_model.blocks.0.ffn.0"), {}),
    ("Wan", lora("lora_unet_blocks_0_cross_attn_k_img"), {}),
    ("Wan", ab("transformer.blocks.0.attn1.to_q"), {}),
    ("HunyuanVideo", ab("diffusion_model.double_blocks.0.img_attn_qkv"), {}),
    ("HunyuanVideo", lora("lora_unet_double_blocks_19_img_attn_qkv"), {}),
    ("HunyuanVideo", lora("lora_unet_double_blocks_0_img_attn_qkv"), {"ss_base_model_version": "hunyuan_video"}),
    ("Qwen-Image", ab("transformer.transformer_blocks.0.img_mlp.net.2"), {}),
    ("Qwen-Image", ab("transformer.transformer_blocks.59.attn.to_q", width=3072), {}),
    ("Z-Image", ab("diffusion_model.layers.0.attention.qkv", width=3840), {}),
    ("Z-Image", ab("transformer.layers.0.attention.to_q"), {}),
    ("Lumina 2", lora("lora_unet_layers_0_attention_qkv", width=2304), {}),
    ("Lumina 2 or Z-Image", ab("diffusion_model.noise_refiner.0.attention.qkv"), {}),
    ("AuraFlow", ab("transformer.joint_transformer_blocks.0.attn.to_q"), {}),
    ("PixArt", ab("diffusion_model.blocks.0.cross_attn.kv_linear"), {}),
    ("PixArt", ab("transformer.transformer_blocks.0.attn1.to_q", width=1152), {}),
    ("LTX-Video", ab("transformer.transformer_blocks.0.attn1.to_q", width=2048), {}),
    ("Stable Cascade", lora("lora_prior_unet_down_blocks_0_1_kv_mapper_1"), {}),
    ("Stable Cascade", lora("lora_unet_down_blocks_0_10_attention_attn_out_proj"), {}),
    ("HiDream", ab("diffusion_model.double_stream_blocks.0.block.attn1.to_q"), {}),
    ("Anima", lora("lora_unet_blocks_0_self_attn_q_proj"), {}),
    ("Hunyuan-DiT", ab("diffusion_model.blocks.0.attn1.Wqkv"), {}),
    ("AnimateDiff", ab("unet.down_blocks.0.motion_modules.0.temporal_transformer.proj_in"), {}),
    ("Stable Video Diffusion", ab("unet.down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1.to_q"), {}),
    ("Kandinsky 2", ab("unet.down_blocks.0.attentions.0.add_k_proj"), {}),
    ("the SDXL refiner", lora("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", width=1280), {}),
    ("a language model", ab("base_model.model.model.layers.0.self_attn.q_proj"), {}),
]


@pytest.mark.parametrize("name, tensors, metadata", FOREIGN, ids=lambda value: value if isinstance(value, str) else "")
def test_other_architectures_are_refused_by_their_name(
    tmp_path: Path, name: str, tensors: Tensors, metadata: dict[str, str]
) -> None:
    file = write(tmp_path / "x.safetensors", tensors, **metadata)
    told = f"is a LoRA for {name}, which maquette does not open."
    found = inspect(InspectConfig(path=file))
    assert (found.kind, found.sentence, found.family) == ("lora", f"x.safetensors {told}", None)
    for command in (lambda: adapters.load(file), lambda: to(file, "kohya"), lambda: to(file, "diffusers")):
        with pytest.raises(MaquetteError) as caught:
            command()
        assert str(caught.value) == f"{file} {told}"
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def to(file: Path, dialect: str, out: Path | None = None) -> Path:
    out = out or file.with_name(f"out-{dialect}.safetensors")
    convert(ConvertConfig.parse({"source": file, "to": dialect, "out": out}, "convert"))
    return out


def test_metadata_is_not_believed_against_the_layers(tmp_path: Path) -> None:
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    file = write(tmp_path / "x.safetensors", lora(layer, width=768), ss_base_model_version="flux1")
    assert adapters.load(file).family == "sd1"


def test_all_layers_that_comfyui_extracts(tmp_path: Path) -> None:
    """Its node takes everything with a matrix: the tables of words and positions too, and SDXL's projection."""
    level = "text_encoders.clip_l.transformer.text_model"
    tensors = ab(f"{level}.encoder.layers.0.self_attn.q_proj", f"{level}.embeddings.position_embedding", width=768)
    tensors[f"{level}.embeddings.position_embedding.lora_B.weight"].zero_()
    found = inspect(InspectConfig(path=write(tmp_path / "x.safetensors", tensors)))
    assert found.lora is not None and (found.family, found.lora.matched) == ("sd1", 2) and not found.problems
    assert len(safetensors.load(to(tmp_path / "x.safetensors", "diffusers"))) == 2  # the table is not changed
    tensors[f"{level}.embeddings.position_embedding.lora_B.weight"].fill_(1)
    write(tmp_path / "y.safetensors", tensors)
    with pytest.raises(MaquetteError, match=r"cannot load .*\.position_embedding, a change of word embeddings"):
        to(tmp_path / "y.safetensors", "diffusers", tmp_path / "z.safetensors")
    tensors = ab("text_encoders.clip_g.transformer.text_projection", width=1280)
    file = write(tmp_path / "g.safetensors", tensors | lora("lora_te1_text_model_final_layer_norm"))
    found = inspect(InspectConfig(path=file))
    assert found.lora is not None and (found.family, found.lora.matched) == ("sdxl", 2)
    assert "text_encoder_2.text_projection" in adapters.load(file).modules  # as OneTrainer names it


def test_no_name_is_made_up() -> None:
    for name in ("diffusion_model.spam.0.proj", "unet.spam", "unet.down_blocks.0.resnets.0.spam", "lycoris_spam"):
        with pytest.raises(MaquetteError, match=r"changes 1 layers that no Stable Diffusion has, for example '"):
            adapters.from_state_dict(ab(name), {}, "x")
    kept = adapters.from_state_dict(lora("lora_unet_spam"), {}, "x")
    assert list(kept.modules) == ["lora_unet_spam"]  # some program gave this name
    with pytest.raises(MaquetteError, match="lora_unet_spam is no layer of Stable Diffusion"):
        kept.save("never.safetensors", "diffusers")


def test_one_layer_under_two_names_is_refused() -> None:
    layer = "mid_block.attentions.0.proj_in"
    with pytest.raises(MaquetteError, match=r"changes the layer unet\.mid_block\.attentions\.0\.proj_in twice"):
        adapters.from_state_dict(ab(f"unet.{layer}", layer), {}, "x")
    twice = lora("lora_unet_conv_in") | ab("lora_unet_conv_in")
    with pytest.raises(MaquetteError, match=r"lora_unet_conv_in\.lora_A\.weight are the same part of one layer"):
        adapters.from_state_dict(twice, {}, "x")


CROSS = "transformer_blocks.0.attn2.to_k"


@pytest.mark.parametrize(
    "family, tensors, metadata",
    [
        ("sd1", ab(f"diffusion_model.input_blocks.1.1.{CROSS}", width=768), {}),
        ("sd2", ab(f"diffusion_model.input_blocks.1.1.{CROSS}", width=1024), {}),
        ("sdxl", ab(f"diffusion_model.input_blocks.4.1.{CROSS}", width=2048), {}),
        ("sd1", ab("diffusion_model.input_blocks.1.1.proj_in", width=320), {}),
        ("sdxl", ab("diffusion_model.output_blocks.0.1.proj_in", width=1280), {}),
        ("sdxl", ab("diffusion_model.input_blocks.7.1.transformer_blocks.4.ff.net.2", width=5120), {}),
        ("sdxl", ab("text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1", width=1280), {}),
        ("sd1", ab("text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj", width=768), {}),
        ("sd2", ab("text_encoders.clip_h.transformer.text_model.encoder.layers.0.self_attn.q_proj", width=1024), {}),
        ("sd1", lora("lora_te1_text_model_encoder_layers_0_mlp_fc1"), {"ss_base_model_version": "sd_v1"}),
        ("sdxl", lora("lora_unet_input_blocks_4_1_proj_in"), {}),  # so sd-scripts names SDXL's alone
        ("sd2", lora("lora_unet_down_blocks_3_resnets_0_time_emb_proj"), {"ss_base_model_version": "sd_v2"}),
        ("sd1", {f"lora_unet_mid_block_attentions_0_{CROSS.replace('.', '_')}.{part}": tensor for part, tensor in
                 {"on_input": torch.tensor(1), "weight": torch.ones(768)}.items()}, {}),
    ],
)  # fmt: skip
def test_families(family: str, tensors: Tensors, metadata: dict[str, str]) -> None:
    found = adapters.from_state_dict(tensors, metadata, "x")
    assert found.family == family
    names = "".join(found.state_dict())
    assert ("lora_te1_" in names or "put_blocks_" in names or "lora_te2_" in names) == (family == "sdxl")


def test_the_oldest_names_of_diffusers_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor"
    tensors = {}
    for layer in ("to_q", "to_k", "to_v", "to_out"):
        tensors |= {f"{block}.{layer}_lora.down.weight": torch.ones(1, 320)}
        tensors |= {f"{block}.{layer}_lora.up.weight": torch.ones(320, 1)}
    found = inspect(InspectConfig(path=write(tmp_path / "old.safetensors", tensors)))
    assert found.lora is not None and found.sentence == "old.safetensors is a lora adapter for Stable Diffusion 1."
    assert (found.lora.matched, found.lora.modules, found.lora.ranks) == (4, 4, {"1": 4})
    assert found.lora.dialect == "diffusers' attention processors of 2023"
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "old.safetensors")])
    said = capsys.readouterr().out
    assert "diffusers' attention processors of 2023" in said and found.hashes["sha256"] in said.replace("\n", "")
    assert "rank" in said and "alpha" not in said  # which stands in no module


def test_everything_with_a_weight_is_a_layer(tmp_path: Path) -> None:
    names = ["conv_in", "time_embedding_linear_1", "conv_norm_out", "down_blocks_0_resnets_0_norm1"]
    names.append("mid_block_attentions_0_transformer_blocks_0_attn2_to_k")
    tensors = lora(*(f"lora_unet_{name}" for name in names), "lora_te_text_model_final_layer_norm", width=768)
    found = inspect(InspectConfig(path=write(tmp_path / "x.safetensors", tensors, ss_base_model_version="sd_v1")))
    assert found.lora is not None and found.lora.matched == len(names) + 1 and found.problems == []


def test_pefts_alpha_is_seen_by_inspect(tmp_path: Path) -> None:
    tensors = ab("base_model.model.mid_block.attentions.0.proj_in", "base_model.model.conv_in")
    write(tmp_path / "adapter_model.safetensors", tensors)
    config = {"r": 2, "lora_alpha": 6, "alpha_pattern": {"conv_in": 3}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
        found = inspect(InspectConfig(path=path))
        assert found.lora is not None and found.lora.alphas == {"6": 1, "3": 1} and found.lora.dialect == "PEFT"


def test_a_file_of_peft_without_its_settings_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "x.safetensors", ab("base_model.model.mid_block.attentions.0.proj_in"))
    told = f"{file} is of PEFT, which keeps the strength (lora_alpha) in adapter_config.json; that is not beside it"
    assert [told in problem for problem in inspect(InspectConfig(path=file)).problems] == [True]
    with pytest.raises(SystemExit):
        main(["convert", str(file), "--to", "kohya", "--out", str(tmp_path / "k.safetensors")])
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_folder_of_several_networks_is_inspected(tmp_path: Path) -> None:
    layers = ("lora_unet_mid_block_attentions_0_proj_in", "lora_te_text_model_encoder_layers_0_mlp_fc1")
    adapters.from_state_dict(lora(*layers), {}, "x").save(tmp_path / "both", "peft")
    found = inspect(InspectConfig(path=tmp_path / "both"))
    assert found.lora is not None and (found.lora.modules, found.tensors) == (2, 4)


@pytest.mark.parametrize("dialect", ["diffusers", "peft"])
def test_a_word_leaves_as_an_embedding_beside_the_lora(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dialect: str
) -> None:
    tensors = lora("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k", width=768)
    vectors = torch.arange(3 * 768.0).reshape(3, 768)
    write(tmp_path / "bundle.safetensors", tensors | {"bundle_emb.z kw.clip_l": vectors})
    found = inspect(InspectConfig(path=tmp_path / "bundle.safetensors"))
    assert found.lora is not None and found.lora.words == ["z kw"]
    out = tmp_path / ("out.safetensors" if dialect == "diffusers" else "out")
    arguments = ["convert", str(tmp_path / "bundle.safetensors"), "--to", dialect, "--out", str(out)]
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code in (0, None)
    said = " ".join(capsys.readouterr().err.split())
    word = tmp_path / "out-z-kw.safetensors"
    assert "carries a word" in said and f"load_textual_inversion('{word}')" in said
    content = safetensors.load(word)
    assert list(content) == ["z kw"] and torch.equal(content["z kw"], vectors)
    assert adapters.load(out).embeddings == []
    with pytest.raises(MaquetteError, match=r"out-z-kw\.safetensors, the file of the word 'z kw', exists already"):
        adapters.load(tmp_path / "bundle.safetensors").save(out, dialect)


def test_diffusers_loads_both_files(tmp_path: Path) -> None:
    """The LoRA and the word of one pivotal bundle, by diffusers' own readers."""
    from diffusers.loaders.textual_inversion import load_textual_inversion_state_dicts

    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    write(tmp_path / "b.safetensors", lora(layer, width=768) | {"bundle_emb.zkw.clip_l": torch.ones(3, 768)})
    out = to(tmp_path / "b.safetensors", "diffusers")
    [state] = load_textual_inversion_state_dicts([str(out.with_name("out-diffusers-zkw.safetensors"))])
    assert list(state) == ["zkw"] and state["zkw"].shape == (3, 768)


def look(path: Path) -> InspectResult:
    return inspect(InspectConfig(path=path))


def test_a_picture_shows_its_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "a [red] cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Seed: 7"
    png.write_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", text)
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpg")
    assert look(tmp_path / "a.png").metadata == {"parameters": text}
    assert look(tmp_path / "a.png").sentence == "a.png is a picture (PNG), drawn with these parameters:"
    assert look(tmp_path / "b.jpg").sentence == "b.jpg is a picture (JPEG), not a model, LoRA or embedding."
    with pytest.raises(SystemExit) as leaving:
        main(["inspect", str(tmp_path / "a.png")])
    assert leaving.value.code in (0, None) and text in capsys.readouterr().out


@pytest.mark.parametrize(
    "start, told",
    [
        (b"%PDF-1.7\n", "is a PDF, not a file of weights"),
        (b"GGUF\3\0\0\0", "is a GGUF file"),
        (b"Rar!\x1a\x07\1\0", "is a RAR archive; unpack it"),
        (b"<!DOCTYPE html><html>", "looks like text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_other_files_are_called_what_they_are(tmp_path: Path, start: bytes, told: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(start + bytes(100))
    for command in (look, adapters.load):
        with pytest.raises(MaquetteError, match=told):
            command(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "layer, told",
    [
        ("model.diffusion_model.double_blocks.0.img_attn.qkv", "a Flux model, which maquette does not open"),
        ("joint_blocks.0.x_block.attn.qkv", "a Stable Diffusion 3 model, which maquette does not open"),
        ("transformer_blocks.0.attn.add_k_proj", "a Flux or Stable Diffusion 3 model, which maquette does not open"),
        ("joint_transformer_blocks.0.attn.to_q", "an AuraFlow model, which maquette does not open"),
        ("layers.0.attention.wq", "a language model, which maquette does not open"),
        ("model.embed_tokens", "a language model, which maquette does not open"),
        ("encoder.block.0.layer.0.SelfAttention.q", "a T5 text encoder, which maquette does not open"),
        ("image_proj.proj", "an IP-Adapter, which maquette does not open"),
        ("blocks.0.attn.qkv", "nothing that maquette knows"),  # any vision transformer
    ],
)
def test_other_models_by_their_layers(tmp_path: Path, layer: str, told: str) -> None:
    file = write(tmp_path / "x.safetensors", {f"{layer}.weight": torch.zeros(8, 8)})
    assert look(file).sentence == f"x.safetensors is {told}."


def test_averaged_weights_alone_are_no_vae(tmp_path: Path) -> None:
    tensors = {
        "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(8, 4, 3, 3),
        "first_stage_model.decoder.conv_in.weight": torch.zeros(2, 2),
    }
    told = "x.safetensors is a checkpoint of averaged (EMA) weights only, which maquette does not open."
    assert look(write(tmp_path / "x.safetensors", tensors)).sentence == told


MAKERS: dict[str, Callable[[], Tensors]] = {
    "alpha of two": lambda: lora("lora_unet_conv_in") | {"lora_unet_conv_in.alpha": torch.ones(2)},
    "no up": lambda: {"lora_unet_conv_in.lora_down.weight": torch.ones(2, 2)},
    "without dimensions": lambda: {f"lora_unet_conv_in.lora_{side}.weight": torch.ones(()) for side in ("down", "up")},
    "mixed": lambda: lora("lora_unet_conv_in") | {"spam.weight": torch.ones(2, 2)},
    "5000 digits": lambda: (
        lora(f"lora_unet_down_blocks_{'9' * 5000}_resnets_0_conv1", "lora_te1_a")
        | {f"lora_unet_down_blocks_{'9' * 5000}_resnets_0_conv1.alpha": torch.ones(2)}
    ),
    "made up": lambda: ab("unet.spam"),
    "T-LoRA": lambda: {"lora_unet_conv_in.lambda_layer": torch.ones(1, 2)},
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_one_command_refuses_all_refuse_with_the_same_words(tmp_path: Path, name: str) -> None:
    file, told = write(tmp_path / "x.safetensors", MAKERS[name]()), set()
    for command in (look, adapters.load, lambda path: to(path, "kohya"), lambda path: to(path, "diffusers")):
        with pytest.raises(MaquetteError) as caught:
            command(file)
        told.add(str(caught.value))
    assert len(told) == 1
    sentence = told.pop()
    assert "x.safetensors" in sentence and "inspect" not in sentence and len(sentence) < 500


def test_hostile_counts_of_tags_are_no_trigger_words() -> None:
    for text in (
        "[" * 5000,
        '{"a": {"b": 1e999}}',
        '{"a": {"b": ' + "9" * 400 + "}}",
        '{"a": ["b"]}',
        '{"a": {"b": "c"}}',
    ):
        assert trigger_words({"ss_tag_frequency": text}) == []


def test_an_inpainting_bases_first_layer_takes_the_four_channels_of_a_lora() -> None:
    """Its five further inputs are left alone, as A1111 does."""
    from maquette import families
    from maquette.sampling.apply_loras import apply_loras

    base = families.load("pocket")
    old = base.unet.conv_in
    wide = torch.nn.Conv2d(9, old.out_channels, 3, padding=1).requires_grad_(False)
    base.unet.conv_in = wide
    down, up = torch.randn(2, 4, 3, 3), torch.randn(old.out_channels, 2, 1, 1)
    factors = {"lora_unet_conv_in.lora_down.weight": down, "lora_unet_conv_in.lora_up.weight": up}
    adapter: Adapter = adapters.from_state_dict(factors, {}, "x")
    before = wide.weight.clone()
    with apply_loras(base, [(adapter, 1.0, 1.0)]):
        change = wide.weight - before
    assert torch.allclose(change[:, :4], adapter.delta("unet.conv_in"), atol=1e-5)
    assert not change[:, 4:].any() and torch.equal(wide.weight, before)
