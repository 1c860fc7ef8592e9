"""Clusters of two nodes: what becomes of jobs whose node dies at any point, or whose cable is pulled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_cable import namespace
from fleet_whole import require_whole

HERE = Path(__file__).parent
Write = Callable[..., Path]
pytest.importorskip("ray")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name, since Ray's sockets allow no long ones."""
    folder = Path(tempfile.mkdtemp(prefix="mq", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def told(words: list[str], place: Path, **more: str) -> dict[str, Any]:
    """The last line of JSON that a script prints, among Ray's own lines."""
    environment = os.environ | {"RAY_TMPDIR": str(place), "RAY_USAGE_STATS_ENABLED": "0", **more}
    ended = subprocess.run(words, capture_output=True, text=True, timeout=580, env=environment, check=False)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    assert lines, ended.stderr[-3000:]
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def nodes(root: Path, jobs: Path, how: str, place: Path, **more: str) -> dict[str, Any]:
    return told([sys.executable, str(HERE / "fleet_nodes.py"), str(root), str(jobs), how], place, **more)


@pytest.mark.heavy
def test_a_node_that_dies_costs_only_what_was_on_it(tmp_path: Path, write_jobs: Write, place: Path) -> None:
    jobs = write_jobs(*({"id": f"j{n}", "subject": "slow thing"} for n in range(16)))
    ended = nodes(tmp_path / "root", jobs, "once", place)
    assert ended["killed"] == 1 and ended["done"] == 16
    assert ended["attempts"] <= 16 + 4  # what was in flight
    require_whole(tmp_path / "root", 16, 4)


@pytest.mark.heavy
def test_nodes_killed_at_every_write(tmp_path: Path, write_jobs: Write, place: Path) -> None:
    """The n-th node dies with its worker at the n-th point."""
    points = tmp_path / "points"
    points.mkdir()
    jobs = write_jobs(*({"id": name} for name in "abcdef"))
    more = {"FLEET_KILL": "node", "FLEET_POINTS": str(points), "FLEET_LAST": "12"}
    ended = nodes(tmp_path / "root", jobs, "every", place, **more)
    assert len(list(points.iterdir())) == 12 and ended["killed"] == 12
    assert ended["done"] + ended["known"] == 6
    require_whole(tmp_path / "root", 6, 12)


@pytest.mark.heavy
def test_what_ends_behind_a_pulled_cable_is_discarded(tmp_path: Path, write_jobs: Write, place: Path) -> None:
    command = namespace()
    if not command:
        pytest.skip("This machine allows no network namespaces (unshare, nsenter and ip are needed).")
    jobs = write_jobs(*({"id": f"j{n}"} for n in range(4)))
    words = [*command, sys.executable, str(HERE / "fleet_cable.py"), str(tmp_path / "root"), str(jobs)]
    ended = told(words, place, FLEET_FOLDER=str(tmp_path))
    assert ended["pulled"] and ended["done"] == 4 and ended["attempts"] == 5
    assert (ended["before"], ended["after"], ended["restored"]) == (5, 4, 4)
    require_whole(tmp_path / "root", 4)
