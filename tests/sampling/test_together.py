"""The parts of drawing together: two ControlNets with a LoRA, hires fix and a mask; LoRAs on inpainting models."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maquette.adapters.file import Adapter, AdapterModule
from maquette.errors import MaquetteError
from maquette.families.base import BaseModel
from maquette.sampling.pipeline import Pipeline

sys.path.insert(0, str(Path(__file__).parent.parent / "families"))
import tiny
from test_controlnet import network

from tests.sampling.random_loras import random_adapter

PROMPT = "a photo of a cat"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("together")
    for channels in (4, 9):
        tiny.write_folder(root / f"sd1-{channels}", "sd1", channels=channels)
    network("sd1").save_pretrained(root / "control")
    network("sdxl").save_pretrained(root / "control-xl")
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(small.repeat(8, 0).repeat(8, 1)).save(root / "photo.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (8, 8, 40, 40))
    mask.save(root / "mask.png")
    return root


@pytest.fixture(scope="module")
def pipelines(folder: Path) -> dict[int, Pipeline]:
    return {channels: Pipeline(folder / f"sd1-{channels}") for channels in (4, 9)}


def lora_of(base: BaseModel, path: Path) -> None:
    """On attention and on conv_in, whose inputs are 4 or 9."""
    made = random_adapter(base, strength=0.05)
    inputs = base.unet.conv_in.weight.shape[1]
    generator = torch.Generator().manual_seed(3)
    made.modules["unet.conv_in"] = AdapterModule(
        {
            "lora_down.weight": torch.randn(2, inputs, 3, 3, generator=generator),
            "lora_up.weight": torch.randn(32, 2, 1, 1, generator=generator) * 0.1,
            "alpha": torch.tensor(2.0),
        }
    )
    Adapter("sd1", "locon", made.modules, {"ss_base_model_version": "sd_v1"}).save(path)


@pytest.mark.parametrize("trained_on", [4, 9])
def test_a_lora_of_one_kind_of_model_works_on_the_other(
    folder: Path, pipelines: dict[int, Pipeline], tmp_path: Path, trained_on: int
) -> None:
    lora_of(pipelines[trained_on].base, tmp_path / "mine.safetensors")
    photo = np.asarray(Image.open(folder / "photo.png"))
    for pipeline in pipelines.values():
        how = {
            "init_image": folder / "photo.png",
            "mask": str(folder / "mask.png"),
            "mask_blur": 1,
            "steps": 3,
            "seed": 1,
        }
        how |= {"width": 64, "height": 64, "lora_dir": tmp_path}
        plain = np.asarray(pipeline.generate(PROMPT, **how)[0].image)
        with_lora = np.asarray(pipeline.generate(f"{PROMPT}<lora:mine:1>", **how)[0].image)
        assert np.abs(plain.astype(int) - with_lora).mean() > 0.3
        assert (with_lora[48:] == photo[48:]).all()


@pytest.mark.parametrize("channels", [4, 9])
def test_controlnets_lora_and_hires(
    folder: Path, pipelines: dict[int, Pipeline], tmp_path: Path, channels: int
) -> None:
    """The notebook's case. Each part changes the picture; leaving a part out is as if it never was."""
    lora_of(pipelines[channels].base, tmp_path / "mine.safetensors")
    one = f"{folder / 'control'},image={folder / 'photo.png'},preprocessor=canny"
    two = f"{folder / 'control'},image={folder / 'mask.png'},weight=0.5,end=0.4"

    def drawn(tags: str = "", **options: object) -> bytes:
        how = {"steps": 3, "seed": 1, "width": 64, "height": 64, "sampler": "Euler", "lora_dir": tmp_path, **options}
        made = pipelines[channels].generate(PROMPT + tags, **how)[0].image
        assert made.size == (96, 96) if "hires_scale" in options else (64, 64)
        return made.tobytes()

    hires = {"hires_scale": 1.5, "hires_steps": 2, "denoising_strength": 0.6}
    both = {"controls": [one, two]}
    drawings = [drawn("<lora:mine:1>", **both, **hires), drawn(**both, **hires), drawn("<lora:mine:1>", **hires)]
    drawings += [drawn("<lora:mine:1>", controls=[one], **hires), drawn(**hires)]
    assert len(set(drawings)) == len(drawings)
    plain = drawn()
    assert drawn(controls=[f"{one},weight=0"]) == plain == drawn(controls=[f"{one},start=0.9,end=0.95"])
    assert drawn(controls=[f"{one},end=0.4"]) != plain != drawn(controls=[f"{one},start=0.5"])


def test_controlnets_and_masks(folder: Path, pipelines: dict[int, Pipeline]) -> None:
    """A ControlNet without a picture of its own is shown the one that is drawn from, cut as that is."""
    how = {"init_image": folder / "photo.png", "mask": str(folder / "mask.png"), "only_masked": True, "steps": 2}
    how |= {"seed": 1, "width": 64, "height": 64, "mask_padding": 4}
    own = pipelines[4].generate(PROMPT, controls=[f"{folder / 'control'},preprocessor=canny"], **how)[0].image
    told = f"{folder / 'control'},preprocessor=canny,image={folder / 'photo.png'}"
    assert own.tobytes() == pipelines[4].generate(PROMPT, controls=[told], **how)[0].image.tobytes()
    assert own.tobytes() != pipelines[4].generate(PROMPT, **how)[0].image.tobytes()


def test_controlnets_at_fault(folder: Path, pipelines: dict[int, Pipeline]) -> None:
    with pytest.raises(MaquetteError, match=r"control-xl is a ControlNet for .*, which does not fit a base of"):
        pipelines[4].generate(PROMPT, controls=[f"{folder / 'control-xl'},image={folder / 'photo.png'}"], steps=1)
    with pytest.raises(MaquetteError, match=r"The ControlNet .*control has no picture: give it one with image=FILE"):
        pipelines[4].generate(PROMPT, controls=[str(folder / "control")], steps=1)
