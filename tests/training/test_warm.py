"""Runs one after another in a process that keeps the base: each as if it were alone."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette import families, openmp
from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.events import Cancel, Event
from maquette.families.base import BaseModel
from maquette.families.kept import KeptBases
from maquette.families.loading import kept_by
from maquette.stages import train
from maquette.training.warm import WarmTrainer
from tests.training.interrupted import make_photos

COMMON = {
    "subject": "zkw disc", "device": "cpu", "dtype": "fp32", "steps": 3, "batch_size": 2, "rank": 2,
    "sample_prompts": ["a photo of zkw disc"], "sample_steps": 1, "save_every_steps": 2, "flip_aug": True,
}  # fmt: skip
JOBS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora", "text_encoder": True, "dropout": 0.2},
    "dora": {"method": "dora", "seed": 5, "caption_dropout": 0.3, "prior_preservation": True},
    "ti": {"method": "textual-inversion", "seed": 2},
    "whole": {"method": "dreambooth", "seed": 3},
}
SEPARATE = """
import sys
from maquette.config import TrainConfig
from maquette.stages import train
for path in sys.argv[1:]:
    train.run(TrainConfig.read(path))
"""


def settings(photos: Path, out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.parse(COMMON | {"photos": photos, "out": out} | changes)


def written(run: Path) -> dict[str, bytes]:
    """The files of a run whose bytes depend on its settings alone: not those that tell times."""
    return {
        str(file.relative_to(run)): file.read_bytes()
        for file in sorted(run.rglob("*"))
        if file.suffix in {".safetensors", ".png"} or file.name in {"metrics.jsonl", "dataset.json", "run.toml"}
    }


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("warm") / "photos")


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What each job writes in a process of its own."""
    place, found = tmp_path_factory.mktemp("alone"), {}
    for name, keys in JOBS.items():
        (file := place / f"{name}.toml").write_text(settings(photos, Path("runs") / name, **keys).to_toml())
        child = subprocess.run(
            [sys.executable, "-c", SEPARATE, str(file)], cwd=place, capture_output=True, text=True, check=False,
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        )  # fmt: skip
        assert child.returncode == 0, child.stderr[-2000:]
        found[name] = written(place / "runs" / name)
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.mark.heavy
@pytest.mark.parametrize("order", [("lora", "dora", "ti", "whole"), ("whole", "ti", "lora", "dora")])
def test_every_job_writes_what_it_writes_alone(
    order: tuple[str, ...], photos: Path, alone: dict[str, dict[str, bytes]], here: Path
) -> None:
    """Also behind a job that fails half way."""
    trainer = WarmTrainer()
    for number, name in enumerate(order):
        if number == 2:
            fail_half_way(trainer, photos)
        assert trainer.run(settings(photos, Path("runs") / name, **JOBS[name])).status == "finished"
        mine = written(here / "runs" / name)
        assert mine.keys() == alone[name].keys()
        other = [file for file in mine if mine[file] != alone[name][file]]
        assert other == [], (name, other)
    assert trainer.bases.opened == 1


def fail_half_way(trainer: WarmTrainer, photos: Path) -> None:
    """A listener that raises stands for whatever ends a job while its layers are wrapped and packed."""

    def refuse(event: Event) -> None:
        if event.kind == "metric":
            raise OSError("the cable is out")

    with pytest.raises(OSError, match="the cable is out"):
        trainer.run(settings(photos, Path("runs/broken"), method="lora", text_encoder=True), refuse)


def test_a_failing_job_leaves_neither_memory_nor_settings_behind(photos: Path, here: Path) -> None:
    trainer, layers = WarmTrainer(), weakref.WeakSet[torch.nn.Module]()
    before = in_process()

    def remember(event: Event) -> None:
        layers.update(x for x in gc.get_objects() if type(x).__name__ == "AdaptedLayer")
        fail(event)

    def fail(event: Event) -> None:
        if event.kind == "metric":
            assert in_process() != before  # else nothing would be put back
            raise MaquetteError("enough")

    with pytest.raises(MaquetteError, match="enough"):
        trainer.run(settings(photos, Path("runs/one"), deterministic=True), remember)
    gc.collect()
    for now, then in zip(in_process(), before, strict=True):
        assert now == then
    assert len(layers) == 0


def in_process() -> tuple[Any, ...]:
    """What a job could leave behind; PyTorch's own note of where it compiles is not the job's."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("TORCHINDUCTOR")}
    return (
        torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(), os.getcwd(), variables,
        torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist(), kept_by.get(),
        torch.backends.cuda.cudnn_sdp_enabled(),
    )  # fmt: skip


@pytest.mark.heavy
def test_a_stopped_job_is_gone_on_with_in_the_same_process(
    photos: Path, alone: dict[str, dict[str, bytes]], here: Path
) -> None:
    trainer, cancel = WarmTrainer(), Cancel()
    stop = lambda event: cancel.set() if event.kind == "metric" else None  # noqa: E731
    config = settings(photos, Path("runs/lora"), **JOBS["lora"])
    assert trainer.run(config, stop, cancel).status == "stopped"
    assert trainer.resume(Path("runs/lora")).status == "finished" and trainer.bases.opened == 1
    name = "lora.safetensors"
    assert (here / "runs/lora" / name).read_bytes() == alone["lora"][name]


def test_another_base_takes_the_place_of_the_one_before(photos: Path, here: Path) -> None:
    import shutil

    from maquette.families.pocket.spec import WEIGHTS

    shutil.copytree(WEIGHTS, here / "other")
    trainer, jobs = WarmTrainer(), [("pocket", "a"), ("pocket", "b"), ("other", "c"), ("other", "d"), ("pocket", "e")]
    opened = []
    for base, name in jobs:
        trainer.run(settings(photos, Path("runs") / name, base=base, steps=1, sample_prompts=[], resolution=64))
        opened.append(trainer.bases.opened)
    assert opened == [1, 1, 2, 2, 3]


def test_a_base_whose_file_was_changed_is_read_anew(here: Path) -> None:
    import shutil

    from maquette.families.pocket.spec import WEIGHTS

    place = shutil.copytree(WEIGHTS, here / "base")
    kept = KeptBases()
    with kept.in_use(place):
        families.load(place)
        families.load(place)
        assert kept.opened == 1
        file = next(place.rglob("*.safetensors"))
        os.utime(file, ns=(1, 1))
        families.load(place)
    assert kept.opened == 2


def test_types_of_one_base_are_kept_side_by_side() -> None:
    kept = KeptBases()
    with kept.in_use("pocket"):
        wide, half = families.load("pocket"), families.load("pocket", unet_dtype=torch.bfloat16)
        again = families.load("pocket")
    assert kept.opened == 2
    numbers = [next(base.network.parameters()) for base in (wide, half, again)]
    assert [n.dtype for n in numbers] == [torch.float32, torch.bfloat16, torch.float32]
    assert numbers[0].data_ptr() == numbers[2].data_ptr() and numbers[0] is not numbers[2]
    assert families.load("pocket").network is not wide.network and kept.opened == 2  # outside the block none is used


def test_only_the_base_that_is_named_is_kept(here: Path) -> None:
    """A training of a whole model opens its own checkpoints for their pictures."""
    import shutil

    from maquette.families.pocket.spec import WEIGHTS

    shutil.copytree(WEIGHTS, here / "base")
    kept = KeptBases()
    with kept.in_use("pocket"):
        families.load("pocket")
        families.load(here / "base")
        families.load("pocket")
    assert kept.opened == 1


def test_what_is_done_to_a_copy_is_not_done_to_the_base() -> None:
    kept = KeptBases()
    with kept.in_use("pocket"):
        first = families.load("pocket")
        spoil(first)
        second = families.load("pocket")
    cold = families.load("pocket")
    for mine, theirs in zip(second.networks, cold.networks, strict=True):
        ours, wanted = mine.state_dict(), theirs.state_dict()
        assert ours.keys() == wanted.keys() and all(torch.equal(ours[key], wanted[key]) for key in wanted)
        assert [type(m) for m in mine.modules()] == [type(m) for m in theirs.modules()]
    assert second.content_hash == cold.content_hash and kept.check()


def spoil(base: BaseModel) -> None:
    for network in base.networks:
        for parameter in network.parameters():
            parameter.data = parameter.data + 1
            parameter.requires_grad_(True)
        network.train()
    base.vae.to("meta")
    base.network.conv_in = torch.nn.Identity()
    base.tokenizers.clear()
    base.scheduler_config.clear()


def test_a_base_that_somebody_wrote_into_is_read_anew(photos: Path, here: Path) -> None:
    trainer, told = WarmTrainer(), []

    def write(event: Event) -> None:
        if event.kind == "metric":
            with torch.no_grad():
                next(families.load("pocket", device="cpu").network.parameters()).mul_(2)
        if event.kind == "warning":
            told.append(event.data["message"])

    trainer.run(settings(photos, Path("runs/a"), steps=1, sample_prompts=[]), write)
    assert told == ["The job wrote into the base that is kept in memory; the next one reads it anew."]
    before = trainer.bases.opened
    trainer.run(settings(photos, Path("runs/b"), steps=1, sample_prompts=[]))
    train.run(settings(photos, Path("runs/c"), steps=1, sample_prompts=[]))
    assert trainer.bases.opened == before + 1
    assert learned(here / "runs/b") == learned(here / "runs/c")


def learned(run: Path) -> list[bytes]:
    """The numbers of a run's file, whose metadata has its name."""
    from safetensors.torch import load_file

    return [tensor.numpy().tobytes() for _, tensor in sorted(load_file(str(run / f"{run.name}.safetensors")).items())]


def test_latents_lie_where_the_caller_says(photos: Path, here: Path) -> None:
    trainer = WarmTrainer()
    trainer.run(settings(photos, Path("runs/a"), steps=1, sample_prompts=[]), cache=here / "tenant-a")
    assert any((here / "tenant-a").rglob("*.latent")) and not (here / "runs/.cache").exists()


def test_photos_are_encoded_ahead_with_the_threads_of_the_training(photos: Path, here: Path) -> None:
    """Sums are divided among them: pocket has one where nobody decided."""
    script = (
        "import sys, maquette, torch; from pathlib import Path; from maquette.training import warm\n"
        "warm.encode_photos = lambda *_: print(torch.get_num_threads())\n"
        "config = warm.TrainConfig.parse({'photos': sys.argv[1], 'subject': 'zkw disc', 'device': 'cpu'})\n"
        "warm.WarmTrainer().encode(config, Path('cache'))"
    )
    free = {name: value for name, value in os.environ.items() if name not in openmp.THREADS}
    told = subprocess.run(
        [sys.executable, "-c", script, str(photos)], env=free, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["1"]


def test_photos_encoded_ahead_are_found_by_the_job(photos: Path, here: Path) -> None:
    """In another thread, while a job is at work; the job that follows encodes none."""
    trainer, encoded, told = WarmTrainer(), [], []
    config = settings(photos, Path("runs/b"), steps=1, sample_prompts=[], seed=1)
    ahead = threading.Thread(target=lambda: encoded.append(trainer.encode(config, here / "cache")))

    def begin(event: Event) -> None:
        if event.kind == "metric":
            ahead.start()
            ahead.join()

    trainer.run(settings(photos, Path("runs/a"), steps=1, sample_prompts=[]), begin, cache=here / "other")
    assert encoded == [3] and trainer.bases.opened == 1
    latents = sorted((here / "cache").rglob("*.latent"))
    before = [file.stat().st_ino for file in latents]
    assert len(latents) == 6  # each also mirrored
    trainer.run(config, lambda event: told.append(event.data.get("what")), cache=here / "cache")
    assert "encoding photos" not in told
    assert [file.stat().st_ino for file in sorted((here / "cache").rglob("*.latent"))] == before


def test_two_passes_need_the_stage(photos: Path, here: Path) -> None:
    config = settings(photos, Path("runs/a"), two_pass=True)
    with pytest.raises(MaquetteError, match=r"two_pass takes several runs: leave it out, or give this trainer"):
        WarmTrainer().run(config)
    seen = []
    WarmTrainer(lambda config, *_: seen.append(config.two_pass)).run(config)  # type: ignore[arg-type, func-returns-value, return-value]
    assert seen == [True]
