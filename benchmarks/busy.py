"""Training steps a second on an idle and a busy machine: threads that wait asleep, or spinning, or one thread alone.

    python -m benchmarks.busy                                 # beside 0, 1 and 3 busy processes; ten minutes
    python -m benchmarks.busy --busy 1 --turns 8              # shorter
    python -m benchmarks.busy --spin 1000 100000              # and threads that spin so often before they sleep

A step is the product's own on the pocket base (`Job.gradients`, clipping, AdamW). Each way is a process of its own,
and they take turns of some seconds, so that whatever else the machine does falls on all alike; a busy process is a
Python loop of one thread. Figures: the median of the turns, the quickest of them, and the median of the ratios within a
turn. Load is the system's average over the minute before a row, from which whoever reads can tell how idle it was.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

WARM_UP = 3  # steps
OURS, ONE, THEIRS = "maquette", "maquette with one thread", "PyTorch"
RESTLESS = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"


def work(folder: Path) -> None:
    """A process that steps for as many seconds as it reads from each line, and answers how many steps a second."""
    import numpy as np
    from PIL import Image

    from maquette.config import TrainConfig
    from maquette.training import optim
    from maquette.training import preparing as training

    photos = folder / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / "0.png")
    values = {"photos": photos, "subject": "zkw disc", "batch_size": 1, "steps": 1000, "sample_prompts": []}
    job = training.prepare(TrainConfig.parse(values | {"dtype": "fp32"}), folder / "cache", lambda *_: None)

    def step(number: int) -> None:
        job.optimizer.zero_grad(set_to_none=True)
        job.gradients(number)
        optim.optimizer_step(job.optimizer, job.parameters, optim.gradient_norm(job.parameters), 1.0)

    for number in range(WARM_UP):
        step(number)
    print(json.dumps(0), flush=True)
    for line in sys.stdin:
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < float(line):
            step(count)
            count += 1
        print(json.dumps(count / (time.perf_counter() - began)), flush=True)


class Contestant:
    """A process with one way of waiting."""

    def __init__(self, name: str, folder: Path) -> None:
        from maquette.openmp import SETTINGS

        environment = {key: value for key, value in os.environ.items() if key not in SETTINGS}
        if name == ONE:
            environment["OMP_NUM_THREADS"] = "1"
        elif name not in (OURS, THEIRS):
            environment["GOMP_SPINCOUNT"] = name
        first = "import torch; " if name == THEIRS else ""  # then maquette leaves everything as it comes
        folder.mkdir()
        program = f"{first}from benchmarks.busy import work; from pathlib import Path; work(Path({str(folder)!r}))"
        command = [sys.executable, "-c", program]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def _answer(self) -> float:
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return float(json.loads(line))
        raise SystemExit("a contestant ended early")

    def turn(self, seconds: float) -> float:
        """Steps a second."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Within the block, so many processes that never rest; they end with this one, however it ends."""
    processes = [subprocess.Popen([sys.executable, "-c", RESTLESS]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def row(count: int, contestants: dict[str, Contestant], options: argparse.Namespace) -> str:
    """A line of the table."""
    load = os.getloadavg()[0]
    found: dict[str, list[float]] = {name: [] for name in contestants}
    with busy(count):
        for _ in range(options.turns):
            for name, contestant in contestants.items():
                found[name].append(contestant.turn(options.seconds))
    cells = [f"{statistics.median(rates):.3g} ({max(rates):.3g})" for rates in found.values()]
    ratios = [
        statistics.median(mine / theirs for mine, theirs in zip(rates, found[THEIRS], strict=True))
        for name, rates in found.items()
        if name != THEIRS
    ]
    return " | ".join(["", str(count), f"{load:.1f}", *cells, *(f"**{ratio:.2f}**" for ratio in ratios), ""]).strip()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 3], help="busy processes beside, row by row")
    parser.add_argument("--spin", nargs="+", default=[], metavar="N", help="further ways: GOMP_SPINCOUNT=N")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=4, help="of a turn")
    options: Any = parser.parse_args()
    names = [THEIRS, OURS, ONE, *options.spin]
    with tempfile.TemporaryDirectory() as folder:
        contestants = {name: Contestant(name, Path(folder) / name) for name in names}
        threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
        print(f"{date.today()}, {threads} threads, {options.turns} turns of {options.seconds:g} s, steps a second\n")
        others = names[1:]
        print(f"| busy processes | load | {' | '.join([*names, *(f'{name} is times faster' for name in others)])} |")
        print(f"|{'---|' * (2 + len(names) + len(others))}", flush=True)
        for count in options.busy:
            print(row(count, contestants, options), flush=True)
        for contestant in contestants.values():
            contestant.end()


if __name__ == "__main__":
    main()
