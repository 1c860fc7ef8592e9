"""What a run by default would reach at a higher rate is read off the sweep's runs at a later step."""

from __future__ import annotations

import pytest

from benchmarks.choice import levels, plan


def run(method: str, peak: int) -> levels.Trained:
    """Worth most at step `peak` and weight 0.7; the product's score knows it."""
    worths = {(s, w): 0.9 - abs(s - peak) / 400 - abs(w - 0.7) / 2 for s in plan.CHECKPOINTS for w in plan.WEIGHTS}
    return levels.Trained(f"{peak}", 1, method, 0, False, "five", worths, worths)


def test_a_higher_rate_is_read_off_at_a_later_step() -> None:
    assert levels.further([run("lokr", 160)], "lokr", 3) == "+0.25 (+0.25 to +0.25)"  # 160 of 180, 60 by default
    assert float(levels.further([run("lokr", 20)], "lokr", 3).split()[0]) == pytest.approx(-0.05, abs=0.01)
    assert levels.further([run("lora-4", 160)], "lokr", 3) == "–"
