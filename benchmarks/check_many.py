"""How long `maquette check` takes over very many photos, and how much memory.

python -m benchmarks.check_many [--photos 10000] [--side 256] [--folder DIR]

Writes that many small JPEG photos, each another, a third with a caption file, in twenty nested folders, then runs the
command on them in a process of its own and prints its time and the most memory it held.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image


def write_photos(folder: Path, count: int, side: int) -> None:
    """Soft random colours under sharp random lines: no two alike, none blurred or of one colour."""
    random = np.random.default_rng(0)
    for number in range(count):
        part = folder / f"part {number % 20:02}"
        part.mkdir(parents=True, exist_ok=True)
        height = side * 3 // 4
        soft = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((side, height))
        pixels = np.array(soft)
        for _ in range(6):
            row, column = int(random.integers(height - 4)), int(random.integers(side - 4))
            pixels[row : row + 3] = random.integers(0, 256, 3)
            pixels[:, column : column + 3] = random.integers(0, 256, 3)
        Image.fromarray(pixels).save(part / f"photo {number:05}.jpg", quality=85)
        if number % 3 == 0:
            (part / f"photo {number:05}.txt").write_text(f"ohwx man, scene {number % 17}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--folder", type=Path, help="Photos of an earlier call are used again.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary) / "photos"
        if not folder.exists():
            write_photos(folder, args.photos, args.side)
        command = [sys.executable, "-m", "maquette", "check", str(folder), "--subject", "ohwx man", "--json"]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
    if done.returncode != 0:
        sys.exit(done.stderr)
    found = json.loads(done.stdout)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
    print(f"{date.today()}, {os.cpu_count()} CPUs")
    print(f"{found['images']} photos of {args.side} x {args.side * 3 // 4}, {len(found['problems'])} findings")
    print(f"{seconds:.1f} s, {most / 1e6:.0f} MB at most")


if __name__ == "__main__":
    main()
