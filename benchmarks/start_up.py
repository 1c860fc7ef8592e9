"""How long commands take on the pocket base, in seconds and in units of `python -c "import torch"`, taken in turns.

    python -m benchmarks.start_up

train: until its first step is in the log, photos and captions encoded by a run before. generate: one picture in 20
steps, until its file is written.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .low_rank import random_lora

PHOTOS = 14


def first_step(photos: Path, out: Path, more: Sequence[str] = ()) -> float:
    """Of one run, until the step is in its log; then the run is told to stop. more: further options."""
    command = [sys.executable, "-m", "maquette", "train", str(photos), "--subject", "zkw robot", "--out", str(out)]
    command += more
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


def until_end(*words: str, codes: tuple[int, ...] = (0,)) -> float:
    """Of a program of Python's, which may end with these codes."""
    began = time.perf_counter()
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if ended.returncode not in codes:
        raise SystemExit(ended.stderr)
    return time.perf_counter() - began


def programs(photos: Path, folder: Path) -> dict[str, Callable[[int], float]]:
    """Name -> seconds of the run of this number."""
    command, file = ("-m", "maquette"), str(folder / "pocket")
    return {
        "import torch": lambda _: until_end("-c", "import torch"),
        "check": lambda _: until_end(*command, "check", str(photos), codes=(0, 1)),  # 1: it found something to say
        "inspect": lambda _: until_end(*command, "inspect", "pocket"),
        "inspect a LoRA": lambda _: until_end(*command, "inspect", str(folder / "lora.safetensors")),
        "convert": lambda n: until_end(
            *command, "convert", "pocket", "--to", "single-file", "--out", f"{file}-{n}.safetensors"
        ),
        "generate": lambda n: until_end(*command, "generate", "a red robot", "--out", str(folder / f"drawn-{n}")),
        "train": lambda n: first_step(photos, folder / f"run-{n}"),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=[], help="commands, otherwise all")
    arguments = parser.parse_args()
    repeats = arguments.repeats
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder, photos = Path(name), Path(name) / "photos"
        photos.mkdir()
        for number in range(PHOTOS):
            Image.fromarray(random.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(photos / f"{number}.png")
        random_lora("pocket", 8).save(folder / "lora.safetensors")
        runs = programs(photos, folder)
        runs = {name: run for name, run in runs.items() if name in ("import torch", *(arguments.only or runs))}
        turns = [{name: run(number) for name, run in runs.items()} for number in range(repeats + 1)]
    print("| command | median | least to most | times import torch |\n|---|---|---|---|")
    unit = statistics.median(turn["import torch"] for turn in turns[1:])
    for name in runs:
        seconds = sorted(turn[name] for turn in turns[1:])  # the first warms up
        middle = statistics.median(seconds)
        print(f"| {name} | {middle:.2f} s | {seconds[0]:.2f} to {seconds[-1]:.2f} s | {middle / unit:.2f} |")


if __name__ == "__main__":
    main()
