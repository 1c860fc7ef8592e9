"""Which (step, weight) the rule takes, and what it says."""

import numpy as np
import pytest

from maquette import MaquetteError
from maquette.evaluation import Row, Rule, choose
from maquette.evaluation.choice import faults, goodness, score
from maquette.evaluation.reasons import reason
from maquette.evaluation.rule import Term
from maquette.evaluation.search import search

RULE = Rule(
    terms={"likeness": Term(1.0), "obedience": Term(1.0), "neighbour_drift": Term(1.0, scale=1.0)},
    least={"edit_retention": 0.4},
    most={"copying": 0.3},
    dial={"balanced": {}, "likeness": {"likeness": 3.0}, "flexible": {"obedience": 3.0}},
)


def row(step: int, weight: float = 1.0, **values: float) -> Row:
    return Row(step, weight, {"likeness": 0.5, "obedience": 0.5, "neighbour_drift": 0.0, **values})


def test_score_is_the_product_of_the_terms() -> None:
    assert score({"likeness": 0.5, "obedience": 0.8, "neighbour_drift": 1.0}, rule=RULE) == pytest.approx(0.2)
    assert score({"likeness": 0.5}, "likeness", RULE) == pytest.approx(0.125)
    assert goodness(-3.0, Term(1.0)) == 0.02
    assert goodness(-3.0, Term(1.0, scale=1.0)) == 1.0


def test_the_best_score_is_taken() -> None:
    rows = [row(100, likeness=0.6), row(200, likeness=0.9), row(200, 0.7, likeness=0.7), row(300, likeness=0.8)]
    choice = choose(rows, rule=RULE)
    assert (choice.step, choice.weight) == (200, 1.0)
    assert choice.faults == ()


def test_a_file_past_a_limit_is_not_taken_while_another_is_within() -> None:
    rows = [row(100, likeness=0.4), row(200, likeness=0.9, copying=0.41, edit_retention=0.39)]
    assert choose(rows, rule=RULE).step == 100
    assert [fault.measure for fault in faults(rows[1].values, RULE)] == ["copying", "edit_retention"]


def test_of_many_past_their_limits_the_one_nearest_to_them_is_taken_with_its_faults() -> None:
    choice = choose([row(100, copying=0.4), row(200, likeness=0.9, copying=0.9)], rule=RULE)
    assert choice.step == 100
    assert [(fault.measure, fault.value, fault.limit) for fault in choice.faults] == [("copying", 0.4, 0.3)]


def test_the_dial_weighs_likeness_or_obedience() -> None:
    rows = [row(100, likeness=0.5, obedience=0.95), row(200, likeness=0.9, obedience=0.5)]
    assert choose(rows, "likeness", RULE).step == 200
    assert choose(rows, "flexible", RULE).step == 100


def noisy(step: int, mean: float, spread: float) -> Row:
    values = mean + spread * np.random.default_rng(step).standard_normal(16)
    return Row.of(step, 1.0, {"likeness": values.tolist(), "obedience": [1.0] * 16})


def test_what_does_not_differ_by_a_standard_error_is_taken_early() -> None:
    early, late = noisy(100, 0.6, 0.2), noisy(300, 0.6, 0.2)
    shifted = {"likeness": [v + 0.01 for v in late.items["likeness"]], "obedience": [1.0] * 16}
    choice = choose([early, Row.of(300, 1.0, shifted)], rule=RULE)
    assert choice.step == 100
    assert "within the noise" in " ".join(reason(choice, [early, late])) or choice.best.step == 100


def test_a_small_difference_in_every_picture_counts() -> None:
    """Pictures are compared in pairs: what is always a little better is better, however much pictures differ."""
    early = noisy(100, 0.6, 0.2)
    better = {"likeness": [v + 0.04 for v in early.items["likeness"]], "obedience": [1.0] * 16}
    assert choose([early, Row.of(300, 1.0, better)], rule=RULE).step == 300


def test_no_rows_are_an_error() -> None:
    with pytest.raises(MaquetteError, match="no checkpoint to choose from"):
        choose([])


def test_the_reason_names_what_is_wrong_with_the_last_step_in_practitioners_words() -> None:
    rows = [row(400, likeness=0.8), row(1200, likeness=0.9, edit_retention=0.39, copying=0.41)]
    told = " ".join(reason(choose(rows, rule=RULE), rows))
    assert "Take step 400 at weight 1" in told
    assert (
        "Step 1200 at weight 1 is overtrained: 41 % of the pictures copy a photo; "
        "prompts no longer steer the picture (edit retention 0.39)." in told
    )


def test_a_chosen_file_past_its_limits_comes_with_a_remedy() -> None:
    told = " ".join(reason(choose([row(100, copying=0.5)], rule=RULE), [row(100, copying=0.5)]))
    assert "Even the chosen one is overtrained: 50 % of the pictures copy a photo." in told
    assert "give more photos in different places" in told


def landscape(step: int, weight: float) -> Row:
    """Best at step 70 and weight 0.7, but at weight 1 best at step 40."""
    strength = step * weight
    return row(step, weight, likeness=1.0 - abs(strength - 49) / 100 + (0.02 if weight == 0.7 else 0.0))


def test_the_search_finds_the_best_cell_without_measuring_all() -> None:
    steps, weights = [10, 20, 30, 40, 50, 60, 70, 80], (0.5, 0.7, 0.85, 1.0, 1.15)
    rows = search(steps, weights, landscape, cells=20, rule=RULE)
    assert len(rows) == 20
    assert len({(r.step, r.weight) for r in rows}) == 20
    assert max(r.values["likeness"] for r in rows) >= 0.98
    assert {r.step for r in rows if r.weight == 0.7} == set(steps)
    assert len(search(steps, weights, landscape, rule=RULE)) == 40


def test_a_narrow_search_spreads_over_the_steps() -> None:
    rows = search(list(range(10, 490, 10)), (0.7, 1.0), landscape, cells=5, rule=RULE)
    assert len(rows) == 5
    assert 480 in [r.step for r in rows]
    assert [r.weight for r in rows[:3]] == [0.7] * 3
    only = search([10, 20], (1.0,), landscape, cells=2, rule=RULE)
    assert [(r.step, r.weight) for r in only] == [(10, 1.0), (20, 1.0)]
