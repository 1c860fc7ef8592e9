"""Real trainings on pocket: the fleet's LoRAs are those of `maquette train`, byte for byte, on processes and on Ray."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maquette.config import TrainConfig
from maquette.config.fleet import FleetConfig
from maquette.demo.mascot import photo
from maquette.fleet import driving
from maquette.fleet.executor import Executor
from maquette.fleet.tally import RunResult

SHARED: dict[str, Any] = {"steps": 2, "rank": 2, "batch_size": 1, "sample_prompts": [], "choose": False}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of two photos."""
    root = tmp_path_factory.mktemp("photos")
    for folder, first in (("a", 0), ("b", 4)):
        (root / folder).mkdir()
        for number in range(2):
            photo(first + number).resize((96, 96)).save(root / folder / f"{number}.png")
    return root


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps({"subject": "zkw robot", **SHARED, **row}) + "\n" for row in rows))
    return file


def loras(root: Path) -> dict[str, bytes]:
    found = {}
    for result in root.glob("runs/*/*/*/result.json"):
        told = json.loads(result.read_bytes())
        assert told["status"] == "done", told
        found[told["job"]] = (result.parent / "attempts" / told["attempt"] / "lora.safetensors").read_bytes()
    return found


def test_two_jobs_are_those_of_train(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from maquette.stages import train

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rows = [{"id": "a", "photos": str(photos / "a")}, {"id": "b", "photos": str(photos / "b"), "seed": 3}]
    jobs = write(tmp_path / "jobs.jsonl", rows)
    ended = driving.run(FleetConfig(jobs=jobs, root=str(tmp_path / "root")))
    assert ended.done == 2, ended.problems
    found = loras(tmp_path / "root")
    row = dict(rows[1], subject="zkw robot", out=str(tmp_path / "alone" / "lora"), **SHARED)
    del row["id"]
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = train.run(TrainConfig.parse(row))
    finally:
        torch.set_num_threads(threads)
    assert alone.file is not None and found["b"] == Path(alone.file).read_bytes()
    assert found["a"] != found["b"]
    for word in (str(photos).encode(), b"0.png", str(tmp_path).encode()):
        assert word not in found["b"]
    for name in ("result.json", "results"):
        for file in (tmp_path / "root").rglob(f"*{name}*"):
            assert not file.is_file() or str(photos).encode() not in file.read_bytes()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray cluster on this machine, in a folder with a short name: its sockets allow no long ones."""
    ray = pytest.importorskip("ray")
    folder = Path(tempfile.mkdtemp(prefix="mq", dir="/tmp"))
    before = {key: os.environ.get(key) for key in ("RAY_TMPDIR", "RAY_USAGE_STATS_ENABLED", "PYTHONPATH")}
    here = str(Path(__file__).parent)
    os.environ |= {"RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, before["PYTHONPATH"]]))
    ray.init(
        "local", num_cpus=2, include_dashboard=False, object_store_memory=200_000_000, _node_ip_address="127.0.0.1",
        log_to_driver=False, logging_level="error",
    )  # fmt: skip
    yield
    ray.shutdown()
    for key, value in before.items():
        os.environ.pop(key) if value is None else os.environ.update({key: value})
    shutil.rmtree(folder, ignore_errors=True)


def on_ray(trainer: str | None = None) -> Executor:
    from maquette.fleet.on_ray import RayExecutor

    return RayExecutor("auto", 2, trainer) if trainer else RayExecutor("auto", 2)


def test_ray_runs_the_same_driver(cluster: None, tmp_path: Path) -> None:
    """With the trainer that takes no time: results, a death on the way, a cancelled drain."""
    rows: list[dict[str, Any]] = []
    for number, word in enumerate(["zkw", "nan", "zkw", "die", "zkw"]):
        folder = tmp_path / f"p{number}"
        folder.mkdir()
        (folder / "a.png").write_bytes(bytes([number]))
        rows.append({"id": word + str(number), "photos": str(folder), "subject": f"{word} thing"})
    jobs = write(tmp_path / "jobs.jsonl", rows)
    config = FleetConfig(jobs=jobs, root=str(tmp_path / "root"), attempts=2)
    ended = driving.run(config, executor=on_ray("fleet_fakes:FakeTrainer"))
    # A job beside the dying one may have its result before its actor is gone: its second attempt finds it, "known".
    assert (ended.done + ended.known, ended.failed, ended.attempts) == (3, 2, 6), ended.problems
    results = {told["job"]: told for told in (json.loads(f.read_bytes()) for f in tmp_path.rglob("result.json"))}
    assert results["die3"]["kind"] == "machine" and "is gone" in results["die3"]["message"]
    session = json.loads(next((tmp_path / "root" / "sessions").iterdir()).read_bytes())
    assert len(session["workers"]) >= 4  # two died
    assert driving.run(config, executor=on_ray()).committed == 0


@pytest.mark.heavy
def test_actors_group_jobs_in_slots(cluster: None, tmp_path: Path) -> None:
    """With the trainer that takes no time: groups of two, of which one dies with its worker and is tried again."""
    from maquette.fleet.on_ray import RayExecutor

    rows: list[dict[str, Any]] = []
    for number, word in enumerate(["zkw", "nan", "zkw", "die", "zkw", "zkw"]):
        folder = tmp_path / f"p{number}"
        folder.mkdir()
        (folder / "a.png").write_bytes(bytes([number]))
        rows.append({"id": word + str(number), "photos": str(folder), "subject": f"{word} thing"})
    config = FleetConfig(jobs=write(tmp_path / "jobs.jsonl", rows), root=str(tmp_path / "root"), attempts=9)
    ended = driving.run(config, executor=RayExecutor("auto", 1, "fleet_fakes:FakeTrainer", slots=2))
    assert (ended.done + ended.known, ended.failed) == (4, 2), ended.problems
    results = {told["job"]: told for told in (json.loads(f.read_bytes()) for f in tmp_path.rglob("result.json"))}
    assert (results["zkw0"]["slots"], results["nan1"]["slots"], results["nan1"]["kind"]) == (2, 2, "nan")
    assert results["die3"]["kind"] == "poison"


MIXED: list[dict[str, Any]] = [
    {}, {"seed": 1}, {"method": "locon"}, {"method": "dora"}, {"method": "loha"}, {"method": "lokr"},
    {"method": "textual-inversion", "rank": 16}, {"method": "pivotal"}, {"text_encoder": True},
    {"optimizer": "lion"}, {"ema_decay": 0.9}, {"batch_size": 2},
]  # fmt: skip


@pytest.mark.heavy
def test_twelve_jobs_on_ray_and_on_processes_are_the_same_bytes(cluster: None, photos: Path, tmp_path: Path) -> None:
    """Also submitted twice, in another order, and by two drivers at once: twelve commits each time."""
    both = str(tmp_path / "both")
    rows = [{"id": f"j{n}", "photos": str(photos / "ab"[n % 2]), **row} for n, row in enumerate(MIXED)]
    first, second = write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", rows[::-1])
    there = driving.run(FleetConfig(jobs=first, root=str(tmp_path / "ray")), executor=on_ray())
    here = driving.run(FleetConfig(jobs=second, root=str(tmp_path / "local"), workers=2))
    assert there.done == here.done == 12, [*there.problems, *here.problems]
    on_cluster, on_machine = loras(tmp_path / "ray"), loras(tmp_path / "local")
    assert on_cluster.keys() == on_machine.keys() and len(set(on_machine.values())) == 12
    assert [name for name in on_cluster if on_cluster[name] != on_machine[name]] == []
    for jobs in (first, second):  # submitted twice, in another order
        again = driving.run(FleetConfig(jobs=jobs, root=str(tmp_path / "local")))
        assert (again.committed, again.known) == (0, 12)
    told: list[RunResult] = []
    drivers = [
        threading.Thread(target=lambda file: told.append(driving.run(FleetConfig(jobs=file, root=both))), args=(jobs,))
        for jobs in (first, second)
    ]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert sum(one.committed for one in told) == 12 and sum(one.known for one in told) == 12
    assert loras(Path(both)) == on_machine


@pytest.mark.heavy
def test_twelve_jobs_are_those_of_train(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another in one worker, against a call of its own for each."""
    import torch

    from maquette.stages import train

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rows = [{"id": f"j{n}", "photos": str(photos / "ab"[n % 2]), **row} for n, row in enumerate(MIXED)]
    ended = driving.run(FleetConfig(jobs=write(tmp_path / "jobs.jsonl", rows), root=str(tmp_path / "root")))
    assert ended.done == 12, ended.problems
    found = loras(tmp_path / "root")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for row in rows:
            name = str(row.pop("id"))
            whole = {"subject": "zkw robot", **SHARED, **row, "out": str(tmp_path / name / "lora")}
            alone = train.run(TrainConfig.parse(whole))
            assert alone.file is not None and found[name] == Path(alone.file).read_bytes(), name
    finally:
        torch.set_num_threads(threads)
