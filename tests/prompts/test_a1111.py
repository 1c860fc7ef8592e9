"""Inputs and what AUTOMATIC1111's stable-diffusion-webui 1.10.1 makes of them with its default options (a1111.json)."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.formats.png import parse_infotext
from maquette.formats.tokenizer import Tokenizer
from maquette.prompts import parse_composable, parse_schedule, strip_comments, tokenize
from maquette.prompts.encode import Prompt
from maquette.prompts.schedule import held

VECTORS: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parent / "a1111.json").read_text())


def of(*classes: str) -> list[Any]:
    return [pytest.param(vector, id=f"{name}-{i}") for name in classes for i, vector in enumerate(VECTORS[name])]


@pytest.mark.parametrize("vector", of("schedule_stray_bar", "schedule_unicode_space"))
def test_schedules(vector: dict[str, Any]) -> None:
    assert parse_schedule(vector["prompt"], vector["steps"], vector["hires_steps"]) == vector["expect"]


@pytest.mark.parametrize("vector", of("composable_trailing_space"))
def test_and(vector: dict[str, Any]) -> None:
    assert [list(part) for part in parse_composable(vector["prompt"])] == vector["expect"]


@pytest.mark.parametrize("vector", of("comments"))
def test_comments(vector: dict[str, Any]) -> None:
    assert strip_comments(vector["prompt"]) == vector["expect"]


@pytest.mark.parametrize("vector", of("chunk_trailing_break"))
def test_chunks(vector: dict[str, Any]) -> None:
    assert [{"ids": ids, "weights": weights} for ids, weights in tokenize(vector["prompt"])] == vector["chunks"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.mark.parametrize("vector", of("tokenizer_text_fixing"))
def test_tokens(tokenizer: Tokenizer, vector: dict[str, Any]) -> None:
    assert tokenizer.encode(vector["text"]) == vector["ids"]


@pytest.mark.parametrize("vector", of("infotext_empty_value", "infotext_key_named_prompt"))
def test_infotext(vector: dict[str, Any]) -> None:
    assert parse_infotext(vector["text"]) == vector["expect"]


@pytest.mark.parametrize("vector", of("prompt_of_each_call"))
def test_the_prompt_of_each_call(vector: dict[str, Any]) -> None:
    schedule = parse_schedule(vector["prompt"], vector["steps"] * vector["calls_per_step"])
    texts = [held([(int(end), text) for end, text in schedule], call) for call in range(vector["denoiser_calls"])]
    assert [[text, len(list(run))] for text, run in groupby(texts)] == vector["prompt_of_each_call"]


@pytest.mark.parametrize("vector", of("emphasis_of_a_schedule"))
def test_the_joint_mean_of_a_schedule(vector: dict[str, Any]) -> None:
    z, weights = torch.tensor(vector["z"])[:, None], torch.tensor(vector["weights"])[:, None]  # one chunk
    made = Prompt.emphasised(z, weights, [z.shape[-1]], True, torch.ones(len(z)))
    # The expected numbers have six decimals; a sum of some dozen float32 numbers is exact to seven digits of its terms.
    scale = float(made.abs().max())
    assert (made[:, 0] - torch.tensor(vector["expect"])).abs().max() < 5e-7 + 1e-6 * max(1.0, scale)
