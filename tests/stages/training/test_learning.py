import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from maquette.config import TrainConfig
from maquette.stages.training import learning


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
    assert learning.rate_factor(config(scheduler=scheduler, scheduler_cycles=2), step, 100) == pytest.approx(expected)


def test_warm_up_rises_to_one_and_the_rest_follows() -> None:
    rates = [learning.rate_factor(config(scheduler="linear", warmup_steps=4), step, 12) for step in range(12)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0] and rates[8] == 0.5


def test_groups_get_their_rates() -> None:
    groups = {name: [nn.Parameter(torch.ones(1))] for name in ("unet", "unet_up", "text_encoder", "text_encoder_up")}
    optimizer = learning.make_optimizer(config(lora_plus_ratio=4.0), groups)
    learning.set_rates(optimizer, 0.5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.05, 0.2, 0.005, 0.02])


def test_lion_by_hand() -> None:
    p = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = learning.Lion([p], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    p.grad = torch.tensor([3.0, -0.01])
    optimizer.step()
    assert p.tolist() == pytest.approx([1.0 * 0.95 - 0.1, -2.0 * 0.95 + 0.1])
    p.grad = torch.tensor([-0.1, 0.0])  # weighed against the momentum 0.03: 0.9 * 0.03 - 0.1 * 0.1 > 0
    optimizer.step()
    assert p[0].item() == pytest.approx(0.85 * 0.95 - 0.1)


def test_lion_is_that_of_pytorch_optimizer() -> None:
    theirs = pytest.importorskip("pytorch_optimizer").Lion
    mine, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    pair = [(mine, learning.Lion([mine], lr=0.1, weight_decay=0.1)), (other, theirs([other], lr=0.1, weight_decay=0.1))]
    for step in range(5):
        for p, optimizer in pair:
            p.grad = torch.tensor([math.sin(step), math.cos(step), step - 2.5])
            optimizer.step()
    torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor", "lion", "prodigy", "schedule-free-adamw"])
def test_every_optimizer_goes_downhill(name: str) -> None:
    if name in ("prodigy", "schedule-free-adamw"):
        pytest.importorskip("pytorch_optimizer")
    p = nn.Parameter(torch.full((4, 4), 2.0))
    optimizer = learning.make_optimizer(
        config(optimizer=name, learning_rate=1.0 if name == "prodigy" else 0.05), {"unet": [p]}
    )
    learning.evaluate_mode(optimizer, False)
    for _ in range(200 if name == "prodigy" else 30):  # prodigy begins with tiny steps and finds its rate
        optimizer.zero_grad()
        p.square().sum().backward()
        optimizer.step()
    learning.evaluate_mode(optimizer, True)
    assert p.abs().max() < 1.99


def test_average_by_hand_and_swap() -> None:
    p = nn.Parameter(torch.tensor([0.0]))
    average = learning.Average([p], 0.9)
    p.data += 1
    average.update()  # decay (1 + 0) / (10 + 0) = 0.1 -> 0.9
    assert average.values[0].item() == pytest.approx(0.9)
    p.data += 1
    average.update()  # decay 2 / 11 -> 2 / 11 * 0.9 + 9 / 11 * 2
    expected = 2 / 11 * 0.9 + 9 / 11 * 2
    average.swap()
    assert p.item() == pytest.approx(expected)
    average.swap()
    assert p.item() == 2 and average.values[0].item() == pytest.approx(expected)


def test_gradient_norm_and_shortening_by_hand() -> None:
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    norm = learning.gradient_norm([a, b])
    assert norm.item() == 5
    learning.shorten([a, b], norm, 10.0)
    assert a.grad.item() == 3
    learning.shorten([a, b], norm, 1.0)
    assert [a.grad.item(), b.grad.item()] == pytest.approx([0.6, 0.8], rel=1e-5)
    b.grad[0] = float("inf")
    assert not learning.gradient_norm([a, b]).isfinite()
