"""What the golden runs compare: files to the byte, JSON without what passes, and a line for every difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from tools.golden import __main__ as golden
from tools.golden import fingerprint


def test_two_files_differ_in_their_tensors_or_in_their_metadata(tmp_path: Path) -> None:
    made = {}
    for name, value, title in (("a", 1.0, "x"), ("b", 1.0, "y"), ("c", 2.0, "x")):
        save_file({"up": torch.tensor([value, 0])}, tmp_path / f"{name}.safetensors", {"title": title})
        made[name] = fingerprint.of_file(tmp_path / f"{name}.safetensors", tmp_path)
    assert made["a"]["names"] == 1 and made["a"]["metadata"] == {"title": "x"}
    assert [line.partition(":")[0] for line in fingerprint.differences(made["a"], made["c"])] == ["sha256", "tensors"]
    assert fingerprint.differences(made["a"], made["b"])[-1] == 'metadata: title: "x" -> "y"'
    assert made["a"]["tensors"] == made["b"]["tensors"]


def test_a_picture_is_its_pixels_and_its_text(tmp_path: Path) -> None:
    text = PngInfo()
    text.add_text("parameters", "a cat")
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "a.png", pnginfo=text)
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "b.png")
    first, second = (fingerprint.of_file(tmp_path / f"{name}.png", tmp_path) for name in "ab")
    assert first["text"] == {"parameters": "a cat"} and second["text"] == {}
    assert first["pixels"] == second["pixels"] and first["sha256"] != second["sha256"]


def test_times_devices_and_the_work_folder_do_not_count(tmp_path: Path) -> None:
    one = {"seconds": 1.0, "paths": [f"{tmp_path}/a.png"], "costs": {"effort": {"hours": 3}, "steps": 5}}
    assert fingerprint.of_json(one, tmp_path) == {"json": {"paths": ["ROOT/a.png"], "costs": {"steps": 5}}}


def test_a_line_for_every_difference() -> None:
    before = {"same": 1, "gone": 2, "list": [1, {"x": 2}], "long": [1]}
    now = {"same": 1, "list": [1, {"x": 3}], "long": [1, 2], "more": "z"}
    assert fingerprint.differences(before, now) == [
        "gone is gone",
        "list[1]: x: 2 -> 3",
        "long: [1] -> [1, 2]",
        'more is new: "z"',
    ]


def test_report_says_what_differs_from_which_commit(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"commit": "abc", "found": {"draw plain": {"sha256": "1"}, "check": {"json": {}}}}
    assert golden.report(record, record["found"], "9 s") == 0
    assert golden.report(record, {"draw plain": {"sha256": "2"}, "check": {"json": {}}}, "9 s") == 1
    assert capsys.readouterr().out.splitlines() == [
        "2 of 2 results are as at abc, in 9 s.",
        'draw plain: sha256: "1" -> "2"',
        "1 of 2 results are as at abc, in 9 s.",
    ]


def test_a_record_belongs_to_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # as it will be set: put back after the test
    machine = golden.describe()
    assert machine["torch"] == torch.__version__ and machine["processor"]
    assert golden.name_of(machine) == golden.name_of(dict(machine))
    assert golden.name_of(machine | {"processor": "another"}) != golden.name_of(machine)
    monkeypatch.setattr("sys.argv", ["golden", "compare", "--records", str(tmp_path)])
    assert golden.main() == 1 and "record first" in capsys.readouterr().err
    monkeypatch.setattr(golden, "run", lambda keep: {"x": {"sha256": "1"}})
    monkeypatch.setattr("sys.argv", ["golden", "--records", str(tmp_path)])
    assert golden.main() == 0
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["machine"] == machine
    assert golden.main() == 0 and "1 of 1 results are as at" in capsys.readouterr().out
