"""Several subjects at once on one frozen network: each learns what it learns alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from maquette import families
from maquette.config import TrainConfig
from maquette.core.denoiser import Conditioning
from maquette.errors import Diverged, MaquetteError
from maquette.events import Cancel, Event
from maquette.families.base import BaseModel
from maquette.families.trainable import targets
from maquette.methods import attach
from maquette.methods.base import AdaptedLayers, MethodSpec
from maquette.methods.slots import SlotLayers
from maquette.stages import train
from maquette.training.job import Job
from maquette.training.preparing import prepare
from maquette.training.slots import (
    ALIKE,
    CameTo,
    SlotNetwork,
    SlotRun,
    compatible,
    train_in_slots,
    train_together,
)
from maquette.training.train_result import TrainResult

COMMON = {
    "subject": "zkw disc", "device": "cpu", "dtype": "fp32", "batch_size": 2, "rank": 4, "sample_prompts": [],
    "probe_prediction": False, "choose": False, "save_dtype": "fp32", "steps": 3, "save_every_steps": 100,
}  # fmt: skip
UNEQUAL: list[dict[str, Any]] = [
    {"seed": 1, "learning_rate": 2e-4, "steps": 4, "caption_dropout": 0.5, "loss": "huber", "ema_decay": 0.8},
    {"seed": 2, "learning_rate": 1e-4, "rank": 2, "alpha": 1.0, "weight_decay": 0.3, "max_grad_norm": 0.01, "steps": 2},
    {"seed": 3, "learning_rate": 1e-2, "rank": 6, "scheduler": "constant", "optimizer": "sgd", "noise_offset": 0.1},
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of a size, and captions."""
    folder, random = tmp_path_factory.mktemp("slots"), np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(random.integers(0, 255, (64, 64, 3), dtype=np.uint8)).resize((64, 64)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"a photo of zkw disc, number {i}")
    return folder


def settings(photos: Path, out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.parse(COMMON | {"photos": photos, "out": out} | changes)


def learned(result: TrainResult | Exception) -> dict[str, Tensor]:
    assert isinstance(result, TrainResult) and result.status == "finished" and result.file is not None, result
    return load_file(result.file)


def difference(mine: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Of all weights as one vector, relative to its length.

    Not tensor by tensor: where a gradient is rounding noise, Adam makes full steps of it, in the plain engine too.
    """
    assert mine.keys() == wanted.keys()
    far = torch.cat([(mine[key] - wanted[key]).double().flatten() for key in wanted])
    return float(far.norm() / torch.cat([wanted[key].double().flatten() for key in wanted]).norm())


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What each of the unequal runs learns by itself."""
    place = tmp_path_factory.mktemp("alone")
    return [learned(train.run(settings(photos, place / f"r{i}", **keys))) for i, keys in enumerate(UNEQUAL)]


def heavy(*values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.heavy)


@pytest.mark.parametrize(
    "slots, order", [(2, (0, 1, 2)), heavy(3, (0, 1, 2)), heavy(3, (2, 0, 1)), heavy(2, (1, 2, 0))]
)
def test_runs_learn_together_what_they_learn_alone(
    slots: int, order: Sequence[int], photos: Path, alone: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    """Unequal ranks, rates, optimizers and lengths; with fewer slots than runs a free slot is taken at odd steps."""
    configs = [settings(photos, tmp_path / f"r{i}", **UNEQUAL[i]) for i in order]
    for i, result in zip(order, train_together(configs, slots), strict=True):
        assert difference(learned(result), alone[i]) <= 1e-5, UNEQUAL[i]


def test_runs_that_come_later_take_free_slots(photos: Path, alone: list[dict[str, Tensor]], tmp_path: Path) -> None:
    """Each is told of when it ends; one that does not fit is refused, and the next is asked for."""
    ended: dict[str, CameTo] = {}

    def run(name: str, **keys: Any) -> SlotRun:
        return SlotRun(settings(photos, tmp_path / name, **keys), lambda came_to: ended.update({name: came_to}))

    first, second, third = (run(f"r{i}", **keys) for i, keys in enumerate(UNEQUAL))
    later = iter([run("other", batch_size=1), third])
    train_in_slots([first, second], 2, lambda: next(later, None))
    assert ended.keys() == {"r0", "r1", "r2", "other"} and list(ended)[-1] != "other"
    assert "must agree in base" in str(ended["other"])
    for i in range(3):
        assert difference(learned(ended[f"r{i}"]), alone[i]) <= 1e-5


def test_a_single_slot_writes_the_bytes_of_the_plain_engine(photos: Path, tmp_path: Path) -> None:
    """Also when it is refilled."""
    found = []
    for folder in ("plain", "slots"):
        configs = [settings(photos, tmp_path / folder / name, steps=3, save_every_steps=2) for name in ("a", "b")]
        if folder == "plain":
            results: list[Any] = [train.run(config) for config in configs]
        else:
            results = train_together(configs, 1)
        assert [r.status for r in results] == ["finished", "finished"]
        files = [path for r in results for path in [*r.checkpoints, r.file, str(Path(r.run) / "metrics.jsonl")]]
        found.append([Path(path).read_bytes() for path in files])
    assert found[0] == found[1] and len(found[0]) == 8


def test_a_run_that_diverges_leaves_the_others_as_they_are(
    photos: Path, alone: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    def spoil(event: Event) -> None:
        """Numbers that are not finite come into one slot's LoRA after its first step."""
        if event.kind == "metric" and event.data["step"] == 1:
            import gc

            from maquette.methods.lora import LoRALayer

            gc.collect()  # layers of other tests
            mine = [x for x in gc.get_objects() if type(x) is LoRALayer and x.rank == 3]
            assert mine
            with torch.no_grad():
                mine[0].lora_up__weight.fill_(float("nan"))

    keys = [UNEQUAL[0], {"rank": 3, "steps": 5}, UNEQUAL[1]]
    configs = [settings(photos, tmp_path / f"r{i}", **k) for i, k in enumerate(keys)]
    first, broken, last = train_together(configs, 3, [lambda e: None, spoil, lambda e: None])
    assert isinstance(broken, Diverged) and "not finite" in str(broken)
    assert difference(learned(first), alone[0]) <= 1e-5 and difference(learned(last), alone[1]) <= 1e-5


@pytest.mark.heavy
def test_photos_of_other_shapes_and_longer_captions_take_passes_of_their_own(photos: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    wide.mkdir()
    random = np.random.default_rng(1)
    for i, size in enumerate([(64, 96), (96, 64), (64, 64)]):
        Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)).save(wide / f"{i}.png")
        (wide / f"{i}.txt").write_text("a photo of zkw disc" + ", blue" * (60 if i == 2 else 1))
    keys = {"buckets": True, "resolution": 64, "learning_rate": 1e-4}
    places = [photos, wide]
    plain = [learned(train.run(settings(p, tmp_path / f"alone{i}", **keys))) for i, p in enumerate(places)]
    both = train_together([settings(p, tmp_path / f"r{i}", **keys) for i, p in enumerate(places)], 2)
    for mine, wanted in zip(both, plain, strict=True):
        assert difference(learned(mine), wanted) <= 1e-5


def test_a_run_is_stopped_by_itself_and_one_that_cannot_begin_is_told(
    photos: Path, alone: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    cancels = [Cancel() for _ in range(4)]
    cancels[3].set()
    stop = lambda event: cancels[0].set() if event.kind == "metric" else None  # noqa: E731
    configs = [
        settings(photos, tmp_path / "stopped"),
        settings(empty, tmp_path / "nothing"),
        settings(photos, tmp_path / "whole", **UNEQUAL[1]),
        settings(photos, tmp_path / "never"),
    ]
    listeners = [stop, *[lambda event: None] * 3]
    stopped, nothing, whole, never = train_together(configs, 2, listeners, cancels)
    assert isinstance(stopped, TrainResult) and (stopped.status, stopped.step) == ("stopped", 1)
    assert isinstance(nothing, MaquetteError) and str(empty) in str(nothing)
    assert difference(learned(whole), alone[1]) <= 1e-5
    assert str(never) == "Stopped before it had begun; nothing was written." and not (tmp_path / "never").exists()
    assert train.resume(tmp_path / "stopped").status == "finished"  # its folder was let go


REASONS = {
    "method = dora": {"method": "dora"}, "two_pass": {"two_pass": True}, "text_encoder": {"text_encoder": True},
    "dropout": {"module_dropout": 0.1}, "prior_preservation": {"prior_preservation": True},
    "compile": {"compile": True}, "dtype = fp16": {"dtype": "fp16"},
}  # fmt: skip


@pytest.mark.parametrize("reason", REASONS)
def test_runs_that_cannot_share_a_network_say_why(reason: str, photos: Path, tmp_path: Path) -> None:
    config = settings(photos, tmp_path / "run", **REASONS[reason])
    told = f"{reason}: such a run is trained alone, not in a slot."
    assert (compatible(config).key, compatible(config).reason) == (None, told)
    with pytest.raises(MaquetteError, match=told):
        train_together([config], 1)


def test_runs_of_a_group_agree_on_the_network(photos: Path, tmp_path: Path) -> None:
    first, second = settings(photos, tmp_path / "a"), settings(photos, tmp_path / "b", seed=7, rank=2, steps=9)
    assert compatible(first) == compatible(second) and compatible(first).reason is None
    other = settings(photos, tmp_path / "c", batch_size=1)
    with pytest.raises(MaquetteError, match=rf"must agree in base, vae.*{ALIKE[-1]}"):
        train_together([first, other], 2)
    with pytest.raises(MaquetteError, match="takes one run and one slot at least"):
        train_together([], 2)


# Below the engine: the layers themselves, in float64.


def lora(base: BaseModel, rank: int, seed: int) -> AdaptedLayers:
    made = attach("lora", targets(base), MethodSpec(rank=rank, alpha=rank / 2, seed=seed))
    assert isinstance(made, AdaptedLayers)
    generator = torch.Generator().manual_seed(seed)
    for _, adapter in made.adapters():
        adapter.double()
        with torch.no_grad():
            up = adapter.lora_up__weight
            up.copy_(torch.randn(up.shape, generator=generator) * 0.05)
    return made


def double(base: BaseModel) -> BaseModel:
    base.network.double()
    return base


def asked(base: BaseModel, seed: int, rows: int) -> tuple[Tensor, Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, base.spec.latent_channels, 8, 8, generator=generator, dtype=torch.float64)
    t = torch.randint(0, 1000, (rows,), generator=generator)
    return x, t, Conditioning(base.encode_text([f"number {seed}"] * rows).tokens.double())


def test_in_float64_steps_agree_to_the_twelfth_digit_in_any_order() -> None:
    ranks, rates, rows = (2, 5, 3), (1e-3, 3e-4, 1e-3), 2
    wanted = []
    for slot, (rank, rate) in enumerate(zip(ranks, rates, strict=True)):
        base = double(families.load("pocket"))
        mine = lora(base, rank, slot)
        optimizer = torch.optim.AdamW([p for g in mine.parameter_groups().values() for p in g], lr=rate)
        for step in range(3):
            optimizer.zero_grad()
            base.predict(*asked(base, 100 * slot + step, rows)).square().mean().backward()
            optimizer.step()
        wanted.append(mine.state())
    for order in ((0, 1, 2), (2, 0, 1)):
        host = double(families.load("pocket"))
        slots = SlotLayers(targets(host))
        runs = [lora(double(families.load("pocket")), ranks[i], i) for i in range(3)]
        optimizers = []
        for i in range(3):
            slots.put(i, runs[i])
            parameters = [p for g in runs[i].parameter_groups().values() for p in g]
            optimizers.append(torch.optim.AdamW(parameters, lr=rates[i]))
        for step in range(3):
            questions = [asked(host, 100 * i + step, rows) for i in order]
            slots.seats.taken = order
            x, t, told = zip(*questions, strict=True)
            output = host.predict(torch.cat(x), torch.cat(t), Conditioning.cat(told))
            torch.autograd.backward([part.square().mean() for part in output.chunk(3)])
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        for run, states in zip(runs, wanted, strict=True):
            assert difference(run.state(), states) <= 1e-12


def test_gradients_of_a_step_are_those_of_each_job_alone(photos: Path, tmp_path: Path) -> None:
    """In float32, at weights that have moved, with photos and noise of every job's own step."""

    def moved(job: Job) -> Job:
        generator = torch.Generator().manual_seed(job.config.seed)
        for p in job.parameters:
            with torch.no_grad():
                p.add_(torch.randn(p.shape, generator=generator) * 1e-2)
        return job

    def gradient(job: Job) -> dict[str, Tensor]:
        return {str(i): p.grad for i, p in enumerate(job.parameters) if p.grad is not None}

    keys: list[dict[str, Any]] = [{"seed": i, "rank": 2 + 2 * i} for i in range(3)]
    configs = [settings(photos, tmp_path / str(i), **k) for i, k in enumerate(keys)]
    steps = (0, 7, 3)
    network, seated = SlotNetwork(configs[0], 3), {}
    for slot, (config, step) in enumerate(zip(configs, steps, strict=True)):
        job = moved(prepare(config, tmp_path / "cache", lambda *_: None, computes=False))
        network.put(slot, job)
        seated[slot] = (job, step)
    found = network.gradients(seated)
    for slot, config in enumerate(configs):
        job = moved(prepare(config, tmp_path / "cache", lambda *_: None))
        loss, batches = job.gradients(steps[slot])
        assert [b.photos for b in batches] == [b.photos for b in found[slot][1]]
        assert float(found[slot][0]) == pytest.approx(float(loss), rel=1e-5)
        assert difference(gradient(seated[slot][0]), gradient(job)) <= 2e-5


def test_no_gradient_crosses_from_one_slot_to_another() -> None:
    """The loss of slot 0 alone gives slot 1 gradients of exactly zero, whatever stands in its rows."""
    host = double(families.load("pocket"))
    slots, runs = SlotLayers(targets(host)), [lora(double(families.load("pocket")), 2, i) for i in range(2)]
    for i in range(2):
        slots.put(i, runs[i])
    slots.seats.taken = (0, 1)
    found = []
    for scale in (1.0, 1e3, float("nan")):
        x, t, told = zip(*(asked(host, i, 2) for i in range(2)), strict=True)
        output = host.predict(torch.cat([x[0], x[1] * scale]), torch.cat(t), Conditioning.cat(told))
        parameters = [[p for g in run.parameter_groups().values() for p in g] for run in runs]
        output[:2].square().mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in parameters[0] if p.grad is not None]))
        other = torch.cat([p.grad.flatten() for p in parameters[1] if p.grad is not None])
        if scale == scale:  # 0 x NaN is none of this code's making, and stays in its slot
            assert torch.equal(other, torch.zeros_like(other))
        for p in [*parameters[0], *parameters[1]]:
            p.grad = None
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2]) and found[0].abs().max() > 0


def test_layers_of_other_kinds_are_refused() -> None:
    host, base = families.load("pocket"), families.load("pocket")
    slots = SlotLayers(targets(host))
    other = attach("loha", targets(base), MethodSpec(rank=2))
    with pytest.raises(ValueError, match="only LoRAs of the same layers can share a network"):
        slots.put(0, other)  # type: ignore[arg-type]
