"""Whatever is killed and whenever: after the next run every job has exactly one result, whose files are all there."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fleet_whole import require_whole

from maquette.config.fleet import FleetConfig
from maquette.fleet import driving, failures
from maquette.fleet.store import LocalStore
from maquette.fleet.tally import RunResult

HERE = Path(__file__).parent
TRAINER = "fleet_crashes:CrashingTrainer"
POINTS = 12  # of a job, at which its worker may die: claim (3), upload (2), result (3), removed state (2), claim (2)
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which processes note their deaths; nothing waits between attempts."""
    folder = tmp_path / "points"
    folder.mkdir()
    monkeypatch.setenv("FLEET_POINTS", str(folder))
    monkeypatch.setattr(failures, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(failures, "KILLS_HERE", 1000)
    return folder


def driver(tmp_path: Path, jobs: Path, workers: int = 1) -> subprocess.Popen[bytes]:
    words = [sys.executable, str(HERE / "fleet_crashes.py"), str(tmp_path / "root"), str(jobs), str(workers)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)


def run(tmp_path: Path, jobs: Path, attempts: int = 100) -> RunResult:
    config = FleetConfig.parse({"root": str(tmp_path / "root"), "jobs": jobs, "attempts": attempts})
    return driving.run(config, trainer=TRAINER)


def test_workers_killed_at_every_write(
    tmp_path: Path, write_jobs: Write, points: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th worker process dies at its n-th point, until one has fewer points than that."""
    jobs = write_jobs(*({"id": name} for name in "abcdef"))
    monkeypatch.setenv("FLEET_KILL", "worker")
    monkeypatch.setenv("FLEET_LAST", str(POINTS))
    ended = run(tmp_path, jobs)
    kills = len(list(points.iterdir()))
    assert kills == POINTS
    assert ended.done + ended.known == 6
    require_whole(tmp_path / "root", 6, kills)


@pytest.mark.heavy
def test_a_group_killed_at_every_write(
    tmp_path: Path, write_jobs: Write, points: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs in slots; at each point of the worker that has both, it dies once."""
    jobs = write_jobs({}, {"id": "b"})
    monkeypatch.setenv("FLEET_KILL", "worker")
    for point in range(1, 100):
        for file in points.iterdir():
            file.unlink()
        monkeypatch.setenv("FLEET_FIRST", str(point))
        monkeypatch.setenv("FLEET_LAST", str(point))
        root = tmp_path / f"root{point}"
        config = FleetConfig.parse({"root": str(root), "jobs": jobs, "slots": 2})
        ended = driving.run(config, trainer=TRAINER)
        assert ended.done + ended.known == 2
        kills = len(list(points.iterdir()))
        require_whole(root, 2, 2 * kills)
        if not kills:
            break
    assert point == 2 * POINTS + 1


def kill_drivers(tmp_path: Path, jobs: Path, first: int, last: int) -> None:
    for _ in range(first, last + 1):
        ended = driver(tmp_path, jobs)
        ended.communicate()
        if ended.returncode == 0:
            break  # there was no such point


def test_drivers_killed_at_some_writes(
    tmp_path: Path, write_jobs: Write, points: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = write_jobs({}, {"id": "b"})
    monkeypatch.setenv("FLEET_KILL", "driver")
    monkeypatch.setenv("FLEET_FIRST", "2")
    monkeypatch.setenv("FLEET_LAST", "4")
    kill_drivers(tmp_path, jobs, 2, 4)
    assert len(list(points.iterdir())) == 3
    monkeypatch.delenv("FLEET_KILL")
    run(tmp_path, jobs)
    require_whole(tmp_path / "root", 2, 3)


def kill_driver(folder: Path, jobs: Path, point: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a driver that dies at one of the points at which it writes. Returns how often it did: 0 beyond the last."""
    (folder / "points").mkdir(parents=True)
    monkeypatch.setenv("FLEET_KILL", "driver")
    monkeypatch.setenv("FLEET_POINTS", str(folder / "points"))
    monkeypatch.setenv("FLEET_FIRST", str(point))
    monkeypatch.setenv("FLEET_LAST", str(point))
    driver(folder, jobs).communicate()
    monkeypatch.delenv("FLEET_KILL")
    return len(list((folder / "points").iterdir()))


@pytest.mark.heavy
def test_drivers_killed_at_every_write(tmp_path: Path, write_jobs: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """One driver for each point at which it writes, until there is none: settings, submission, parts, session."""
    prices = tmp_path / "fleet.toml"
    prices.write_text("[prices]\ncpu = 1.0\n")
    monkeypatch.setenv("FLEET_SETTINGS", str(prices))
    killed = 0
    for point in range(1, 100):
        folder = tmp_path / str(point)
        jobs = write_jobs({"id": f"a{point}"}, {"id": f"b{point}"})
        died = kill_driver(folder, jobs, point, monkeypatch)
        killed += died
        run(folder, jobs)
        require_whole(folder / "root", 2, died)
        if not died:
            break
    assert killed == 4 * 3


@pytest.mark.heavy
def test_drivers_killed_where_they_commit_a_failure(
    tmp_path: Path, write_jobs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that kills its workers gets its result from the driver, which dies at each of the three points of it."""
    for point in range(4, 7):  # after the submission's
        folder = tmp_path / str(point)
        jobs = write_jobs({"subject": "die thing"})
        assert kill_driver(folder, jobs, point, monkeypatch) == 1
        monkeypatch.setattr(failures, "KILLS_HERE", 3)
        run(folder, jobs)
        (told,) = [json.loads(file.read_bytes()) for file in (folder / "root").glob("runs/*/*/*/result.json")]
        assert (told["status"], told["kind"]) == ("failed", "poison")


@pytest.mark.heavy
def test_killed_at_a_hundred_random_moments(tmp_path: Path, write_jobs: Write) -> None:
    """Drivers with all their workers, or a driver alone, whose workers then see that it is gone."""
    source = random.Random(0)
    jobs = write_jobs(*({"id": f"j{i}"} for i in range(60)))
    kills, folder, here = 0, tmp_path / "0", 0
    while kills < 100:
        process = driver(folder, jobs, 2)
        kill = os.kill if source.random() < 0.5 else os.killpg
        timer = threading.Timer(source.uniform(0.2, 2.5), kill, [process.pid, signal.SIGKILL])
        timer.start()
        process.communicate()
        timer.cancel()
        timer.join()
        if process.returncode:
            kills, here = kills + 1, here + 1
        else:  # it was done before
            require_whole(folder / "root", 60, 4 * here)
            folder, here = tmp_path / str(kills), 0
    run(folder, jobs)
    require_whole(folder / "root", 60, 4 * here)


def test_a_full_disk_is_tried_again(tmp_path: Path, write_jobs: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_FULL", "2")  # the first job's result
    ended = run(tmp_path, write_jobs({}, {"id": "b"}))
    assert (ended.done, ended.failed, ended.attempts) == (2, 0, 3)
    require_whole(tmp_path / "root", 2, 1)


def test_a_store_that_refuses_leaves_the_jobs_for_the_next_run(
    tmp_path: Path, write_jobs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = tmp_path / "refusal"
    refusal.touch()
    monkeypatch.setenv("FLEET_REFUSE", str(refusal))

    def refused(*_: object) -> None:
        raise PermissionError(13, "The store refuses")

    jobs = write_jobs({}, {"id": "b"})
    with monkeypatch.context() as patch:
        patch.setattr("maquette.fleet.store.LocalStore.create", refused)  # the driver's own
        ended = run(tmp_path, jobs, attempts=2)
    assert (ended.done, ended.failed, ended.attempts) == (0, 2, 4)
    assert "The store refuses" in ended.problems[0]
    assert not list((tmp_path / "root").rglob("result.json"))
    refusal.unlink()
    assert run(tmp_path, jobs).done == 2
    require_whole(tmp_path / "root", 2, 4)


def test_a_commit_of_the_driver_that_is_refused_is_tried_again(
    tmp_path: Path, write_jobs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the store cannot create exclusively, workers hand their results to the driver."""
    monkeypatch.setenv("FLEET_INCLUSIVE", "1")
    create, refused = LocalStore.create, []

    def once(self: LocalStore, name: str, data: bytes) -> None:
        if not refused:
            refused.append(name)
            raise failures.StoreError("The store refused.")
        create(self, name, data)

    monkeypatch.setattr(LocalStore, "create", once)
    ended = run(tmp_path, write_jobs({}, {"id": "b"}))
    assert (ended.done, ended.failed, ended.attempts) == (2, 0, 3) and refused[0].endswith("result.json")
    require_whole(tmp_path / "root", 2, 1)


def test_two_drivers_at_once_do_each_job_once(tmp_path: Path, write_jobs: Write) -> None:
    names = [{"id": f"j{i}"} for i in range(12)]
    first = write_jobs(*names)
    second = write_jobs(*reversed(names), name="other.jsonl")
    both = [driver(tmp_path, first, 1), driver(tmp_path, second, 1)]
    told = [int(process.communicate()[0]) for process in both]
    assert sum(told) == 12
    require_whole(tmp_path / "root", 12)
    assert run(tmp_path, first).committed == 0
