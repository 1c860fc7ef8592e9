"""Models beside the base: SDXL's refiner against diffusers, another base for hires fix, upscalers, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maquette.config.photos import RegularizeConfig
from maquette.errors import MaquetteError
from maquette.events import Event
from maquette.families.sdxl import refiner
from maquette.formats import keys, ldm, safetensors
from maquette.formats.png import parse_infotext
from maquette.sampling.images import to_image
from maquette.sampling.pipeline import Pipeline
from maquette.sampling.upscaling import upscaled
from maquette.stages import regularize
from maquette.stages.repeat import repeated
from tests.drawn_by_diffusers import PROMPT, SEED, SIDE, agree, asked, ours, theirs

sys.path.insert(0, str(Path(__file__).parent.parent / "families"))
import test_upscaler
import tiny
from test_diffusers_pictures import noise

from maquette.families import upscaler

WIDTH = 128  # of the second text encoder, the only one of the refiner


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("others")
    tiny.write_folder(root / "sd1", "sd1")
    tiny.write_folder(root / "sdxl", "sdxl")
    tiny.write_folder(root / "other", "sdxl", seed=5)
    write_refiner(root)
    return root


def write_refiner(root: Path) -> None:
    """A narrow one, with attention in the middle levels alone, as the published one: a folder and a single file."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(7)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(64, 64, 128, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=2, attention_head_dim=(1, 1, 2, 2), cross_attention_dim=WIDTH,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=5 * 256 + WIDTH,
    ).eval()  # fmt: skip
    unet.save_pretrained(root / "refiner" / "unet")
    for part in ("text_encoder_2", "tokenizer_2", "scheduler", "vae"):
        (root / "refiner" / part).mkdir()
        for file in (root / "sdxl" / part).iterdir():
            (root / "refiner" / part / file.name).write_bytes(file.read_bytes())
    index = json.loads((root / "sdxl" / "model_index.json").read_text())
    index |= {"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [None, None]}
    index |= {"tokenizer": [None, None], "requires_aesthetics_score": True}
    (root / "refiner" / "model_index.json").write_text(json.dumps(index))


def single_file(root: Path, path: Path) -> Path:
    """The refiner under the names of Stability's file."""
    unet = safetensors.load(root / "refiner" / "unet" / "diffusion_pytorch_model.safetensors")
    layout = ldm.unet_layout(unet)
    whole = {ldm.UNET + keys.unet_to_ldm(name, layout): tensor for name, tensor in unet.items()}
    text = safetensors.load(root / "refiner" / "text_encoder_2" / "model.safetensors")
    text = {name.removeprefix("text_model."): tensor for name, tensor in text.items() if "position_ids" not in name}
    parts = {"text_encoder_2": text}
    file = ldm.SingleFile(parts, {"text_encoder_2": ldm.REFINER_OPEN_CLIP})
    safetensors.save({name: t.contiguous() for name, t in (whole | ldm.join(file)).items()}, path)
    return path


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Pipeline:
    return Pipeline(folder / "sdxl")


def test_base_and_refiner(folder: Path, pipeline: Pipeline) -> None:
    """Latents of the base up to the switch, the refiner from there, as diffusers' two pipelines hand them on."""
    first = theirs("StableDiffusionXLPipeline", folder / "sdxl")
    half = first(latents=noise(), height=SIDE, width=SIDE, denoising_end=0.3, **asked(output_type="latent")).images
    second = theirs("StableDiffusionXLImg2ImgPipeline", folder / "refiner", text_encoder=None, tokenizer=None)
    expected = second(image=half, denoising_start=0.3, **asked()).images[0]
    made = ours(pipeline, refiner=str(folder / "refiner"), refiner_switch_at=0.3)
    agree(made, expected)
    cut = np.floor(expected * 255) / 255  # as pictures' numbers are
    assert np.abs(made - ours(pipeline)).mean() > 5 * np.abs(made - cut).mean()
    assert np.array_equal(ours(pipeline, refiner=str(folder / "refiner"), refiner_switch_at=1.0), ours(pipeline))


def test_a_single_file_of_the_refiner_is_the_folder(folder: Path, tmp_path: Path) -> None:
    file = single_file(folder, tmp_path / "refiner.safetensors")
    from_file, from_folder = refiner.load(file), refiner.load(folder / "refiner")
    for one, two in ((from_file.unet, from_folder.unet), (from_file.text_encoders[0], from_folder.text_encoders[0])):
        expected = two.state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in one.state_dict().items())
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([100])
    words = from_file.encode_text(["a cat"])
    sized = type(words)(words.tokens, words.pooled, refiner.size_numbers(64, 64, 6.0))
    with torch.no_grad():
        found, expected = from_file.predict(x, t, sized), from_folder.predict(x, t, sized)
    # Mapped tensors begin at other bytes in another file, by which some processors' products round otherwise.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert len(from_file.content_hash) == 64


def test_what_is_no_refiner(folder: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=r"sdxl is Stable Diffusion XL, not the SDXL refiner"):
        refiner.load(folder / "sdxl")
    with pytest.raises(MaquetteError, match=r"gone does not exist; give the SDXL refiner's file or folder"):
        refiner.load(folder / "gone")
    whole = safetensors.load(single_file(folder, tmp_path / "r.safetensors"))
    safetensors.save({n: t for n, t in whole.items() if n.startswith(ldm.UNET)}, tmp_path / "u.safetensors")
    with pytest.raises(MaquetteError, match=r"u.safetensors is the SDXL refiner without its text encoder 2"):
        refiner.load(tmp_path / "u.safetensors")
    with pytest.raises(MaquetteError, match=r"latents of Stable Diffusion XL, and .*sd1 draws others"):
        Pipeline(folder / "sd1").generate(PROMPT, refiner=str(folder / "refiner"), width=64, height=64, steps=2)
    with pytest.raises(MaquetteError, match=r"cannot be used as a base; use the SDXL base model, and .* --refiner"):
        Pipeline(folder / "refiner")


def test_a_negative_prompt_without_words_is_zeros_in_sdxl(folder: Path, pipeline: Pipeline) -> None:
    other = theirs("StableDiffusionXLPipeline", folder / "sdxl")
    expected = other(latents=noise(), height=SIDE, width=SIDE, **asked(negative_prompt=None)).images[0]
    agree(ours(pipeline, negative_prompt=""), expected)
    assert not pipeline.base.encode_negative(["", "x"]).tokens[0].any()
    assert torch.equal(pipeline.base.encode_negative(["x"]).tokens, pipeline.base.encode_text(["x"]).tokens)


def test_another_base_for_the_second_drawing(folder: Path, pipeline: Pipeline) -> None:
    """By hand: the first's picture, enlarged, and drawn on by the second from there."""
    other = Pipeline(folder / "other")
    how: dict[str, Any] = {"seed": SEED, "steps": 4, "sampler": "Euler", "width": 64, "height": 64}
    hires = {"hires_scale": 1.5, "hires_steps": 3, "denoising_strength": 0.6, "hires_upscaler": "Lanczos"}
    drawn = pipeline.generate(PROMPT, **how, **hires, hires_base=str(folder / "other"))[0]
    first = pipeline.generate(PROMPT, **how)[0].image
    small = folder / "first.png"
    first.resize((96, 96), Image.Resampling.LANCZOS).save(small)
    by_hand = other.generate(
        PROMPT, **how | {"width": 96, "height": 96, "steps": 3}, init_image=small, denoising_strength=0.6,
        exact_steps=True,
    )[0]  # fmt: skip
    assert drawn.image.tobytes() == by_hand.image.tobytes()
    assert drawn.image.tobytes() != pipeline.generate(PROMPT, **how, **hires)[0].image.tobytes()
    assert parse_infotext(drawn.infotext)["Hires checkpoint"] == f"other [{other.base.content_hash[:10]}]"


def test_a_second_base_of_another_family(folder: Path, pipeline: Pipeline) -> None:
    how = {"steps": 2, "width": 64, "height": 64, "hires_scale": 1.5, "hires_base": str(folder / "sd1")}
    with pytest.raises(MaquetteError, match=r"other latents than .*sdxl, so that Latent cannot enlarge .* Lanczos"):
        pipeline.generate(PROMPT, **how)
    assert pipeline.generate(PROMPT, **how, hires_upscaler="Nearest")[0].image.size == (96, 96)
    with pytest.raises(MaquetteError, match="hires_base is the model of a second drawing: give hires_scale"):
        pipeline.generate(PROMPT, hires_base=str(folder / "sd1"))


def test_upscaled_in_parts_and_as_often_as_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors.save(test_upscaler.weights(1), tmp_path / "x2.safetensors")
    network = upscaler.load(tmp_path / "x2.safetensors")
    pixels = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(3))
    picture = to_image(pixels)
    whole = np.asarray(upscaled(network, picture, 112, 80)).astype(int)
    with torch.no_grad():
        made = network.module(torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None] / 255)[0]
    assert np.abs(whole - (made.clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()).max() <= 1
    monkeypatch.setattr("maquette.sampling.upscaling.TILE", 32)
    parts = np.asarray(upscaled(network, picture, 112, 80)).astype(int)
    assert np.abs(parts - whole).mean() < 6  # this network sees further than the parts overlap
    assert upscaled(network, picture, 150, 100).size == (150, 100)
    assert upscaled(network, picture, 224, 160).size == (224, 160)
    assert upscaled(network, picture, 56, 40) is picture


def test_hires_fix_by_an_upscaler(folder: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    file = tmp_path / "4x-Sharp.safetensors"
    safetensors.save(test_upscaler.weights(1), file)
    how: dict[str, Any] = {"seed": 1, "steps": 3, "width": 64, "height": 64, "hires_scale": 1.5}
    drawn = pipeline.generate(PROMPT, **how, hires_upscaler=str(file))[0]
    assert drawn.image.tobytes() != pipeline.generate(PROMPT, **how, hires_upscaler="Lanczos")[0].image.tobytes()
    assert parse_infotext(drawn.infotext)["Hires upscaler"] == "4x-Sharp"
    with pytest.raises(
        MaquetteError, match=r"no upscaler '4x-Sharp'. Upscalers: Latent, .*, Nearest, or a file of ESRG"
    ):
        pipeline.generate(PROMPT, **how, hires_upscaler="4x-Sharp")


def test_from_names_every_model_that_is_missing(folder: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    """`--from` repeats a drawing by four models to the byte, and names those that are not given."""
    file = tmp_path / "4x-Sharp.safetensors"
    safetensors.save(test_upscaler.weights(1), file)
    files = {"hires_upscaler": str(file), "hires_base": str(folder / "other"), "refiner": str(folder / "refiner")}
    how: dict[str, Any] = {"seed": 1, "steps": 4, "width": 64, "height": 64, "hires_scale": 1.5, "hires_steps": 3}
    how |= {"hires_sampler": "DPM++ 2M", "hires_schedule_type": "Karras", "refiner_switch_at": 0.5}
    drawn = pipeline.generate(PROMPT, **how, **files)[0]
    from maquette.formats.picture_files import write_picture

    write_picture(drawn.image, tmp_path / "p.png", drawn.infotext)
    warned: list[Event] = []
    with pytest.raises(MaquetteError) as error:
        repeated(tmp_path / "p.png", {}, warned.append)
    for part in (
        "the base sdxl [", "the upscaler 4x-Sharp (--hires-upscaler FILE)", "(--hires-base FILE)",
        "the base of its second drawing other [", "the refiner refiner [", "(--refiner FILE)",
    ):  # fmt: skip
        assert part in str(error.value)
    values = repeated(tmp_path / "p.png", {"base": str(folder / "sdxl"), **files}, warned.append)
    assert (values["hires_sampler"], values["refiner_switch_at"]) == ("DPM++ 2M", 0.5)
    values.pop("base")
    again = pipeline.generate(values.pop("prompt"), **values)[0]
    assert again.image.tobytes() == drawn.image.tobytes() and again.infotext == drawn.infotext


@pytest.mark.parametrize("channels", [5, 8])
def test_a_base_that_takes_more_than_drawing_has_is_refused(folder: Path, tmp_path: Path, channels: int) -> None:
    base = tiny.write_folder(tmp_path / "base", "sd1", channels=channels)
    message = rf"base takes {channels} channels \(an editing or depth model\), which drawing cannot feed"
    with pytest.raises(MaquetteError, match=message):
        Pipeline(base)
    with pytest.raises(MaquetteError, match=message):
        Pipeline(folder / "sd1").generate("a cat", steps=1, hires_scale=1.5, hires_base=str(base))
    config = RegularizeConfig.parse({"out": tmp_path / "out", "base": str(base), "prompt": ["a cat"], "count": 1})
    with pytest.raises(MaquetteError, match=message):
        regularize.run(config)
    assert not list(tmp_path.glob("out/*.png"))
