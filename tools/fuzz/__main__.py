"""python -m tools.fuzz KIND --count 10000 --seed 1: tries so many inputs of a kind and prints what went wrong.

Every input is made from the seed and its number alone, so `--first NUMBER --count 1` tries one again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from . import algebra, runs, weights
from .configurations import json_case, kohya_case, toml_case
from .harness import SECONDS, Case, Outcome, run
from .photos import photo_case
from .texts import caption_case, prompt_case

KINDS: dict[str, Case] = {
    "safetensors": weights.safetensors_case,
    "pickles": weights.pickle_case,
    "algebra": algebra.algebra_case,
    "captions": caption_case,
    "toml": toml_case,
    "json": json_case,
    "kohya": kohya_case,
    "prompts": prompt_case,
    "runs": runs.run_case,
    "photos": photo_case,
}
PREPARE: dict[str, Callable[[], None]] = {
    "safetensors": weights.prepare,
    "pickles": weights.prepare,
    "algebra": algebra.prepare,
    "runs": runs.prepare,
}


def fuzz(kind: str, count: int, seed: int, seconds: float = SECONDS, first: int = 0) -> Outcome:
    """Try `count` inputs of a kind. What is made once in a process is not counted against the first of them."""
    PREPARE.get(kind, lambda: None)()
    return run(KINDS[kind], count, seed, seconds, first)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("kind", choices=[*KINDS, "all"])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the processor's time for one input")
    given = parser.parse_args()
    wrong = 0
    for kind in KINDS if given.kind == "all" else [given.kind]:
        outcome = fuzz(kind, given.count, given.seed, given.seconds, given.first)
        wrong += len(outcome.faults)
        print(
            f"{kind}: {outcome.read} read, {outcome.refused} refused, {len(outcome.faults)} wrong; "
            f"slowest {outcome.slowest:.2f} s"
        )
        for fault in outcome.faults[:20]:
            print(f"  input {fault.number}: {fault.what}\n{fault.trace}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
