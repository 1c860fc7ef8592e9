"""The check stage: what is counted, what blocks, and the page it writes."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from maquette.errors import MaquetteError
from maquette.events import Event
from maquette.stages.check import CheckConfig, run
from maquette.stages.check_page import write_page
from maquette.training.costs import base_facts, lora_bytes

MakeImage = Callable[..., Image.Image]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_fault_folder_counts_the_good_and_names_the_bad(fault_folder: Path) -> None:
    before = snapshot(fault_folder)
    events: list[Event] = []
    result = run(CheckConfig(photos=fault_folder, subject="zkw robot", repeats=4, batch_size=3), events.append)
    assert snapshot(fault_folder) == before
    assert (result.images, result.samples, result.costs.steps_per_epoch) == (5, 20, 7)
    assert {p.photo for p in result.left_out} == {"truncated.jpg", "empty.png", "notes.jpg", "moving.gif"}
    assert events[-1].data == {"what": "reading photos", "done": 8, "of": 8}
    record = json.loads(json.dumps(result.to_json()))
    assert record["ready"] is True and len(record["photos"]) == 5
    assert [p["photo"] for p in record["problems"] if p["left_out"]] == [p.photo for p in result.left_out]


def test_steps_follow_train_unless_named(fault_folder: Path) -> None:
    def costs(**options: Any) -> Any:
        return run(CheckConfig(photos=fault_folder, subject="zkw robot", **options)).costs

    assert (costs().batch_size, costs().steps) == (8, 200)  # pocket: at least 1600 pictures
    assert costs(epochs=7, batch_size=2).steps == 18  # 35 samples
    assert costs(steps=123).steps == 123
    assert costs(steps=10, batch_size=1).epochs == 2
    many = run(CheckConfig(photos=fault_folder, subject="zkw robot", steps=12_345, batch_size=1))
    assert "12345 steps in all (2469 epochs)" in many.figures()[0]
    with pytest.raises(MaquetteError, match="give steps or epochs, not both"):
        CheckConfig.parse({"photos": fault_folder, "steps": 1, "epochs": 1})


def test_unreadable_caption_and_missing_subject_block(fault_folder: Path) -> None:
    (fault_folder / "good.txt").write_bytes(b"caf\x81")
    (fault_folder / "cmyk.txt").write_text("a photo of a robot")
    result = run(CheckConfig(photos=fault_folder, subject="zkw robot"))
    assert {p.kind for p in result.blocking} == {"bad_caption", "no_subject"}
    assert result.problems[0].blocking and result.to_json()["ready"] is False


def test_nothing_large_enough_blocks(quadrants: MakeImage, tmp_path: Path) -> None:
    quadrants(10, 10).save(tmp_path / "a.png")
    result = run(CheckConfig(photos=tmp_path, subject="zkw robot"))
    assert [p.kind for p in result.blocking] == ["nothing"]
    assert result.left_out[0].message.startswith("a.png is too small: 10 x 10")


def test_full_disk_blocks(fault_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    result = run(CheckConfig(photos=fault_folder, subject="zkw robot", out=tmp_path / "runs" / "x"))
    assert [p.kind for p in result.blocking] == ["disk"]
    assert "has 1.0 MB left and the run needs about" in result.blocking[0].message


def test_regularization_pictures_are_counted(quadrants: MakeImage, tmp_path: Path) -> None:
    for name in ["p/a", "p/b", "r/x"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        quadrants(64, 64).save(tmp_path / f"{name}.png")
    result = run(CheckConfig(photos=tmp_path / "p", reg=tmp_path / "r", subject="zkw robot", repeats=5))
    assert (result.costs.regularization_needed, result.costs.regularization_present) == (10, 1)
    assert [p.message for p in result.problems if p.kind == "regularization"] == [
        "1 regularization sample for 10 of photos: each is used up to 10 times."
    ]


def test_surplus_regularization_pictures_are_reported(quadrants: MakeImage, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "p").mkdir()
    quadrants(64, 64).save(tmp_path / "p" / "a.png")
    for number in range(5):
        quadrants(64, 64).save(tmp_path / "r" / f"{number}.png")

    def said(**options: Any) -> list[str]:
        result = run(CheckConfig(photos=tmp_path / "p", reg=tmp_path / "r", subject="zkw robot", **options))
        return [p.message for p in result.problems if p.kind == "regularization"]

    assert said() == ["5 regularization samples for 1 of photos: an epoch uses some, in turn."]
    assert said(repeats=5) == []
    assert said(steps=3, batch_size=1) == [
        "5 regularization samples for 1 of photos: the whole run sees 3 of them, the others have no effect."
    ]


def test_page_holds_every_photo_its_crop_and_warnings(quadrants: MakeImage, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    quadrants(200, 100).save(tmp_path / "p" / "a <b>.png")
    result = run(CheckConfig(photos=tmp_path / "p", subject="zkw robot"))
    write_page(result, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "a &lt;b&gt;.png" in page and "<b>" not in page
    assert "left:25.00%;top:0.00%;width:50.00%;height:100.00%" in page
    assert result.observations and all(line in html.unescape(page) for line in result.observations)
    assert "50% of a &lt;b&gt;.png is cut off at 64 x 64" in page
    assert page.count("data:image/jpeg;base64,") == 1 and "http:" not in page and "https:" not in page


def test_page_runs_and_loads_nothing_and_shows_control_characters(quadrants: MakeImage, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    quadrants(64, 64).save(tmp_path / "p" / "a.png")
    (tmp_path / "p" / "a.txt").write_text("zkw robot \x1b[31m <script>alert(1)</script>")
    result = run(CheckConfig(photos=tmp_path / "p", subject="zkw robot"))
    write_page(result, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "\\x1b[31m &lt;script&gt;" in page and "\x1b" not in page and "<script" not in page
    style = page.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = html.unescape(page.split('Content-Security-Policy" content="')[1].split('"')[0])
    assert policy.startswith("default-src 'none'; img-src data:") and f"style-src 'sha256-{digest}'" in policy
    assert "style=" not in page  # which this policy would not allow


def test_a_data_set_file_sets_what_the_user_does_not(quadrants: MakeImage, tmp_path: Path) -> None:
    quadrants(200, 100).save(tmp_path / "a.png")
    subset = '[[datasets.subsets]]\nimage_dir = "."\nclass_tokens = "zkw robot"\nnum_repeats = 6\n'
    (tmp_path / "set.toml").write_text(
        "[[datasets]]\nresolution = 128\nbatch_size = 3\nenable_bucket = true\n" + subset
    )
    result = run(CheckConfig(photos=tmp_path / "set.toml"))
    assert (result.layout, result.resolution, result.samples, result.costs.steps_per_epoch) == ("toml", 128, 6, 2)
    assert result.photos[0]["bucket"] == [176, 80] and result.subject == "zkw robot"
    result = run(CheckConfig(photos=tmp_path / "set.toml", resolution=64, batch_size=2, buckets=False))
    assert (result.photos[0]["bucket"], result.costs.steps_per_epoch) == ([64, 64], 3)


def test_a_folder_at_two_resolutions_is_no_folder_of_copies(quadrants: MakeImage, tmp_path: Path) -> None:
    quadrants(200, 100).save(tmp_path / "a.png")
    subset = '[[datasets.subsets]]\nimage_dir = "."\nclass_tokens = "zkw robot"\n'
    (tmp_path / "set.toml").write_text(
        f"[[datasets]]\nresolution = 64\n{subset}[[datasets]]\nresolution = 96\n{subset}"
    )
    result = run(CheckConfig(photos=tmp_path / "set.toml"))
    assert [photo["bucket"] for photo in result.photos] == [[64, 64], [96, 96]]
    assert [problem.kind for problem in result.problems] == ["cropped", "cropped"]
    assert result.observations[0].startswith("1 photo is few")
    assert "Trained at several sizes, as the data set file says: 64 x 64, 96 x 96;" in result.figures()[1]


def test_base_facts_and_errors(tmp_path: Path) -> None:
    pocket = base_facts("pocket")
    assert (pocket.native_size, pocket.latent_factor) == (64, 4)
    assert lora_bytes(pocket.layers, 32) > 1.8 * lora_bytes(pocket.layers, 16) > 0
    with pytest.raises(MaquetteError, match=r"nothing\.safetensors does not exist"):
        base_facts(tmp_path / "nothing.safetensors")
    from safetensors.torch import save_file

    save_file({"lora_unet_x.alpha": torch.zeros(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(MaquetteError, match=r"lora\.safetensors is .*not a whole Stable Diffusion model"):
        base_facts(tmp_path / "lora.safetensors")
    with pytest.raises(MaquetteError, match=r"model_index\.json is missing"):
        base_facts(tmp_path)


def test_kohya_folders_are_said_as_they_are_understood(quadrants: MakeImage, tmp_path: Path) -> None:
    for name in ("40_ohwx man", "10_qrt dog"):
        (tmp_path / name).mkdir()
        quadrants().save(tmp_path / name / "a.png")
    assert run(CheckConfig(photos=tmp_path)).observations[:2] == [
        "Kohya's folders, repeats and subject: '10_qrt dog' is 10 x 'qrt dog', '40_ohwx man' is 40 x 'ohwx man'.",
        "Without a caption file a photo is 'a photo of qrt dog' here; to Kohya's trainer it is 'qrt dog'.",
    ]


def test_tokens_of_captions_are_counted_and_long_ones_named(quadrants: MakeImage, tmp_path: Path) -> None:
    for name, text in (("a", "zkw robot"), ("b", "zkw robot, " + "red hat, " * 60)):
        quadrants().save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(text)
    result = run(CheckConfig(photos=tmp_path, subject="zkw robot"))
    assert [photo["tokens"] for photo in result.photos] == [3, 184]
    assert "Captions have up to 184 tokens, of which training reads 225 (max_token_length)." in result.figures()
    assert not [p for p in result.problems if p.kind == "long_caption"]
    result = run(CheckConfig(photos=tmp_path, subject="zkw robot", max_token_length=150))
    (problem,) = [p for p in result.problems if p.kind == "long_caption"]
    assert problem.message.startswith("The caption of b.png has 184 tokens; after the 150th it is cut off: ")
    write_page(result, tmp_path / "page.html")
    assert "caption of 184 tokens" in (tmp_path / "page.html").read_text()
