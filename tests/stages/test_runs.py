"""maquette runs: the list, two runs beside each other, and what goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import maquette
from maquette.cli.main import main
from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.run_folder import RunFolder


def make_run(parent: Path, name: str, finished: bool = True, **changes: Any) -> RunFolder:
    """A run folder as training writes it, with files of a few bytes."""
    folder = RunFolder(parent / name)
    values = {
        "photos": "/photos", "subject": "zkw disc", "steps": 4, "batch_size": 1, "learning_rate": 1e-3,
    }  # fmt: skip
    config = TrainConfig.parse({**values, "out": folder.path, **changes})
    (folder.path / "checkpoints").mkdir(parents=True)
    for step in (2, 4) if finished else (2,):
        folder.checkpoint(step).write_bytes(b"x" * 100)
        place = folder.samples(step)
        place.mkdir(parents=True)
        Image.new("RGB", (64, 64), (60 * step, 0, 0)).save(place / "0.png")
        (place / "prompts.json").write_text(json.dumps(["a photo of zkw disc"]))
        folder.append_metric({"step": step, "loss": 0.1 / step})
    photos = [
        {"name": f"{i}.png", "role": role, "sha256": "0", "caption": "c"} for i, role in enumerate(("instance", "held"))
    ]
    folder.dataset.write_text(json.dumps({"photos": photos}))
    if finished:
        folder.final.write_bytes(b"y" * 100)
        told = {"step": 2, "weight": 0.85, "overtrained": [], "rows": []}
        folder.evaluation.write_text(json.dumps(told))
        (folder.state(4)).mkdir(parents=True)
        (folder.state(4) / "adapter.safetensors").write_bytes(b"z" * 1000)
    (folder.path / ".lock").touch()
    folder.config.write_text(config.to_toml())
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_run(tmp_path, "disc")
    make_run(tmp_path, "disc-2", method="lokr", rank=4)
    make_run(tmp_path, "disc-3", finished=False)
    return tmp_path


def test_the_list_says_subject_base_method_verdict_size_and_state(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "disc-2/run.toml").write_text('method = "lora')
    (place / "no-run").mkdir()
    result = maquette.runs(folder=place)
    assert [Path(one.run).name for one in result.runs] == ["disc", "disc-2", "disc-3"]
    first, broken, stopped = result.runs
    assert (first.subject, first.base, first.method, first.photos) == ("zkw disc", "pocket", "lora", 1)
    assert (first.state, first.verdict) == ("finished", "step 2 at 0.85")
    assert first.size_bytes == sum(p.stat().st_size for p in (place / "disc").rglob("*") if p.is_file())
    assert "run.toml" in broken.problem and broken.method == ""
    assert (stopped.state, stopped.verdict) == ("stopped at step 2 of 4", "")
    with pytest.raises(SystemExit, match="0"):
        main(["runs", "--folder", str(place)])
    told = capsys.readouterr().out
    assert "step 2 at 0.85" in told and "stopped at" in told


def test_a_run_at_work_is_said_and_not_cleaned(place: Path) -> None:
    with RunFolder(place / "disc").locked():
        result = maquette.runs(folder=place, clean=True)
        assert result.runs[0].state == "running, step 4 of 4"
        assert {Path(one.path).parents[1].name for one in result.freed} == {"disc-2"}
    assert maquette.runs(folder=place).runs[0].state == "finished"


def test_two_runs_are_compared_with_their_pictures_side_by_side(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = place / "disc", place / "disc-2"
    (other / "evaluation.json").write_text('{"step": 4, "weight": 1.0}')
    result = maquette.runs(runs=[one, other], folder=place)
    told = {key: (a, b) for key, a, b in result.differences}
    assert told == {"method": ("lora", "lokr"), "rank": ("16", "4"), "chosen": ("step 2 at 0.85", "step 4 at 1.0")}
    assert result.picture == str(place / "disc-beside-disc-2.png")
    image = Image.open(result.picture)
    colours = {image.getpixel((x, y)) for x in range(image.width) for y in range(image.height)}
    assert (120, 0, 0) in colours and (240, 0, 0) in colours  # the chosen step of each
    with pytest.raises(SystemExit, match="0"):
        main(["runs", str(one), str(other), "--folder", str(place)])
    assert "lokr" in capsys.readouterr().out


def test_without_pictures_in_common_there_is_none(place: Path) -> None:
    for step in (2, 4):
        (place / f"disc-2/samples/{step:06d}/prompts.json").write_text('["another"]')
    assert maquette.runs(runs=[place / "disc", place / "disc-2"], folder=place).picture is None


def test_clean_says_what_goes_before_it_goes_and_leaves_what_is_needed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / ".cache").mkdir()
    (place / ".cache/latent").write_bytes(b"l" * 50)
    (place / "disc/checkpoints/.x.part").write_bytes(b"p" * 7)
    before = sorted(path for path in place.rglob("*") if path.is_file())
    with pytest.raises(SystemExit, match="0"):
        main(["runs", "--folder", str(place), "--clean", "--checkpoints"])
    told = " ".join(capsys.readouterr().out.split())
    assert "Nothing was removed; --yes removes it." in told and "2.06 kB in all" in told
    assert sorted(path for path in place.rglob("*") if path.is_file()) == before
    result = maquette.runs(folder=place, clean=True, checkpoints=True, yes=True)
    assert result.removed and result.freed_bytes == 2 * 1000 + 50 + 7
    gone = {str(path.relative_to(place)) for path in before if not path.exists()}
    assert gone == {
        ".cache/latent", "disc/checkpoints/.x.part", "disc/state/000004/adapter.safetensors",
        "disc-2/state/000004/adapter.safetensors",
    }  # fmt: skip


def test_checkpoints_that_were_not_chosen_go_only_when_asked_for(place: Path) -> None:
    for step in (1, 3):
        RunFolder(place / "disc").checkpoint(step).write_bytes(b"x")
    maquette.runs(runs=[place / "disc"], clean=True, yes=True)
    assert list(RunFolder(place / "disc").checkpoints()) == [1, 2, 3, 4]
    maquette.runs(runs=[place / "disc"], clean=True, checkpoints=True, yes=True)
    assert list(RunFolder(place / "disc").checkpoints()) == [2, 4]
    assert (place / "disc/disc.safetensors").exists()
    (place / "disc-2/evaluation.json").write_text('{"step": "x"}')
    with pytest.raises(MaquetteError, match=r"evaluation\.json is damaged: it names no step\. Nothing was removed"):
        maquette.runs(runs=[place / "disc-2"], clean=True, checkpoints=True, yes=True)


def test_a_cache_that_others_use_stays(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "mine.txt").write_text("x")
    monkeypatch.setenv("MAQUETTE_CACHE", str(other))
    maquette.runs(folder=place, clean=True, yes=True)
    assert (other / "mine.txt").exists()


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=r"There is no folder .*; name where the runs lie with --folder"):
        maquette.runs(folder=tmp_path / "none")
    with pytest.raises(MaquetteError, match="is not a run folder"):
        maquette.runs(runs=[tmp_path])
    assert maquette.runs(folder=tmp_path).runs == []


def test_neither_list_nor_comparison_loads_torch(place: Path) -> None:
    for words in ([], [place / "disc", place / "disc-2"]):
        program = (
            "import sys; sys.argv = ['maquette', *sys.argv[1:]]\nfrom maquette.cli.start import main\n"
            "try: main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"
        )
        command = [sys.executable, "-c", program, "runs", *map(str, words), "--folder", str(place)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.strip().splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("dataset.json", '{"photos": 5}', "'photos' are not as a run writes them"),
        ("dataset.json", '{"photos": [5]}', "'photos' are not as a run writes them"),
        ("evaluation.json", '{"step": [1], "weight": 0.7}', "is damaged in 'step': choose again"),
        ("evaluation.json", '{"step": 2, "weight": "x"}', "is damaged in 'weight': choose again"),
        ("evaluation.json", '{"step": 2, "weight": 1, "reasons": 5}', "is damaged in 'reasons': choose again"),
    ],
)
def test_a_damaged_record_is_a_problem_of_its_run_alone(place: Path, file: str, text: str, says: str) -> None:
    (place / "disc" / file).write_text(text)
    first, *others = maquette.runs(folder=place).runs
    assert says in first.problem and first.run in first.problem and not any(one.problem for one in others)
    with pytest.raises(MaquetteError, match=says):
        maquette.runs(runs=[place / "disc", place / "disc-2"])
    with pytest.raises(MaquetteError, match=says):
        maquette.push(place / "disc", "hf:me/disc")


def test_a_run_that_began_meanwhile_loses_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "in_use", lambda self: False)  # a moment ago
    before = sorted(place.rglob("*"))
    with RunFolder(place / "disc").locked(), pytest.raises(MaquetteError, match=r"Another run is writing into .*disc"):
        maquette.runs(folder=place, clean=True, yes=True)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("now", ["renamed", "disc one"])
def test_a_renamed_run_is_as_finished_as_before(place: Path, now: str) -> None:
    named = RunFolder((place / "disc").rename(place / now))
    (named.path / ".disc.safetensors.part").write_bytes(b"x")
    (named.path / "other.safetensors").write_bytes(b"x" * 7)
    assert named.chosen == named.path / "disc.safetensors"
    assert maquette.runs(runs=[named.path], folder=place).runs[0].state == "finished"
    told = maquette.runs(runs=[named.path, place / "disc-3"], out=place / "a.png").differences
    assert ("size of the file", "100", "") in told
    assert str(named.state(4)) in [one.path for one in maquette.runs(folder=place, clean=True).freed]
    assert RunFolder(place / "disc-3").chosen is None


def test_of_a_renamed_run_the_file_under_the_new_name_counts_first(place: Path) -> None:
    named = RunFolder((place / "disc").rename(place / "new"))
    named.final.write_bytes(b"n")
    assert named.chosen == named.final


def test_a_finished_run_that_stopped_while_trained_longer_keeps_its_states(place: Path) -> None:
    run = make_run(place, "longer", steps=8)
    (run.path / "state/finished.json").write_text('{"step": 2}')
    assert maquette.runs(runs=[run.path]).runs[0].state == "stopped at step 4 of 8"
    assert maquette.runs(runs=[run.path], clean=True, checkpoints=True).freed == []
    (run.path / "state/finished.json").write_text('{"step": 4}')  # it ended by itself before its last step
    assert maquette.runs(runs=[run.path]).runs[0].state == "finished"
    assert [one.what for one in maquette.runs(runs=[run.path], clean=True).freed] == ["state"]
    (run.path / "state/finished.json").write_text("{")
    assert "finished.json" in maquette.runs(folder=place).runs[-1].problem


def test_clean_says_whether_a_run_can_be_trained_longer_without_its_state(tmp_path: Path) -> None:
    """A LoRA notes what it can begin from as it drops its state; one that kept it, a word and a model do not."""
    kept = make_run(tmp_path, "kept", keep_state=True)
    word = make_run(tmp_path, "word", method="textual-inversion")
    killed = make_run(tmp_path, "killed")
    (killed.path / "state/finished.json").write_text('{"step": 4}')
    freed = maquette.runs(runs=[kept.path, word.path, killed.path], clean=True).freed
    assert [one.lost for one in freed] == [
        "the run cannot be trained longer; a new one can begin from its last file",
        "the run cannot be trained longer",
        "longer training of the run begins from its last file",
    ]
