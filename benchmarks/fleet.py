"""What the fleet costs: the driver's share, planning and status of many rows, warm workers against cold processes.

    python -m benchmarks.fleet plan                  # a million rows
    python -m benchmarks.fleet status                # a hundred thousand results
    python -m benchmarks.fleet driver                # 1,000 jobs of a trainer that waits 0.2 s, on two workers
    python -m benchmarks.fleet warm                  # 20 jobs on pocket: the fleet against 20 × maquette train

Each prints a line of JSON; all numbers of docs/fleet.md are from here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maquette.config import TrainConfig
from maquette.config.fleet import FleetConfig
from maquette.events import Cancel, Event, Listener
from maquette.fleet import driving, index, planning, reporting
from maquette.fleet.records import Result
from maquette.fleet.store import LocalStore
from maquette.fleet.trainer import Judged, Trained

ROWS, FOLDERS = 1_000_000, 1_000
RESULTS = 100_000
JOBS, SECONDS, WORKERS = 1_000, 0.2, 2
WARM_JOBS = 20
TRAINING: dict[str, Any] = {"steps": 2, "rank": 4, "batch_size": 1, "sample_prompts": [], "choose": False}


class Waiting:
    """A trainer that takes a fixed time and no processor."""

    def device(self) -> str:
        return "cpu"

    def versions(self) -> dict[str, str]:
        return {}

    def encode(self, config: TrainConfig, cancel: Cancel) -> None:
        return None

    def train(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
        assert config.out is not None
        cancel.wait(SECONDS)
        config.out.mkdir(parents=True)
        file = config.out / "lora.safetensors"
        file.write_bytes(b"0" * 1000)
        return Trained("finished", str(file), 1, 1, 1.0)

    def resume(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
        return self.train(config, on_event, cancel)

    def evaluate(self, config: TrainConfig, cancel: Cancel) -> Judged:
        return Judged(1, 1.0, True, 1.0)

    def generate(self, config: TrainConfig, pack: dict[str, Any], weight: float, cancel: Cancel) -> None:
        return None


def peak() -> float:
    """The most memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def folders(root: Path, count: int) -> list[str]:
    """Folders of 14 small files."""
    found = []
    for number in range(count):
        folder = root / f"p{number:04d}"
        folder.mkdir()
        for photo in range(14):
            (folder / f"{photo:02d}.png").write_bytes(f"{number} {photo}".encode())
        found.append(str(folder))
    return found


def plan(root: Path) -> dict[str, Any]:
    """A million rows: 1,000 folders of 14 photos, 1,000 seeds each."""
    places = folders(root, FOLDERS)
    jobs = root / "jobs.jsonl"
    with jobs.open("w") as file:
        for number in range(ROWS):
            row = {
                "id": f"j{number}",
                "photos": places[number % FOLDERS],
                "subject": "zkw thing",
                "seed": number // FOLDERS,
            }
            file.write(json.dumps(row) + "\n")
    began, used = time.perf_counter(), time.process_time()
    found = planning.plan(FleetConfig(jobs=jobs, root=str(root / "fleet")))
    seconds, used = time.perf_counter() - began, time.process_time() - used
    assert (found.new, found.invalid) == (ROWS, 0)
    return {
        "rows": ROWS, "seconds": round(seconds, 1), "processor_seconds": round(used, 1), "memory_mb": round(peak()),
    }  # fmt: skip


def status(root: Path) -> dict[str, Any]:
    """A hundred thousand results, as `fleet run` leaves them: an object each, and parts of a thousand."""
    store = LocalStore(root / "fleet")
    parts = index.Parts(store)
    for number in range(RESULTS):
        key = hashlib.sha256(str(number).encode()).hexdigest()[:24]
        result = Result(
            key, "default", f"j{number}", key, key, "done", "01-x", size=6_000_000, steps=100, submitted=1.0,
            started=2.0, finished=3.0, seconds={"prepare": 1.0, "train": 8.0, "upload": 0.1}, cost=0.01, base="pocket",
            accepted=True,
        )  # fmt: skip
        place = root / "fleet" / "runs" / "default" / key[:2] / key
        place.mkdir(parents=True)
        (place / "result.json").write_bytes(result.to_bytes())
        parts.add(json.loads(result.to_bytes()))
    parts.flush()
    submission = planning.Submission(store)
    for number in range(RESULTS):
        key = hashlib.sha256(str(number).encode()).hexdigest()[:24]
        submission.add(planning.Job(f"j{number}", "default", key, key, 5, float("inf"), "pocket", 14, "{}"))
    submission.write()
    began, used = time.perf_counter(), time.process_time()
    found = reporting.status(FleetConfig(root=str(root / "fleet")))
    seconds, used = time.perf_counter() - began, time.process_time() - used
    assert (found.done, found.waiting) == (RESULTS, 0)
    return {
        "results": RESULTS, "seconds": round(seconds, 1), "processor_seconds": round(used, 1),
        "memory_mb": round(peak()),
    }  # fmt: skip


def driver(root: Path) -> dict[str, Any]:
    """1,000 jobs of 0.2 s on two workers: the driver's own processor time as a share, and its memory half way and at
    the end.
    """
    places = folders(root, JOBS)
    jobs = root / "jobs.jsonl"
    jobs.write_text("".join(json.dumps({"photos": place, "subject": "zkw thing"}) + "\n" for place in places))
    half: list[float] = []

    def listen(event: Event) -> None:
        if event.kind == "progress" and event.data["done"] == JOBS // 2:
            half.append(peak())

    began, used = time.perf_counter(), time.process_time()
    config = FleetConfig(jobs=jobs, root=str(root / "fleet"), workers=WORKERS)
    ended = driving.run(config, listen, trainer="benchmarks.fleet:Waiting")
    seconds, used = time.perf_counter() - began, time.process_time() - used
    assert ended.done == JOBS
    return {
        "jobs": JOBS, "seconds": round(seconds, 1), "ideal_seconds": JOBS * SECONDS / WORKERS,
        "driver_cpu_seconds": round(used, 2), "driver_share": round(used / seconds, 4),
        "memory_mb_half_way": round(half[0]), "memory_mb_at_the_end": round(peak()),
    }  # fmt: skip


def warm(root: Path) -> dict[str, Any]:
    """20 jobs on pocket by the fleet's one worker, and by 20 processes of `maquette train`: seconds, equal files."""
    from maquette.demo.mascot import photo

    (root / "photos").mkdir()
    for number in range(3):
        photo(number).resize((96, 96)).save(root / "photos" / f"{number}.png")
    rows = [{"id": f"j{n}", "photos": str(root / "photos"), "subject": "zkw robot", "seed": n, **TRAINING}
            for n in range(WARM_JOBS)]  # fmt: skip
    (root / "jobs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    began = time.perf_counter()
    ended = driving.run(FleetConfig(jobs=root / "jobs.jsonl", root=str(root / "fleet")))
    fleet = time.perf_counter() - began
    assert ended.done == WARM_JOBS, ended.problems
    began = time.perf_counter()
    for row in rows:
        settings = {key: value for key, value in row.items() if key != "id"} | {
            "out": str(root / str(row["id"]) / "lora")
        }
        (root / f"{row['id']}.toml").write_text(TrainConfig.parse(settings).to_toml())
        words = [sys.executable, "-m", "maquette", "train", "--config", str(root / f"{row['id']}.toml")]
        subprocess.run(words, check=True, capture_output=True)
    processes = time.perf_counter() - began
    equal = 0
    for file in (root / "fleet").glob("runs/*/*/*/result.json"):
        told = json.loads(file.read_bytes())
        alone = root / told["job"] / "lora" / "lora.safetensors"
        equal += (file.parent / "attempts" / told["attempt"] / "lora.safetensors").read_bytes() == alone.read_bytes()
    return {
        "jobs": WARM_JOBS, "fleet_seconds": round(fleet, 1), "processes_seconds": round(processes, 1),
        "times": round(processes / fleet, 2), "equal_files": equal,
    }  # fmt: skip


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {"plan": plan, "status": status, "driver": driver, "warm": warm}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    part = parser.parse_args().part
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as root:
        print(json.dumps({"part": part, "load": os.getloadavg()[0], **PARTS[part](Path(root))}))


if __name__ == "__main__":
    main()
