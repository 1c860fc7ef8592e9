"""The arithmetic of the benchmark of the defaults, and of the bounds of the choice's: on data made here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks import defaults
from benchmarks.choice import bounds, cases, extra, floor, levels, others, plan, searching, truth
from benchmarks.choice.utility import Cell
from maquette.evaluation.choice import Row
from maquette.evaluation.rule import RULE

PARTS = ("method", "rate", "prior", "data")
REFERENCE = {
    "ceiling": 0.9, "base_similarity": 0.5, "base_style": 0.8, "base_class": 1.0, "base_neighbours": 1.0,
}  # fmt: skip


def run(number: int, method: str, rate: int, peak: int, best: float, prior: bool = False) -> levels.Trained:
    """Worth `best` at step `peak` and weight 0.7, less elsewhere; the product's score knows it."""
    worths = {
        (s, w): max(0.01, best - abs(s - peak) / 400 - abs(w - 0.7) / 2) for s in plan.CHECKPOINTS for w in plan.WEIGHTS
    }
    return levels.Trained(f"subject {number}", number, method, rate, prior, "five", worths, worths)


def test_runs_are_read_from_the_rows() -> None:
    row = {
        "name": "07-lokr-low-free-five", "subject_name": "gnu", "method": "lokr", "rate": 0, "prior": False,
        "data": "five",
        "step": 20, "weights": [0.5, 1.0], "worth": [0.3, 0.4], "measured_weights": [1.0],
        "measures": {"benefit": [0.5], "obedience": [1.0]},
    }  # fmt: skip
    (found,) = levels.read([row])
    assert (found.number, found.subject, found.worths) == (7, "gnu", {(20, 0.5): 0.3, (20, 1.0): 0.4})
    assert found.scores[20, 1.0] == pytest.approx(0.5 ** RULE.terms["benefit"].power)


def test_worths_are_shares_of_the_subjects_best() -> None:
    one, two, other = levels.relative(
        [run(1, "lokr", 0, 100, 0.5), run(1, "lora-4", 0, 100, 0.8), run(2, "lokr", 0, 40, 0.4)]
    )
    assert max(one.worths.values()) == pytest.approx(0.5 / 0.8)
    assert max(two.worths.values()) == max(other.worths.values()) == 1.0


def test_what_the_judge_saw_is_told_at_the_rules_cell() -> None:
    parts = {"similarity": 0.8, "probe": 0.9, "background": 1.0, "style": 0.4, "class": 0.95, "neighbours": 0.97}
    low, high = run(1, "lora-4", 0, 160, 0.8), run(2, "lora-4", 1, 160, 0.8)
    low, high = (
        replace(one, parts={(160, 0.7): {n: v / d for n, v in parts.items()}}) for one, d in ((low, 1), (high, 2))
    )
    line = next(line for line in levels.parts_table([low, high]).splitlines() if line.startswith("| LoRA, rank 4"))
    assert line == "| LoRA, rank 4 | 1 | 0.80 (0.80 to 0.80) | 0.80 | 0.90 | 1.00 | 0.40 | 0.95 | 0.97 |"


def test_interval_is_over_groups_and_holds_the_mean() -> None:
    mean, low, high = levels.interval([0.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"])
    assert (mean, low, high) == (0.5, 0.0, 1.0)
    assert levels.interval([0.3, 0.3, 0.3], [1, 2, 3]) == pytest.approx((0.3, 0.3, 0.3))


def test_the_best_cell_is_the_best_on_the_mean_of_the_lower_rates() -> None:
    runs = [run(1, "lokr", 1, 40, 0.9), run(2, "lokr", 0, 200, 0.9), run(3, "lora-4", 0, 240, 0.9)]
    step, weight = levels.best_cell(runs)
    assert weight == 0.7 and step in (200, 240)


def test_a_run_by_default_sees_four_checkpoints_up_to_its_end() -> None:
    assert levels.by_default(run(1, "lora-16", 0, 320, 0.9)) == (160, 0.7)
    assert levels.by_default(run(1, "lora-16", 0, 60, 0.9)) in ((40, 0.7), (80, 0.7))
    assert levels.by_default(run(1, "lokr", 0, 320, 0.9)) == (60, 0.7)


def test_levels_are_compared_within_subjects() -> None:
    runs = [
        run(n, m, 0, 100, 0.5 + 0.1 * n + (0.2 if m == "lora-16" else 0)) for n in (1, 2) for m in ("lora-4", "lora-16")
    ]
    told = levels.paired(runs, lambda r: r.method == "lora-16", lambda r: r.method == "lora-4")
    assert told == "+0.20 (+0.20 to +0.20), 2 subjects"


def test_the_small_sweep_meets_every_method_and_no_fitted_subject_without_a_knob() -> None:
    every = list(extra.extras())
    assert len({one.name for one in every}) == len(every)
    for method, rates in extra.RATES.items():
        for rate in range(len(rates)):
            assert {e.subject for e in every if (e.method, e.rate) == (method, rate)} == set(extra.PEOPLE)
    assert all(e.subject % 2 for e in every if e.method == extra.KNOBLESS)  # `levels` fits on even ones


def draw(similarity: float) -> dict[str, list[float]]:
    return {
        "similarity": [similarity] * 5, "background": [1.0] * 9, "style": [0.8] * 4, "class": [1.0] * 2,
        "neighbours": [1.0] * 5, "probe": [0.9] * 5,
    }  # fmt: skip


def told_of(
    subject: int, method: str, rate: int, weighed: dict[str, float], chosen: Cell = (80, 1.0)
) -> dict[str, Any]:
    return {
        "name": extra.Extra(subject, method, rate).name, "subject": subject, "subject_name": "gnu", "method": method,
        "rate": rate, "steps": 80, "chosen": list(chosen), "reference": REFERENCE,
        "draws": {name: [draw(0.5 + 0.4 * value)] * 2 for name, value in weighed.items()},
    }  # fmt: skip


def test_tables_say_what_was_found() -> None:
    runs = [run(n, m, rate, 160, 0.8, prior=bool(n % 2)) for n in (2, 3, 4, 5) for m in plan.METHODS for rate in (0, 1)]
    runs += [run(n, "lora-4", 1, 160, 0.9) for n in (2, 3, 4, 5)]
    found = [told_of(n, "loha", rate, {"80@0.7": 0.3 + rate / 10, "80@1": 0.2}) for n in (2, 3) for rate in (0, 1)]
    found.append(told_of(3, extra.KNOBLESS, 0, {"60@0.7": 0.7, "80@1": 0.5}, (60, 0.7)))
    text = defaults.tables(runs, found)
    assert "From 36 runs of 4 subjects" in text
    assert "| loha | 0.003 | 2 | 0.20 (0.20 to 0.20) | 0.40 | +0.10 (+0.10 to +0.10) |" in text
    assert "| gnu | 60 of 80, weight 0.7 | 0.70 | 0.50 |" in text
    assert "higher rate less lower" in text and "| the truly best cell of the run | 1.00" not in text
    assert "| lokr, 0.006 |" in text


def case(subject: int, noise: float, peak: int = 160, best: float = 0.7) -> cases.Case:
    """Best at step `peak` and weight `best`, which the measure `identity` knows; pictures differ by `noise`."""
    random, draws, cells = np.random.default_rng(subject), {}, {}
    for step, weight in floor.CELLS:
        value = max(0.05, 1 - abs(step - peak) / 320 - abs(weight - best) / 2)
        own = [draw(0.5 + 0.4 * value) for _ in range(truth.DRAWS)]
        for one in own:
            one["similarity"] = [v + noise * float(random.normal()) for v in one["similarity"]]
        draws[f"{step}@{weight:g}"] = own
        measured = {"likeness": 0.5 + 0.02 * float(random.random()), "edit_retention": value}
        cells[f"{step}@{weight:g}"] = {**{n: [v] * 3 for n, v in measured.items()}, "tower": [value] * 2}
    told = {
        "name": f"run {subject}", "subject": subject, "method": "lora-4", "rate": 0, "prior": False, "data": "five",
        "learning_rate": 1e-3, "losses": [1.0] * 320, "subject_told": {"name": "gnu"},
    }  # fmt: skip
    return cases.case_of(told, {"reference": REFERENCE, "draws": draws}, {"cells": cells, "done": True})


def test_the_pictures_themselves_are_last_of_those_drawn_again() -> None:
    one = case(1, 0.05)
    own = floor.drawn_again(one, 1, 3, 0)[-1]
    assert own == pytest.approx([one.worths[cell] for cell in floor.CELLS])


def test_without_noise_a_right_choice_is_charged_nothing_and_with_noise_less_for_more_pictures() -> None:
    sure = floor.charges(case(1, 0.0), 1, 0)
    assert all(np.abs(values).max() < 1e-9 for values in sure.values())
    few, many = (floor.charges(case(1, 0.2), times, 0) for times in (0.25, 4))
    for name in few:
        assert 0 <= np.mean(many[name]) < np.mean(few[name])


def test_a_choice_is_set_beside_one_that_sees_half_of_the_pictures() -> None:
    every = [case(n, 0.0) for n in (1, 2, 3)]
    right = floor.beside_a_half(every, {one.name: max(one.worths, key=one.worths.__getitem__) for one in every})
    assert right["worth"][0] == pytest.approx(1.0, abs=0.02) and right["oracle"]["p90"] == 0.0
    wrong = floor.beside_a_half(every, {one.name: (320, 1.15) for one in every})
    assert wrong["worth"][2] < 0.6 and wrong["more"]["median"][1] > 0.2
    assert "what that oracle chooses" in bounds.half_line(wrong)


def test_other_forms_are_told_by_other_subjects_and_compared_with_the_shipped_one() -> None:
    found = others.compared([case(n, 0.0, peak) for n, peak in enumerate((100, 160, 200, 240))])
    first = next(iter(found.values()))
    assert first["difference"] == 0.0
    assert found["powers of any sign"]["median"] < 0.02  # it finds the measure that knows
    text = bounds.others_table("form", found)
    assert text.count("\n") == 1 + len(others.FORMS) and "95 % interval" in text


def test_what_the_measures_do_not_see_is_found() -> None:
    every = [case(n, 0.0, peak) for n, peak in enumerate((100, 160, 200, 240))]
    blind = []
    for one in every:
        rows = tuple(Row.of(r.step, r.weight, {"likeness": r.items["likeness"]}) for r in one.rows)
        blind.append(replace(one, rows=rows))
    found = others.missing(blind)
    assert found["nothing more"]["median"] > 0.1 and found["nothing more"]["difference"] == 0.0
    assert found["true similarity"]["median"] < 0.05 and found["true similarity"]["high"] < 0.0


def test_few_cells_find_a_low_weight_where_the_search_begins_there() -> None:
    found = {
        (one["cells"], one["first"]): one for one in searching.few_cells([case(n, 0.0, best=0.5) for n in (1, 2, 3)])
    }
    assert found[4, 0.7]["median"] < found[4, 1.0]["median"]
    assert found[4, 0.7]["difference"][2] < 0 and found[4, 1.0]["difference"] == (0.0, 0.0, 0.0)
    assert "| 4 | 0.7 |" in searching.table(list(found.values()))


def test_how_many_pictures_the_bars_need() -> None:
    found = {
        "16": {"never_wrong": {"median": 0.04, "p90": 0.1}},
        "32": {"never_wrong": {"median": 0.02, "p90": 0.08}},
    }
    assert bounds.enough(found) == (
        "Pictures of a cell at which noise alone takes less than half of a bar: 32 for the median (5%), "
        "more than 32 for the 90th percentile (15%)."
    )
