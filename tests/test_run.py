import re
import subprocess
import sys
from pathlib import Path

import pytest

from maquette.errors import MaquetteError
from maquette.files import portable, slug, write_json
from maquette.run_folder import RunFolder


def test_slug_leaves_nothing_that_a_prompt_gives_a_meaning() -> None:
    assert slug("zkw robot: a, b>c") == "zkw-robot-a-b-c"
    assert slug(" ../é_1 ") == "é_1"
    assert slug("::") == "run"
    assert slug("::", "word") == "word"


RESERVED = ("con", "CON", "Prn", "aux", "nul", "com1", "COM0", "lpt9", "com²", "conin$", "CONOUT$")


@pytest.mark.parametrize("name", RESERVED)
def test_names_that_windows_keeps_to_itself_are_changed(name: str) -> None:
    assert portable(name) == f"{name}_"
    assert portable(f"{name}.v2.safetensors") == f"{name}_.v2.safetensors"
    assert portable(f"{name} .txt") == f"{name}_ .txt"
    for kept in (f"{name}-2", f"x{name}", f"x.{name}", "console", "com10", "auxiliary", "null"):
        assert portable(kept) == kept


def test_no_run_is_called_as_windows_does_not_allow(tmp_path: Path) -> None:
    assert slug("con: ") == "con_" and slug("nul.v1") == "nul_.v1"
    (tmp_path / "CON_").mkdir()
    assert RunFolder.free_path(tmp_path, "CON") == tmp_path / "CON_-2"
    assert RunFolder(tmp_path / "aux").final == tmp_path / "aux" / "aux_.safetensors"


@pytest.mark.parametrize(("name", "made"), [("robot. .", "robot"), ("a.b", "a.b"), ("\ud800é", "é"), ("con.", "con_")])
def test_ends_that_systems_drop(name: str, made: str) -> None:
    assert portable(name) == made


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    names = ["é" * 300, "é" * 301, "猫" * 100 + ".v1", "猫" * 100 + ".v2", "x" * 201]
    made = [portable(name) for name in names]
    assert len({*made}) == len(names) and all(len(name.encode()) <= 200 for name in made)
    assert all(portable(name) == name for name in made) and portable("x" * 200) == "x" * 200
    assert re.fullmatch(r"x{191}-[0-9a-f]{8}", made[-1])


def test_create_never_takes_a_folder_with_something_in_it(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "a")
    run.config.write_text("")
    with pytest.raises(MaquetteError, match=r"already holds a run; .*--resume"):
        RunFolder.create(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "photo.jpg").write_text("")
    with pytest.raises(MaquetteError, match="is not empty"):
        RunFolder.create(tmp_path / "b")
    with pytest.raises(MaquetteError, match="is a file"):
        RunFolder.create(tmp_path / "b" / "photo.jpg")
    assert RunFolder.free_path(tmp_path, "a") == tmp_path / "a-2"


def test_open_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=r"no run\.toml"):
        RunFolder.open(tmp_path)


def test_lock_refuses_a_second_process_and_ends_with_it(tmp_path: Path) -> None:
    code = (
        "import sys; from maquette.run_folder import RunFolder\n"
        f"with RunFolder({str(tmp_path)!r}).locked():\n    print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(MaquetteError, match="Another run is writing"), RunFolder(tmp_path).locked():
        pass
    other.kill()
    other.communicate()
    with RunFolder(tmp_path).locked():
        assert (tmp_path / ".lock").exists()


def test_metrics_pass_over_a_cut_line_and_forget_later_steps(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2, 3):
        run.append_metric({"step": step, "loss": 0.5})
    with run.metrics.open("a") as file:
        file.write('{"step": 4}\n{"step": 5, "lo')  # without its loss no run has written it
    assert [line["step"] for line in run.read_metrics()] == [1, 2, 3]
    run.keep_metrics_until(2)
    assert run.metrics.read_text() == '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.5}\n'


def test_checkpoints_are_found_in_order_of_their_step(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "x")
    for step in (1000, 50):
        run.checkpoint(step).parent.mkdir(parents=True, exist_ok=True)
        run.checkpoint(step).write_text("")
    (run.path / "checkpoints" / ".x-000060.safetensors.part").write_text("")
    assert list(run.checkpoints()) == [50, 1000]


def test_write_json_keeps_the_old_file_when_it_fails(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert '"a": 1' in (tmp_path / "a.json").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
