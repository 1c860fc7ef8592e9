"""When a training ends by itself."""

from __future__ import annotations

from maquette.evaluation.choice import Row
from maquette.evaluation.rule import Rule
from maquette.evaluation.stopping import ending

RULE = Rule(terms={}, least={"edit_retention": 0.5}, most={}, dial={"balanced": {}})


def rows(benefits: list[float], retentions: list[float]) -> list[Row]:
    pairs = enumerate(zip(benefits, retentions, strict=True), 1)
    return [Row.of(100 * i, 1.0, {"held_benefit": [b - 0.3, b + 0.3], "edit_retention": [e]}) for i, (b, e) in pairs]


def test_it_ends_when_benefit_has_fallen_for_three_checkpoints_and_the_file_is_clearly_over() -> None:
    told = ending(rows([0.2, 0.3, 0.28, 0.25, 0.2], [0.9, 0.8, 0.45, 0.4, 0.2]), RULE)
    assert told is not None
    assert told == (
        "Training ended by itself after step 500: held-out photos have been predicted worse for 3 checkpoints, best at "
        "step 200, and prompts no longer steer the picture (edit retention 0.20)."
    )


def test_it_goes_on_at_the_first_bad_checkpoint_and_at_the_second() -> None:
    for count in (3, 4):
        assert ending(rows([0.2, 0.3, 0.1, 0.1][:count], [0.9, 0.8, 0.1, 0.1][:count]), RULE) is None


def test_it_goes_on_when_a_file_recovers_or_is_only_a_little_over() -> None:
    assert ending(rows([0.2, 0.3, 0.1, 0.32, 0.1], [0.9, 0.8, 0.1, 0.1, 0.1]), RULE) is None
    assert ending(rows([0.2, 0.3, 0.28, 0.25, 0.2], [0.9, 0.8, 0.45, 0.6, 0.2]), RULE) is None
    assert ending(rows([0.2, 0.3, 0.28, 0.25, 0.2], [0.9, 0.8, 0.45, 0.4, 0.4]), RULE) is None


def test_a_fall_within_the_photos_own_spread_is_no_fall() -> None:
    first = Row.of(100, 1.0, {"held_benefit": [0.0, 0.6], "edit_retention": [0.9]})
    later = [Row.of(100 * i, 1.0, {"held_benefit": [0.3, 0.2], "edit_retention": [0.1]}) for i in (2, 3, 4)]
    assert ending([first, *later], RULE) is None  # one photo better, the other worse


def test_without_held_out_photos_nothing_is_ended() -> None:
    told = [Row.of(100 * i, 1.0, {"benefit": [0.5 - 0.1 * i], "edit_retention": [0.1]}) for i in range(1, 6)]
    assert ending(told, RULE) is None
