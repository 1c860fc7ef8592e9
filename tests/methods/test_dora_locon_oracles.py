"""DoRA's merged weight against PEFT, its gradients by the paper's formula, and LoCon against LyCORIS."""

import pytest
import torch
from torch import nn

from maquette.methods import attach
from maquette.methods.base import MethodSpec

LAYERS = {
    "linear": lambda: nn.Linear(6, 10),
    "one": lambda: nn.Conv2d(6, 10, 1),
    "three": lambda: nn.Conv2d(6, 10, 3, padding=1),
    "stride": lambda: nn.Conv2d(6, 10, 3, stride=2, padding=1, bias=False),
}
NAME = "lora_unet_x"


def adapted(
    kind: str, method: str, conv_rank: int = 3, axis: int = 1
) -> tuple[nn.Module, nn.Module, dict[str, torch.Tensor]]:
    """The adapted layer, one like it without adapter, and the factors, none of them zero."""
    torch.manual_seed(1)
    holder, plain = nn.Module(), LAYERS[kind]().requires_grad_(False)
    holder.layer = LAYERS[kind]().requires_grad_(False)
    holder.layer.load_state_dict(plain.state_dict())
    spec = MethodSpec(rank=3, alpha=2.0, conv_rank=conv_rank, conv_alpha=2.0, magnitude_axis=axis)
    made = attach(method, {NAME: (holder, "layer")}, spec)
    for group in made.parameter_groups().values():
        for p in group:
            p.data += torch.randn(p.shape) * 0.2
    holder.made = made  # type: ignore[assignment]
    return holder, plain, {key.removeprefix(NAME + "."): value for key, value in made.state().items()}


def x_for(kind: str) -> torch.Tensor:
    return torch.randn(2, 5, 6) if kind == "linear" else torch.randn(2, 6, 6, 6)


@pytest.mark.parametrize("kind", LAYERS)
def test_locon_is_lycoris(kind: str) -> None:
    from lycoris.modules.locon import LoConModule

    rank = 2 if kind in ("three", "stride") else 3
    holder, plain, factors = adapted(kind, "locon", conv_rank=2)
    theirs = LoConModule(NAME, plain, 1.0, rank, 2.0)
    theirs.lora_down.weight.data = factors["lora_down.weight"].clone()
    theirs.lora_up.weight.data = factors["lora_up.weight"].clone()
    expected = theirs.get_diff_weight(1.0, plain.weight.shape)[0]
    torch.testing.assert_close(holder.made.delta(NAME), expected, atol=1e-6, rtol=1e-5)
    x = x_for(kind)
    theirs.apply_to()
    torch.testing.assert_close(holder.layer(x), plain(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "one", "three"])
def test_dora_delta_is_what_peft_merges(kind: str) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    holder, plain, factors = adapted(kind, "dora")
    ones = [1] * (plain.weight.ndim - 1)  # type: ignore[union-attr, operator]
    rows = torch.rand(10, *ones) + 0.5  # PEFT's magnitude is per output row
    holder.made.load_state({f"{NAME}.{key}": value for key, value in (factors | {"dora_scale": rows}).items()})
    theirs = nn.Module()
    theirs.layer = LAYERS[kind]().requires_grad_(False)
    theirs.layer.load_state_dict(plain.state_dict())
    config = LoraConfig(r=3, lora_alpha=2, target_modules=["layer"], use_dora=True)
    layer = inject_adapter_in_model(config, theirs).layer
    layer.lora_A["default"].weight.data = factors["lora_down.weight"].clone()
    layer.lora_B["default"].weight.data = factors["lora_up.weight"].clone()
    magnitude = layer.lora_magnitude_vector["default"].weight
    magnitude.data = rows.reshape(magnitude.shape).clone()
    layer.merge()
    merged = layer.get_base_layer().weight - plain.weight  # type: ignore[operator]
    torch.testing.assert_close(holder.made.delta(NAME), merged, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1], ids=["output", "input"])
@pytest.mark.parametrize("kind", LAYERS)
def test_dora_gradients_are_those_of_the_formula_with_a_constant_norm(kind: str, axis: int) -> None:
    holder, plain, factors = adapted(kind, "dora", axis=axis)
    mine = {name: p for name, p in holder.layer.adapter.named_parameters()}
    ones = [1] * (plain.weight.ndim - 2)  # type: ignore[union-attr, operator]
    assert factors["dora_scale"].shape == ((10, 1, *ones) if axis == 0 else (1, 6, *ones))
    x, leaves = x_for(kind), {n: p.detach().clone().requires_grad_() for n, p in mine.items()}
    down, up = leaves["lora_down__weight"], leaves["lora_up__weight"]
    weight = plain.weight + (up.flatten(1) @ down.flatten(1) * 2 / 3).reshape(plain.weight.shape)  # type: ignore[operator, arg-type]
    norm = torch.linalg.vector_norm(weight.detach(), dim=[i for i in range(weight.ndim) if i != axis], keepdim=True)
    changed = weight * leaves["dora_scale"] / norm
    options = {} if kind == "linear" else {"stride": plain.stride, "padding": plain.padding}
    expected = (nn.functional.linear if kind == "linear" else nn.functional.conv2d)(x, changed, plain.bias, **options)  # type: ignore[operator]
    seen = holder.layer(x)
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(seen)
    (seen * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(mine[name].grad, leaf.grad, atol=1e-4, rtol=1e-4)
