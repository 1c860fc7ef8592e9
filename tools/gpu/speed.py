"""A training step against other loops, and its memory beside what was computed for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .rows import Rows

# (family, pixels, batch, method, rival), our ways, steps of a turn. The largest comes last.
LINES = [
    (("sd1", 512, 1, "lora", "peft"), "maquette,without-graphs,checkpointing", 10),
    (("sd1", 512, 16, "lora", "peft"), "maquette,without-graphs", 5),
    (("sd1", 512, 1, "loha", "lycoris"), "maquette,without-graphs", 10),
    (("sdxl", 1024, 1, "lokr", "lycoris"), "maquette,without-graphs", 10),
    (("sdxl", 1024, 8, "lora", "peft"), "maquette", 3),
]
TURNS = 3


def steps(device: str, out: Path) -> None:
    """The table's lines in bf16, one by one."""
    rows, folder = Rows("steps", out), out / "step-models"
    narrow = device == "cpu"
    for (family, px, batch, method, rival), ways, turn in LINES:
        if narrow:
            px, batch, turn, ways = 64, min(batch, 2), 1, "maquette"
        command = [
            sys.executable, "-m", "benchmarks.train_step", "--device", device, "--family", family, "--px", str(px),
            "--batch", str(batch), "--dtype", "bf16", "--method", method, "--rival", rival, "--ours", ways,
            "--steps", str(2 if narrow else TURNS), "--turn", str(turn), "--folder", str(folder), "--keep",
            *(["--narrow"] if narrow else []),
        ]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"| {family} ")]
        for line in lines:
            rows.add(table=line)
        rows.add(done.returncode == 0 and bool(lines), line=f"{family} {px} px, batch {batch}, {method}")
    rows.end()


def memory(device: str, out: Path) -> None:
    """Bytes that the tables of docs compute for a step, beside what PyTorch's allocator says it took."""
    from benchmarks.memory import figures

    rows = Rows("memory", out)
    cases = [("sd1", "lora", 512, 1), ("sd1", "lora", 512, 4), ("sdxl", "lora", 1024, 1)]
    for family, method, px, batch in cases[: 1 if device == "cpu" else None]:
        for again in (False, True):
            computed = figures(family, method, px, batch, again)
            estimate = (computed["unet"] + computed["learning"] + computed["step"]) / 1e9
            values = {"base": family, "pixels": px, "batch": batch, "checkpointing": again, "computed_gb": estimate}
            if device == "cpu":
                rows.add(**values)
                continue
            measured = _measured(out / "step-models", family, method, px, batch, again)
            rows.add(abs(measured / estimate - 1) < 0.25, **values, measured_gb=measured)
    rows.end()


def _measured(folder: Path, family: str, method: str, px: int, batch: int, again: bool) -> float:
    """Peak gigabytes of tensors in three steps without recorded passes, in a process of its own."""
    way = "checkpointing" if again else "without-graphs"
    command = [
        sys.executable, "-m", "benchmarks.train_step", "--worker", way, "--device", "cuda", "--family", family,
        "--px", str(px), "--batch", str(batch), "--dtype", "bf16", "--method", method, "--turn", "3",
        "--folder", str(folder),
    ]  # fmt: skip
    done = subprocess.run(command, input="step\n", stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["memory"]) / 1e9
