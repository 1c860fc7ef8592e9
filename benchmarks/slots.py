"""Several subjects at once: N runs in slots of one network, one after another, and as N processes side by side.

    python -m benchmarks.slots [--slots 1 2 4] [--batch 1] [--base FILE --resolution 512] [--device cuda]

Images per second and processor time per image, of the steps alone and of all runs together; the ways are taken in
turns, each in a process of its own. On a machine that others use too only the processor time means anything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.warm_start import drawn
from maquette.config import TrainConfig
from maquette.events import Event
from maquette.training.slots import train_together
from maquette.training.train_result import TrainResult
from maquette.training.warm import WarmTrainer

Keys = dict[str, Any]
Speed = tuple[float, float]
"""Images per second, and seconds of processor time per image."""


def configurations(keys: Keys, count: int) -> list[TrainConfig]:
    return [TrainConfig.parse(keys | {"seed": i, "out": f"{keys['out']}/{i}"}) for i in range(count)]


class Meter:
    """Listens to a run: when its first and its last step were told, by the clock and by the processor's."""

    def __init__(self) -> None:
        self.told: list[tuple[float, float]] = []

    def __call__(self, event: Event) -> None:
        if event.kind == "metric":
            self.told.append((time.perf_counter(), time.process_time()))


def spent(meters: Sequence[Meter], batch: int) -> Speed:
    """Of runs side by side in this process, between the first step and the last."""
    images = sum(len(meter.told) - 1 for meter in meters) * batch
    began, ended = min(meter.told[0] for meter in meters), max(meter.told[-1] for meter in meters)
    return images / (ended[0] - began[0]), (ended[1] - began[1]) / images


def one_after_another(keys: Keys, count: int) -> Speed:
    trainer, found = WarmTrainer(), []
    for config in configurations(keys, count):
        meter = Meter()
        trainer.run(config, meter)
        found.append(spent([meter], config.batch_size or 1))
    return statistics.mean(speed for speed, _ in found), statistics.mean(seconds for _, seconds in found)


def in_slots(keys: Keys, count: int) -> Speed:
    meters = [Meter() for _ in range(count)]
    results = train_together(configurations(keys, count), count, meters)
    assert all(isinstance(result, TrainResult) for result in results), results
    return spent(meters, keys["batch_size"])


def in_a_process(way: str, keys: Keys, count: int) -> Speed:
    return told(started(way, keys, count))


def in_processes(keys: Keys, count: int) -> Speed:
    each = [keys | {"out": f"{keys['out']}/process-{i}"} for i in range(count)]
    found = [told(child) for child in [started("one after another", one, 1) for one in each]]
    return sum(speed for speed, _ in found), statistics.mean(seconds for _, seconds in found)


WAYS: dict[str, Callable[[Keys, int], Speed]] = {"one after another": one_after_another, "slots": in_slots}
WHOLE: dict[str, Callable[[Keys, int], Speed]] = {
    "one after another": partial(in_a_process, "one after another"),
    "slots": partial(in_a_process, "slots"),
    "processes": in_processes,
}


def started(way: str, keys: Keys, count: int) -> subprocess.Popen[str]:
    """A process that measures one way."""
    words = [sys.executable, "-m", "benchmarks.slots", "--child", way, json.dumps(keys), str(count)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(child: subprocess.Popen[str]) -> Speed:
    out, error = child.communicate()
    if child.returncode:
        raise SystemExit(error)
    speed, seconds = json.loads(out.splitlines()[-1])
    return speed, seconds


def measured(arguments: argparse.Namespace, counts: Sequence[int]) -> dict[tuple[str, int], list[Speed]]:
    found: dict[tuple[str, int], list[Speed]] = {}
    with tempfile.TemporaryDirectory() as name:
        photos = drawn(Path(name) / "photos", 0, arguments.resolution or 64)
        keys: Keys = {
            "photos": str(photos), "subject": "zkw robot", "base": arguments.base, "device": arguments.device,
            "batch_size": arguments.batch, "steps": arguments.steps, "sample_prompts": [], "choose": False,
            "probe_prediction": False, "save_every_steps": arguments.steps, "dtype": arguments.dtype,
        }  # fmt: skip
        keys |= {"resolution": arguments.resolution} if arguments.resolution else {}
        for turn in range(arguments.repeats):
            for count in counts:
                for way in WHOLE:
                    if way == "processes" and count == 1:
                        continue
                    out = {"out": f"{name}/{turn}-{count}-{way.replace(' ', '-')}"}
                    found.setdefault((way, count), []).append(WHOLE[way](keys | out, count))
                    print(way, count, found[way, count][-1], file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(WAYS[sys.argv[2]](json.loads(sys.argv[3]), int(sys.argv[4]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--base", default="pocket")
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32")
    arguments = parser.parse_args()
    found = measured(arguments, arguments.slots)
    print("| runs | way | images/s | processor time per image | of that one after another |\n|---|---|---|---|---|")
    for (way, count), both in found.items():
        speed, seconds = (statistics.median(numbers) for numbers in zip(*both, strict=True))
        share = seconds / statistics.median(seconds for _, seconds in found["one after another", count])
        print(f"| {count} | {way} | {speed:.2f} | {seconds:.4f} s | {share:.2f} |")


if __name__ == "__main__":
    main()
