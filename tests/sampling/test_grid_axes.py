from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maquette.errors import MaquetteError
from maquette.sampling.grid.axes import read_axis
from maquette.sampling.grid.changes import changed
from maquette.sampling.grid.plan import files_of, plan_of
from maquette.sampling.grid.settings import GridConfig
from maquette.sampling.grid.values import numbers, texts


def config(**values: Any) -> GridConfig:
    return GridConfig.parse({"seed": 1, **values}, "grid")


@pytest.mark.parametrize(
    ("written", "whole", "expected"),
    [
        ("1, 2,7", True, [1, 2, 7]),
        ("1-5", True, [1, 2, 3, 4, 5]),
        ("1-5 (+2)", True, [1, 3, 5]),
        ("10-5 (-3)", True, [10, 7]),
        ("1-3 (+2), 10", True, [1, 3, 10]),
        ("1-10 [5]", True, [1, 3, 5, 7, 10]),
        ("5-3", True, [5, 4, 3]),
        ("-2--1", True, [-2, -1]),
        ("-1", True, [-1]),
        ("0-1 [5]", False, [0, 0.25, 0.5, 0.75, 1]),
        ("0-1 (+0.25)", False, [0, 0.25, 0.5, 0.75, 1]),
        ("0-0.3 (+0.1)", False, [0, 0.1, 0.2, 0.3]),
        ("0.4-1 [4]", False, [0.4, 0.6, 0.8, 1.0]),
        (".5, 1e-1", False, [0.5, 0.1]),
        ("2-3 [1]", False, [2]),
    ],
)
def test_numbers_are_those_of_a1111(written: str, whole: bool, expected: list[float]) -> None:
    assert numbers(written, whole, "steps") == expected


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("a", "which is no whole number"),
        ("1.5", "which is no whole number"),
        ("1-5 (-1)", "never gets from 1 to 5"),
        ("1-5 (+0)", "never gets"),
        ("1-9 [0]", "asks for 0 values"),
        ("1-99999", "more than 1000 values"),
        ("1-5 (+", "which is no whole number"),
    ],
)
def test_numbers_at_fault_are_named(written: str, message: str) -> None:
    with pytest.raises(MaquetteError, match=message.replace("(", r"\(")):
        numbers(written, True, "steps")


def test_texts_with_commas_stand_in_quotation_marks() -> None:
    assert texts('red,  "big, and blue" ,green') == ["red", "big, and blue", "green"]


def prompts_of(prompt: str, **axes: str) -> list[str]:
    return [cell.settings.prompt for cell in plan_of(config(prompt=prompt, **axes)).cells]


def test_words_of_two_axes_are_replaced_at_once() -> None:
    """In A1111 the second axis looks for its words in what the first has written, and fails (issue 15953)."""
    found = prompts_of("a red cat <lora:r:1>", x="search=red, blue", y="search=cat, red dog")
    assert found == [
        "a red cat <lora:r:1>",
        "a blue cat <lora:r:1>",
        "a red red dog <lora:r:1>",
        "a blue red dog <lora:r:1>",
    ]


def test_words_are_searched_in_the_negative_prompt_too() -> None:
    plan = plan_of(config(prompt="a cat", negative_prompt="red, dull", x='search=dull, "", noisy'))
    assert [cell.settings.negative_prompt for cell in plan.cells] == ["red, dull", "red, ", "red, noisy"]
    assert [cell.settings.prompt for cell in plan.cells] == ["a cat"] * 3


def test_weights_of_tags() -> None:
    assert prompts_of("x <lora:r:1>", x="weight=0-1 [3]") == ["x <lora:r:0>", "x <lora:r:0.5>", "x <lora:r:1>"]
    assert prompts_of("<lora:r:0.5:0.7:8:lbw=OUTALL:te=1>", x="weight=0.2") == ["<lora:r:0.2:0.2:8:lbw=OUTALL>"]
    assert prompts_of("<lora:a:1><lyco:b>", x="weight:b=0.2") == ["<lora:a:1><lyco:b:0.2>"]


def test_other_loras_in_the_place_of_one() -> None:
    found = prompts_of("x <lora:r:1>", x="lora=r, s, none", y="weight=0.5")
    assert found == ["x <lora:r:0.5>", "x <lora:s:0.5>", "x "]


def test_checkpoints_by_step(tmp_path: Path) -> None:
    for name in ("r.safetensors", "checkpoints/r-000010.safetensors", "checkpoints/r-000100.safetensors", "s-1.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    values = {"prompt": "<lora:r:0.8>", "lora_dir": tmp_path}
    axis = read_axis("checkpoint=all, final, none", config(**values))
    assert axis.labels == ["10", "100", "final", "none"]
    found = [changed(values, [change])["prompt"] for change in axis.changes]
    assert found == ["<lora:r-000010:0.8>", "<lora:r-000100:0.8>", "<lora:r:0.8>", ""]
    with pytest.raises(MaquetteError, match=r"has no 20: checkpoints of r in .*: 10, 100\."):
        read_axis("checkpoint=20", config(**values))


def test_keys_and_sizes() -> None:
    plan = plan_of(config(prompt="x", x="CFG Scale=2, 4.5", y="size=64x128, 128x64", z="Schedule=Karras, Beta"))
    told = [(c.settings.cfg_scale, c.settings.width, c.settings.height, c.settings.sampler) for c in plan.cells]
    assert told[0] == (2, 64, 128, "DDIM Karras")
    assert told[3] == (4.5, 128, 64, "DDIM Karras")
    assert told[7] == (4.5, 128, 64, "DDIM Beta")
    assert plan.labels(0) == ["CFG scale 2", "CFG scale 4.5"]
    assert plan.labels(2) == ["schedule type Karras", "schedule type Beta"]


def test_axes_change_what_is_given_for_all_cells() -> None:
    plan = plan_of(config(prompt="x", sampler="DPM++ 2M", schedule_type="Karras", x="schedule=Beta, Karras"))
    assert [cell.settings.sampler for cell in plan.cells] == ["DPM++ 2M Beta", "DPM++ 2M Karras"]
    hires = {"hires_scale": 2, "hires_schedule_type": "Beta"}
    plan = plan_of(config(prompt="x", **hires, x="sampler=Euler, Heun", y="hires schedule=Beta, Karras"))
    told = [(cell.settings.sampler, cell.settings.hires_sampler) for cell in plan.cells]
    assert told[:2] == [("Euler", "Euler Beta"), ("Heun", "Heun Beta")]
    assert told[2:] == [("Euler", "Euler Karras"), ("Heun", "Heun Karras")]


def test_tags_in_comments_are_no_files() -> None:
    wanted: list[str] = []
    plan = plan_of(config(prompt="a <lora:there:1> # <lora:absent:1>", x="seed=1"))
    files_of(plan, lambda names, folder: wanted.extend(names) or {})
    assert wanted == ["there"]


def test_an_axis_gives_what_an_option_is_about() -> None:
    plan = plan_of(config(prompt="x", hires_steps=5, x="hires-scale=1.5, 2"))
    assert [cell.settings.hires_scale for cell in plan.cells] == [1.5, 2]


def test_controls_by_number() -> None:
    plan = plan_of(
        config(prompt="x", controls=["a.pt,weight=0.5", "b.pt"], x="control weight:2=0.1, 0.2", y="control end=0.5")
    )
    told = [[(unit.model, unit.weight, unit.end) for unit in cell.settings.controls] for cell in plan.cells]
    assert told == [[("a.pt", 0.5, 0.5), ("b.pt", 0.1, 1)], [("a.pt", 0.5, 0.5), ("b.pt", 0.2, 1)]]


def test_one_control_stands_for_a_list_of_it() -> None:
    assert (
        config(prompt="x", controls="a.pt,weight=0.5").controls
        == config(prompt="x", controls=["a.pt,weight=0.5"]).controls
    )


def test_one_seed_for_all_cells_where_none_is_given() -> None:
    plan = plan_of(GridConfig.parse({"prompt": "x", "x": "steps=1-3"}))
    assert len({cell.settings.seed for cell in plan.cells}) == 1
    assert plan.cells[0].settings.seed == plan.asked["seeds"]["seed"] >= 0
    assert plan.in_order() == plan.cells


def test_each_random_seed_of_an_axis_is_another() -> None:
    asked = config(prompt="x", seed=-1, x="seed=-1, 5, -1", y="var seed=-1, -1", variation_strength=0.5)
    plan = plan_of(asked)
    seeds = [cell.settings.seed for cell in plan.cells[:3]]
    first = plan.asked["seeds"]["seed"]
    assert seeds == [first, 5, first + 2]
    assert plan.labels(0) == [f"seed {seed}" for seed in seeds]
    varied = [cell.settings.variation_seed for cell in plan.cells]
    assert varied[0] != varied[3] and varied[:3] == [varied[0]] * 3
    again = plan_of(asked, plan.asked["seeds"])
    assert [cell.settings for cell in again.cells] == [cell.settings for cell in plan.cells]


def test_prompts_without_words_are_values() -> None:
    plan = plan_of(config(prompt="x", x="negative prompt=, blue"))
    assert [cell.settings.negative_prompt for cell in plan.cells] == ["", "blue"]
    assert plan.labels(0) == ["negative prompt (nothing)", "negative prompt blue"]


def test_what_costs_most_changes_least_often() -> None:
    plan = plan_of(
        config(prompt="<lora:a:1> cat", x="base=one, two", y="search=cat, dog", z="lora=a, b"),
    )
    told = [(cell.settings.base, cell.settings.prompt) for cell in plan.in_order()]
    assert [base for base, _ in told] == ["one"] * 4 + ["two"] * 4
    assert [prompt.split(">")[0][-3] for _, prompt in told] == ["a", "a", "b", "b"] * 2
    assert [cell.place for cell in plan.cells][:3] == [(0, 0, 0), (1, 0, 0), (0, 1, 0)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "A grid needs an axis"),
        ({"x": "seed"}, "is not of the form NAME=VALUES"),
        ({"x": "seed="}, "is not of the form NAME=VALUES"),
        ({"x": "seed=,"}, "The axis seed has no values"),
        ({"x": "sed=1"}, "There is no axis 'sed'. Did you mean 'seed'"),
        ({"x": "out=a"}, "There is no axis 'out'"),
        ({"x": "sampler=DDIM, Eulr"}, "no sampler called 'Eulr'"),
        ({"x": "search=dog, cat"}, "looks for 'dog', which is in no prompt"),
        ({"x": "weight=1"}, "An axis changes a LoRA's weight, and the prompt has none"),
        ({"x": "weight=1", "prompt": "<lora:a:1><lora:b:1>"}, "several LoRAs: say which one is meant, as weight:a="),
        ({"x": "weight:c=1", "prompt": "<lora:a:1>"}, "needs <lora:c:1> in the prompt, which has a"),
        ({"x": "checkpoint=all"}, "whose checkpoints"),
        ({"x": "size=big"}, "write sizes such as 512x768"),
        ({"x": "size=63x64"}, "width"),
        ({"x": "steps=0"}, "steps"),
        ({"x": "control weight=1"}, "An axis changes ControlNet 1, and 0 are given"),
        ({"x": "control glow=1"}, "a ControlNet has model, image"),
        ({"x": "seed:3=1"}, "only lora, checkpoint, weight and control take a name"),
        ({"x": "denoising=0.3, 0.5"}, "denoising_strength needs init_image or hires fix"),
        ({"x": "seed=1-1000", "y": "steps=1-1000"}, "would have 1000000 pictures"),
        ({"x": "seed=1", "batch_size": 2}, "A grid draws one picture a cell; leave out batch_size"),
    ],
)
def test_axes_at_fault_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(MaquetteError, match=message):
        plan_of(config(**{"prompt": "x", **values}))
