"""python -m tools.gpu --out DIR: everything that is to be known of a graphics card, in less than eight minutes.

Every part is a process of its own with a time limit, so that one that dies or hangs leaves the others. It prints as it
goes and writes its rows to DIR/PART.json; the end says which parts passed. `--rehearse` does all of it on the CPU, with
narrow networks in place of full-size ones. Exit code 1 when a part failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from .parts import PARTS

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Run the parts that were asked for, in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the rows and logs")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with narrow networks")
    parser.add_argument("--only", help=f"some of {', '.join(PARTS)}, with commas")
    parser.add_argument(
        "--seconds", type=float, default=460, help="of all parts together; what does not fit is left out"
    )
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    device = "cpu" if options.rehearse else "cuda"
    if options.part:
        PARTS[options.part].run(device, options.out)
        return
    wanted = options.only.split(",") if options.only else list(PARTS)
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    began, failed = time.monotonic(), []
    for name in wanted:
        left = options.seconds - (time.monotonic() - began)
        limit = left if options.rehearse else min(left, PARTS[name].limit)
        print(f"\n## {name}: {PARTS[name].what} (at {time.monotonic() - began:.0f} s)", flush=True)
        outcome = _run(name, options, limit) if left > 10 else "left out: no time"
        print(f"-> {name} {outcome}", flush=True)
        if outcome != "passed":
            failed.append(f"{name} {outcome}")
    print(
        f"\n{time.monotonic() - began:.0f} s in all; {'; '.join(failed) if failed else 'every part passed'}", flush=True
    )
    sys.exit(1 if failed else 0)


def _run(name: str, options: argparse.Namespace, limit: float) -> str:
    """Run a part in a process of its own. Returns "passed" or what went wrong."""
    command = [sys.executable, "-m", "tools.gpu", "--part", name, "--out", str(options.out)]
    process = subprocess.Popen(
        [*command, *(["--rehearse"] if options.rehearse else [])], cwd=ROOT, start_new_session=True
    )
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)  # with the contestants that it started
        process.wait()
        return f"ran past its {limit:.0f} s"
    return "passed" if code == 0 else f"failed (exit code {code})"


if __name__ == "__main__":
    main()
