"""Image to image, inpainting, hires fix and ControlNets against diffusers' own pipelines, with equal noise."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maquette.sampling.pipeline import Pipeline
from tests.drawn_by_diffusers import SEED, SIDE, agree, asked, ours, theirs

sys.path.insert(0, str(Path(__file__).parent.parent / "families"))
import tiny
from test_controlnet import network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("narrow")
    for channels in (4, 9):
        tiny.write_folder(root / f"sd1-{channels}", "sd1", channels=channels)
    tiny.write_folder(root / "sdxl-4", "sdxl")
    for family in ("sd1", "sdxl"):
        network(family).save_pretrained(root / f"{family}-control")
    random = np.random.default_rng(0)
    for name in ("photo", "first", "second"):
        small = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small.repeat(SIDE // 8, 0).repeat(SIDE // 8, 1)).save(root / f"{name}.png")
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(255, (0, 0, SIDE, SIDE // 2))
    mask.save(root / "mask.png")
    return root


@pytest.fixture(scope="module")
def pipelines(folder: Path) -> dict[str, Pipeline]:
    return {name: Pipeline(folder / name) for name in ("sd1-4", "sd1-9", "sdxl-4")}


def latents_of(pipeline: Pipeline, picture: Path, mask: Path | None = None) -> torch.Tensor:
    """As diffusers encodes a picture, but the mean instead of a sample of what it may be."""
    pixels = torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1)[None] / 127.5 - 1
    if mask is not None:
        pixels = pixels * (torch.from_numpy(np.array(Image.open(mask)))[None, None] < 128)
    with torch.no_grad():
        return pipeline.base.encode_images(pixels)[0]


def noise(side: int = SIDE) -> torch.Tensor:
    return torch.randn(1, 4, side // 8, side // 8, generator=torch.Generator().manual_seed(SEED))


def test_image_to_image(folder: Path, pipelines: dict[str, Pipeline]) -> None:
    pipeline = pipelines["sd1-4"]
    start = latents_of(pipeline, folder / "photo.png")
    other = theirs("StableDiffusionImg2ImgPipeline", folder / "sd1-4")
    expected = other(image=start, strength=5 / 8, **asked()).images[0]  # A1111 does a step more: floor(s n) + 1
    agree(ours(pipeline, init_image=folder / "photo.png", denoising_strength=0.5), expected)
    exact = other(image=start, strength=0.5, **asked(num_inference_steps=16)).images[0]
    agree(ours(pipeline, init_image=folder / "photo.png", denoising_strength=0.5, exact_steps=True), exact)


def test_inpainting_on_an_ordinary_model(folder: Path, pipelines: dict[str, Pipeline]) -> None:
    pipeline = pipelines["sd1-4"]
    other = theirs("StableDiffusionInpaintPipeline", folder / "sd1-4")
    start = latents_of(pipeline, folder / "photo.png")
    options = {"mask_image": Image.open(folder / "mask.png"), "masked_image_latents": torch.zeros(1, 4, 8, 8)}
    expected = other(image=start, strength=5 / 8, height=SIDE, width=SIDE, **options, **asked()).images[0]
    how = {"init_image": folder / "photo.png", "mask": str(folder / "mask.png"), "mask_blur": 0}
    made = ours(pipeline, denoising_strength=0.5, **how)
    photo = np.asarray(Image.open(folder / "photo.png")) / 255
    assert (made[SIDE // 2 :] == photo[SIDE // 2 :]).all()
    agree(made[: SIDE // 2], expected[: SIDE // 2])


def test_inpainting_on_an_inpainting_model(folder: Path, pipelines: dict[str, Pipeline]) -> None:
    """diffusers leaves the kept part to the model, A1111 puts it back at each step: compared without that."""
    from maquette.sampling.inpainting import Beginning

    pipeline = pipelines["sd1-9"]
    mask = Image.open(folder / "mask.png")
    other = theirs("StableDiffusionInpaintPipeline", folder / "sd1-9")
    hidden = latents_of(pipeline, folder / "photo.png", folder / "mask.png")
    options = {"mask_image": mask, "masked_image_latents": hidden, "height": SIDE, "width": SIDE, "strength": 5 / 8}
    expected = other(image=latents_of(pipeline, folder / "photo.png"), **options, **asked()).images[0]
    how = {"init_image": folder / "photo.png", "mask": str(folder / "mask.png"), "mask_blur": 0}
    kept = ours(pipeline, denoising_strength=0.5, **how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Beginning, "keeping", lambda self: None)
        alone = ours(pipeline, denoising_strength=0.5, **how)
    agree(alone[: SIDE // 2], expected[: SIDE // 2])
    assert (alone[SIDE // 2 :] == kept[SIDE // 2 :]).all() and (alone != kept).any()


def test_hires_fix_by_hand(folder: Path, pipelines: dict[str, Pipeline]) -> None:
    first = theirs("StableDiffusionPipeline", folder / "sd1-4")
    latents = first(latents=noise(), height=SIDE, width=SIDE, **asked(output_type="latent")).images / 0.18215
    larger = torch.nn.functional.interpolate(latents * 0.18215, (16, 16), mode="bilinear")
    second = theirs("StableDiffusionImg2ImgPipeline", folder / "sd1-4")
    expected = second(image=larger, strength=0.5, **asked(num_inference_steps=12)).images[0]
    agree(ours(pipelines["sd1-4"], hires_scale=2, hires_steps=6, denoising_strength=0.5), expected)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("names", [["first"], ["first", "second"]], ids=["one", "two"])
def test_controlnets(folder: Path, pipelines: dict[str, Pipeline], family: str, names: list[str]) -> None:
    from diffusers import ControlNetModel

    nets = [ControlNetModel.from_pretrained(str(folder / f"{family}-control")) for _ in names]
    pictures = [Image.open(folder / f"{name}.png") for name in names]
    kind = "StableDiffusionXLControlNetPipeline" if family == "sdxl" else "StableDiffusionControlNetPipeline"
    other = theirs(kind, folder / f"{family}-4", controlnet=nets if len(nets) > 1 else nets[0])
    weights = [0.8, 0.3][: len(names)]
    one = len(names) == 1
    expected = other(
        image=pictures[0] if one else pictures, latents=noise(), height=SIDE, width=SIDE,
        controlnet_conditioning_scale=weights[0] if one else weights, **asked(),
    ).images[0]  # fmt: skip
    controls = [
        f"{folder / f'{family}-control'},image={folder / f'{name}.png'},weight={weight}"
        for name, weight in zip(names, weights, strict=True)
    ]
    made = ours(pipelines[f"{family}-4"], controls=controls)
    agree(made, expected)
    assert np.abs(made - ours(pipelines[f"{family}-4"])).mean() > 2 / 255


def test_a_controlnet_that_steers_the_prompts_side_alone(folder: Path, pipelines: dict[str, Pipeline]) -> None:
    """diffusers' guess mode, whose weights of the skips are other ones: replaced by A1111's."""
    from diffusers import ControlNetModel

    net = ControlNetModel.from_pretrained(str(folder / "sd1-control"))
    other = theirs("StableDiffusionControlNetPipeline", folder / "sd1-4", controlnet=net)
    soft = torch.tensor([0.825 ** (12 - i) for i in range(13)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "logspace", lambda *args, **options: soft)
        expected = other(
            image=Image.open(folder / "first.png"), latents=noise(), height=SIDE, width=SIDE, guess_mode=True,
            controlnet_conditioning_scale=1.0, **asked(),
        ).images[0]  # fmt: skip
    unit = f"{folder / 'sd1-control'},image={folder / 'first.png'},mode=control"
    agree(ours(pipelines["sd1-4"], controls=[unit]), expected)
