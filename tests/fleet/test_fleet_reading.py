"""Rows read among a million others are what they are alone: what they share is looked at once, and nothing mixed up."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from maquette.errors import MaquetteError
from maquette.fleet import jobs as reading
from maquette.fleet.jobs import Bad, Job, read_jobs
from maquette.fleet.rows import Row, read_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2):
            (tmp_path / name / f"{number}.png").write_bytes(name.encode())
    (tmp_path / "base.safetensors").touch()
    (tmp_path / "pack.toml").write_text('prompts = ["a {subject}"]\n')
    return tmp_path


def rows() -> list[dict[str, Any]]:
    """Of what must not be taken for one another: 1, True and 1.0; null and absent; orders; signs of formats."""
    subjects: list[dict[str, Any]] = [
        {"subject": text} for text in ("zkw thing", 'é "q" 50 % %(seed)s {x}\n\u2028', None, 7, "zkw dog")
    ]  # fmt: skip
    seeds: list[dict[str, Any]] = [{}, {"seed": 1}, {"seed": True}, {"seed": 1.0}, {"seed": -1}, {"seed": 2**63}]
    others: list[dict[str, Any]] = [
        {}, {"rank": 1}, {"rank": True}, {"rank": 1.0}, {"set": {"rank": 1}},
        {"set": {"seed": 3, "subject": "zkw cat"}},
        {"kind": "person"}, {"tenant": "shop"}, {"max_cost": 1.0}, {"max_cost": True}, {"then": "evaluate"},
        {"then": ["generate:pack.toml"]}, {"base": "base.safetensors"}, {"base": "gone.safetensors"}, {"unknown": 1},
        {"sample_prompts": ["100 %"]},
    ]  # fmt: skip
    photos: list[Any] = ["a", "b", ["a/0.png"], "gone"]
    found: list[dict[str, Any]] = []
    for number, parts in enumerate(itertools.product(subjects, seeds, others)):
        told = {"id": f"j{number}", "photos": photos[number % len(photos)], **parts[0], **parts[1], **parts[2]}
        found.append(dict(reversed(told.items())) if number % 3 else told)
    return found


def test_keys_are_read_by_their_old_names_too(folder: Path) -> None:
    named = [{"flip": True, "factor": 4}, {"flip_aug": True, "lokr_factor": 4}, {"flip": True, "flip_aug": True}]
    told = [{"id": str(number), "photos": "a", "subject": "zkw thing", **keys} for number, keys in enumerate(named)]
    old, new, both = read_jobs([Row(f"line {number}", values) for number, values in enumerate(told)], folder)
    assert isinstance(old, Job) and isinstance(new, Job) and old.mark == new.mark
    assert isinstance(both, Bad) and "flip is the old name of flip_aug: give one of them" in both.why


def test_rows_are_the_same_alone_and_among_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = [Row(f"line {number}", values) for number, values in enumerate(rows())]
    alone = [next(read_jobs([row], folder)) for row in told]
    assert list(read_jobs(told, folder)) == alone
    assert list(read_jobs(reversed(told), folder)) == alone[::-1]
    monkeypatch.setattr(reading, "MOST_SHAPES", 3)
    assert list(read_jobs(told, folder)) == alone
    good = [job for job in alone if isinstance(job, Job)]
    assert len(good) > 100 and any("is there" not in bad.why for bad in alone if isinstance(bad, Bad))


def test_a_body_is_what_the_row_says(folder: Path) -> None:
    for number, values in enumerate(rows()):
        job = next(read_jobs([Row(f"line {number}", values)], folder))
        if isinstance(job, Bad):
            continue
        body = json.loads(job.body)
        assert job.body == json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        settings = body["settings"]
        wanted = {**values, **values.get("set", {})}
        for key in ("subject", "seed", "rank", "kind", "sample_prompts"):
            assert (key in settings, settings.get(key)) == (key in wanted, wanted.get(key))
        assert ("max_cost" in body) == ("max_cost" in values)
        assert list(settings) == [key for key in values if key in settings] + [
            key for key in values.get("set", {}) if key not in values
        ]
        assert os.path.basename(body["photos"] if isinstance(body["photos"], str) else body["photos"][0]) in (
            "a", "b", "0.png",
        )  # fmt: skip


def test_of_faults(folder: Path) -> None:
    """Of two the one of all such rows is told; a row whose base is gone keeps the hash that finds its result."""
    both, gone = read_jobs(
        [Row("1", {"photos": 3, "max_cost": -1}), Row("2", {"photos": "a", "base": "gone.safetensors"})], folder
    )
    assert isinstance(both, Bad) and both.why == "max_cost is a number above 0."
    assert isinstance(gone, Bad) and "gone.safetensors" in gone.why and len(gone.row) == 24


def test_rows_that_differ_in_a_file_that_a_setting_names_are_two(folder: Path) -> None:
    """Without an id of their own, too; a base that is named as usual makes no other row."""
    told = [{"photos": "a", "subject": "zkw dog", **more} for more in ({}, {"base": "base.safetensors"})]
    found = list(read_jobs([Row(str(number), values) for number, values in enumerate(told)], folder))
    assert isinstance(found[0], Job) and isinstance(found[1], Job)
    assert found[0].row != found[1].row and found[0].id != found[1].id
    usual = next(read_jobs([Row("3", {**told[0], "base": "pocket"})], folder))
    assert usual.row == found[0].row


def test_nothing_to_choose_between_is_told_before_the_training(folder: Path) -> None:
    row = {"photos": "a", "subject": "zkw dog", "then": ["evaluate"], "steps": 50}
    told = read_jobs([Row(str(n), {**row, "id": n, "save_every_steps": n}) for n in (50, 49)], folder)
    one, two = told
    assert isinstance(one, Bad) and "save_every_steps = 50 leaves one checkpoint of 50 steps" in one.why
    assert isinstance(two, Job)


def test_ids_that_are_numbers_and_photos_of_users_that_are_not_here(folder: Path) -> None:
    rows = [
        {"id": 0, "photos": "a"}, {"id": "home", "photos": "~no-such-user/a"}, {"id": "nul", "photos": "a\0b"},
        {"id": 1, "photos": "a"},
    ]  # fmt: skip
    told = list(read_jobs([Row(str(n), {"subject": "zkw dog", **row}) for n, row in enumerate(rows)], folder))
    assert [type(one).__name__ for one in told] == ["Job", "Bad", "Bad", "Job"]
    assert [one.id for one in told] == ["0", "home", "nul", "1"]
    assert isinstance(told[1], Bad) and "There is no folder of photos" in told[1].why


@pytest.mark.parametrize(
    ("pack", "says"),
    [
        ('prompts = ["x"]\nstepps = 4\n', "unknown key 'stepps'; did you mean 'steps'"),
        ('prompts = ["x"]\nsteps = 0\n', "steps = 0 is not possible"),
        ("steps = 4\n", "pack.toml: The pack has no prompts"),
        ('prompts = ["x"]\nbase = "other"\n', "pack.toml: base is not a pack's: the fleet decides it"),
    ],
)  # fmt: skip
def test_a_pack_that_cannot_be_drawn_is_told_before_the_training(folder: Path, pack: str, says: str) -> None:
    (folder / "pack.toml").write_text(pack)
    row = Row("1", {"photos": "a", "subject": "zkw dog", "then": ["generate:pack.toml"]})
    (bad,) = read_jobs([row], folder)
    assert isinstance(bad, Bad) and says in bad.why


@pytest.mark.parametrize("most", ["1e999", "NaN", "0", "true"])
def test_a_limit_of_cost_that_is_none(folder: Path, most: str) -> None:
    (folder / "jobs.jsonl").write_text(f'{{"photos": "a", "subject": "zkw dog", "max_cost": {most}}}\n')
    bad = next(read_jobs(read_rows(folder / "jobs.jsonl"), folder))
    assert isinstance(bad, Bad) and bad.why == "max_cost is a number above 0."


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("j.toml", 'grid = 5\n[[job]]\nphotos = "a"\n', r"j\.toml: grid is no table: write \[grid\]"),
        ("j.toml", 'defaults = 3\n[[job]]\nphotos = "a"\n', r"j\.toml: defaults is no table: write \[defaults\]"),
        ("j.csv", 'id,photos\na,"b\nc,d\n', r"j\.csv, from line 2 on, cannot be read: .*See that each quote is closed"),
        ("j.csv", f"id,photos\na,{'x' * 200_000}\n", r"j\.csv, from line 2 on, cannot be read: field larger"),
        ("j.csv", "id,photos,id\na,b,c\n", r"j\.csv, line 1 names the column 'id' twice"),
    ],
)
def test_files_of_jobs_that_are_none(folder: Path, name: str, text: str, says: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(MaquetteError, match=says):
        list(read_rows(folder / name))


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_semicolons_of_a_csv_are_read_as_commas_are(folder: Path, ends: str) -> None:
    lines = ["id;photos;subject;rank;learning_rate;then", 'x;"a";zkw dog, small;4;5,5E-05;"evaluate;generate:p.toml"']
    (folder / "j.csv").write_bytes(b"\xef\xbb\xbf" + ends.join(lines).encode())
    (row,) = read_rows(folder / "j.csv")
    told = {"id": "x", "photos": "a", "subject": "zkw dog, small", "rank": 4, "then": "evaluate;generate:p.toml"}
    told["learning_rate"] = 5.5e-05
    assert (row.values, row.fault) == (told, "")
