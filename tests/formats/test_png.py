from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maquette.errors import MaquetteError
from maquette.formats.png import format_infotext, parse_infotext, read_infotext, write_png

# In the form that A1111 1.10 writes.
WRITTEN = """a photo of (zkw robot:1.2), red
second line <lora:robot:0.8>
Negative prompt: blurry, ugly
low quality
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 4, Seed: 123, Size: 512x768, Model hash: 6ce0161689, \
Model: v1-5, Clip skip: 2, RNG: CPU, Lora hashes: "robot: 1a2b3c4d5e6f, other: 0a0b0c0d0e0f", Version: v1.10.1"""


def test_parse() -> None:
    assert parse_infotext(WRITTEN) == {
        "Prompt": "a photo of (zkw robot:1.2), red\nsecond line <lora:robot:0.8>",
        "Negative prompt": "blurry, ugly\nlow quality",
        "Steps": "20",
        "Sampler": "DPM++ 2M",
        "Schedule type": "Karras",
        "CFG scale": "4",
        "Seed": "123",
        "Size-1": "512",
        "Size-2": "768",
        "Model hash": "6ce0161689",
        "Model": "v1-5",
        "Clip skip": "2",
        "RNG": "CPU",
        "Lora hashes": "robot: 1a2b3c4d5e6f, other: 0a0b0c0d0e0f",
        "Version": "v1.10.1",
    }


def test_format() -> None:
    values = {
        "Steps": 20,
        "Sampler": "Euler a",
        "Seed": None,
        "Size": "64x64",
        "Lora hashes": 'a: 1, "b": 2',
        "Ü": "é",
    }
    assert format_infotext("a cat", "dog", values) == (
        'a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Size: 64x64, Lora hashes: "a: 1, \\"b\\": 2", Ü: é'
    )
    assert format_infotext("a cat", "", {"Steps": 1}) == "a cat\nSteps: 1"
    assert format_infotext("", "", {"Steps": 1}) == "Steps: 1"


def test_a_last_line_with_few_pairs_is_prompt() -> None:
    text = "a cat\nSteps: 20, Seed: 3"
    assert parse_infotext(text) == {"Prompt": text, "Negative prompt": ""}
    assert parse_infotext("") == {"Prompt": "", "Negative prompt": ""}
    assert parse_infotext("Steps: 1, Seed: 2, Size: 8x9")["Size-2"] == "9"


PROMPTS = st.text(alphabet='ab ,:()<>"\\\n.é猫', max_size=40).map(
    lambda text: "\n".join(s.strip() for s in text.split("\n")).strip()
)
VALUES = st.dictionaries(
    st.from_regex(r"[A-Z][a-z]{1,6}( [a-z]{1,5})?", fullmatch=True).filter(lambda key: key != "Negative prompt"),
    st.text(alphabet='ab1 ,:"\\é\n', min_size=1, max_size=12).filter(lambda value: value == value.strip()),
    min_size=3,
    max_size=6,
)


@given(PROMPTS, PROMPTS, VALUES)
def test_round_trip(prompt: str, negative: str, values: dict[str, str]) -> None:
    parsed = parse_infotext(format_infotext(prompt, negative, values))
    assert parsed.pop("Prompt") == prompt
    assert parsed.pop("Negative prompt") == negative
    assert parsed == values


@given(st.text(max_size=80))
def test_any_text_parses(text: str) -> None:
    assert {"Prompt", "Negative prompt"} <= parse_infotext(text).keys()


@pytest.mark.parametrize("text", ["plain", "two\nlines: 3", "ünïcödé 猫 \U0001f916"])
def test_written_and_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "new" / "folder" / "a.png"
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    write_png(image, path, text)
    assert read_infotext(path) == text
    with Image.open(path) as read:
        assert read.info["parameters"] == text  # under A1111's name
        assert read.convert("RGB").tobytes() == image.tobytes()
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


def test_a_picture_without_text_and_a_file_that_is_none(tmp_path: Path) -> None:
    write_png(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    assert not read_infotext(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(MaquetteError, match=r"b\.png"):
        read_infotext(tmp_path / "b.png")
    with pytest.raises(MaquetteError, match=r"absent\.png"):
        read_infotext(tmp_path / "absent.png")
