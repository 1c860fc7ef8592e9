"""Ranks by block, max-norm, dropouts, and beginning from an existing file."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maquette import adapters
from maquette.adapters import maths
from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.methods import attach
from maquette.methods.base import MethodSpec
from maquette.training import optim
from maquette.training.attaching import load_initial_lora, ranked

NAMES = ("lora_unet_down_blocks_1_a", "lora_unet_mid_block_a", "lora_unet_mid_block_conv")


def attached(method: str = "lora", **spec: Any) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    holder = nn.Module()
    layers = (nn.Linear(6, 8), nn.Linear(6, 8), nn.Conv2d(6, 8, 3, padding=1))
    for name, layer in zip(NAMES, layers, strict=True):
        holder.add_module(name, layer.requires_grad_(False))
    made = attach(method, {name: (holder, name) for name in NAMES}, MethodSpec(**{"rank": 4, "alpha": 2.0} | spec))
    for group in made.parameter_groups().values():
        for p in group:
            p.data += torch.randn(p.shape)
    return holder, made


def test_blocks_have_their_own_rank_and_keep_the_strength() -> None:
    _, made = attached(block_ranks={"mid": 1, "mid_block_conv": 3}, block_alphas={"mid_block_a": 5.0})
    state = made.state()
    assert [state[f"{name}.lora_down.weight"].shape[0] for name in NAMES] == [4, 1, 3]
    assert [float(state[f"{name}.alpha"]) for name in NAMES] == [2.0, 5.0, 1.5]


def config(**values: Any) -> TrainConfig:
    return TrainConfig.parse({"photos": "photos", **values})


def test_rank_zero_leaves_a_block_out_and_a_block_that_is_none_is_refused() -> None:
    slots = {name: (nn.Module(), "x") for name in NAMES}
    assert list(ranked(config(block_ranks={"mid_block": 0, "mid_block_conv": 2}), "sd1", slots)) == [NAMES[0], NAMES[2]]
    with pytest.raises(MaquetteError, match="No layer to train has 'up_blocks_9'"):
        ranked(config(block_ranks={"up_blocks_9": 2}), "sd1", slots)


def test_block_ranks_survive_the_run_file(tmp_path: Path) -> None:
    made = config(block_ranks={"mid_block": 0, "up_blocks_1": 8}, block_alphas={"up_blocks_1": 0.5})
    (tmp_path / "run.toml").write_text(made.to_toml())
    assert TrainConfig.read(tmp_path / "run.toml") == made


@pytest.mark.parametrize("method", ["lora", "dora", "loha", "lokr"])
def test_max_norm_shortens_what_is_longer_and_nothing_else(method: str) -> None:
    _, made = attached(method, factor=2, rank=2)
    changes = _products(made)
    lengths = sorted(float(change.norm()) for change in changes.values())
    largest = (lengths[0] + lengths[1]) / 2
    made.scale_weight_norms(largest)
    for name, change in _products(made).items():
        expected = changes[name] * min(1.0, largest / float(changes[name].norm()))
        torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-5)


def _products(made: Any) -> dict[str, Tensor]:
    """What the factors make of each layer, a magnitude of DoRA's left out."""
    found = {name: {k: t.clone() for k, t in a.factors().items() if k != "dora_scale"} for name, a in made.adapters()}
    return {name: maths.delta(factors) for name, factors in found.items()}


def test_max_norm_is_kohyas_formula_for_lora() -> None:
    """Both factors times the root of the ratio."""
    _, made = attached()
    state = {key: value.clone() for key, value in made.state().items()}
    down, up = state[f"{NAMES[0]}.lora_down.weight"], state[f"{NAMES[0]}.lora_up.weight"]
    ratio = min(1.0, 0.5 / float((up @ down * 0.5).norm()))
    made.scale_weight_norms(0.5)
    torch.testing.assert_close(made.state()[f"{NAMES[0]}.lora_up.weight"], up * ratio**0.5)
    torch.testing.assert_close(made.state()[f"{NAMES[0]}.lora_down.weight"], down * ratio**0.5)


@pytest.mark.parametrize("method", ["lora", "dora", "loha", "lokr"])
def test_module_dropout_gives_the_bare_layer(method: str) -> None:
    holder, _ = attached(method, factor=2, module_dropout=1.0)
    wrapped, x = getattr(holder, NAMES[0]), torch.randn(3, 6)
    assert torch.equal(wrapped(x), wrapped.layer(x))
    wrapped.eval()
    assert (wrapped(x) - wrapped.layer(x)).abs().max() > 0.1


@pytest.mark.parametrize(
    ("method", "key", "value"),
    [("loha", "dropout", 0.5), ("dreambooth", "dropout", 0.1), ("textual-inversion", "scale_weight_norms", 1.0)],
)
def test_options_without_effect_are_refused(method: str, key: str, value: float) -> None:
    with pytest.raises(MaquetteError, match=f"{key} has no effect on the method {method}"):
        config(method=method, **{key: value})


def test_a_run_begins_from_a_file(tmp_path: Path) -> None:
    _, first = attached()
    file = tmp_path / "first.safetensors"
    adapters.from_state_dict(first.state(), {}, "first").save(file)
    _, second = attached(seed=5)
    load_initial_lora(file, second)
    assert all(torch.equal(value, second.state()[key]) for key, value in first.state().items())
    for options, message in [
        ({"rank": 2}, r"is \(4, 6\), in this run \(2, 6\); give the file's rank"),
        ({"alpha": 1.0}, "has alpha 2, the run 1"),
    ]:
        with pytest.raises(MaquetteError, match=message):
            load_initial_lora(file, attached(**options)[1])
    with pytest.raises(MaquetteError, match=r"it lacks \S*hada_w1_a, which the run trains"):
        load_initial_lora(file, attached("loha")[1])


def test_rank_dropout_drops_whole_components_by_hand() -> None:
    holder, made = attached(rank_dropout=0.5)
    wrapped, x = getattr(holder, NAMES[0]), torch.randn(1, 6)
    torch.manual_seed(3)
    seen = wrapped(x)
    torch.manual_seed(3)
    kept = (torch.rand(1, 4) >= 0.5).float() / 0.5
    state = made.state()
    down, up = state[f"{NAMES[0]}.lora_down.weight"], state[f"{NAMES[0]}.lora_up.weight"]
    torch.testing.assert_close(seen, wrapped.layer(x) + (x @ down.T * kept) @ up.T * 0.5)


@pytest.mark.parametrize(
    ("method", "dropouts"),
    [("lora", {"dropout": 0.5}), ("dora", {"rank_dropout": 0.5}), ("loha", {"rank_dropout": 0.5}),
     ("lokr", {"rank_dropout": 0.5}), ("lokr", {"dropout": 0.5}), ("lokr", {"dropout": 0.5, "rank": 100})],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("name", [NAMES[0], NAMES[2]])
def test_dropouts_keep_the_mean_and_end_with_training(method: str, dropouts: dict[str, float], name: str) -> None:
    holder, made = attached(method, **{"factor": 2, "rank": 1} | dropouts)
    wrapped = getattr(holder, name)
    x = torch.randn(1, 6) if isinstance(wrapped.layer, nn.Linear) else torch.randn(1, 6, 5, 5)
    with torch.no_grad():
        drawn = torch.stack([wrapped(x) for _ in range(4000)])
        wrapped.eval()
        whole = wrapped(x)
    spread = drawn.std(0).max()
    assert spread > 0.05
    assert (drawn.mean(0) - whole).abs().max() < 5 * spread / 4000**0.5
    torch.testing.assert_close(whole, _folded(wrapped, made.delta(name))(x), atol=1e-5, rtol=1e-5)


def _folded(wrapped: Any, delta: torch.Tensor) -> nn.Module:
    layer: nn.Module = copy.deepcopy(wrapped.layer)
    layer.weight.data += delta  # type: ignore[operator, union-attr]
    return layer


def test_lora_plus_teaches_the_up_matrices_faster() -> None:
    _, made = attached()
    optimizer = optim.make_optimizer(config(learning_rate=1e-3, lora_plus_ratio=8.0), made.parameter_groups())
    rates = {group["name"]: (group["lr"], len(group["params"])) for group in optimizer.param_groups}
    assert rates == {"unet": (1e-3, 3), "unet_up": (8e-3, 3)}


def test_eight_bit_adam_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MaquetteError, match=r"pip install 'maquette-lora\[eight-bit\]'"):
        optim.make_optimizer(config(optimizer="adamw8bit"), {"unet": [nn.Parameter(torch.zeros(2))]})
