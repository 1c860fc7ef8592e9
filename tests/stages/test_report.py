import re

from maquette.stages.report import loss_curve


def points(svg: str, index: int) -> list[tuple[float, float]]:
    text = re.findall(r'polyline points="([^"]*)"', svg)[index]
    return [tuple(map(float, pair.split(","))) for pair in text.split()]  # type: ignore[misc]


def test_loss_curve_runs_left_to_right_and_falls_with_the_loss() -> None:
    line = points(loss_curve([(step, 1.0 - step / 100) for step in range(1, 51)]), 0)
    xs, ys = [p[0] for p in line], [p[1] for p in line]
    assert xs == sorted(xs) and ys == sorted(ys) and len(line) == 50


def test_one_spike_does_not_flatten_the_curve_and_infinities_are_left_out() -> None:
    values = [(step, 0.1) for step in range(300)]
    values[150] = (150, 1000.0)
    values[151] = (151, float("inf"))
    line = points(loss_curve(values), 0)
    assert len(line) == 299
    assert max(y for _, y in line) < 60  # 0.1 stands near the top of the axis, not at its foot


def test_too_short_for_a_curve() -> None:
    assert "Too few" in loss_curve([(1, 0.5)])
