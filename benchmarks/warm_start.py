"""How long a training takes until its first step: as a process of its own, and as the second job of a warm one.

    python -m benchmarks.warm_start

Both in turns, without the step itself. Photos were encoded before, as `maquette fleet` has it done beside a training;
--new: nobody has. --fleet: the warm jobs are those of a worker of the fleet, each with photos of its own, from its turn
on. --ahead: instead, seconds per job of jobs whose photos are new, encoded by themselves or in a thread while the job
before trains.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.start_up import first_step
from maquette.config import TrainConfig
from maquette.events import Cancel, Event, Listener
from maquette.fleet.records import Outcome, Task
from maquette.fleet.trainer import Trained, WarmFleetTrainer
from maquette.fleet.worker import Belt, Worker
from maquette.training.warm import WarmTrainer

PHOTOS = 14
BATCH, STEPS = 4, 20  # of a job of the fleet, so that there is time to prepare the next one


def drawn(folder: Path, seed: int, side: int) -> Path:
    """Photos of noise, others for every seed."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(PHOTOS):
        pixels = random.integers(0, 255, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def first_warm_step(trainer: WarmTrainer, photos: Path, out: Path, base: str) -> float:
    """Seconds until the first step has been told; then the run is stopped."""
    cancel, seconds, began = Cancel(), 0.0, time.perf_counter()

    def told(event: Event) -> None:
        nonlocal seconds
        if event.kind == "metric" and not cancel.is_set():
            seconds = time.perf_counter() - began
            cancel.set()

    keys = {"photos": photos, "subject": "zkw robot", "out": out, "base": base, "sample_prompts": []}
    trainer.run(TrainConfig.parse(keys), told, cancel)
    return seconds


class Timed(WarmFleetTrainer):
    """A fleet's trainer that notes how long after its turn had begun a job makes its first step."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = 0.0  # when it began: told by the belt
        self.starts: list[float] = []

    def train(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
        def told(event: Event) -> None:
            if event.kind == "metric" and event.data["step"] == 1:
                self.starts.append(time.perf_counter() - self.turn - BATCH / event.data["images_per_second"])
            on_event(event)

        return super().train(config, told, cancel)


def starts_in_fleet(folder: Path, jobs: int, base: str, side: int) -> list[float]:
    """Seconds from a job's turn in a worker to its first step; each has photos of its own. Not of the first job."""
    ended: list[Outcome] = []
    worker = Worker("benchmarks.warm_start:Timed", "node", "worker")
    trainer: Any = worker.trainer
    belt = Belt(worker, ended.append, lambda numbers: setattr(trainer, "turn", time.perf_counter()))
    tasks = []
    for number in range(jobs + 1):
        photos = drawn(folder / f"fleet-{number}", 1000 + number, side)
        settings = {"subject": "zkw robot", "base": base, "sample_prompts": [], "choose": False, "steps": STEPS}
        body = json.dumps({"photos": str(photos), "settings": {**settings, "batch_size": BATCH}, "then": []})
        tasks.append(Task(number, "default", f"j{number}", "row", "mark", body, str(folder / "store")))
    belt.put(tasks)
    belt.put(None)
    belt.train()
    assert [outcome.state for outcome in ended] == ["committed"] * len(tasks), ended
    return list(trainer.starts[1:])


def of_step(run: Path) -> float:
    """Seconds that the first step took by itself."""
    lines = map(json.loads, (run / "events.jsonl").read_text("utf-8").splitlines())
    told = next(line for line in lines if line.get("kind") == "metric")
    batch = TrainConfig.read(run / "run.toml").batch_size or 1
    return batch / float(told.get("data", told)["images_per_second"])


def per_job(folder: Path, jobs: int, steps: int, side: int, ahead: bool) -> float:
    """Seconds for each of several jobs with photos of their own, one after another."""
    trainer, cache = WarmTrainer(), folder / "cache"
    keys = {"subject": "zkw robot", "sample_prompts": [], "steps": steps, "choose": False}
    photos = [drawn(folder / f"photos-{number}", number, side) for number in range(jobs + 1)]
    configs = [TrainConfig.parse(keys | {"photos": p, "out": folder / f"run-{p.name}"}) for p in photos]
    trainer.run(configs.pop(), cache=cache)
    began = time.perf_counter()
    for number, config in enumerate(configs):
        beside = threading.Thread(target=trainer.encode, args=(configs[min(number + 1, jobs - 1)], cache))
        if ahead:
            beside.start()
        trainer.run(config, cache=cache)
        if ahead:
            beside.join()
    return (time.perf_counter() - began) / jobs


def compare_ahead(side: int, repeats: int) -> None:
    """Print what encoding ahead saves."""
    print("| photos | seconds per job of 50 steps |\n|---|---|")
    for ahead in (False, True):
        found = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as name:
                found.append(per_job(Path(name), 5, 50, side, ahead))
        print(f"| encoded {'ahead' if ahead else 'by the job'} | {statistics.median(found):.2f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--base", default="pocket")
    parser.add_argument("--side", type=int, default=96, help="pixels of a photo's side")
    parser.add_argument("--new", action="store_true", help="photos that nobody has encoded before")
    parser.add_argument("--fleet", action="store_true", help="the warm job is one of a worker of the fleet")
    parser.add_argument("--ahead", action="store_true", help="measure encoding ahead instead")
    arguments = parser.parse_args()
    if arguments.ahead:
        compare_ahead(arguments.side, arguments.repeats)
        return
    cold, warm = [], []
    with tempfile.TemporaryDirectory() as name:
        folder, trainer = Path(name), WarmTrainer()
        options = ["--base", arguments.base, "--set", "sample_prompts=[]"]
        for number in range(arguments.repeats + 1):
            seed = 2 * number if arguments.new else 0
            photos = [folder / f"photos-{seed + i * arguments.new}" for i in range(2)]
            for place in set(photos):
                if not place.exists():
                    drawn(place, int(place.name.rpartition("-")[2]), arguments.side)
            runs = folder / f"cold-{number}", folder / f"warm-{number}"
            cold.append(first_step(photos[0], runs[0], options) - of_step(runs[0]))
            if not arguments.fleet:
                warm.append(first_warm_step(trainer, photos[1], runs[1], arguments.base) - of_step(runs[1]))
        if arguments.fleet:
            warm = starts_in_fleet(folder, arguments.repeats + 1, arguments.base, arguments.side)
    print("| start | median | least to most |\n|---|---|---|")
    for kind, seconds in (("a process", cold[1:]), ("a warm job", warm[1:])):  # the first of each warms up
        print(f"| {kind} | {statistics.median(seconds):.2f} s | {min(seconds):.2f} to {max(seconds):.2f} s |")
    print(
        f"\nA warm job starts in {statistics.median(warm[1:]) / statistics.median(cold[1:]):.3f} of a process's time."
    )


if __name__ == "__main__":
    main()
