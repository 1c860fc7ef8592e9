"""Threads wait asleep wherever a program of ours starts, unless somebody decided otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from maquette import openmp

ROOT = Path(__file__).parent.parent


@pytest.fixture
def nothing_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in openmp.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def test_it_is_decided_before_torch(nothing_decided: None) -> None:
    assert openmp.wait_asleep() and openmp.CHOSEN.items() <= os.environ.items()
    assert not openmp.wait_asleep()


@pytest.mark.parametrize("name", openmp.SETTINGS)
def test_a_users_own_setting_stays(name: str, nothing_decided: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    assert not openmp.wait_asleep()
    assert {n: os.environ[n] for n in openmp.SETTINGS if n in os.environ} == {name: ""}


def test_a_program_that_has_torch_already_keeps_its_ways(
    nothing_decided: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    assert not openmp.wait_asleep() and "OMP_WAIT_POLICY" not in os.environ


@pytest.fixture
def no_number(nothing_decided: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in openmp.THREADS:
        monkeypatch.setenv(name, "")  # so that what is set is taken back
        monkeypatch.delenv(name)


@pytest.mark.parametrize(("base", "one"), [(None, True), ("pocket", True), ("sd15.safetensors", False)])
def test_pocket_is_computed_by_one_thread(base: str | None, one: bool, no_number: None) -> None:
    assert openmp.one_thread_for(base) is one
    assert os.environ.get("OMP_NUM_THREADS") == ("1" if one else None)


@pytest.mark.parametrize("name", openmp.THREADS)
def test_a_users_own_number_stays(name: str, no_number: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "3")
    assert not openmp.one_thread_for("pocket") and os.environ[name] == "3"


def test_a_program_that_has_torch_already_keeps_its_threads(no_number: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    assert not openmp.one_thread_for("pocket") and "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(("base", "threads"), [("pocket", "1"), ("nowhere.safetensors", "None")])
def test_the_command_decides_before_torch(base: str, threads: str, tmp_path: Path) -> None:
    kept = {key: value for key, value in os.environ.items() if key not in openmp.THREADS}
    script = (
        "import os, sys; from maquette.cli.main import main; sys.argv = ['maquette', 'train', 'nothing', '--base', "
        f"{base!r}]\ntry: main()\nexcept SystemExit as end: print(end.code)\nprint(os.environ.get('OMP_NUM_THREADS'))"
    )
    command = [sys.executable, "-c", script]
    told = subprocess.run(command, env=kept, cwd=tmp_path, capture_output=True, text=True)
    assert told.stdout.split()[-2:] == ["1", threads], told.stderr


SHOW = "import os, sys; print(*map(os.environ.get, ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')), 'torch' in sys.modules)"


@pytest.mark.parametrize("module", ["maquette", "maquette.cli.main", "benchmarks", "tools"])
def test_every_way_in_decides_it_and_imports_no_torch(module: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in openmp.SETTINGS}
    command = [sys.executable, "-c", f"import {module}; {SHOW}"]
    told = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == "PASSIVE 1000 False\n"


def test_these_tests_wait_asleep_too() -> None:
    assert any(name in os.environ for name in openmp.SETTINGS)


def test_every_benchmark_and_tool_starts_from_its_package() -> None:
    """`python -m` imports the package first; none of them is a file of its own beside it."""
    for folder in ("benchmarks", "tools"):
        assert "import maquette" in (ROOT / folder / "__init__.py").read_text()
        for script in (ROOT / folder).rglob("*.py"):
            assert (script.parent / "__init__.py").exists(), script
