"""Every optimizer against its own library or against its paper's formulas, over gradients that the test draws."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maquette.config import OPTIMIZER_ARGS, TrainConfig
from maquette.errors import MaquetteError
from maquette.training import optim, uncompiled

STEPS = 20


def config(**values: Any) -> TrainConfig:
    return TrainConfig.parse({"photos": Path("p"), "learning_rate": 0.01, "weight_decay": 0.0, **values})


def begin() -> list[Tensor]:
    """A down matrix and an up matrix, which begins at zero."""
    return [torch.randn(3, 4, generator=torch.Generator().manual_seed(1)) * 0.2, torch.zeros(5, 3)]


def gradients() -> list[list[Tensor]]:
    random = torch.Generator().manual_seed(2)
    return [[torch.randn(p.shape, generator=random) + 0.2 for p in begin()] for _ in range(STEPS)]


def ours(asked: TrainConfig) -> list[Tensor]:
    """Weights after STEPS steps as the loop makes them, in evaluation mode."""
    weights = [nn.Parameter(p) for p in begin()]
    optimizer = optim.make_optimizer(asked, {"unet": weights})
    optim.schedule_free_eval(optimizer, False)
    for step, given in enumerate(gradients()):
        optim.set_lr(optimizer, optim.lr_multiplier(asked, step, STEPS))
        for p, gradient in zip(weights, given, strict=True):
            p.grad = gradient.clone()
        optimizer.step()
    optim.schedule_free_eval(optimizer, True)
    return [p.detach() for p in weights]


def agree(found: list[Tensor], expected: list[Tensor]) -> None:
    """To 1e-5 of the largest change: 20 steps of single precision, each exact to 6e-8 of values near 1."""
    for mine, other, start in zip(found, expected, begin(), strict=True):
        change = (other - start).abs().max().item()
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-5 * change)


def nesterov(rate: float, momentum: float) -> list[Tensor]:
    """b <- m b + g; p <- p - rate (g + m b): arXiv 1207.0580 as Sutskever et al. (ICML 2013) write it, equation 3-4."""
    weights, speed = begin(), [torch.zeros_like(p) for p in begin()]
    for given in gradients():
        for p, b, g in zip(weights, speed, given, strict=True):
            b.mul_(momentum).add_(g)
            p.sub_(rate * (g + momentum * b))
    return weights


def adafactor(rate: float | None, relative: bool, decay: float = 0.0) -> list[Tensor]:
    """Algorithm 4 of arXiv 1804.04235 with clipping 1, beta2 = 1 - t^-0.8, eps 1e-30 and 1e-3.

    rate None: min(0.01, 1 / sqrt(t)). relative: times the root mean square of the weights, at least 1e-3.
    """

    def size(x: Tensor) -> Tensor:
        return x.square().mean().sqrt()

    weights = begin()
    rows, columns = [torch.zeros(len(p)) for p in weights], [torch.zeros(p.shape[1]) for p in weights]
    for t, given in enumerate(gradients(), start=1):
        beta = 1 - t**-0.8
        for p, r, c, g in zip(weights, rows, columns, given, strict=True):
            step = rate or min(0.01, t**-0.5)
            step = step * max(1e-3, size(p).item()) if relative else step
            squared = g.square() + 1e-30
            r.mul_(beta).add_(squared.mean(1), alpha=1 - beta)
            c.mul_(beta).add_(squared.mean(0), alpha=1 - beta)
            update = g / (r[:, None] * c[None] / r.mean()).sqrt()
            update = update / max(1.0, size(update).item())
            p.sub_(step * decay * p)
            p.sub_(step * update)
    return weights


def schedule_free(rate: float, warm_up: int = 0, betas: tuple[float, float] = (0.9, 0.999)) -> list[Tensor]:
    """Algorithm 1 of arXiv 2405.15682: gradients at y = (1 - b) z + b x, weights x, averaged with the squared rates."""
    z, x = begin(), begin()
    second = [torch.zeros_like(p) for p in z]
    total, largest = 0.0, 0.0
    for t, given in enumerate(gradients(), start=1):
        now = rate * min(1.0, t / warm_up) if warm_up else rate
        largest = max(largest, now)
        total += largest**2
        for p, average, v, g in zip(z, x, second, given, strict=True):
            v.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
            p.sub_(now * g / ((v / (1 - betas[1] ** t)).sqrt() + 1e-8))
            average.lerp_(p, largest**2 / total)
    return x


@pytest.mark.parametrize("momentum", [None, 0.5])
def test_sgd_is_nesterovs(momentum: float | None) -> None:
    arguments = {} if momentum is None else {"momentum": momentum}
    agree(
        ours(config(optimizer="sgd", optimizer_args=arguments, lr_scheduler="constant")),
        nesterov(0.01, momentum or 0.9),
    )


def test_sgd_without_nesterov_and_momentum_is_plain() -> None:
    found = ours(config(optimizer="sgd", optimizer_args={"momentum": 0.0, "nesterov": False}, lr_scheduler="constant"))
    plain = [p - 0.01 * sum(given[i] for given in gradients()) for i, p in enumerate(begin())]
    agree(found, plain)


@pytest.mark.parametrize(
    ("arguments", "rate", "relative"),
    [
        ({}, 0.01, False),
        ({"relative_step": False, "scale_parameter": False, "warmup_init": False}, 0.01, False),
        ({"scale_parameter": True}, 0.01, True),
        ({"scale_parameter": True, "relative_step": True}, None, True),
        ({"relative_step": True}, None, False),
    ],
)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adafactor_is_the_papers(arguments: dict[str, Any], rate: float | None, relative: bool, decay: float) -> None:
    asked = config(optimizer="adafactor", optimizer_args=arguments, lr_scheduler="constant", weight_decay=decay)
    agree(ours(asked), adafactor(rate, relative, decay))


def test_adafactor_teaches_a_matrix_of_zeros_at_the_learning_rate() -> None:
    """Relative to its size, at least 1e-3, it would move a thousandth of that."""
    moved = ours(config(optimizer="adafactor", lr_scheduler="constant"))[1]
    assert 0.2 * STEPS * 0.01 < moved.abs().max().item() < 3 * STEPS * 0.01


@pytest.mark.parametrize(("scheduler", "warm_up"), [("constant", 0), ("cosine", 0), ("linear", 5), ("restarts", 0.5)])
def test_schedule_free_takes_neither_scheduler_nor_warm_up(scheduler: str, warm_up: float) -> None:
    pytest.importorskip("pytorch_optimizer")
    asked = config(optimizer="schedule-free-adamw", lr_scheduler=scheduler, warmup_steps=warm_up)
    agree(ours(asked), schedule_free(0.01))


def test_schedule_free_sgd_is_the_papers() -> None:
    """Equations 3 to 5 of arXiv 2405.15682, the average begun with the first step's point."""
    pytest.importorskip("pytorch_optimizer")
    rate, total = 0.01, 0.0
    z, x = begin(), begin()
    for given in gradients():
        total += rate**2
        for p, average, g in zip(z, x, given, strict=True):
            p.sub_(rate * g)
            average.lerp_(p, rate**2 / total)
    agree(ours(config(optimizer="schedule-free-sgd", lr_scheduler="linear", warmup_steps=5)), x)


def test_schedule_free_has_a_warm_up_of_its_own() -> None:
    pytest.importorskip("pytorch_optimizer")
    arguments = {"warmup_steps": 8, "betas": [0.95, 0.99]}
    asked = config(optimizer="schedule-free-adamw", optimizer_args=arguments)
    agree(ours(asked), schedule_free(0.01, 8, (0.95, 0.99)))


@pytest.mark.parametrize(
    ("name", "library", "renamed"),
    [
        ("lion", "Lion", {}),
        ("prodigy", "Prodigy", {"use_bias_correction": "bias_correction"}),
        ("schedule-free-adamw", "ScheduleFreeAdamW", {}),
        ("schedule-free-radam", "ScheduleFreeRAdam", {}),
    ],
)
@pytest.mark.parametrize("changed", [{}, {"betas": [0.8, 0.97]}])
def test_arguments_reach_the_library(name: str, library: str, renamed: dict[str, str], changed: dict[str, Any]) -> None:
    kind = getattr(pytest.importorskip("pytorch_optimizer"), library)
    weights = [nn.Parameter(p) for p in begin()]
    options = {renamed.get(key, key): value for key, value in (OPTIMIZER_ARGS[name] | changed).items()}
    theirs = kind(weights, lr=0.01, weight_decay=0.1, **options)
    for given in gradients():
        for p, gradient in zip(weights, given, strict=True):
            p.grad = gradient.clone()
        theirs.step()
    if hasattr(theirs, "eval"):
        theirs.eval()
    asked = config(optimizer=name, lr_scheduler="constant", weight_decay=0.1, optimizer_args=changed)
    agree(ours(asked), [p.detach() for p in weights])


@pytest.mark.parametrize("arguments", [{}, {"betas": [0.8, 0.99], "eps": 1e-3}])
def test_adamw_is_the_papers(arguments: dict[str, Any]) -> None:
    """Algorithm 2 of arXiv 1711.05101."""
    (b1, b2), eps = arguments.get("betas", (0.9, 0.999)), arguments.get("eps", 1e-8)
    weights, first, second = begin(), [0 * p for p in begin()], [0 * p for p in begin()]
    for t, given in enumerate(gradients(), start=1):
        for p, m, v, g in zip(weights, first, second, given, strict=True):
            p.mul_(1 - 0.01 * 0.1)
            m.mul_(b1).add_(g, alpha=1 - b1)
            v.mul_(b2).addcmul_(g, g, value=1 - b2)
            p.sub_(0.01 * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps))
    agree(ours(config(lr_scheduler="constant", weight_decay=0.1, optimizer_args=arguments)), weights)


@pytest.mark.parametrize(
    ("optimizer", "arguments", "message"),
    [
        ("adamw", {"beta": 1}, "adamw has no argument 'beta'; it knows betas, eps"),
        ("adamw", {"weight_decay": 0.1}, "weight_decay has a key of its own"),
        ("adamw", {"betas": 0.9}, "the argument betas of adamw is two numbers"),
        ("adamw", {"betas": [0.9]}, "the argument betas of adamw is two numbers"),
        ("adamw", {"eps": True}, "the argument eps of adamw is a number"),
        ("adafactor", {"scale_parameter": 1}, "the argument scale_parameter of adafactor is true or false"),
        ("adafactor", {"warmup_init": True}, "warmup_init of adafactor needs relative_step = true"),
        ("adafactor", {"beta1": [0.9, 0.99]}, "the argument beta1 of adafactor is a number"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_else(optimizer: str, arguments: Any, message: str) -> None:
    with pytest.raises(MaquetteError, match=message):
        config(optimizer=optimizer, optimizer_args=arguments)


def test_arguments_survive_the_runs_file() -> None:
    asked = config(optimizer="adafactor", optimizer_args={"eps": [1e-20, 0.01], "relative_step": True, "beta1": 0.9})
    import tomllib

    assert TrainConfig.parse(tomllib.loads(asked.to_toml())).optimizer_args == asked.optimizer_args


def test_every_default_is_the_librarys_own_but_those_that_are_chosen() -> None:
    """What is chosen: Nesterov's momentum, Adafactor's absolute steps, Prodigy's warm-up and bias correction."""
    import inspect

    library = pytest.importorskip("pytorch_optimizer")
    from transformers.optimization import Adafactor

    chosen = {"momentum", "nesterov", "scale_parameter", "relative_step", "use_bias_correction", "safeguard_warmup"}
    kinds = {
        "adamw": torch.optim.AdamW,
        "sgd": torch.optim.SGD,
        "adafactor": Adafactor,
        "lion": optim.Lion,
        "prodigy": library.Prodigy,
        "schedule-free-adamw": library.ScheduleFreeAdamW,
        "schedule-free-radam": library.ScheduleFreeRAdam,
        "schedule-free-sgd": library.ScheduleFreeSGD,
    }
    assert kinds.keys() == OPTIMIZER_ARGS.keys() - {"adamw8bit"}
    for name, kind in kinds.items():
        known = inspect.signature(kind).parameters
        for key, value in OPTIMIZER_ARGS[name].items():
            if key not in chosen:
                assert known[key].default == value or (value is math.inf and known[key].default == math.inf), (
                    name,
                    key,
                )


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_without_the_compiler_pytorchs_optimizers_are_the_same_to_the_bit(name: str) -> None:
    """Also their state, their hooks, and a step that the device refuses."""
    (weights, state, calls), (theirs, right, others) = (halves(library, name) for library in (uncompiled, torch.optim))
    assert calls == others == STEPS
    assert all(torch.equal(a, b) for a, b in zip(weights, theirs, strict=True))
    assert state["param_groups"] == right["param_groups"]
    for place, values in right["state"].items():
        assert all(
            torch.equal(torch.as_tensor(state["state"][place][key]), v) for key, v in values.items() if v is not None
        )


def halves(library: Any, name: str) -> tuple[list[Tensor], dict[str, Any], int]:
    """Weights after STEPS steps, the last of which go on from the state of the first; the state; calls of a hook."""
    weights, calls, state = [nn.Parameter(p) for p in begin()], [0], None
    for part in gradients()[:6], gradients()[6:]:
        optimizer = getattr(library, name)([{"params": weights[:1]}], lr=0.01, weight_decay=0.1, fused=True)
        optimizer.add_param_group({"params": weights[1:], "lr": 0.02})
        optimizer.register_step_post_hook(lambda *_: calls.append(1))
        if state is not None:
            optimizer.load_state_dict(state)
        for number, given in enumerate(part):
            for p, gradient in zip(weights, given, strict=True):
                p.grad = gradient.clone()
            if name == "AdamW":
                optimizer.found_inf = torch.tensor(float(number == 3))
            optimizer.step()
        state = copy.deepcopy(optimizer.state_dict())
        optimizer.zero_grad()
        assert all(p.grad is None for p in weights)
    assert state is not None
    return [p.detach() for p in weights], state, sum(calls)
