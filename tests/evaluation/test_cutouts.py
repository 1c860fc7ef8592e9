"""Outlines of subjects whose shape is known, and what is behind them."""

import pytest
import torch
from torch import Tensor

from maquette.evaluation.cutouts import backgrounds, set_before, subject_outlines


def grid(size: int) -> tuple[Tensor, Tensor]:
    """y and x of every pixel, 0 to 1."""
    line = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(line, line, indexing="ij")
    return y, x


def disc(size: int, radius: float = 0.25, y0: float = 0.5, x0: float = 0.45) -> Tensor:
    y, x = grid(size)
    return ((y - y0) ** 2 + (x - x0) ** 2 < radius**2).float()[None]


def plain(size: int) -> Tensor:
    return torch.tensor([-0.6, 0.1, 0.7])[:, None, None].expand(3, size, size)


def gradient(size: int) -> Tensor:
    y, x = grid(size)
    return torch.stack([0.3 * y - 0.5, 0.2 * x, 0.5 - 0.2 * y])


def two_tones(size: int) -> Tensor:
    """A wall and a floor."""
    y, _ = grid(size)
    return torch.where(y[None] < 0.6, plain(size), torch.tensor([0.6, 0.4, 0.1])[:, None, None])


def grainy(size: int) -> Tensor:
    return plain(size) + 0.03 * torch.randn(3, size, size, generator=torch.Generator().manual_seed(0))


def on(background: Tensor, shape: Tensor, colour: tuple[float, float, float] = (0.9, -0.8, -0.7)) -> Tensor:
    return torch.where(shape > 0, torch.tensor(colour)[:, None, None], background)


def overlap(a: Tensor, b: Tensor) -> float:
    a, b = a > 0, b > 0
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("size", [64, 512])
@pytest.mark.parametrize("background", [plain, gradient, two_tones, grainy])
def test_a_subject_is_found_before_a_calm_background(background, size: int) -> None:  # type: ignore[no-untyped-def]
    shape = disc(size)
    (outline,) = subject_outlines(on(background(size), shape)[None])
    assert outline.shape == (1, size, size)
    assert overlap(outline, shape) > 0.9


def test_what_the_subject_encloses_is_the_subjects() -> None:
    """A ring's hole has the background's colour, as the white of an eye may have."""
    ring = disc(64, 0.4) - disc(64, 0.2)
    assert overlap(subject_outlines(on(plain(64), ring)[None])[0], disc(64, 0.4)) > 0.9


def test_a_subject_may_reach_over_the_edge() -> None:
    """A person cut off below."""
    y, x = grid(64)
    shape = ((y > 0.3) & ((x - 0.5).abs() < 0.15)).float()[None]
    assert overlap(subject_outlines(on(plain(64), shape)[None])[0], shape) > 0.9


@pytest.mark.parametrize("what", ["noise", "nothing", "everything"])
def test_where_no_background_is_found_the_picture_stays_whole(what: str) -> None:
    noise = 2 * torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) - 1
    shapes = {"noise": noise, "nothing": plain(64), "everything": on(plain(64), disc(64, 0.8))}
    pictures = shapes[what][None]
    outlines = subject_outlines(pictures)
    assert outlines.min() == 1
    assert torch.equal(set_before(pictures, outlines, torch.zeros(1, 3, 64, 64)), pictures)


@pytest.mark.parametrize("background", [plain, gradient])
def test_what_is_behind_the_subject_is_filled_in_from_around_it(background) -> None:  # type: ignore[no-untyped-def]
    pictures = on(background(64), disc(64))[None]
    empty = backgrounds(pictures, subject_outlines(pictures))
    assert (empty[0] - background(64)).abs().max() < 0.1


def test_of_a_picture_without_an_outline_the_border_alone_is_its_background() -> None:
    picture = on(plain(64), disc(64, 0.4))[None]
    empty = backgrounds(picture, torch.ones(1, 1, 64, 64))
    assert (empty[0] - plain(64)).abs().max() < 1e-4


def test_a_subject_is_set_before_another_background_and_stays_what_it_is() -> None:
    shape, green = disc(64), torch.tensor([-0.9, 0.5, -0.9])[:, None, None].expand(3, 64, 64)
    picture = on(plain(64), shape)[None]
    (made,) = set_before(picture, subject_outlines(picture), green[None])
    inside, outside = disc(64, 0.2)[0] > 0, disc(64, 0.3)[0] == 0
    assert torch.equal(made[:, inside], picture[0][:, inside])
    assert torch.equal(made[:, outside], green[:, outside])
