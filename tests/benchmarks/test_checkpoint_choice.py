"""The arithmetic of the benchmark of the choice: worth, regret, rivals, fit, and what is told of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.choice import cases, fitting, measuring, plan, results, rivals, telling, training, utility
from benchmarks.choice.subjects import Subject
from maquette.evaluation.choice import _resamples, choose
from maquette.evaluation.rule import RULE, Rule, Term

REFERENCE = {
    "ceiling": 0.9, "base_similarity": 0.5, "base_style": 0.8, "base_class": 1.0, "base_neighbours": 0.5,
}  # fmt: skip


def draw(similarity: float, background: float = 1.0, kept: float = 1.0, probe: float = 0.9) -> dict[str, list[float]]:
    return {
        "similarity": [similarity, similarity],
        "probe": [probe, probe],
        "background": [background, background],
        "style": [0.8, 0.8],
        "class": [kept, kept],
        "neighbours": [kept / 2, kept / 2],
    }


def case_of(
    worth: dict[utility.Cell, float], measures: dict[str, dict[utility.Cell, float]], subject: int = 0
) -> cases.Case:
    """A case whose cells are worth so much (0 to 1) in both of two draws."""
    draws = {f"{s}@{w:g}": [draw(0.5 + 0.4 * v)] * 2 for (s, w), v in worth.items()}
    cells = {
        f"{s}@{w:g}": {**{n: [values[s, w]] * 3 for n, values in measures.items()}, "tower": [v, v]}
        for (s, w), v in worth.items()
    }
    told: dict[str, Any] = {
        "name": f"run {subject}", "subject": subject, "method": "lora-4", "rate": subject % 2, "prior": False,
        "data": "five", "learning_rate": 1e-3, "losses": [1 / (i + 1) for i in range(320)],
        "subject_told": {"name": "gnu"},
    }  # fmt: skip
    return cases.case_of(told, {"reference": REFERENCE, "draws": draws}, {"cells": cells, "done": True})


def rising_and_falling(peak: int) -> dict[utility.Cell, float]:
    """Best at step `peak` and weight 0.7."""
    return {
        (s, w): max(0.05, 1 - abs(s - peak) / 320 - abs(w - 0.7) / 2) for s in plan.CHECKPOINTS for w in plan.WEIGHTS
    }


def measured(worth: dict[utility.Cell, float], noise: int) -> dict[str, dict[utility.Cell, float]]:
    random = np.random.default_rng(noise)
    return {
        "neighbours_margin": dict(worth),
        "likeness": {cell: float(random.random()) for cell in worth},
        "benefit": {cell: 1 - 1 / cell[0] for cell in worth},
        "held_benefit": {cell: float(cell[0] == 100) for cell in worth},
        "leak": {cell: cell[0] / 320 for cell in worth},
    }


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bootstrap of the product's rule is not what is tested here."""
    monkeypatch.setattr("maquette.evaluation.choice.RESAMPLES", 2)
    _resamples.cache_clear()


@pytest.fixture(scope="module")
def known() -> list[cases.Case]:
    peaks = (60, 100, 140, 200, 80, 120)
    worths = [rising_and_falling(peak) for peak in peaks]
    return [case_of(worth, measured(worth, i), i) for i, worth in enumerate(worths)]


def test_fraction_is_balanced() -> None:
    every = list(plan.settings(24))
    assert len({setting.name for setting in every}) == 96
    cells = Counter((s.method, s.rate, s.prior, s.data) for s in every)
    assert len(cells) == 48 and set(cells.values()) == {2}
    for subject in range(24):
        own = [s for s in every if s.subject == subject]
        assert {s.method for s in own} == set(plan.METHODS)
        assert len({(s.rate, s.prior) for s in own}) == 4 and {s.data for s in own} == set(plan.DATA)


@pytest.mark.parametrize("count", [24, 48, 72])
def test_beginnings_are_balanced(count: int) -> None:
    part = list(plan.settings(24))[:count]
    for one in ("rate", "prior"):
        pairs = Counter((s.method, getattr(s, one)) for s in part)
        assert set(pairs.values()) == {count // 8}
    assert set(Counter((s.method, s.data) for s in part).values()) == {count // 12}
    assert set(Counter((s.rate, s.prior) for s in part).values()) == {count // 4}


def test_worth_is_subject_times_obedience_times_kept() -> None:
    assert utility.worth(draw(0.9), REFERENCE) == pytest.approx(1.0)
    assert utility.worth(draw(0.5), REFERENCE) == 0.0
    assert utility.worth(draw(0.4), REFERENCE) == 0.0  # less like the subject than the class is
    assert utility.worth(draw(0.7), REFERENCE) == pytest.approx(0.5)
    assert utility.worth(draw(0.9, background=0.0), REFERENCE) == pytest.approx(0.5)
    assert utility.worth(draw(0.9, kept=0.5), REFERENCE) == pytest.approx(0.5)
    assert utility.worth(draw(0.9, kept=2.0), REFERENCE) == pytest.approx(1.0)  # better than the base counts as 1
    assert utility.worth(draw(0.5, probe=0.3), REFERENCE, "probe") == pytest.approx(0.3)


def test_standing_pools_the_pictures_of_all_draws() -> None:
    """Worths of single draws would be cut at the base's level before they are averaged."""
    draws = {"20@1": [draw(0.9, kept=2.0), draw(0.9, kept=0.0)], "40@1": [draw(0.9, kept=0.8), draw(0.9, kept=0.8)]}
    told = {"reference": REFERENCE, "draws": draws}
    assert utility.standing(told) == pytest.approx({(20, 1.0): 1.0, (40, 1.0): 0.8})
    assert utility.standing(told, draws=[1]) == pytest.approx({(20, 1.0): 0.0, (40, 1.0): 0.8})


def test_regret() -> None:
    worths = {(20, 1.0): 0.5, (40, 1.0): 0.8}
    assert utility.regret(worths, (40, 1.0)) == 0.0
    assert utility.regret(worths, (20, 1.0)) == pytest.approx(0.375)
    assert utility.regret({(20, 1.0): 0.0}, (20, 1.0)) == 0.0


def test_halves_are_of_every_second_draw() -> None:
    found = utility.halves({"reference": REFERENCE, "draws": {"20@1": [draw(0.9), draw(0.5), draw(0.9), draw(0.7)]}})
    assert found[0][20, 1.0] == pytest.approx(1.0) and found[1][20, 1.0] == pytest.approx(0.25)


def test_crossed_regret_does_not_pay_for_luck() -> None:
    """Each half has another lucky cell; the third, steady one is as good as either by the other half."""
    lucky, usual = draw(0.9), draw(0.7)
    draws = {"20@1": [lucky, usual], "40@1": [usual, lucky], "60@1": [usual, usual]}
    halves = utility.halves({"reference": REFERENCE, "draws": draws})
    assert utility.crossed_regret(halves, (60, 1.0)) == pytest.approx(0.0)
    assert utility.regret(halves[0], (60, 1.0)) == pytest.approx(0.5)


def test_usual_weight_lies_between_its_neighbours() -> None:
    found = cases.with_usual_weight({(20, 0.7): 0.6, (20, 0.85): 0.9, (40, 0.7): 1.0})
    assert found[20, 0.8] == pytest.approx(0.8)
    assert (40, 0.8) not in found


def test_train_loss_is_the_mean_before_the_checkpoint(known: list[cases.Case]) -> None:
    assert cases.train_losses(known[0])[40] == pytest.approx(np.mean([1 / i for i in range(21, 41)]))
    assert rivals.least_train_loss(known[0]) == 320


def test_rivals_choose_what_their_rule_says(known: list[cases.Case]) -> None:
    case = known[0]
    assert rivals.last(case) == 320
    assert rivals.least_held_out_loss(case) == 100
    assert rivals.tower_alone(case) == 60
    found = rivals.rivals(known)
    assert found["last step, weight 0.8"](case) == (320, 0.8)
    assert found["pocket's tower alone, any weight"](case) == (60, 0.7)
    assert found["best step at weight 1, if one knew it"](case) == (60, 1.0)


def test_dvar_stops_where_the_loss_no_longer_moves() -> None:
    falling = [0.9, 0.7, 0.5, 0.3, 0.1]
    assert rivals.dvar_stop(falling, [1.0]) == 4
    assert rivals.dvar_stop([0.5, 0.3, 0.29, 0.3, 0.29, 0.3, 0.29], [1.0]) == 3


def test_earliest_within_its_interval() -> None:
    noisy = {20: [0.5, 0.9, 0.7, 0.3], 40: [0.6, 0.8, 0.9, 0.4], 60: [0.1, 0.1, 0.2, 0.1]}
    assert rivals.earliest_within_error(noisy) == 20
    sure = {20: [0.5, 0.6, 0.7, 0.8], 40: [0.6, 0.7, 0.8, 0.9]}
    assert rivals.earliest_within_error(sure) == 40


def test_fixed_step_is_the_best_on_the_mean(known: list[cases.Case]) -> None:
    assert rivals.fixed_step(known, 1.0) in (100, 120)


def test_fit_finds_the_measure_that_knows(known: list[cases.Case]) -> None:
    blind = Rule({"likeness": Term(1.0)}, {}, {}, RULE.dial)
    assert fitting.Table(known).regrets(blind).mean() > 0.05
    rule = fitting.fit(known[::2], blind)
    assert fitting.Table(known[1::2]).regrets(rule).max() == pytest.approx(0.0)
    assert rule.terms["neighbours_margin"].power > 0 and "likeness" not in rule.terms
    chosen = fitting.chooser(rule, errors=False)
    assert [chosen(case) for case in known[1::2]] == [(100, 0.7), (200, 0.7), (120, 0.7)]


def test_table_chooses_as_the_product_does(known: list[cases.Case]) -> None:
    """The arrays of the fit and `maquette.evaluation.choice.choose` are the same rule."""
    for rule in (
        RULE,
        Rule(
            {"likeness": Term(2.0), "leak": Term(1.0, scale=0.3)}, {"neighbours_margin": 0.9}, {"leak": 0.5}, RULE.dial
        ),
    ):
        best = [choose(case.rows, rule=rule).best for case in known]
        assert [fitting.best_row(case, rule) for case in known] == best
        expected = [utility.regret(case.worths, (row.step, row.weight)) for case, row in zip(known, best, strict=True)]
        assert fitting.Table(known).regrets(rule).tolist() == pytest.approx(expected)


def test_results_tell_how_many_runs_they_rest_on(known: list[cases.Case], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FEWEST", 3)
    told = results.results(known)
    assert (told["runs"], told["subjects"], told["fitted_on"], told["reported_on"]) == (6, 6, 3, 3)
    assert told["fitted"]["last step, weight 1"]["median"] > told["fitted"]["the rule, fitted"]["median"]
    assert told["noise"]["spearman_of_halves"] == 1.0
    assert told["spearman"]["neighbours_margin"] == 1.0
    assert told["levels"]["rate"] == {"0": 3, "1": 3}
    page = telling.tables(told)
    assert page.startswith(
        "**These figures rest on 6 runs of 6 subjects; 90 of the 96 that are planned are still to be"
    )
    assert "| last step, weight 1 |" in page and "lower rate" in page


def test_few_runs_fit_nothing(known: list[cases.Case]) -> None:
    told = results.results(known[:1])
    page = telling.tables(told)
    assert "fitted" not in told and "rest on 1 run of 1 subject;" in page and "too few to fit the rule" in page


def test_rows_come_back_as_they_were_written(known: list[cases.Case], tmp_path: Path) -> None:
    file = tmp_path / "results" / "rows.jsonl.gz"
    results.write_rows(known, file)
    found = results.read_rows(file)
    assert len(found) == 6 * len(plan.CHECKPOINTS)
    assert found[0]["step"] == 20 and found[0]["weights"] == list(plan.WEIGHTS)
    assert found[2]["worth"][1] == 1.0 and found[2]["measures"]["neighbours_margin"][1] == 1.0
    before = file.read_bytes()
    results.write_rows(known, file)
    assert file.read_bytes() == before


def test_map_and_plot(known: list[cases.Case]) -> None:
    lines = telling.worth_map(known).splitlines()
    assert len(lines) == 2 + len(plan.CHECKPOINTS) and lines[0] == "| step | 0.5 | 0.7 | 0.85 | 1 | 1.15 |"
    svg = telling.regret_plot({"ours & theirs": [0.0, 0.1], "last": [0.3, 0.9]})
    assert svg.startswith("<svg") and "ours &amp; theirs" in svg and svg.count("<path") == 7 + 4 + 2


def test_text_goes_between_the_marks() -> None:
    page = f"before\n{telling.BEGIN}\nold\n{telling.END}\nafter\n"
    assert telling.put_between_marks(page, "new") == f"before\n{telling.BEGIN}\nnew\n{telling.END}\nafter\n"
    with pytest.raises(SystemExit, match="lacks the marks"):
        telling.put_between_marks("nothing", "new")


def test_spearman_with_ties() -> None:
    assert results.spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1.0)
    assert results.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert results.spearman([1, 1, 1], [3, 2, 1]) == 0.0
    assert results.spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9487, abs=1e-4)


def subject() -> Subject:
    picture = Image.new("RGBa", (128, 128), (255, 0, 0, 255))
    colours = list(training.COLOURS)
    return Subject("gnu", "noto", "cow", ("pig",), tuple(colours[:7]), tuple(colours[7:]), (picture,))


@pytest.mark.parametrize(
    ("data", "photos", "grounds", "captions"), [("captioned", 14, 7, 14), ("uncaptioned", 14, 2, 0), ("five", 5, 3, 5)]
)
def test_photos_of_each_kind(tmp_path: Path, data: str, photos: int, grounds: int, captions: int) -> None:
    folder = tmp_path / data
    training.write_photos(folder, subject(), data)
    texts = [path.read_text() for path in sorted(folder.glob("*.txt"))]
    assert len(list(folder.glob("*.png"))) == photos and len(texts) == captions
    corners = set()
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert image.size == (64, 64)
            assert image.getcolors(4096) is not None and image.mode == "RGB"
            corners.add(path.name)
    if captions:
        assert len(set(texts)) == grounds and texts[0] == "a photo of zkw cow on a red background\n"


def test_fresh_scenes_are_the_same_every_time_and_new() -> None:
    one, two = subject().fresh("red", 2, 1), subject().fresh("red", 2, 1)
    assert one.shape == (2, 3, 64, 64) and bool((one == two).all())
    assert not bool((one == subject().fresh("red", 2, 2)).all())


def test_measured_cells_hold_weight_1_at_every_step() -> None:
    found = dict(measuring.measured_cells())
    assert list(found) == list(plan.CHECKPOINTS)
    assert all({0.5, 0.7, 1.0} <= set(weights) for weights in found.values())
    assert sum(map(len, found.values())) == 48
