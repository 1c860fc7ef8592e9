"""What the benchmark of an evaluation's cost counts and tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import evaluation_cost
from benchmarks.train_step import flops
from maquette import families
from maquette.evaluation.rows import Rows, answers
from maquette.evaluation.tuned import tuned
from tests.families import tiny


def test_rows_through_the_unet_are_counted_and_the_lora_changes_them(tmp_path: Path) -> None:
    base = families.load(tiny.write_folder(tmp_path / "base", "sd1"))
    evaluation_cost.random_lora(base, tmp_path / "lora.safetensors")
    rows = Rows(torch.ones(3, 4, 8, 8), torch.tensor([10, 500, 900]), ("a", "b", "c"))
    plain = answers(base, rows)
    meter = evaluation_cost.Meter("cpu")
    with meter.counting(base):
        found = meter(lambda: [answers(base, rows), answers(base, rows)], times=2)
    assert found["passes"] == 6 and found["seconds"] > 0 and found["memory"] > 1e6
    with tuned(base, tmp_path / "lora.safetensors", "ohwx man")(1.0) as changed:
        assert not torch.equal(answers(changed, rows), plain)
    assert meter.passes == 12  # of what was measured, none after it


def test_a_pass_is_less_than_a_step_and_four_photos_are_four_times_one() -> None:
    forward, one, four = (
        flops("sd1", 64, batch, True, backward) for batch, backward in ((1, False), (1, True), (4, True))
    )
    assert 1.5 * forward < one < 3 * forward
    assert four == pytest.approx(4 * one, rel=0.02)


def test_an_evaluation_is_told_in_training_steps() -> None:
    rows: list[dict[str, Any]] = [
        {"what": "a file at a weight, QUICK", "seconds": 2.0, "passes": 312.0, "flop": 250e12, "memory": 5_000_000_000},
        {"what": "a training step, batch 1", "seconds": 0.1, "flop": 2e12, "memory": 6_000_000_000},
        {"what": "a training step, batch 4", "seconds": 0.25, "flop": 8e12, "memory": 9_000_000_000},
    ]  # fmt: skip
    lines = evaluation_cost.table(rows).splitlines()
    assert lines[2] == "| a file at a weight, QUICK | 312 | 250 | 2 | 5.0 GB | 20 | 8 |"
    assert lines[3] == "| a training step, batch 1 | – | 2 | 0.1 | 6.0 GB | 1 | 0.4 |"
    assert (
        lines[-1]
        == "a file at a weight, QUICK: less than 10% of the training from 200 steps of 1 and 80 steps of 4 on."
    )
