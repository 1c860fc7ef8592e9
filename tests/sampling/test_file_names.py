"""A1111's patterns for the names of files."""

from __future__ import annotations

import dataclasses
import datetime

import pytest

from maquette.errors import MaquetteError
from maquette.sampling.file_names import FIELDS, Picture, file_name, require_known

VALUES = {"Seed": 42, "Steps": 20, "Sampler": "DPM++ 2M", "Size": "64x48", "Model": "a/b:c", "CFG scale": "7"}
PICTURE = Picture(
    'a (cat:1.2), on "red"\nand <lora:x:1>', "ugly", VALUES, 7, 2, "photo", datetime.datetime(2026, 11, 26, 18, 5, 9)
)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("[number]-[seed]", "00007-42"),
        ("[seed]-[prompt_words]", "42-a cat 1 2 on red and lora"),
        ("[date]/[model_name] [steps] [cfg]", "2026-11-26/a_b_c 20 7"),
        ("[width]x[height]-[sampler]", "64x48-DPM++ 2M"),
        ("[datetime]-[datetime<%H.%M>]", "20261126180509-18.05"),
        ("[batch_number]-[clip_skip]-[init_image]", "3-1-photo"),
        ("[prompt_spaces]", "a (cat_1.2), on _red__and _lora_x_1_"),
        (" . ", "00007"),
        ("x[denoising]", "x"),
        ("con/[number]", "con_/00007"),
        ("NUL", "NUL_"),
        ("aux.[seed]", "aux_.42"),
        ("a:b?/[seed] .", "a_b_/42"),
    ],
)
def test_names(pattern: str, name: str) -> None:
    require_known(pattern)
    assert file_name(pattern, PICTURE) == name


@pytest.mark.parametrize(("prompt", "name"), [("CON", "CON_"), ("com1.5", "com1_.5"), ("lpt", "lpt"), ("nul.", "nul_")])
def test_a_prompt_that_windows_keeps_to_itself(prompt: str, name: str) -> None:
    assert file_name("[prompt]", dataclasses.replace(PICTURE, prompt=prompt)) == name


def test_a_long_prompt_of_wide_letters_is_a_name_of_a_file() -> None:
    made = file_name("[prompt]-[seed]", dataclasses.replace(PICTURE, prompt="猫" * 500))
    assert made.startswith("猫" * 60) and len(made.encode()) <= 200


def test_every_field_gives_a_name_of_a_file() -> None:
    for field in FIELDS:
        made = file_name(f"[{field}]", PICTURE)
        assert made and not set(made) & set('<>:"/\\|?*\n'), field


@pytest.mark.parametrize("pattern", ["/tmp/[seed]", "a/../../b", "~/x", "C:\\x", "[sed]"])
def test_patterns_at_fault(pattern: str) -> None:
    with pytest.raises(MaquetteError, match=r"leads out of the folder|There is no field \[sed\]"):
        require_known(pattern)
