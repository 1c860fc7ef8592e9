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


THREADS = (
    "import os, torch; from maquette.training.environment import one_thread_for as one\n"
    "usual = torch.get_num_threads()\n"
    "for base in ('pocket', 'sd15.safetensors'):\n"
    "    with one(base): print(torch.get_num_threads() - usual, end=' ')\n"
    "torch.set_num_threads(3)\n"
    "with one('pocket'), one('pocket'): print(torch.get_num_threads(), end=' ')\n"
    "torch.set_num_threads(usual)\n"
    "with one('pocket'), one('pocket'): pass\n"
    "print(torch.get_num_threads() - usual, usual)"
)


def threads_told(script: str, **environment: str) -> list[int]:
    kept = {key: value for key, value in os.environ.items() if key not in (*openmp.THREADS, openmp.SHARED)}
    told = subprocess.run(
        [sys.executable, "-c", script], env=kept | environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [int(word) for word in told.stdout.split()]


def test_pocket_is_computed_by_one_thread_where_nobody_decided_otherwise() -> None:
    pocket, other, chosen, after, usual = threads_told(f"import maquette; {THREADS}")
    assert (pocket, other, chosen, after) == (1 - usual, 0, 3, 0)


def test_threads_that_were_shared_out_are_nobodys_wish() -> None:
    environment: dict[str, str] = {}
    openmp.share_among(environment, 1)
    environment["OMP_NUM_THREADS"] = "2"
    assert threads_told(f"import maquette; {THREADS}", **environment) == [-1, 0, 3, 0, 2]


@pytest.mark.parametrize("name", openmp.THREADS)
def test_a_users_own_number_stays(name: str) -> None:
    pocket, *_, usual = threads_told(f"import maquette; {THREADS}", **{name: "2"})
    assert pocket == 0 and (usual == 2 or name != "OMP_NUM_THREADS")
    environment = {name: "5"}
    openmp.share_among(environment, 4)
    assert environment == {name: "5"}


def test_a_program_that_has_torch_already_keeps_its_threads() -> None:
    assert threads_told(f"import torch, maquette; {THREADS}")[0] == 0


def test_processors_are_shared_among_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp, "processors", lambda: 8)
    for processes, threads in ((1, "8"), (3, "2"), (20, "1")):
        environment: dict[str, str] = {}
        openmp.share_among(environment, processes)
        assert environment == {"OMP_NUM_THREADS": threads, openmp.SHARED: "1"}


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
