"""maquette sweep: which jobs it makes, and how it ranks them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from maquette.cli.main import main
from maquette.config.sweep import SweepConfig
from maquette.errors import MaquetteError
from maquette.fleet.sweeping import rows_of, sweep


def config(tmp_path: Path, *settings: str, **more: Any) -> SweepConfig:
    folder = tmp_path / "p"
    if not folder.exists():
        folder.mkdir()
        (folder / "a.png").write_bytes(b"a")
    return SweepConfig.parse(
        {"photos": folder, "subject": "zkw robot", "settings": list(settings), "root": str(tmp_path / "root"), **more}
    )


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    rows = rows_of(config(tmp_path, "rank=4,16", "flip=true,false", "steps=7"))  # flip: its old name
    assert [(row["rank"], row["flip_aug"], row["steps"]) for row in rows] == [
        (4, True, 7), (4, False, 7), (16, True, 7), (16, False, 7),
    ]  # fmt: skip
    assert rows[0]["id"] == "sweep-rank-4-flip_aug-true" and rows[0]["then"] == ["evaluate"]


def test_values_below_zero_have_names_of_their_own(tmp_path: Path) -> None:
    rows = rows_of(config(tmp_path, "noise_offset_adaptive=-0.5,0.5"))
    assert [row["id"] for row in rows] == ["sweep-noise_offset_adaptive--0.5", "sweep-noise_offset_adaptive-0.5"]


def test_what_is_wrong_is_told_by_the_combination(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    ended = sweep(
        config(tmp_path, "rank=4,8", base=str(tmp_path / "gone.safetensors")),
        lambda event: told.append(event.data["message"]) if event.kind == "warning" else None,
        trainer="fleet_fakes:FakeTrainer",
    )
    why = f"There is no file or folder {tmp_path / 'gone.safetensors'}."
    assert told == [f"sweep-rank-4: {why}", f"sweep-rank-8: {why}"] and ended.problems == [why]
    words = ["sweep", str(tmp_path / "p"), "--subject", "zkw robot", "--set", "rank=4,8", "--base", "gone.safetensors"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--root", str(tmp_path / "root")])
    assert end.value.code == 1 and "gone.safetensors" in capsys.readouterr().out


def test_a_random_search_draws_the_same_each_time(tmp_path: Path) -> None:
    words = ("learning_rate=1e-5..1e-3", "rank=4..64", "ema_decay=0..0.9", "method=lora,dora")
    rows = rows_of(config(tmp_path, *words, samples=200))
    assert rows == rows_of(config(tmp_path, *words, samples=200))
    assert rows != rows_of(config(tmp_path, *words, samples=200, seed=1))
    assert len({row["id"] for row in rows}) == 200
    assert all(1e-5 <= row["learning_rate"] <= 1e-3 and 0 <= row["ema_decay"] <= 0.9 for row in rows)
    assert all(isinstance(row["rank"], int) and 4 <= row["rank"] <= 64 for row in rows)
    middle = sum(math.log10(row["learning_rate"]) for row in rows) / 200
    assert -4.15 < middle < -3.85  # evenly in the logarithm: the mean of -5 to -3, give or take its error
    assert {row["method"] for row in rows} == {"lora", "dora"}


def test_fewer_combinations_than_samples(tmp_path: Path) -> None:
    assert len(rows_of(config(tmp_path, "rank=4,16", samples=10))) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rank=4"], "nothing to try"), (["rank=4..64"], "say how many"), (["rnk=4,8"], "did you mean 'rank'"),
        (["rank=a..b"], "no range of numbers"), (["rank=9..4"], "no range of numbers"),
        (["rank=4,4"], "rank is to be 4 twice"), (["learning_rate=1e-4,0.0001"], "is to be 0.0001 twice"),
        (["rank=4,8", "rank=16"], r"rank is set twice: give all its values at once \(--set rank=A,B\)"),
    ],
)  # fmt: skip
def test_settings_that_make_no_jobs(tmp_path: Path, words: list[str], says: str) -> None:
    with pytest.raises(MaquetteError, match=says):
        rows_of(config(tmp_path, *words))
    with pytest.raises(MaquetteError, match="give settings to try"):
        config(tmp_path)


def test_the_ranking_and_what_is_added_later(tmp_path: Path) -> None:
    """The fake evaluation accepts ranks below 32, and gives all one score."""
    first = sweep(config(tmp_path, "rank=64,4"), trainer="fleet_fakes:FakeTrainer")
    assert [(one.settings, one.accepted) for one in first.tried] == [({"rank": 4}, True), ({"rank": 64}, False)]
    assert all(Path(one.file).is_file() for one in first.tried) and first.status == "finished"
    more = sweep(config(tmp_path, "rank=64,4,8"), trainer="fleet_fakes:FakeTrainer")
    assert [one.settings["rank"] for one in more.tried] == [4, 8, 64]
    assert len(list((tmp_path / "root").rglob("result.json"))) == 3


def test_another_sweep_in_the_same_root_is_another(tmp_path: Path) -> None:
    """Both name their combinations alike; each has its own files, and one that fails has none."""

    def tried(*settings: str, subject: str = "zkw robot") -> list[str]:
        found = sweep(config(tmp_path, *settings, subject=subject), trainer="fleet_fakes:FakeTrainer")
        return [one.file for one in found.tried]

    first, second = tried("rank=4,8", "steps=10"), tried("rank=4,8", "steps=20")
    assert len({*first, *second}) == 4
    assert (tried("rank=4,8", "steps=10"), tried("rank=4,8", "steps=20")) == (first, second)
    assert tried("rank=4,8", "steps=20", subject="nan robot") == []
    (tmp_path / "p" / "a.png").unlink()
    assert tried("rank=4,8", "steps=10") == first


def test_combinations_that_are_alike_are_tried_together(tmp_path: Path) -> None:
    found = sweep(config(tmp_path, "rank=4,8", slots=2), trainer="fleet_fakes:FakeTrainer")
    assert len(found.tried) == 2
    results = [json.loads(file.read_bytes()) for file in (tmp_path / "root").rglob("result.json")]
    assert [(told["slots"], told["score"]) for told in results] == [(2, 0.5), (2, 0.5)]
