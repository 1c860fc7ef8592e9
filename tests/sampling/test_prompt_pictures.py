"""Sample and class pictures are what `maquette generate` draws from their infotext, in the whole prompt language."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import maquette
from maquette import families
from maquette.families.base import BaseModel
from maquette.formats.png import parse_infotext, read_infotext
from maquette.sampling.images import to_image
from maquette.sampling.prompt_pictures import draw_prompts, is_plain

LONG = "a photo of a red star, " * 16 + "on a blue background"
PROMPTS = [
    "a photo of a star",
    "a photo of a (star:1.4) on a [red] background",
    "a photo of a cat",
    "a star AND a cat:0.5",
    "a photo of a [star:cat:0.5]",
    "a star # with a comment",
    "a star BREAK on a red background",
    LONG,
]


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return families.load("pocket")


def generated(base: BaseModel, prompt: str, seed: int, out: Path, **options: object) -> np.ndarray:
    drawn = maquette.generate(
        prompt, base=base, seed=seed, steps=3, cfg_scale=4.0, sampler="DDIM", out=out, **options
    )  # fmt: skip
    return np.asarray(drawn[0])


def test_each_as_generate_draws_it(base: BaseModel, tmp_path: Path) -> None:
    drawn = draw_prompts(
        base, PROMPTS, seeds=range(5, 5 + len(PROMPTS)), sampler="DDIM", steps=3, cfg_scale=4.0, width=64, height=64
    )
    assert drawn.shape == (len(PROMPTS), 3, 64, 64)
    for number, prompt in enumerate(PROMPTS):
        expected = generated(base, prompt, 5 + number, tmp_path)
        found = np.asarray(to_image(drawn[number]))
        assert np.abs(found.astype(int) - expected).max() <= 1, prompt  # a batch may round elsewhere
        others = generated(base, "a photo of a dog", 5 + number, tmp_path)
        assert np.abs(found.astype(int) - others).max() > 30, prompt


def test_plain_prompts(base: BaseModel) -> None:
    assert [prompt for prompt in PROMPTS if is_plain(base, prompt)] == ["a photo of a star", "a photo of a cat"]
    assert is_plain(base, "") and is_plain(base, "a photo of zkw robot, teal, one eye")


def test_class_pictures(tmp_path: Path, base: BaseModel) -> None:
    prompt = "a photo of a (star:1.3) on a red background"
    made = maquette.regularize(
        tmp_path / "reg", prompt=[prompt], count=2, steps=3, seed=11, negative_prompt="(cat:1.2)"
    )
    text = read_infotext(Path(made.paths[1]))
    values = parse_infotext(text)
    again = maquette.generate(
        values["Prompt"], negative_prompt=values["Negative prompt"], base=base, seed=int(values["Seed"]), steps=3,
        sampler=values["Sampler"], cfg_scale=float(values["CFG scale"]), out=tmp_path / "again",
    )  # fmt: skip
    from PIL import Image

    found = np.asarray(Image.open(made.paths[1], formats=("PNG",))).astype(int)
    assert np.abs(found - np.asarray(again[0])).max() <= 1


def test_a_lora_in_a_sample_prompt_is_refused(tmp_path: Path) -> None:
    from maquette.demo.mascot import write_photos

    write_photos(tmp_path / "photos")
    with pytest.raises(
        maquette.MaquetteError, match="names a LoRA; sample pictures are drawn with the checkpoint alone"
    ):
        maquette.train(
            tmp_path / "photos", subject="zkw robot", steps=1, sample_prompts=["a <lora:x:1>"], out=tmp_path / "run"
        )
