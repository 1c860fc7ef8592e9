"""Regularization images: number, prompts, seeds, and going on after a stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maquette import families
from maquette.data.layouts import read_folder
from maquette.errors import MaquetteError
from maquette.events import Event
from maquette.families.base import BaseModel
from maquette.formats.png import parse_infotext, read_infotext
from maquette.stages.generate import GenerateConfig
from maquette.stages.generate import run as draw
from maquette.stages.regularize import RegularizeConfig, RegularizeResult, run
from maquette.stages.repeat import repeated

MakeImage = Callable[..., Image.Image]


@pytest.fixture(scope="module")
def pocket() -> BaseModel:
    return families.load("pocket")


def regularize(out: Path, base: BaseModel, events: list[Event] | None = None, **options: Any) -> RegularizeResult:
    options = {"steps": 2, "width": 32, "height": 32, "batch_size": 2} | options
    return run(
        RegularizeConfig.parse({"out": out, **options}), (events if events is not None else []).append, base=base
    )


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_prompts_are_shared_out_and_an_interrupted_folder_ends_the_same(tmp_path: Path, pocket: BaseModel) -> None:
    prompts = ["a photo of a cat", "a photo of a cat on grass"]
    events: list[Event] = []
    result = regularize(tmp_path / "whole", pocket, events, prompt=prompts, count=5, seed=7)
    assert (result.there, result.made, len(result.paths)) == (0, 5, 5)
    texts = [(tmp_path / "whole" / f"class-{i:05d}.txt").read_text().strip() for i in range(5)]
    assert texts == [prompts[i % 2] for i in range(5)]
    info = parse_infotext(read_infotext(tmp_path / "whole" / "class-00003.png"))
    assert (info["Prompt"], info["Seed"]) == (prompts[1], "10")
    assert [e.data["done"] for e in events if e.kind == "progress"] == [2, 4, 5]
    assert events[-3].data["remaining_seconds"] == 0

    cut = tmp_path / "cut"
    regularize(cut, pocket, prompt=prompts, count=2, seed=7)
    (cut / "class-00001.png").unlink()  # as if killed between a caption and its picture
    again = regularize(cut, pocket, prompt=prompts, count=5, seed=7)
    assert (again.there, again.made) == (1, 4)
    assert content(cut).keys() == content(tmp_path / "whole").keys()
    assert content(cut)["class-00000.png"] == content(tmp_path / "whole")["class-00000.png"]
    pixels = [[Image.open(f / f"class-{i:05d}.png").tobytes() for i in range(5)] for f in (cut, tmp_path / "whole")]
    worst = max(abs(a - b) for x, y in zip(*pixels, strict=True) for a, b in zip(x, y, strict=True))
    assert worst <= 1  # other batches, so other roundings of the same pictures

    kept = content(cut)
    (tmp_path / "cut-sheet.png").unlink()  # as if killed after the last picture
    finished = regularize(cut, pocket, prompt=prompts, count=4)
    assert finished.made == 0 and finished.sheet == str(tmp_path / "cut-sheet.png") and Path(finished.sheet).is_file()
    assert content(cut) == kept and regularize(cut, pocket, prompt=prompts, count=4).sheet is None


def test_the_number_and_class_come_from_the_photos(quadrants: MakeImage, tmp_path: Path, pocket: BaseModel) -> None:
    folder = tmp_path / "photos" / "3_zkw robot"
    folder.mkdir(parents=True)
    quadrants().save(folder / "a.png")
    quadrants().rotate(180).save(folder / "b.png")
    out = tmp_path / "reg"
    out.mkdir()
    quadrants().save(out / "mine.png")
    result = regularize(out, pocket, photos=tmp_path / "photos")
    assert (result.count, result.there, result.made, result.prompts) == (6, 1, 5, ["a photo of a robot"])
    assert Path(result.sheet or "").parent == tmp_path and Image.open(result.sheet or "").width > 8 * 32
    data = read_folder(tmp_path / "photos", reg=out)
    assert (data.samples("instance"), data.samples("class")) == (6, 6)
    assert {p.caption for p in data.of("class")} == {"a photo of a robot"}


def test_a_prompt_given_twice_counts_twice(tmp_path: Path, pocket: BaseModel) -> None:
    prompts = ["a cat", "a cat", "a rose"]
    assert regularize(tmp_path / "reg", pocket, prompt=prompts, count=3).prompts == prompts


def test_pictures_for_a_style_show_what_its_photos_do(quadrants: MakeImage, tmp_path: Path, pocket: BaseModel) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, caption in (("a", "a cat on grass, zkw style"), ("b", "a rose, zkw style")):
        quadrants().save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(caption)
    result = regularize(tmp_path / "reg", pocket, photos=folder, subject="zkw style")
    assert result.prompts == ["a cat on grass", "a rose"]
    alone = regularize(tmp_path / "alone", pocket, subject="zkw style", count=2)
    assert alone.prompts[:2] == ["a dog", "an apple"]


def test_what_is_missing_is_asked_for(quadrants: MakeImage, tmp_path: Path, pocket: BaseModel) -> None:
    with pytest.raises(MaquetteError, match="give count, or the photos that the pictures are for"):
        regularize(tmp_path / "reg", pocket, prompt=["a cat"])
    with pytest.raises(MaquetteError, match="give a prompt, the subject, or the photos"):
        regularize(tmp_path / "reg", pocket, count=3)
    quadrants().save(tmp_path / "a.png")
    with pytest.raises(MaquetteError, match="The class is not known: name the subject"):
        regularize(tmp_path / "reg", pocket, photos=tmp_path)
    assert not (tmp_path / "reg").exists()


def test_what_check_says_of_the_folder_is_said(quadrants: MakeImage, tmp_path: Path, pocket: BaseModel) -> None:
    (tmp_path / "photos" / "11_november").mkdir(parents=True)
    quadrants().save(tmp_path / "photos" / "11_november" / "a.png")
    events: list[Event] = []
    result = regularize(tmp_path / "reg", pocket, events, photos=tmp_path / "photos", subject="zkw robot")
    assert (result.count, result.prompts) == (1, ["a photo of a robot"])
    (warning,) = [event.data["message"] for event in events if event.kind == "warning"]
    assert warning.startswith("For the subject 'zkw robot' the folder '11_november' is an ordinary one")


def test_a_lora_in_a_prompt_is_refused(tmp_path: Path, pocket: BaseModel) -> None:
    for tag in ("<lora:mine:0.8>", "<lora:mine:0.8"):
        with pytest.raises(MaquetteError, match=r"names a LoRA: regularization images are what the base draws alone"):
            regularize(tmp_path / "reg", pocket, prompt=[f"a cat {tag}"], count=1)
    assert not (tmp_path / "reg").exists()


def test_the_schedule_is_written_beside_the_sampler(tmp_path: Path, pocket: BaseModel) -> None:
    regularize(tmp_path / "reg", pocket, prompt=["a cat"], count=1, sampler="dpm++ 2m")
    info = parse_infotext(read_infotext(tmp_path / "reg" / "class-00000.png"))
    assert (info["Sampler"], info["Schedule type"]) == ("DPM++ 2M", "Karras")


def test_a_picture_is_drawn_again_from_its_text(tmp_path: Path, pocket: BaseModel) -> None:
    options = {"prompt": ["a cat # not a dog"], "negative_prompt": "blue", "count": 2, "batch_size": 1, "seed": 5}
    regularize(tmp_path / "reg", pocket, **options, cfg_scale=3.1234567)
    assert (tmp_path / "reg" / "class-00001.txt").read_text() == "a cat\n"
    told = repeated(tmp_path / "reg" / "class-00001.png", {"out": tmp_path / "again"})
    again = draw(GenerateConfig.parse(told), base=pocket)
    assert again.images[0].tobytes() == Image.open(tmp_path / "reg" / "class-00001.png").tobytes()
    assert again.seeds == [6]


def test_a_file_where_the_folder_should_be(tmp_path: Path, pocket: BaseModel) -> None:
    (tmp_path / "reg").write_text("")
    with pytest.raises(
        MaquetteError, match=r"reg is no folder, and files are to be written into .*reg/deep; give anot"
    ):
        regularize(tmp_path / "reg" / "deep", pocket, prompt=["a cat"], count=1)


def test_more_steps_than_a_base_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match="steps = 1001 is not possible"):
        RegularizeConfig.parse({"out": tmp_path, "prompt": ["a cat"], "count": 1, "steps": 1001})
