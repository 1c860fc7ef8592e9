"""Pocket's own ControlNet: pictures follow edges and still obey; two at once with two LoRAs and hires fix, repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from benchmarks.pocket_control import edge_f1
from maquette.errors import MaquetteError
from maquette.families import controlnet
from maquette.families.pocket.judge import judge
from maquette.families.pocket.spec import CONTROLNETS
from maquette.sampling.control import pixels_of
from maquette.sampling.pictures.edges import canny
from maquette.sampling.pipeline import Pipeline
from maquette.stages.generate import GenerateConfig, run
from maquette.stages.repeat import repeated
from tests.sampling.random_loras import random_adapter


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A balloon at the upper left and one at the lower right, where pocket draws none by itself."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, (x, y) in {"left": (4, 4), "right": (34, 30)}.items():
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).ellipse((x, y, x + 24, y + 28), "red")
        picture.save(folder / f"{name}.png")
    return folder


def edges_of(picture: Image.Image) -> Any:
    return canny(np.asarray(picture.convert("RGB")), 100, 200) > 0


@pytest.mark.parametrize("place", ["left", "right"])
def test_pictures_follow_the_edges_and_obey_the_words(pipeline: Pipeline, pictures: Path, place: str) -> None:
    wanted = edges_of(Image.open(pictures / f"{place}.png"))
    control = f"pocket-canny,image={pictures / f'{place}.png'},preprocessor=canny"
    scores: dict[bool, list[float]] = {True: [], False: []}
    told = {"prompt": "a photo of a balloon on a blue background", "steps": 10, "batch_size": 3, "seed": 1}
    for guided in scores:
        for drawn in pipeline.generate(**told, controls=[control] if guided else []):
            scores[guided].append(edge_f1(edges_of(drawn.image), wanted))
            assert judge().name_backgrounds(pixels_of(drawn.image)) == ["blue"]
    assert np.mean(scores[True]) > np.mean(scores[False]) + 0.15


@pytest.mark.heavy
def test_half_the_weight_and_half_the_steps_guide_less(pipeline: Pipeline, pictures: Path) -> None:
    wanted = edges_of(Image.open(pictures / "right.png"))
    unit = f"pocket-canny,image={pictures / 'right.png'},preprocessor=canny"
    told = {"prompt": "a photo of a balloon on a blue background", "steps": 10, "batch_size": 3, "seed": 1}

    def score(more: str) -> float:
        drawn = pipeline.generate(**told, controls=[unit + more])
        return float(np.mean([edge_f1(edges_of(each.image), wanted) for each in drawn]))

    whole = score("")
    assert score(",weight=0.3") < whole and score(",start=0.6") < whole


def test_the_notebook_s_case(pipeline: Pipeline, pictures: Path, tmp_path: Path) -> None:
    """Two ControlNets, a LoRA of offset noise, a LoRA of a subject and hires fix; `--from` gives the file's bytes."""
    for seed, name in enumerate(("offset-noise", "zkw-robot")):
        random_adapter(pipeline.base, seed=seed, strength=0.03).save(tmp_path / f"{name}.safetensors")
    units = [f"pocket-canny,image={pictures / f'{name}.png'},preprocessor=canny" for name in ("left", "right")]
    units[1] += ",weight=0.6,end=0.8"
    tags = "<lora:zkw-robot:0.8><lora:offset-noise:1>"
    told: dict[str, Any] = {"prompt": f"a photo of zkw robot{tags}", "seed": 4, "steps": 4, "lora_dir": tmp_path}
    told |= {"hires_scale": 1.5, "hires_steps": 3, "denoising_strength": 0.5, "base": "pocket"}

    def drawn(out: str, **changes: Any) -> Path:
        config = GenerateConfig.parse({**told, "controls": units, "out": tmp_path / out, **changes}, "test")
        return Path(run(config, base=pipeline).paths[0])

    picture = drawn("whole")
    bytes_of = {picture.read_bytes()}
    assert Image.open(picture).size == (96, 96)
    changes: list[dict[str, Any]] = [{"controls": units[:1]}, {"controls": units[1:]}, {"controls": []}]
    changes += [{"prompt": told["prompt"].replace("<lora:offset-noise:1>", "")}, {"prompt": "a photo of zkw robot"}]
    pixels = {Image.open(drawn(f"part-{i}", **each)).tobytes() for i, each in enumerate(changes)}
    assert len(pixels | {Image.open(picture).tobytes()}) == 6
    given = {"controls": units, "lora_dir": tmp_path, "out": tmp_path / "again"}
    again = run(GenerateConfig.parse(repeated(picture, given), "test"), base=pipeline)
    assert Path(again.paths[0]).read_bytes() in bytes_of


def test_it_is_small_and_for_pocket_alone() -> None:
    assert sum(file.stat().st_size for file in CONTROLNETS.rglob("*")) < 6_000_000
    network = controlnet.load("pocket-canny")
    assert (network.family, network.source) == ("pocket", "pocket-canny")
    with pytest.raises(
        MaquetteError, match="pocket-canny is a ControlNet for maquette's pocket base, which does not fit"
    ):
        network.require_family("sd1")
    with pytest.raises(
        MaquetteError, match=r"pocket-cany does not exist; give a ControlNet's file or folder, or pocket-c"
    ):
        controlnet.load("pocket-cany")


def test_diffusers_opens_it_and_agrees() -> None:
    from diffusers import ControlNetModel

    theirs = ControlNetModel.from_pretrained(str(CONTROLNETS / "canny")).float().eval()
    ours = controlnet.load("pocket-canny").module
    random = torch.Generator().manual_seed(0)
    x, text = torch.randn(2, 4, 16, 16, generator=random), torch.randn(2, 77, 128, generator=random)
    t, picture = torch.tensor([10, 800]), torch.rand(2, 3, 64, 64, generator=random)
    with torch.no_grad():
        down, middle = ours(x, t, text, picture)
        expected, last = theirs(x, t, text, picture, return_dict=False)
    for a, b in zip([*down, middle], [*expected, last], strict=True):
        assert a.abs().max() > 1e-3 and torch.allclose(a, b, atol=1e-5)
