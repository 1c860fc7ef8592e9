"""The noise floor: of seeds of the panel, of twin runs, and what it does to the choice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from maquette import MaquetteError
from maquette.evaluation import Example, Row, choose
from maquette.evaluation.candidates import Candidate
from maquette.evaluation.noise import Noise, between_seeds, joined, of_twins
from maquette.evaluation.page_values import values
from maquette.evaluation.panel import Size
from maquette.evaluation.rule import PANEL_NOISE, Rule, Term
from maquette.evaluation.verdict import floor_of, judge
from maquette.families import load
from maquette.formats import safetensors

RULE = Rule(terms={"likeness": Term(1.0)}, least={}, most={}, dial={"balanced": {}})
TINY = Size(photos=4, probed=1, timesteps=2, kept=1, others=1, pictures=2, steps=1, draws=1)


def panel(*likenesses: float) -> list[Row]:
    return [Row.of(100 * (i + 1), 1.0, {"likeness": [value]}) for i, value in enumerate(likenesses)]


def test_what_all_cells_of_a_panel_share_is_no_noise() -> None:
    assert between_seeds([panel(0.5, 0.7, 0.6), panel(0.6, 0.8, 0.7)], rule=RULE).difference == pytest.approx(0.0)


def test_noise_of_panels_is_that_of_their_mean() -> None:
    """Cells of one worth under independent noise of 0.02: the mean of 4 panels has 0.01, a difference 0.0141."""
    dice = np.random.default_rng(0)
    panels = [panel(*(0.5 + 0.02 * dice.standard_normal(400))) for _ in range(4)]
    noise = between_seeds(panels, rule=RULE)
    assert noise.difference == pytest.approx(0.01 * 2**0.5, rel=0.1)
    assert noise.measures["likeness"] == pytest.approx(0.01, rel=0.1)
    assert noise.source == "4 panels"


def test_twins_are_compared_where_both_were_measured() -> None:
    run, twin = panel(0.5, 0.6, 0.7), panel(0.53, 0.56)
    noise = of_twins(run, twin, rule=RULE)
    assert noise is not None
    assert noise.difference == pytest.approx((0.03**2 / 2 + 0.04**2 / 2) ** 0.5)
    assert noise.measures["likeness"] == pytest.approx(noise.difference / 2**0.5)
    assert of_twins(run, [], rule=RULE) is None


def test_what_lies_within_the_noise_counts_as_equal_and_the_earliest_is_taken() -> None:
    rows = panel(0.5, 0.57, 0.6)
    assert choose(rows, rule=RULE).step == 300
    assert choose(rows, rule=RULE, floor=0.035).step == 200
    assert choose(rows, rule=RULE, floor=0.2).step == 100


@pytest.mark.parametrize("size", [1.0, 0.1])
def test_the_usual_noise_is_a_share_of_the_best_score(size: float) -> None:
    assert choose(panel(0.5 * size, 0.58 * size, 0.6 * size), rule=RULE).step == 200


def test_rows_of_panels_are_joined_by_their_items() -> None:
    (row,) = joined([panel(0.5), panel(0.7)])
    assert (row.step, row.items["likeness"]) == (100, [0.5, 0.7]) and row.values["likeness"] == pytest.approx(0.6)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Candidate]:
    folder, found = tmp_path_factory.mktemp("files"), []
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    weight = dict(load("pocket").unet.named_modules())["mid_block.attentions.0.transformer_blocks.0.attn2.to_k"].weight
    for step in (1, 2):
        random = torch.Generator().manual_seed(step)
        down = torch.randn((2, weight.shape[1]), generator=random) * 0.1  # type: ignore[index]
        up = torch.randn((weight.shape[0], 2), generator=random)  # type: ignore[index]
        path = folder / f"x-{step:06d}.safetensors"
        safetensors.save({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, path)
        found.append(Candidate(step, path))
    return found


def photos() -> list[Example]:
    random = torch.Generator().manual_seed(0)
    return [Example(torch.rand((3, 64, 64), generator=random) * 2 - 1, "a photo of zkw disc", f"{i}") for i in range(3)]


def test_an_evaluation_on_two_panels_with_a_twin_says_its_noise(files: list[Candidate]) -> None:
    options = {"size": TINY, "cells": None, "weights": [1.0]}
    base = load("pocket")
    one = judge(base, files, photos(), "zkw disc", **options)  # type: ignore[arg-type]
    assert one.noise is None
    twin = judge(base, files, photos(), "zkw disc", twin=files, **options)  # type: ignore[arg-type]
    assert twin.noise is not None and (twin.noise.source, twin.noise.difference) == ("twin runs", 0.0)
    two = judge(base, files, photos(), "zkw disc", seeds=2, twin=files, **options)  # type: ignore[arg-type]
    assert two.noise is not None and two.noise.source == "2 panels"
    assert len(two.rows[0].items["benefit"]) == 2 * len(one.rows[0].items["benefit"])
    assert two.rows[0].values["benefit"] != one.rows[0].values["benefit"]
    assert any(reason.startswith("Scores of files that are equally good differ by") for reason in two.reasons)
    page = values(two, photos())
    assert page["noisy"] and page["figures"][0][1][-1] == "noise"
    assert two.to_json()["noise"]["source"] == "2 panels"
    told: list[str] = []
    with pytest.raises(MaquetteError, match=r"twin run in .* has no checkpoint at any of the steps 1, 2: name a run"):
        judge(
            base, files, photos(), "zkw disc", twin=[Candidate(9, files[0].file)],
            on_progress=lambda what, done, of: told.append(what), **options,  # type: ignore[arg-type]
        )  # fmt: skip
    assert told == []
    one_cell = {**options, "cells": 1}  # of the last step, where the twin has the first alone
    alone = judge(base, files, photos(), "zkw disc", twin=files[:1], **one_cell)  # type: ignore[arg-type]
    assert alone.choice.step == 2 and alone.noise is not None and alone.noise.difference == 0.0


def test_a_file_of_another_base_is_told_before_anything_is_drawn(tmp_path: Path) -> None:
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    told: list[str] = []
    for step in (1, 2):
        tensors = {f"{name}.lora_down.weight": torch.ones(2, 320), f"{name}.lora_up.weight": torch.ones(320, 2)}
        safetensors.save(tensors, tmp_path / f"x-{step:06d}.safetensors", {"ss_base_model_version": "sd_v1"})
    found = [Candidate(step, tmp_path / f"x-{step:06d}.safetensors") for step in (1, 2)]
    with pytest.raises(MaquetteError, match="LoRA for Stable Diffusion 1"):
        judge(
            load("pocket"), found, photos(), "zkw disc", size=TINY, cells=None,
            on_progress=lambda what, done, of: told.append(what),
        )  # fmt: skip
    assert told == []


def test_a_flow_base_is_not_judged_and_an_unvalidated_family_is_said(files: list[Candidate]) -> None:
    from dataclasses import replace

    from maquette.evaluation.validated import caution

    base = load("pocket")
    assert caution(base) is None
    assert "nobody has measured yet" in (caution(_named(base, replace(base.spec, name="sd1"))) or "")
    base.scheduler_config = {**base.scheduler_config, "prediction_type": "flow"}
    with pytest.raises(MaquetteError, match="No measure of checkpoints has been validated on bases that predict flow"):
        judge(base, files, photos(), "zkw disc", size=TINY, cells=None)


def _named(base: object, spec: object) -> object:
    return type("Base", (), {"spec": spec})()


def test_a_twin_on_the_same_panel_does_not_lower_the_panels_own_noise() -> None:
    """A twin of the same seed on a processor is the same to the byte: its noise is 0, the panel's is not."""
    usual = 0.5 * PANEL_NOISE
    assert floor_of(None, 1, 0.5) == floor_of(Noise("twin runs", 0.0), 1, 0.5) == usual
    assert floor_of(Noise("twin runs", 0.04), 1, 0.5) == 0.04
    assert floor_of(Noise("3 panels", 0.004), 3, 0.5) == 0.004
    assert Noise("twin runs", 0.0).sentence(usual) == (
        "Scores of files that are equally good differ by 0.000 between twin runs, less than the usual noise of a "
        "panel, 0.020; what differs by no more than that counts as equal."
    )
