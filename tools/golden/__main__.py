"""python -m tools.golden [record | compare]: short runs of everything, and whether they still write the same bytes.

Without a word: record where nothing is recorded for this machine, else compare. Exit code 1 when something differs,
with a line for each difference. A record belongs to a machine, that is a processor, a version of torch and one of each
package that computes; its name in the folder of records says which.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

THREADS = "1"
_PACKAGES = ("torch", "diffusers", "transformers", "numpy", "pillow", "tokenizers", "safetensors", "pytorch-optimizer")


def main() -> int:
    """Record or compare, as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("record", "compare"), help="without: whichever there is to do")
    parser.add_argument("--records", type=Path, default=Path("out/golden"), help="folder of the records")
    parser.add_argument("--keep", type=Path, help="leave everything that was written in this new folder")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = THREADS
    machine = describe()
    file = options.records.resolve() / f"{name_of(machine)}.json"
    what = options.what or ("compare" if file.exists() else "record")
    if what == "compare" and not file.exists():
        print(f"Nothing is recorded for this machine ({file}); record first.", file=sys.stderr)
        return 1
    began = time.monotonic()
    found = run(options.keep)
    took = f"{time.monotonic() - began:.0f} s"
    if what == "record":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"machine": machine, "commit": commit(), "found": found}, indent=1) + "\n")
        print(f"{len(found)} results recorded in {took}: {file}")
        return 0
    return report(json.loads(file.read_text()), found, took)


def report(record: dict[str, Any], found: dict[str, Any], took: str) -> int:
    """Print how what was found differs from the record. Returns the exit code."""
    from .fingerprint import differences

    lines = differences(record["found"], found)
    for line in lines:
        print(line)
    same = sum(record["found"].get(name) == value for name, value in found.items())
    print(f"{same} of {len(found)} results are as at {record['commit']}, in {took}.")
    return 1 if lines else 0


def run(keep: Path | None) -> dict[str, Any]:
    """Do all cases in a work folder; returns what they found."""
    import torch

    from .cases import CASES, Bench

    torch.set_num_threads(int(THREADS))
    if keep is not None:
        keep.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="golden-") as temporary:
        bench = Bench((keep or Path(temporary)).resolve())
        os.environ["PYTHONPATH"] = _search_path()
        os.chdir(bench.root)
        try:
            for name, case in CASES.items():
                began = time.monotonic()
                case(bench)
                print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        finally:
            os.chdir(tempfile.gettempdir())
    return bench.found


def _search_path() -> str:
    """PYTHONPATH by which a child process finds the same maquette."""
    import maquette

    return str(Path(str(maquette.__file__)).resolve().parents[1])


def describe() -> dict[str, str]:
    """What decides the last digits: processor, instructions, versions of the packages that compute."""
    import torch

    machine = {name: version(name) for name in _PACKAGES}
    machine |= {"processor": _processor(), "instructions": torch.backends.cpu.get_cpu_capability()}
    return machine | {"system": platform.system(), "python": platform.python_version(), "threads": THREADS}


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def name_of(machine: dict[str, str]) -> str:
    """A file name that two machines share only if their results must be the same."""
    import hashlib

    digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()
    return f"{machine['torch'].partition('+')[0]}-{digest[:10]}"


def commit() -> str:
    """The commit of the tree under test."""
    tree = _search_path()
    asked = subprocess.run(["git", "-C", tree, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return asked.stdout.strip() or "an unknown commit"


if __name__ == "__main__":
    sys.exit(main())
