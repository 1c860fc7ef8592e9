"""A layer and its LoRA in one function compute what they compute apart, there and back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from maquette.fast import packed
from maquette.methods import attach, fused
from maquette.methods.base import MethodSpec

LAYERS = {
    "linear": (lambda: nn.Linear(256, 300), (2, 7, 256)),
    "linear without bias": (lambda: nn.Linear(300, 256, bias=False), (5, 300)),
    "1x1": (lambda: nn.Conv2d(256, 260, 1), (2, 256, 5, 6)),
}


def results(
    layer: nn.Module, x: Tensor, apart: bool, monkeypatch: pytest.MonkeyPatch, laid_out: bool = False
) -> list[Tensor]:
    """Output, input gradient, gradients of the factors."""
    network = nn.ModuleDict({"a": copy.deepcopy(layer)}).requires_grad_(False)
    if apart:
        monkeypatch.setattr(fused, "fits", lambda x, layer: False)
    attached = attach("lora", {"lora_unet_a": (network, "a")}, MethodSpec(rank=4, alpha=3.0))
    if laid_out:
        assert packed.install(network) == 1
        network["a"](x)
        assert network["a"].weight.is_meta
    parameters = [p for group in attached.parameter_groups().values() for p in group]
    for p in parameters:
        p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())).to(p) * 0.05
    x = x.clone().requires_grad_(True)
    y = network["a"](x)
    assert ("LoRA" in type(y.grad_fn).__name__) is not apart
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y.dtype)
    found = [y, *torch.autograd.grad((y * weights).sum(), [x, *parameters])]
    monkeypatch.undo()
    return found


@pytest.mark.parametrize("laid_out", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_numbers_are_those_of_layer_plus_lora(name: str, laid_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, x = make().requires_grad_(False), torch.randn(shape)
    mine = results(layer, x, False, monkeypatch, laid_out)
    theirs = results(layer, x, True, monkeypatch)
    for left, right in zip(mine, theirs, strict=True):
        assert left.dtype == right.dtype
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_bf16_is_as_exact_as_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make().requires_grad_(False).bfloat16()
    x = torch.randn(shape).bfloat16()
    mine, theirs = (results(layer, x, apart, monkeypatch) for apart in (False, True))
    exact = results(copy.deepcopy(layer).float(), x.float(), True, monkeypatch)
    assert [t.dtype for t in mine[2:]] == [torch.float32] * 2
    for left, right, true in zip(mine, theirs, exact, strict=True):
        scale = true.abs().max()
        assert (left.float() - true).abs().max() <= 1.5 * (right.float() - true).abs().max() + 2e-3 * scale


def test_gradients_are_those_of_differences() -> None:
    for layer, shape in ((nn.Linear(5, 6), (2, 3, 5)), (nn.Conv2d(4, 3, 1), (2, 4, 2, 3))):
        layer = layer.double().requires_grad_(False)
        rows, columns = layer.weight.shape[:2]
        tail = (1, 1) if layer.weight.ndim == 4 else ()
        inputs = [
            torch.randn(s, dtype=torch.float64, requires_grad=True)
            for s in (shape, (2, columns, *tail), (rows, 2, *tail))
        ]
        assert torch.autograd.gradcheck(lambda x, a, b, layer=layer: fused.run(x, a, b, layer, 0.7), inputs)


def test_a_channels_last_picture_and_a_constant_one() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 5, 1).requires_grad_(False)
    down, up = torch.randn(2, 6, 1, 1, requires_grad=True), torch.randn(5, 2, 1, 1, requires_grad=True)
    x = torch.randn(2, 6, 4, 3)
    right = layer(x) + 0.5 * nn.functional.conv2d(nn.functional.conv2d(x, down), up)
    left = fused.run(x.to(memory_format=torch.channels_last), down, up, layer, 0.5)
    torch.testing.assert_close(left, right)
    for mine, theirs in zip(
        torch.autograd.grad(left.square().sum(), [down, up]),
        torch.autograd.grad(right.square().sum(), [down, up]),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_what_it_cannot_stand_for_is_left_alone() -> None:
    x, picture = torch.zeros(2, 8), torch.zeros(1, 8, 4, 4)
    assert fused.fits(x, nn.Linear(8, 8).requires_grad_(False))
    assert not fused.fits(x, nn.Linear(8, 8))
    assert not fused.fits(x.bfloat16(), nn.Linear(8, 8).requires_grad_(False))
    with torch.autocast("cpu", torch.bfloat16):
        assert not fused.fits(x, nn.Linear(8, 8).requires_grad_(False))
    for conv in (
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(8, 8, 1, stride=2),
        nn.Conv2d(8, 8, 1, padding=1),
        nn.Conv2d(8, 8, 1, groups=2),
    ):
        assert not fused.fits(picture, conv.requires_grad_(False))
