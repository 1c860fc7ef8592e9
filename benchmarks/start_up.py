"""Seconds from `maquette train` to its first step on the pocket base, photos and captions encoded by a run before.

python -m benchmarks.start_up
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOS = 14


def first_step(photos: Path, out: Path) -> float:
    """Of one run, until the step is in its log; then the run is told to stop."""
    command = [sys.executable, "-m", "maquette", "train", str(photos), "--subject", "zkw robot", "--out", str(out)]
    log, began = out / "metrics.jsonl", time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (log.exists() and log.read_text("utf-8").count("\n")):
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        process.terminate()
        error = process.stderr.read().decode() if process.stderr else ""
    if not log.exists():
        raise SystemExit(error)
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        for number in range(PHOTOS):
            Image.fromarray(random.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(photos / f"{number}.png")
        seconds = [first_step(photos, Path(folder) / f"run-{number}") for number in range(repeats + 1)]
    warm = sorted(seconds[1:])
    print(f"first run {seconds[0]:.1f} s; after it {statistics.median(warm):.1f} s ({warm[0]:.1f} to {warm[-1]:.1f})")


if __name__ == "__main__":
    main()
