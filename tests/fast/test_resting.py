"""Resting layers compute what plain ones do, with the weight that they have at the moment."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from maquette.families.modules import build_unet
from maquette.fast import onednn, resting
from maquette.fast.resting import RestingConv2d, RestingLinear
from tests.families import tiny

LAYERS = {
    "3x3": lambda: nn.Conv2d(80, 96, 3, padding=1),
    "3x3, stride 2": lambda: nn.Conv2d(80, 96, 3, stride=2, padding=1, bias=False),
    "1x1": lambda: nn.Conv2d(256, 260, 1),
    "linear": lambda: nn.Linear(256, 300),
    "linear without bias": lambda: nn.Linear(300, 256, bias=False),
}


def input_of(layer: nn.Module, batch: int = 2, side: int = 6) -> Tensor:
    width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    shape = (batch, side, width) if isinstance(layer, nn.Linear) else (batch, width, side, side + 1)
    return torch.randn(shape, generator=torch.Generator().manual_seed(batch))


def small(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let layers of so many numbers rest."""
    monkeypatch.setattr(resting, "SMALLEST", dict.fromkeys((torch.float32, torch.bfloat16), size))
    monkeypatch.setattr(resting, "SMALLEST_KERNEL", size)


def made(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    small(monkeypatch, 1 << 14)
    plain = LAYERS[name]().requires_grad_(False).to(dtype)
    fast = nn.Sequential(copy.deepcopy(plain))
    assert resting.install(fast) == 1 and isinstance(fast[0], RestingConv2d | RestingLinear)
    return plain, fast[0]


@torch.no_grad()
@pytest.mark.parametrize("name", LAYERS)
def test_numbers_are_those_of_the_plain_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = made(name, torch.float32, monkeypatch)
    for batch, side in ((2, 6), (1, 9), (2, 6)):
        x = input_of(plain, batch, side)
        torch.testing.assert_close(fast(x), plain(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", LAYERS)
def test_bf16_rounds_once(name: str, with_bf16: None, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = made(name, torch.bfloat16, monkeypatch)
    x = input_of(plain).bfloat16()
    exact = copy.deepcopy(plain).double()(x.double())
    assert (fast(x) - exact).abs().max() <= 1.5 * (plain(x) - exact).abs().max() + 1e-3


@torch.no_grad()
@pytest.mark.parametrize("name", ["3x3", "linear"])
def test_another_weight_counts_at_once_and_the_first_one_when_it_is_back(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, fast = made(name, torch.float32, monkeypatch)
    x, home = input_of(plain), fast.weight.data
    first = fast(x)
    layout = fast.layout.made
    fast.weight.data = plain.weight.data = 2 * home
    torch.testing.assert_close(fast(x), plain(x), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(fast(x), first, atol=0.1)
    fast.weight.data = home
    assert torch.equal(fast(x), first) and fast.layout.made is layout  # which waited


def test_what_does_not_fit_a_layout_is_computed_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = made("linear", torch.float32, monkeypatch)
    x = input_of(plain).requires_grad_(True)
    fast(x).sum().backward()
    assert x.grad is not None and fast.layout.made is None
    with torch.no_grad():
        assert fast(x[:0]).shape == (0, 6, 300)
        with torch.autocast("cpu", torch.bfloat16):
            assert fast(x).dtype == torch.bfloat16
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            fast(x[..., :10])
    assert fast.layout.made is None


def test_large_pictures_in_float32_are_computed_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where laying out takes next to nothing of a call."""
    plain, fast = made("3x3", torch.float32, monkeypatch)
    with torch.no_grad():
        large = torch.randn(2, 80, 16, 17)
        assert torch.equal(fast(large), plain(large)) and fast.layout.made is None
        fast(large[..., :16])
        assert fast.layout.made is not None


def test_what_cannot_rest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 1 << 14)
    layers = [
        nn.Conv2d(256, 256, 3, groups=2), nn.Conv2d(128, 128, 3, dilation=2), nn.Conv2d(8, 8, 3), nn.Linear(8, 8),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"), nn.Conv2d(128, 128, 3, padding="same"),
        nn.Linear(512, 512).double(), nn.Embedding(512, 512),
    ]  # fmt: skip
    network = nn.Sequential(*layers).requires_grad_(False)
    assert resting.install(network) == 0
    assert resting.install(nn.Sequential(nn.Linear(512, 512))) == 0  # it learns
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert resting.install(nn.Sequential(nn.Linear(512, 512)).requires_grad_(False)) == 0


@torch.no_grad()
def test_a_network_keeps_its_names_and_tensors_and_copies_lay_out_for_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small(monkeypatch, 1 << 10)
    network = build_unet(tiny.unet_options("sd1", 4)).to_empty(device="cpu").requires_grad_(False)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.05, generator=torch.Generator().manual_seed(p.numel()))
    places = {name: p.data_ptr() for name, p in network.named_parameters()}
    given = torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 77, network.config.cross_attention_dim)
    wanted = network(*given)
    assert resting.install(network) > 40 and resting.install(network) == 0
    assert {name: p.data_ptr() for name, p in network.named_parameters()} == places
    torch.testing.assert_close(network(*given), wanted, rtol=1e-4, atol=1e-5)
    layers = [m for m in copy.deepcopy(network).modules() if isinstance(m, RestingConv2d | RestingLinear)]
    assert layers and all(layer.layout.made is None for layer in layers)


def test_layouts_are_made_for_the_sizes_that_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a drawing does not depend on those before it."""
    plain, fast = made("3x3", torch.float32, monkeypatch)
    shapes: list[tuple[int, ...]] = []
    lay_out = onednn.lay_out
    monkeypatch.setattr(onednn, "lay_out", lambda *told: (shapes.append(tuple(told[2])), lay_out(*told))[1])
    with torch.no_grad():
        for batch, side in ((2, 6), (2, 6), (1, 6), (1, 6), (2, 6)):
            fast(input_of(plain, batch, side))
    assert shapes == [(2, 80, 6, 7), (1, 80, 6, 7), (2, 80, 6, 7)]


def test_kernels_come_first_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 1 << 14)
    layers = [nn.Linear(256, 256), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3), nn.Linear(256, 256)]
    sizes = {"kernel": 4 * 64 * 64 * 9, "matrix": 4 * 256 * 256}

    def resting_with(room: int) -> list[bool]:
        network = nn.Sequential(*copy.deepcopy(layers)).requires_grad_(False)
        monkeypatch.setattr(resting.memory, "installed", lambda: room * resting.SHARE + 1)
        count = resting.install(network)
        found = [isinstance(layer, RestingConv2d | RestingLinear) for layer in network]
        assert count == sum(found)
        return found

    assert resting_with(2 * sum(sizes.values())) == [True] * 4
    assert resting_with(2 * sizes["kernel"]) == [False, True, True, False]
    assert resting_with(2 * sizes["kernel"] + sizes["matrix"]) == [True, True, True, False]
    assert resting_with(0) == [False] * 4


def test_matrices_of_float32_stay_as_they_are() -> None:
    network = nn.Sequential(nn.Linear(2048, 2048), nn.Conv2d(1024, 1024, 1)).requires_grad_(False)
    assert resting.install(network) == 0
