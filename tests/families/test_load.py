"""Opening base models: the pocket base against diffusers' own pipeline, targets, and sentences for broken folders."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from maquette import families
from maquette.errors import MaquetteError
from maquette.families.base import BaseModel
from maquette.families.pocket.spec import TOKEN_WIDTH, WEIGHTS


@pytest.fixture(scope="module")
def pocket() -> BaseModel:
    return families.load("pocket")


@pytest.fixture(scope="module")
def pipeline() -> object:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(WEIGHTS, torch_dtype=torch.float32, safety_checker=None)


def test_pocket_says_what_it_is(pocket: BaseModel) -> None:
    assert (pocket.spec.name, pocket.spec.base_model_version) == ("pocket", "maquette_pocket")
    assert (pocket.spec.native_size, pocket.spec.latent_factor) == (64, 4)
    assert len(pocket.content_hash) == 64 and pocket.source == "pocket"
    assert not any(p.requires_grad for p in pocket.unet.parameters()) and not pocket.unet.training


def test_weights_equal_those_that_diffusers_loads(pocket: BaseModel, pipeline: object) -> None:
    for ours, theirs in (
        (pocket.unet, pipeline.unet),
        (pocket.vae, pipeline.vae),
        (pocket.text_encoders[0], pipeline.text_encoder),
    ):
        expected = theirs.state_dict()
        assert ours.state_dict().keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())


def test_text_features_equal_the_pipeline(pocket: BaseModel, pipeline: object) -> None:
    prompts = ["a photo of a cat on a red background", "", "naïve café — 2 DOGS,  don't!", "word " * 200]
    with torch.no_grad():
        ours = pocket.encode_text(prompts).tokens
        ids = pipeline.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
        ).input_ids
        theirs = pipeline.text_encoder(ids).last_hidden_state
    assert torch.equal(ours, theirs)


def test_clip_skip_two_is_the_layer_before_with_the_final_norm(pocket: BaseModel, pipeline: object) -> None:
    encoder = pipeline.text_encoder
    ids = torch.tensor([pocket.tokenizers[0].window("a dog")])
    with torch.no_grad():
        hidden = encoder(ids, output_hidden_states=True).hidden_states[-2]
        assert torch.equal(pocket.encode_text(["a dog"], clip_skip=2).tokens, encoder.final_layer_norm(hidden))
    with pytest.raises(MaquetteError, match="clip skip 9"):
        pocket.encode_text(["a dog"], clip_skip=9)


def test_images_go_in_and_out_as_in_the_pipeline(pocket: BaseModel, pipeline: object) -> None:
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        mean, std = pocket.encode_images(pixels)
        posterior = pipeline.vae.encode(pixels).latent_dist
        scale = pipeline.vae.config.scaling_factor
        assert mean.shape == (2, 4, 16, 16)
        assert torch.equal(mean, posterior.mean * scale) and torch.equal(std, posterior.std * scale)
        expected = (pipeline.vae.decode(mean / scale).sample / 2 + 0.5).clamp(0, 1)
        assert torch.equal(pocket.decode(mean), expected)
    with pytest.raises(MaquetteError, match="62 x 64 pixels"):
        pocket.encode_images(pixels[..., :62])


def test_predict_equals_the_unet(pocket: BaseModel, pipeline: object) -> None:
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    t = torch.tensor([10, 900])
    with torch.no_grad():
        text = pocket.encode_text(["a cat", "a dog"])
        assert torch.equal(pocket.predict(x, t, text), pipeline.unet(x, t, text.tokens).sample)


def test_half_precision_keeps_latents_float32(pocket: BaseModel) -> None:
    half = families.load("pocket", dtype=torch.bfloat16)
    assert {p.dtype for p in half.unet.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        mean, _ = half.encode_images(torch.zeros(1, 3, 64, 64))
    assert mean.dtype == torch.float32


def test_targets_of_the_pocket(pocket: BaseModel) -> None:
    found = families.targets(pocket, text_encoder=True)
    blocks = sum(1 for _, module in pocket.unet.named_modules() if type(module).__name__ == "BasicTransformerBlock")
    layers = pocket.text_encoders[0].config.num_hidden_layers
    assert len(found) == 12 * blocks + 6 * layers  # per block: 8 of attention, 2 of feed-forward, proj_in, proj_out
    for name, (parent, attribute) in found.items():
        assert isinstance(
            getattr(parent, attribute) if not attribute.isdigit() else parent[int(attribute)], torch.nn.Module
        ), name
    assert "text_encoder.text_model.encoder.layers.0.self_attn.q_proj" in found
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0" in found
    only = families.targets(pocket, which=("cross_attention",))
    assert len(only) == 4 * blocks and all("attn2" in name for name in only)
    with pytest.raises(MaquetteError, match=r"no group of layers called 'atention'.*attention, "):
        families.targets(pocket, which=("atention",))


def test_convolutions_are_a_group_of_their_own(pocket: BaseModel) -> None:
    names = families.targets(pocket, which=("conv",))
    assert "unet.down_blocks.0.resnets.0.conv1" in names and "unet.down_blocks.0.downsamplers.0.conv" in names
    assert not any("attentions" in name for name in names)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WEIGHTS, tmp_path / "model"))


def test_a_copied_folder_is_pocket(copy: Path, pocket: BaseModel) -> None:
    base = families.load(copy)
    assert base.content_hash == pocket.content_hash and base.source == str(copy)
    assert base.spec == pocket.spec
    assert {shape for shape in base.token_widths} == {TOKEN_WIDTH}


def test_latents_of_another_size_are_refused_in_a_sentence(copy: Path) -> None:
    """A UNet for other tokens than pocket's makes it Stable Diffusion 1, whose VAE has four levels, not three."""
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({n: t[:, :64].clone() if ".attn2.to_k." in n else t for n, t in load_file(path).items()}, path)
    with pytest.raises(
        MaquetteError, match="latent cell of 4 x 4 pixels, those of Stable Diffusion 1 one of 8 x 8; maquette cannot"
    ):
        families.load(copy)


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (lambda d: (d / "model_index.json").unlink(), "model_index.json is missing"),
        (lambda d: (d / "unet" / "config.json").write_text("{"), "config.json is not valid JSON"),
        (lambda d: (d / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "vae holds no weights"),
        (
            lambda d: (d / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 9),
            "not a safetensors file",
        ),
    ],
)
def test_broken_folders_are_named(copy: Path, damage: object, sentence: str) -> None:
    damage(copy)  # type: ignore[operator]
    with pytest.raises(MaquetteError, match=sentence):
        families.load(copy)


def test_weights_that_do_not_fit_the_configuration_are_named(copy: Path) -> None:
    path = copy / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"in_channels": 9}))
    with pytest.raises(
        MaquetteError, match=r"conv_in.weight has the shape \(\d+, 4, 3, 3\) instead of \(\d+, 9, 3, 3\)"
    ):
        families.load(copy)


def test_missing_path_is_named() -> None:
    with pytest.raises(MaquetteError, match="no/such does not exist"):
        families.load("no/such")
