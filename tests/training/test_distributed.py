"""Two processes share a run: the same result as one process with the whole batch."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette import convert
from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.formats import safetensors
from maquette.run_folder import RunFolder
from maquette.stages import train
from maquette.training import state
from maquette.training.distributed import RankRows, require_enough
from tests.training.interrupted import make_photos

HUNG = 1800  # seconds that only what hangs takes, however busy the machine is
VALUES = {
    "subject": "zkw disc", "batch_size": 4, "rank": 2, "dtype": "fp32", "save_dtype": "fp32", "steps": 3,
    "sample_prompts": [], "save_every_steps": 2, "device": "cpu", "keep_state": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("team") / "photos")


def together(*arguments: object) -> list[subprocess.Popen[str]]:
    """Two processes of `maquette train`, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "maquette", "train", *map(str, arguments)],
            env={**common, "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Their standard output; every one must have ended well."""
    told = [process.communicate(timeout=HUNG) for process in processes]
    assert [p.returncode for p in processes] == [0, 0], told
    return [out for out, _ in told]


def write(path: Path, **values: Any) -> Path:
    path.write_text(TrainConfig.parse({**VALUES, **values}).to_toml())
    return path


# Two processes add up a step's gradients in another order than one: a sum of n float32 numbers is then apart by about
# sqrt(n) eps, on a path of some fifty such sums, of up to a thousand numbers each, by about 1e-5 of its size.
ROUNDING = 1e-5
# AdamW steps by about the sign of a gradient, so where a gradient is within its rounding of zero, a share of about
# ROUNDING of all, the steps may be opposite: 2 in their place, the root of the share in the length of all together.
SIGNS = 2 * ROUNDING**0.5
# A loss is the square of what remains between two numbers of size 1, about 1/6 here: rounding weighs 2 * 6 times more.
LOSS = 12 * ROUNDING


def apart(one: Path, other: Path, start: Path | None = None) -> float:
    """Length of the difference of what two runs learned, by the length of that.

    start: the weights that both began from; without, the factors B of LoRAs are compared, which begin from zero.
    """
    a, b = safetensors.load(one), safetensors.load(other)
    assert a.keys() == b.keys()
    keys = [key for key in a if a[key].is_floating_point() and (start is not None or "lora_up" in key)]
    zero = {} if start is None else safetensors.load(start)
    return length(a, b, keys) / length(a, zero, keys)


def length(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], keys: Iterable[str]) -> float:
    """Of a - b, all tensors as one vector; those that b does not have are zero."""
    squares = [(a[key].double() - (b[key].double() if key in b else 0)).square().sum() for key in keys]
    assert squares
    return float(sum(squares)) ** 0.5


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base as a file with the names that a trained model has."""
    path = tmp_path_factory.mktemp("start") / "pocket.safetensors"
    convert("pocket", "single-file", path, dtype="fp32")
    return path


CASES = [
    pytest.param({"prior_preservation": True, "optimizer": "sgd", "learning_rate": 0.05}, id="lora"),
    pytest.param({"method": "dreambooth", "learning_rate": 1e-6, "steps": 2}, id="dreambooth", marks=pytest.mark.heavy),
]


@pytest.mark.parametrize("changes", CASES)
def test_two_processes_make_what_one_makes_with_the_whole_batch(
    changes: dict[str, Any], photos: Path, start: Path, tmp_path: Path
) -> None:
    values = {**changes, "photos": photos}
    shared = write(tmp_path / "two.toml", **values, out=tmp_path / "two/disc")
    told = finish(together("--config", shared, "--json"))
    assert json.loads(told[0])["status"] == "finished" and told[1] == ""  # only the first one speaks
    train.run(TrainConfig.parse({**VALUES, **values, "out": tmp_path / "one/disc"}))
    files = [sorted(str(p.relative_to(tmp_path / n)) for p in (tmp_path / n).rglob("*.*")) for n in ("one", "two")]
    assert files[0] == files[1]  # no file more than one process writes
    whole, adamw = changes.get("method") == "dreambooth", "optimizer" not in changes
    made = [tmp_path / n / "disc/disc.safetensors" for n in ("one", "two")]
    assert apart(*made, start if whole else None) < (SIGNS if adamw else 10 * ROUNDING)  # three steps of as much each
    lines = [[json.loads(s) for s in (tmp_path / n / "disc/metrics.jsonl").open()] for n in ("one", "two")]
    for one, two in zip(*lines, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=LOSS)
    moments = [
        safetensors.load(state.latest(RunFolder(tmp_path / n / "disc"))[1] / "optimizer.safetensors")
        for n in ("one", "two")
    ]  # type: ignore[index]
    assert moments[0].keys() == moments[1].keys()  # the split optimizer's state was brought together
    if adamw:
        keys = [key for key, value in moments[0].items() if value.numel() > 1]  # not the counts of steps
        assert length(*moments, keys) < 10 * ROUNDING * length(moments[0], {}, keys)


@pytest.mark.heavy
def test_a_split_optimizers_state_is_resumed_by_two(photos: Path, start: Path, tmp_path: Path) -> None:
    values = {"method": "dreambooth", "learning_rate": 1e-5, "photos": photos, "lr_scheduler": "constant", "steps": 1}
    finish(together("--config", write(tmp_path / "two.toml", **values, out=tmp_path / "two/disc")))
    finish(together("--resume", tmp_path / "two/disc", "--steps", 3))
    train.run(TrainConfig.parse({**VALUES, **values, "steps": 3, "out": tmp_path / "one/disc"}))
    assert apart(tmp_path / "one/disc/disc.safetensors", tmp_path / "two/disc/disc.safetensors", start) < SIGNS


@pytest.mark.heavy
def test_stopped_together_and_resumed_by_two_or_by_one(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "disc"
    # Whenever it is stopped, so little has been learned that differences have not grown by learning.
    values = {"lr_scheduler": "constant", "learning_rate": 1e-6, "steps": 100000, "save_every_steps": 100000}
    long = write(tmp_path / "two.toml", **values, photos=photos, out=run)
    processes = together("--config", long)
    while all(p.poll() is None for p in processes) and not (run / "metrics.jsonl").exists():
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)  # one is enough: they agree
    told = [p.communicate(timeout=HUNG) for p in processes]
    assert [p.returncode for p in processes] == [130, 0], told
    found = state.latest(RunFolder(run))
    assert found is not None and f"Stopped at step {found[0]} of 100000" in told[0][0]
    finish(together("--resume", run, "--steps", found[0] + 1))
    last = train.resume(run, {"steps": found[0] + 2})
    assert last.status == "finished" and last.step == found[0] + 2
    train.run(TrainConfig.read(long, out=tmp_path / "one/disc", steps=found[0] + 2))
    assert apart(run / "disc.safetensors", tmp_path / "one/disc/disc.safetensors") < SIGNS


def test_every_photo_is_one_processes_and_only_one() -> None:
    shares = [RankRows(rank, 3) for rank in range(3)]
    for count in (1, 4, 2):
        rows = [share.rows(count) or [] for share in shares]
        assert sorted(row for mine in rows for row in mine) == list(range(count))
    assert RankRows().rows(5) is None
    lonely = [RankRows(rank, 2) for rank in range(2)]
    assert [[share.rows(1) for share in lonely] for _ in range(2)] == [[[0], []], [[], [0]]]  # in turn


def test_a_step_needs_a_photo_for_each_process() -> None:
    with pytest.raises(MaquetteError, match=r"batch_size = 1 cannot be shared by 2 processes; use --set batch_size=2"):
        require_enough(1, 2)
