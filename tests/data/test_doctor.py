"""Planted faults are named, each and only those; captions are judged; the golden rule is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageFilter, ImageOps

from maquette.data.buckets import plan
from maquette.data.caption_options import CaptionOptions
from maquette.data.dataset import Dataset
from maquette.data.doctor import Look, examine_captions, examine_photos, look_at
from maquette.data.golden_rule import golden_rule, trigger_of, words_of
from maquette.data.images import OpenedPhoto
from maquette.data.layouts import read_folder
from tests.scenes import scene


def found(folder: Path, resolution: int = 512, aspect_buckets: bool = True) -> list[tuple[str, str]]:
    looks: dict[Path, Look] = {}

    def look(path: Path, opened: OpenedPhoto) -> None:
        looks[path] = look_at(opened)

    data = plan(read_folder(folder, "zkw dog", look=look), resolution, aspect_buckets=aspect_buckets)
    return [(problem.kind, problem.photo) for problem in examine_photos(data, looks)]


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    for seed in range(6):
        scene(seed).save(tmp_path / f"{seed}.png")
    return tmp_path


def test_a_clean_folder_has_no_findings(clean: Path) -> None:
    assert found(clean) == []


def alpha(image: Image.Image) -> Image.Image:
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


@pytest.mark.parametrize(
    ("kind", "picture"),
    [
        ("dark", lambda: Image.new("RGB", (600, 600), (3, 3, 3))),
        ("bright", lambda: Image.new("RGB", (600, 600), (252, 252, 250))),
        ("flat", lambda: Image.new("RGB", (600, 600), (120, 120, 120))),
        ("blurred", lambda: scene(9).filter(ImageFilter.GaussianBlur(6))),
        ("blurred", lambda: scene(9, 100, 100).resize((600, 600), Image.Resampling.BICUBIC)),
        ("aspect", lambda: scene(9, 1500, 600)),
        ("aspect", lambda: scene(9, 600, 1500)),
        ("small", lambda: scene(9, 400, 400)),
        ("alpha", lambda: alpha(scene(9))),
        ("duplicate", lambda: scene(2)),
        ("duplicate", lambda: scene(2).resize((520, 520))),
        ("duplicate", lambda: scene(2).point(lambda value: int(value * 0.9 + 10))),
        ("duplicate", lambda: ImageOps.mirror(scene(2))),
    ],
)
def test_each_planted_fault_is_the_only_finding(clean: Path, kind: str, picture: Callable[[], Image.Image]) -> None:
    picture().save(clean / "planted.png")
    assert found(clean) == [(kind, "planted.png")]


def test_square_cuts_that_lose_much_are_named(clean: Path) -> None:
    scene(9, 1200, 600).save(clean / "wide.png")
    assert found(clean) == []
    assert found(clean, aspect_buckets=False) == [("cropped", "wide.png")]


def test_one_drawing_on_two_backgrounds_is_no_duplicate(tmp_path: Path) -> None:
    for name, colour in [("red", (200, 60, 60)), ("green", (60, 150, 60))]:
        image = Image.new("RGB", (600, 600), colour)
        image.paste((250, 250, 250), (200, 150, 400, 450))
        image.paste((10, 10, 10), (260, 220, 300, 260))
        image.save(tmp_path / f"{name}.png")
    assert found(tmp_path) == []


def captioned(folder: Path, *captions: str, subject: str = "zkw dog") -> Dataset:
    for number, caption in enumerate(captions):
        scene(number, 64, 64).save(folder / f"{number}.png")
        if caption:
            (folder / f"{number}.txt").write_text(caption, encoding="utf-8")
    return read_folder(folder, subject)


def findings(data: Dataset, subject: str | None = "zkw dog", tokens: object = None) -> list[tuple[str, str, bool]]:
    problems = examine_captions(data, subject, tokens)  # type: ignore[arg-type]
    return [(problem.kind, problem.photo, problem.blocking) for problem in problems]


def test_subject_missing_everywhere_blocks_and_somewhere_warns(tmp_path: Path) -> None:
    data = captioned(tmp_path, "a photo of a dog on grass", "a dog in a car", "")
    problems = examine_captions(data, "zkw dog")
    assert [(p.kind, p.blocking) for p in problems] == [("no_subject", True)]
    assert "No caption file contains 'zkw'" in problems[0].message
    (tmp_path / "1.txt").write_text("a ZKW, dog in a car")
    assert findings(read_folder(tmp_path, "zkw dog")) == [("no_subject", "0.png", False)]


def test_captions_from_the_subject_are_fine(tmp_path: Path) -> None:
    assert findings(captioned(tmp_path, "", "", "")) == []


def test_photos_without_any_caption_are_named(tmp_path: Path) -> None:
    data = captioned(tmp_path, "", "zkw", "", subject="")
    (problem,) = examine_captions(data, None)
    assert problem.blocking and problem.message == (
        "2 photos, the first 0.png, have no caption: name the subject (--subject 'ohwx man') or write 0.txt, "
        "or training will not start."
    )


def test_the_same_caption_everywhere(tmp_path: Path) -> None:
    data = captioned(tmp_path, "zkw dog", "zkw dog", "zkw dog")
    assert findings(data) == [("same_caption", "", False)]


def test_tokens_find_common_triggers_and_long_captions(tmp_path: Path) -> None:
    def tokens(text: str) -> Sequence[int]:
        ids = {"dog": [1929], "sks": [48136], "zkw": [5, 6]}
        return [i for word in words_of(text) for i in ids.get(word, [7, 7])]

    data = captioned(tmp_path, "zkw dog " + "x " * 36, "zkw dog " + "x " * 37)
    assert findings(data, tokens=tokens) == []
    (problem,) = examine_captions(data, "zkw dog", tokens, 75)  # 75 tokens fit, 77 do not
    assert problem.message == "The caption of 1.png has 77 tokens; after the 75th it is cut off: 'x'."
    options = CaptionOptions(prefix="one two")
    longer = replace(data, photos=[replace(photo, options=options) for photo in data.photos[:1]])
    (problem,) = examine_captions(longer, "zkw dog", tokens, 75)  # what training reads is counted
    assert problem.photo == "0.png" and "has 79 tokens; after the 75th it is cut off: 'x x'." in problem.message
    many = captioned(tmp_path, "zkw dog " + "x " * 200)
    (problem,) = examine_captions(many, "zkw dog", tokens)
    assert f"has 403 tokens; after the 225th it is cut off: '{'x ' * 30} …'." in problem.message
    plain = captioned(tmp_path / "p" if (tmp_path / "p").mkdir() is None else tmp_path, "", subject="dog")
    assert findings(plain, "dog", tokens) == [("common_trigger", "", False)]
    assert findings(plain, "sks dog", tokens) == []


def test_golden_rule_counts_words_without_the_subject(tmp_path: Path) -> None:
    rule = golden_rule(
        captioned(
            tmp_path, "a photo of zkw dog on grass in a blue shirt", "zkw dog, blue shirt", "a blue shirt on zkw dog"
        ).photos,
        "zkw dog",
    )
    assert (rule.captions, rule.always, rule.sometimes) == (3, ("blue", "shirt"), (("grass", 1),))
    assert rule.sentences() == [
        "In all 3 captions: blue, shirt. They stay promptable.",
        "In some captions: grass (1). These stay free: prompts can have or leave them.",
        "Whatever the photos share and no caption names (glasses, a wall) becomes part of 'zkw dog'.",
    ]


def test_without_a_subject_no_word_is_called_promptable_that_may_be_the_one_to_learn(tmp_path: Path) -> None:
    rule = golden_rule(captioned(tmp_path, "zkw robot on grass", "a red zkw robot", subject="").photos, None)
    assert rule.sentences()[0] == (
        "In all 2 captions: robot, zkw. One may be the word to learn, which takes on the subject; the others stay "
        "promptable (--subject)."
    )


def test_golden_rule_keeps_comma_separated_tags_whole(tmp_path: Path) -> None:
    rule = golden_rule(
        captioned(
            tmp_path, "zkw dog, blue shirt, outdoors", "zkw dog, blue shirt, red hat", "zkw, blue shirt, sky"
        ).photos,
        "zkw dog",
    )
    assert rule.always == ("blue shirt",)
    assert dict(rule.sometimes) == {"outdoors": 1, "red hat": 1, "sky": 1}


def test_words_of_any_script() -> None:
    assert words_of("A man's T-shirt, 日本 Straße!") == ["a", "man's", "t-shirt", "日本", "straße"]
    assert trigger_of("ohwx man") == "ohwx" and trigger_of("") == ""
