"""The train command as a shell calls it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maquette.cli import train
from maquette.cli.main import main

HUNG = 1800  # seconds that only what hangs takes, however busy the machine is
FAST = ["--set", "sample_prompts=[]", "--set", "batch_size=1", "--rank", "2", "--set", "dtype=fp32"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(np.full((64, 64, 3), 60 + 90 * i, np.uint8)).save(folder / f"{i}.png")
    return folder


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in arguments])
    return int(exit_.value.code or 0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--learning-rate", "No such option: --learning-rate; it is a key: --set learning_rate=VALUE"),
        ("--network_dim", "No such option: --network_dim; did you mean 'rank', which is network_dim in Kohya's"),
        ("--stepz", "No such option: --stepz"),
    ],
)
def test_options_that_are_keys_or_others_words_are_answered(
    option: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("train", "photos", option, "1") == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_where_a_sweeps_results_go_is_called_root(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("sweep", "photos", "--subject", "x", "--out", "y") == 2
    assert "No such option: --out; results go to --root FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PHOTOS", "--set", "learning_rat=1"], "unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        (["PHOTOS", "--set", "rank"], "--set rank has no value"),
        (["PHOTOS"], "2 photos, the first 0.png, have no caption: name the subject"),
        (["PHOTOS", "--subject", "x", "--method", "lorra"], "method = 'lorra' is not possible"),
        (["nowhere", "--subject", "x"], "There is no folder nowhere"),
        ([], "Which photos? maquette train PHOTOS"),
        (["--resume", "nowhere"], "nowhere is not a run folder"),
        (["PHOTOS", "--resume", "nowhere"], "leave the others out"),
    ],
)
def test_faults_are_one_sentence_and_exit_1(
    arguments: list[str], message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert call("train", *[str(photos) if a == "PHOTOS" else a for a in arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "runs" / "x").exists()


def test_wrong_usage_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", "--no-such-option") == 2


def test_keys_are_listed_with_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", "--keys") == 0
    listed = capsys.readouterr().out
    assert "min_snr_gamma" in listed and "Weigh down the easy" in listed


def test_json_is_on_stdout_alone_and_a_toml_file_is_read(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my.toml").write_text('subject = "zkw box"\nsteps = 9\nseed = 3\n')
    out = tmp_path / "box"
    arguments = ["train", photos, "--config", tmp_path / "my.toml", "--steps", 1, "--out", out, *FAST, "--json"]
    assert call(*arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["status"] == "finished" and result["steps"] == 1 and Path(result["file"]).exists()
    assert "seed = 3" in (out / "run.toml").read_text()


@pytest.mark.parametrize(("method", "kind"), [("lora", "LoRA:"), ("textual-inversion", "Word:")])
def test_the_last_lines_say_what_was_made(
    method: str, kind: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = ["--subject", "zkw box", "--method", method, "--set", "zero_terminal_snr=true"]
    settings = [part for part in FAST if method == "lora" or part not in ("--rank", "2")]
    assert call("train", photos, *subject, "--steps", 1, "--out", tmp_path / "box", *settings) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[-2].split() == [kind, str(tmp_path / "box/box.safetensors")]
    assert "zero_terminal_snr" not in told.err  # the pocket base predicts v: nothing to warn of


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_saves_says_how_to_go_on_and_goes_on(photos: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "box"
    command = [sys.executable, "-m", "maquette", "train", str(photos), "--subject", "zkw box", "--steps", "100000"]
    child = subprocess.Popen(
        [*command, "--out", str(out), *FAST],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while child.poll() is None and not (out / "metrics.jsonl").exists():
        time.sleep(0.05)
    child.send_signal(number)
    told, _ = child.communicate(timeout=HUNG)
    assert child.returncode == train.INTERRUPTED
    step = int(told.split("Stopped at step ")[1].split()[0])
    assert f"maquette train --resume {out}" in told and step >= 1
    assert call("train", "--resume", out, "--steps", step + 1) == 0
    assert (out / "box.safetensors").exists()
