"""PEFT's settings: alpha_pattern against PEFT's own matching, in bounded time; faults are refused by name."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from maquette.adapters import peft_settings
from maquette.adapters.peft_settings import Strengths, of_metadata
from maquette.errors import MaquetteError

PATHS = [
    f"down_blocks.{block}.attentions.{layer}.transformer_blocks.0.{end}"
    for block in (0, 1, 2)
    for layer in (0, 1)
    for end in ("attn1.to_q", "attn2.to_q", "attn1.to_out.0", "ff.net.2")
] + ["mid_block.attentions.0.proj_in", "conv_in"]


def theirs(pattern: dict[str, float], path: str, usual: float) -> float:
    """As PEFT: the first pattern that stands for the end of the path, behind a dot or from its beginning."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", path)), usual)


@pytest.mark.parametrize(
    "pattern",
    [
        {"to_q": 3.0},
        {"attn2.to_q": 3.0, "to_q": 5.0},
        {"to_q": 5.0, "attn2.to_q": 3.0},
        {"^conv_in$": 2.0, "to_out.0": 4.0},
        {r"down_blocks\.1\.attentions\.0\..*to_q": 3.0},
        {r"down_blocks\.\d+\.attentions\.1\..*": 3.0, "ff.net.2": 9.0},
        {r"down_blocks.[0-9].*attn1.(to_q|to_out.0)": 7.0},
        {"proj_in|conv_in": 6.0},
        {".*": 2.5},
        {"o_q": 3.0},
        {"down_blocks.1": 3.0},
    ],
    ids=str,
)
def test_patterns_mean_what_they_mean_to_peft(pattern: dict[str, float]) -> None:
    strengths = Strengths({"lora_alpha": 8, "alpha_pattern": pattern})
    assert [strengths.alpha(path, 4) for path in PATHS] == [theirs(pattern, path, 8.0) for path in PATHS]


def test_a_rank_stabilised_scale_and_layers_without_a_rank() -> None:
    assert Strengths({"lora_alpha": 8, "use_rslora": True}).alpha("x", 4) == 16
    patterns = {"alpha": 6, "r": 4, "rank_pattern": {"a.x": 3}, "alpha_pattern": {"y": 2}}
    scales = [Strengths(patterns).scale_without_rank(path) for path in ("a.x", "b.x", "b.y")]
    assert scales == [2.0, 1.5, 0.5]
    assert Strengths({"alpha": 6, "r": 4}).scale_without_rank("x") == 1.5 and Strengths({}).alpha("x", 4) is None


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"lora_alpha": "x"}, "lora_alpha is no number"),
        ({"lora_alpha": [1]}, "lora_alpha is no number"),
        ({"lora_alpha": True}, "lora_alpha is no number"),
        ({"lora_alpha": float("inf")}, "lora_alpha is inf"),
        ({"lora_alpha": 10**400}, "lora_alpha is inf"),
        ({"alpha_pattern": ["a"]}, "alpha_pattern is no table"),
        ({"alpha_pattern": {"a": "b"}}, "alpha_pattern of 'a' is no number"),
        ({"alpha_pattern": {"(": 1}}, r"alpha_pattern '\(' is no layer's name"),
        ({"alpha_pattern": {"([a-z0-9_.]+)+!": 1}}, "is no layer's name"),
        ({"alpha_pattern": {".*.*.*.*x": 1}}, "repeats too much"),
        ({"alpha_pattern": {f"{i}.*": 1 for i in range(9)}}, "more than 8 patterns"),
        ({"alpha_pattern": {str(i): 1 for i in range(10_001)}}, "no table of at most 10000"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_is_no_number_and_no_pattern_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Strengths(settings)


def test_work_grows_with_the_lengths_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dearest patterns that are taken, counted: every character of a path is held against few places of each."""
    asked = 0
    fits = peft_settings._fits

    def counted(symbol: str, character: str) -> bool:
        nonlocal asked
        asked += 1
        return fits(symbol, character)

    monkeypatch.setattr(peft_settings, "_fits", counted)
    strengths = Strengths({"alpha_pattern": {"." * (97 - i) + ".*x": 1.0 for i in range(8)}})
    path = "down_blocks.2.attentions.1.transformer_blocks.9." * 2 + "attn2.to_out.0"
    strengths.alpha(path, 4)
    assert 0 < asked <= 8 * len(path) * (path.count(".") + 2)


def test_metadata_that_cannot_be_read_is_refused_for_the_strength_would_be_lost() -> None:
    told = {"unet.lora_alpha": 6, "text_encoder.alpha_pattern": {"fc1": 2}}
    found = of_metadata({"lora_adapter_metadata": json.dumps(told)}, "x")
    assert found == {"unet": {"lora_alpha": 6}, "text_encoder": {"alpha_pattern": {"fc1": 2}}}
    assert of_metadata({}, "x") == {}
    for text in ("{", "[]", "[" * 5000, '{"unet.lora_alpha": 1e999}', '{"unet.lora_alpha": ' + "9" * 400 + "}"):
        with pytest.raises(MaquetteError, match=r"^x: its lora_adapter_metadata"):
            of_metadata({"lora_adapter_metadata": text}, "x")
