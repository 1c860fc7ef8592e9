import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.training import optim
from maquette.training.ema import EMA


def config(**values: Any) -> TrainConfig:
    return TrainConfig.parse({"photos": Path("p"), "learning_rate": 0.1, "text_encoder_learning_rate": 0.01, **values})


@pytest.mark.parametrize(
    ("scheduler", "step", "expected"),
    [
        ("constant", 70, 1.0),
        ("linear", 0, 1.0),
        ("linear", 75, 0.25),
        ("cosine", 0, 1.0),
        ("cosine", 50, 0.5),
        ("cosine", 75, 0.5 * (1 + math.cos(0.75 * math.pi))),
        ("restarts", 25, 0.5),
        ("restarts", 50, 1.0),
    ],
)
def test_rates_by_hand(scheduler: str, step: int, expected: float) -> None:
    assert optim.lr_multiplier(config(lr_scheduler=scheduler, lr_scheduler_cycles=2), step, 100) == pytest.approx(
        expected
    )


def test_warm_up_rises_to_one_and_the_rest_follows() -> None:
    rates = [optim.lr_multiplier(config(lr_scheduler="linear", warmup_steps=4), step, 12) for step in range(12)]
    assert rates[:5] == [0.0, 0.25, 0.5, 0.75, 1.0] and rates[8] == 0.5


SCHEDULES: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"lr_scheduler": "constant"}, "constant_with_warmup", {}),
    ({"lr_scheduler": "linear"}, "linear", {}),
    ({"lr_scheduler": "cosine"}, "cosine", {}),
    ({"lr_scheduler": "restarts", "lr_scheduler_cycles": 3}, "cosine_with_restarts", {"num_cycles": 3}),
    ({"lr_scheduler": "polynomial", "lr_scheduler_power": 2.0}, "polynomial", {"power": 2.0}),
    ({"lr_scheduler": "polynomial"}, "polynomial", {}),
    ({"lr_scheduler": "inverse-sqrt"}, "inverse_sqrt", {}),
    ({"lr_scheduler": "inverse-sqrt", "lr_scheduler_timescale": 30}, "inverse_sqrt", {"timescale": 30}),
    ({"lr_scheduler": "cosine", "lr_scheduler_min_ratio": 0.2}, "cosine_with_min_lr", {"min_lr_rate": 0.2}),
    ({"lr_scheduler": "stable-decay", "decay_steps": 10}, "warmup_stable_decay", {"num_decay_steps": 10}),
    ({"lr_scheduler": "stable-decay", "decay_steps": 0.25, "lr_scheduler_min_ratio": 0.1}, "warmup_stable_decay",
     {"num_decay_steps": 10, "min_lr_ratio": 0.1}),
]  # fmt: skip


@pytest.mark.parametrize("warm_up", [0, 7])
@pytest.mark.parametrize(("values", "name", "options"), SCHEDULES, ids=lambda v: str(v))
def test_every_scheduler_is_the_one_that_sd_scripts_calls(
    values: dict[str, Any], name: str, options: dict[str, Any], warm_up: int
) -> None:
    """transformers' own schedule, stepped over a whole run of 40 steps."""
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, SchedulerType

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    lengths = {"num_warmup_steps": warm_up, "num_training_steps": 40}
    if name == "warmup_stable_decay":
        lengths = {"num_warmup_steps": warm_up, "num_stable_steps": 40 - warm_up - options["num_decay_steps"]}
    elif name in ("constant_with_warmup", "inverse_sqrt"):
        lengths.pop("num_training_steps")
    theirs = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)](optimizer, **lengths, **options)
    expected = []
    for _ in range(40):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    mine = [0.1 * optim.lr_multiplier(config(warmup_steps=warm_up, **values), step, 40) for step in range(40)]
    assert mine == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("value", "steps", "expected"),
    [(0.1, 1000, 100), (0.05, 1234, 61), (0.25, 1600, 400), (0.033, 300, 9), (0, 100, 0), (1, 100, 1), (7.0, 100, 7)],
)
def test_a_warm_up_below_one_is_a_share_of_the_steps(value: float, steps: int, expected: int) -> None:
    assert optim.steps_of(value, steps) == expected
    rates = [
        optim.lr_multiplier(config(lr_scheduler="constant", warmup_steps=value), step, steps) for step in (0, expected)
    ]
    assert rates == [0.0 if expected else 1.0, 1.0]


def test_a_warm_up_of_one_step_and_a_half_is_refused() -> None:
    with pytest.raises(MaquetteError, match=r"warmup_steps = 1\.5 is neither a whole number nor a share below 1"):
        config(warmup_steps=1.5)


def test_groups_get_their_rates() -> None:
    groups = {name: [nn.Parameter(torch.ones(1))] for name in ("unet", "unet_up", "text_encoder", "text_encoder_up")}
    optimizer = optim.make_optimizer(config(lora_plus_ratio=4.0), groups)
    optim.set_lr(optimizer, 0.5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.05, 0.2, 0.005, 0.02])


def test_lion_by_hand() -> None:
    p = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = optim.Lion([p], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    p.grad = torch.tensor([3.0, -0.01])
    optimizer.step()
    assert p.tolist() == pytest.approx([1.0 * 0.95 - 0.1, -2.0 * 0.95 + 0.1])
    p.grad = torch.tensor([-0.1, 0.0])  # weighed against the momentum 0.03: 0.9 * 0.03 - 0.1 * 0.1 > 0
    optimizer.step()
    assert p[0].item() == pytest.approx(0.85 * 0.95 - 0.1)


def test_lion_is_that_of_pytorch_optimizer() -> None:
    theirs = pytest.importorskip("pytorch_optimizer").Lion
    mine, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    pair = [(mine, optim.Lion([mine], lr=0.1, weight_decay=0.1)), (other, theirs([other], lr=0.1, weight_decay=0.1))]
    for step in range(5):
        for p, optimizer in pair:
            p.grad = torch.tensor([math.sin(step), math.cos(step), step - 2.5])
            optimizer.step()
    torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(
    "name", ["adamw", "sgd", "adafactor", "lion", "prodigy", "schedule-free-adamw", "schedule-free-radam"]
)
def test_every_optimizer_goes_downhill(name: str) -> None:
    if name == "prodigy" or name.startswith("schedule-free"):
        pytest.importorskip("pytorch_optimizer")
    p = nn.Parameter(torch.full((4, 4), 2.0))
    optimizer = optim.make_optimizer(
        config(optimizer=name, learning_rate=1.0 if name == "prodigy" else 0.05), {"unet": [p]}
    )
    optim.schedule_free_eval(optimizer, False)
    for _ in range(200 if name == "prodigy" else 30):  # prodigy begins with tiny steps and finds its rate
        optimizer.zero_grad()
        p.square().sum().backward()
        optimizer.step()
    optim.schedule_free_eval(optimizer, True)
    assert p.abs().max() < 1.99


def test_average_by_hand_and_swap() -> None:
    p = nn.Parameter(torch.tensor([0.0]))
    ema = EMA([p], 0.9)
    p.data += 1
    ema.update()  # decay (1 + 0) / (10 + 0) = 0.1 -> 0.9
    assert ema.values[0].item() == pytest.approx(0.9)
    p.data += 1
    ema.update()  # decay 2 / 11 -> 2 / 11 * 0.9 + 9 / 11 * 2
    expected = 2 / 11 * 0.9 + 9 / 11 * 2
    ema.swap()
    assert p.item() == pytest.approx(expected)
    ema.swap()
    assert p.item() == 2 and ema.values[0].item() == pytest.approx(expected)


def test_gradient_norm_and_shortening_by_hand() -> None:
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    norm = optim.gradient_norm([a, b])
    assert norm.item() == 5
    optim.clip_grad_norm_([a, b], norm, 10.0)
    assert a.grad.item() == 3
    optim.clip_grad_norm_([a, b], norm, 1.0)
    assert [a.grad.item(), b.grad.item()] == pytest.approx([0.6, 0.8], rel=1e-5)
    b.grad[0] = float("inf")
    assert not optim.gradient_norm([a, b]).isfinite()
