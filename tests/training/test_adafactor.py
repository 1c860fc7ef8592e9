"""Our Adafactor against transformers', to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maquette.training.adafactor import Adafactor

SHAPES = [(7,), (5, 4), (6, 3, 3, 3), (1, 9), ()]


def moved(kind: Any, options: dict[str, Any], dtype: torch.dtype) -> tuple[list[Tensor], list[Any]]:
    """Parameters after six steps, the last of them without a gradient until the third; and the optimizer's state."""
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    optimizer = kind([{"params": parameters[:2]}, {"params": parameters[2:], "weight_decay": 0.3}], **options)
    for step in range(6):
        for parameter in parameters:
            gradient = torch.randn(parameter.shape, generator=generator) * 10.0 ** (step - 3)
            parameter.grad = gradient.to(dtype) if step > 2 or parameter is not parameters[-1] else None
        optimizer.step()
    state = [optimizer.state[p] for p in parameters]
    return [p.detach() for p in parameters], [s.get("exp_avg_sq_row", s.get("exp_avg_sq")) for s in state]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"relative_step": False, "scale_parameter": False, "lr": 0.01},
        {"relative_step": False, "scale_parameter": True, "lr": 0.02, "weight_decay": 0.1},
        {"relative_step": True, "scale_parameter": False},
        {"relative_step": True, "warmup_init": True, "beta1": 0.9, "weight_decay": 0.1},
        {"beta1": 0.5, "eps": (1e-8, 0.1), "clip_threshold": 0.3, "decay_rate": -0.5},
    ],
    ids=lambda options: ", ".join(options),
)
def test_steps_equal_those_of_transformers(options: dict[str, Any], dtype: torch.dtype) -> None:
    from transformers.optimization import Adafactor as Theirs

    (ours, own), (theirs, expected) = moved(Adafactor, options, dtype), moved(Theirs, options, dtype)
    assert all(torch.equal(a, b) and a.dtype == dtype for a, b in zip(ours, theirs, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(own, expected, strict=True))


def test_a_run_of_transformers_goes_on() -> None:
    """The names in its state are the same."""
    from transformers.optimization import Adafactor as Theirs

    made = {}
    for second in (Theirs, Adafactor):
        parameter = nn.Parameter(torch.ones(3, 2))
        optimizer: Any = Theirs([parameter], beta1=0.9)
        for step in range(4):
            parameter.grad = torch.arange(6.0).reshape(3, 2) - step
            if step == 2:
                state = optimizer.state_dict()
                optimizer = second([parameter], beta1=0.9)
                optimizer.load_state_dict(state)
            optimizer.step()
        made[second] = parameter.detach()
    assert torch.equal(made[Theirs], made[Adafactor])
