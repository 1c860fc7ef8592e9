"""Packed layers compute what plain ones do, there and back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from maquette.families.unet.blocks import Upsample2D
from maquette.fast import packed, winograd
from maquette.methods import attach
from maquette.methods.base import MethodSpec

LAYERS = {
    "3x3": lambda: nn.Conv2d(80, 96, 3, padding=1),
    "1x1": lambda: nn.Conv2d(256, 260, 1),
    "5x3, uneven padding": lambda: nn.Conv2d(72, 64, (5, 3), padding=(1, 2), bias=False),
    "3x3, stride 2": lambda: nn.Conv2d(80, 96, 3, stride=2, padding=1),
    "3x3, uneven stride": lambda: nn.Conv2d(80, 96, 3, stride=(1, 3), padding=(1, 0)),
    "enlarged": lambda: Upsample2D(96),
    "linear": lambda: nn.Linear(256, 300),
    "linear without bias": lambda: nn.Linear(300, 256, bias=False),
}


def input_of(layer: nn.Module, batch: int = 2, side: int = 6) -> Tensor:
    width = layer.in_features if isinstance(layer, nn.Linear) else getattr(layer, "conv", layer).in_channels
    shape = (batch, side, width) if isinstance(layer, nn.Linear) else (batch, width, side, side + 1)
    return torch.randn(shape, generator=torch.Generator().manual_seed(batch))


def there_and_back(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_(True)
    y = layer(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y.dtype)
    (y * weights).sum().backward()
    return y.detach().float(), x.grad.float()


def made(name: str, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = LAYERS[name]().requires_grad_(False).to(dtype)
    fast = nn.Sequential(copy.deepcopy(plain))
    assert packed.install(fast) == 1 and type(fast[0]) is not type(plain)
    return plain, fast[0]


@pytest.mark.parametrize("name", LAYERS)
def test_numbers_are_those_of_the_plain_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "size_for", lambda *_: 0)  # see test_winograd
    plain, fast = made(name, torch.float32)
    for batch, side in ((2, 6), (1, 9), (3, 4)):  # the layout is made for the first and serves all
        x = input_of(plain, batch, side)
        for mine, theirs in zip(there_and_back(fast, x), there_and_back(plain, x), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_bf16_rounds_once(name: str, with_bf16: None) -> None:
    """As far from the exact result as the plain layer in bf16 is."""
    plain, fast = made(name, torch.bfloat16)
    x = input_of(plain).bfloat16()
    exact = there_and_back(copy.deepcopy(plain).double(), x.double())
    for mine, theirs, right in zip(there_and_back(fast, x), there_and_back(plain, x), exact, strict=True):
        assert (mine - right).abs().max() <= 1.5 * (theirs - right).abs().max() + 1e-3


def test_what_cannot_be_packed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [
        nn.Conv2d(256, 256, 3, groups=2), nn.Conv2d(128, 128, 3, dilation=2), nn.Conv2d(8, 8, 3), nn.Linear(8, 8),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
        nn.Linear(512, 512).double(), nn.Embedding(512, 512),
    ]  # fmt: skip
    network = nn.Sequential(*layers).requires_grad_(False)
    assert packed.install(network) == 0
    learning = nn.Sequential(nn.Linear(512, 512))
    assert packed.install(learning) == 0
    learning.requires_grad_(False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert packed.install(learning) == 0


def test_what_does_not_fit_a_layout_is_computed_plainly() -> None:
    plain, fast = made("linear", torch.float32)
    x = input_of(plain)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(x), plain(x)) and fast(x).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fast(x[..., :10])
    assert fast(x[:0]).shape == plain(x[:0]).shape


def test_plain_weights_go_with_the_first_use_unless_they_are_read() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(256, 300), nn.Linear(300, 256)).requires_grad_(False)
    plain = copy.deepcopy(network)
    packed.install(network, {network[1]})
    x = input_of(network[0])
    first = there_and_back(network, x)
    assert network[0].weight.is_meta and network[0].weight.shape == (300, 256)
    assert torch.equal(network[1].weight, plain[1].weight)
    for mine, again, theirs in zip(first, there_and_back(network, x), there_and_back(plain, x), strict=True):
        assert torch.equal(mine, again)
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert packed.size(network) == 2 * 2 * 300 * 256 * 4


@pytest.mark.parametrize("odd_first", [False, True])
def test_the_first_enlargement_decides_how_all_are_computed(odd_first: bool, with_bf16: None) -> None:
    plain, fast = made("enlarged", torch.bfloat16)
    assert type(fast) is packed.PackedUpsample2D
    x = input_of(plain).bfloat16()
    for size in ((11, 13), None) if odd_first else (None, (11, 13)):
        torch.testing.assert_close(fast(x, size), plain(x, size), rtol=0.02, atol=0.01)
    assert (fast.kernels is None) == odd_first and (fast.conv.layouts.there is None) != odd_first


def test_memory_of_an_enlargement_is_told_before_and_after(with_bf16: None) -> None:
    plain, fast = made("enlarged", torch.bfloat16)
    weight = 96 * 96 * 9 * 2
    assert packed.size(fast) == 2 * weight
    fast(input_of(plain).bfloat16())
    assert packed.size(fast) == 2 * 16 * 96 * 96 * 2


def test_winograds_large_tiles_go_before_small_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "LEAST_WIDTH", 0)
    plain, fast = made("enlarged", torch.float32)
    fast(input_of(plain, side=16))
    assert fast.kernels is None and fast.conv.layouts.tiled


def test_under_an_adapter_an_enlargement_stays_as_it_was() -> None:
    network = nn.ModuleDict({"up": Upsample2D(96)}).requires_grad_(False)
    attach("locon", {"lora_unet_up": (network["up"], "conv")}, MethodSpec(rank=4))
    assert packed.install(network) == 1
    assert type(network["up"]) is Upsample2D


@pytest.mark.parametrize("method", ["lora", "locon", "dora", "loha", "lokr"])
def test_adapters_sit_on_packed_layers(method: str) -> None:
    """Same outputs and gradients of the factors as on plain layers."""
    results = []
    for pack in (False, True):
        torch.manual_seed(1)
        network = nn.ModuleDict({"a": nn.Conv2d(80, 96, 3, padding=1), "b": nn.Linear(256, 300)}).requires_grad_(False)
        if pack:
            assert packed.install(network) == 2
        inputs = {n: input_of(network[n]) for n in network}
        attached = attach(method, {f"lora_unet_{n}": (network, n) for n in network}, MethodSpec(rank=4))
        parameters = [p for group in attached.parameter_groups().values() for p in group]
        with torch.no_grad():
            for p in parameters:
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.05)
        loss = sum(network[n](inputs[n]).square().sum() for n in network)
        results.append([loss, *torch.autograd.grad(loss, parameters)])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)


def test_packed_layers_stand_beside_the_plain_ones_which_stay_what_they_are() -> None:
    network = nn.ModuleDict({"up": Upsample2D(96), "flat": nn.Linear(256, 300), "flat again": nn.Identity()})
    network.requires_grad_(False).eval()
    plain = network["flat"]
    enlarged, names = network["up"], list(network.state_dict())
    random = torch.get_rng_state()
    assert packed.install(network) == 2
    assert torch.equal(torch.get_rng_state(), random)
    assert type(plain) is nn.Linear and type(enlarged) is Upsample2D and type(enlarged.conv) is packed.PackedConv2d
    assert list(network.state_dict()) == names and network["flat"].weight is plain.weight
    assert not network["flat"].training and not network["up"].training
    network["flat"](input_of(plain))
    assert network["flat"].weight.is_meta and not plain.weight.is_meta


def test_what_an_adapter_puts_back_are_the_packed_layers() -> None:
    network = nn.ModuleDict({"a": nn.Linear(256, 300)}).requires_grad_(False)
    x, plain = input_of(network["a"]), copy.deepcopy(network["a"])
    attached = attach("lora", {"lora_unet_a": (network, "a")}, MethodSpec(rank=4))
    assert packed.install(network) == 1
    adapted = network["a"]
    adapted(x)
    with attached.suspended():
        assert type(network["a"]) is packed.PackedLinear
        torch.testing.assert_close(network["a"](x), plain(x), rtol=1e-4, atol=1e-4)
    assert network["a"] is adapted
    attached.detach()
    assert type(network["a"]) is packed.PackedLinear
