"""make takes the first Python from 3.11 on that works."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("versions", "taken"),
    [
        ({"python3.11": 0, "python3.12": 0}, "python3.11"),
        ({"python3.11": 1, "python3.13": 0, "python3": 0}, "python3.13"),  # a name that leads nowhere, as pyenv has
        ({"python3": 0}, "python3"),
        ({"python3": 1}, None),
    ],
)
def test_first_that_is_new_enough(versions: dict[str, int], taken: str | None, tmp_path: Path) -> None:
    """versions: whether each says, by its exit code, that it is too old."""
    for name, code in versions.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / name).chmod(0o755)
    for needed in ("pyproject.toml", "constraints.txt"):
        (tmp_path / needed).touch()
    command = [shutil.which("make") or "", "-f", str(MAKEFILE), "install"]
    if taken is not None:
        told = subprocess.run(
            [*command, "-n"], cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True
        )
        assert f"\n{taken} -m venv .venv\n" in told.stdout
        return
    told = subprocess.run(command, cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert told.returncode != 0 and "No Python from 3.11 on was found; name one: make PYTHON=" in told.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_demo_installs_what_it_needs_and_the_tests_the_rest(tmp_path: Path) -> None:
    for needed in ("pyproject.toml", "constraints.txt", ".venv/bin/python"):
        (tmp_path / needed).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / needed).touch()

    def told(goal: str) -> str:
        command = [shutil.which("make") or "", "-f", str(MAKEFILE), "-n", "PYTHON=python3", goal]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert '-e ".[studio]"' in told("demo") and ".[dev]" not in told("demo")
    assert '-e ".[dev]"' in told("test") and ".[studio]" not in told("test")
    (tmp_path / ".venv/.ready").touch()
    assert "pip install" not in told("demo") and "pip install" not in told("studio")
    assert '-e ".[dev]"' in told("test")
