"""Convolutions by Winograd's filtering are convolutions."""

import copy

import pytest
import torch
from torch import nn

from maquette.fast import packed, winograd

SIZES = [(1, 8, 8), (2, 12, 20), (3, 5, 7), (1, 4, 1)]


@pytest.mark.parametrize("pictures", SIZES)
@pytest.mark.parametrize(("size", "within"), [(4, 1e-5), (2, 1e-6)])
def test_there_and_back(size: int, within: float, pictures: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    batch, height, width = pictures
    x = torch.randn(batch, 24, height, width)
    weight, bias = torch.randn(40, 24, 3, 3) / 15, torch.randn(40)
    exact = nn.functional.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    laid_out = winograd.transform(weight, size)
    assert laid_out.shape == ((size + 2) ** 2, 40, 24)
    made = winograd.convolve(x, laid_out, bias)
    assert made.is_contiguous() and (made - exact).norm() < within * exact.norm()
    gradient = torch.randn_like(made)
    exact = torch.nn.grad.conv2d_input(x.shape, weight.double(), gradient.double(), padding=1)
    made = winograd.convolve_back(gradient, laid_out)
    assert made.is_contiguous() and (made - exact).norm() < within * exact.norm()


def test_other_layouts_of_memory_are_understood() -> None:
    x = torch.randn(2, 12, 16, 8)
    laid_out = winograd.transform(torch.randn(20, 12, 3, 3), 4)
    expected = winograd.convolve(x, laid_out, None)
    assert torch.equal(winograd.convolve(x.to(memory_format=torch.channels_last), laid_out, None), expected)
    assert torch.equal(winograd.convolve(x.repeat(1, 1, 1, 2)[..., :8], laid_out, None), expected)


def test_where_it_is_used() -> None:
    large = torch.empty(320, 320, 3, 3)
    assert winograd.size_for(large, (1, 1), (1, 320, 32, 32)) == 4
    assert winograd.size_for(large, (1, 1), (1, 320, 15, 16)) == 4
    assert winograd.size_for(large, (1, 1), (4, 320, 8, 8)) == 2  # large tiles' weights would be many times the picture
    assert winograd.size_for(large, (1, 1), (1, 320, 8, 8)) == 0  # too few tiles for any
    assert winograd.size_for(large, (0, 0), (1, 320, 32, 32)) == 0
    assert winograd.size_for(large[:192], (1, 1), (1, 320, 32, 32)) == 0  # which is quicker as it is
    assert winograd.size_for(torch.empty(320, 960, 3, 3), (1, 1), (1, 960, 32, 32)) == 4
    assert winograd.size_for(large[..., :1], (1, 1), (1, 320, 32, 32)) == 0
    assert winograd.size_for(large.bfloat16(), (1, 1), (1, 320, 32, 32)) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_convolutions_use_it_in_float32_with_one_layout(
    dtype: torch.dtype, with_bf16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "LEAST_WIDTH", 0)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(96, 80, 3, padding=1)).requires_grad_(False).to(dtype)
    fast = copy.deepcopy(plain)
    assert packed.install(fast) == 1
    before = packed.size(fast)
    for size in ((1, 96, 16, 16), (2, 96, 9, 8)):
        x = torch.randn(size, dtype=dtype)
        found = []
        for network in (plain, fast):
            y = network(x.requires_grad_(True))
            found.append((y.detach(), torch.autograd.grad(y.square().sum(), x)[0]))
        for mine, theirs in zip(found[1], found[0], strict=True):
            assert (mine - theirs).norm() < (1e-5 if dtype == torch.float32 else 1e-2) * theirs.norm()
    layouts = fast[0].layouts
    assert layouts.tiled == (dtype == torch.float32) and fast[0].weight.is_meta
    if layouts.tiled:
        assert layouts.there is layouts.back and packed.size(fast) == 36 * 80 * 96 * 4 == 2 * before
    else:
        assert packed.size(fast) == before
