"""Recorded answers: on the CPU by a recorder that asks the model anew into the same tensors, on CUDA by graphs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from maquette.core.denoiser import Conditioning
from maquette.fast.graphs import Work
from maquette.fast.replayed import MOST, PLAIN, ReplayedDenoiser

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics card"))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)
        self.asked = 0

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        self.asked += 1
        y: Tensor = self.layer(x_t) * t[:, None] + conditioning.tokens
        return y if conditioning.pooled is None else y + conditioning.pooled


class Again:
    """Replays by computing again, with the weights as they were, as a graph does; spoils the answers if told to."""

    def __init__(self, spoil: float = 1.0, error: type[Exception] | None = None) -> None:
        self.recorded = self.replayed = 0
        self.spoil, self.error = spoil, error

    def __call__(self, work: Work) -> tuple[Callable[[], None], Tensor, list[Tensor]]:
        if self.error is not None:
            raise self.error("no graph of that")
        self.recorded += 1
        output, nothing = work()

        def replay() -> None:
            self.replayed += 1
            output.copy_(work()[0] * self.spoil)

        return replay, output, nothing


def asked(denoiser: ReplayedDenoiser, model: Small, rows: int = 2, pooled: bool = False) -> None:
    """An answer on new numbers is the model's own."""
    device = model.layer.weight.device
    x, tokens = torch.randn(2, rows, 4, device=device)
    t = torch.rand(rows, device=device)
    told = Conditioning(tokens, tokens + 1 if pooled else None)
    found = denoiser.predict(x, t, told)
    assert torch.allclose(found, model.predict(x, t, told), atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@torch.no_grad()
def test_answers_are_the_models_own_and_are_replayed(device: str) -> None:
    model, again = Small().to(device), Again()
    denoiser = ReplayedDenoiser(model, model, None if device == "cuda" else again)
    for _ in range(PLAIN + 4):
        asked(denoiser, model)
        asked(denoiser, model, rows=3, pooled=True)
    assert len(denoiser._recordings) == 2 and denoiser.trusted
    if device == "cpu":
        assert again.recorded == 2 and again.replayed == 2 + 2 * 3  # once to compare, and for the calls that follow
    told = Conditioning(torch.zeros(2, 4, device=device))
    first = denoiser.predict(torch.ones(2, 4, device=device), torch.ones(2, device=device), told)
    kept = first.clone()
    asked(denoiser, model)
    assert torch.equal(first, kept)  # the next answer does not write into this one


@pytest.mark.parametrize("device", ["cpu", CUDA])
@torch.no_grad()
def test_other_weights_are_recorded_anew(device: str) -> None:
    """As a LoRA is folded: the parameter gets another tensor, and later the old one back."""
    model, again = Small().to(device), Again()
    denoiser = ReplayedDenoiser(model, model, None if device == "cuda" else again)
    old = model.layer.weight.data
    for data in (old, old + 1, old):
        model.layer.weight.data = data
        for _ in range(PLAIN + 3):
            asked(denoiser, model)
        assert len(denoiser._recordings) == 1
    assert device == "cuda" or again.recorded == 3


@torch.no_grad()
def test_recordings_that_cannot_be_had_or_trusted() -> None:
    for again in (Again(spoil=1.1), Again(error=RuntimeError), Again(error=torch.OutOfMemoryError)):
        model = Small()
        denoiser = ReplayedDenoiser(model, model, again)
        for _ in range(PLAIN + 3):
            asked(denoiser, model)
        assert not denoiser.trusted and not denoiser._recordings and again.recorded <= 1


@torch.no_grad()
def test_few_shapes_are_kept_and_nothing_without_need() -> None:
    model, again = Small(), Again()
    denoiser = ReplayedDenoiser(model, model, again)
    for rows in range(1, MOST + 3):
        for _ in range(PLAIN + 2):
            asked(denoiser, model, rows)
    assert again.recorded == MOST
    denoiser.forget()
    asked(denoiser, model)
    assert not denoiser._recordings
    with torch.enable_grad():
        for _ in range(PLAIN + 2):
            asked(denoiser, model)
    plain = ReplayedDenoiser(model, model)  # on a CPU
    for _ in range(PLAIN + 2):
        asked(plain, model)
    assert again.recorded == MOST and not plain._recordings
