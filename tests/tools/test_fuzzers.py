"""The fuzzer: a few hundred inputs of each kind in every run of the tests, ten thousand in `make test-all`."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from maquette.errors import MaquetteError
from tools.fuzz import harness
from tools.fuzz.__main__ import KINDS, fuzz

FEW = {"runs": 40, "algebra": 60}  # each costs as much as a hundred of the others


def told(outcome: harness.Outcome) -> str:
    return "\n".join(f"input {fault.number}: {fault.what}\n{fault.trace}" for fault in outcome.faults[:5])


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_hundred(kind: str) -> None:
    outcome = fuzz(kind, FEW.get(kind, 200), seed=1)
    assert not outcome.faults, told(outcome)
    assert outcome.read >= 2 and outcome.refused >= 2, "inputs that are all refused, or none, try little"


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand(kind: str) -> None:
    outcome = fuzz(kind, 10_000, seed=2)
    assert not outcome.faults, told(outcome)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"runs"}))
def test_an_input_is_made_from_its_seed_and_number_alone(kind: str, tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        KINDS[kind](random.Random("1/17"), tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        made.append([(path.name, path.read_bytes()) for path in files])
    assert made[0] == made[1]


def looping() -> None:
    while True:
        pass


def hogging() -> None:
    bytearray(b"x") * 1_300_000_000


def refusing() -> None:
    raise MaquetteError("x is damaged.")


@pytest.mark.parametrize(
    ("action", "fault"),
    [
        (looping, "Slow: took more than 0.3 s"),
        (hogging, "took 1."),
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: os.system("true"), "did os.system"),
        (lambda: subprocess.run(["true"], check=True), "did subprocess.Popen"),
        (lambda: Path("trap").touch(), "wrote the file trap"),
        (refusing, ""),
        (lambda: None, ""),
    ],
)
def test_the_harness_notes_what_goes_wrong(action: Callable[[], object], fault: str) -> None:
    outcome = harness.run(lambda rng, folder: action, 1, seed=0, seconds=0.3 if action is looping else 5.0)
    found = [one.what for one in outcome.faults]
    assert (found == []) if not fault else (len(found) == 1 and found[0].startswith(fault)), found
