"""Recorded passes: on the CPU by a recorder that runs the pass anew into the same tensors, on CUDA by graphs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from maquette.fast.graphs import MOST, Graphs, Work

Recorded = tuple[Callable[[], None], torch.Tensor, list[torch.Tensor]]
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics card"))


class Again:
    """Replays by computing again into the tensors of the recording, as a graph does; spoils them if told to."""

    def __init__(self, spoil: float = 1.0) -> None:
        self.recorded = self.replayed = 0
        self.spoil = spoil

    def __call__(self, work: Work) -> Recorded:
        self.recorded += 1
        loss, gradients = work()

        def replay() -> None:
            self.replayed += 1
            new_loss, new = work()
            loss.copy_(new_loss)
            torch._foreach_copy_(gradients, [g * self.spoil for g in new])

        return replay, loss, gradients


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        y = self.second(self.first(x).tanh()).square().flatten()
        return y if weight is None else y * weight


def direct(model: Small, passes: list[tuple[torch.Tensor, torch.Tensor | None, float]]) -> list[torch.Tensor]:
    losses = [model(x, weight).sum() * factor for x, weight, factor in passes]
    return [torch.stack(losses).detach(), *torch.autograd.grad(torch.stack(losses).sum(), list(model.parameters()))]


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_steps_of_several_passes_and_shapes_give_the_gradients_of_the_passes(device: str) -> None:
    model, again = Small().to(device), Again()
    graphs = Graphs(list(model.parameters()), None if device == "cuda" else again)
    for _ in range(4):
        model.zero_grad(set_to_none=True)
        made = [torch.randn(n, 3, device=device) for n in (2, 5, 2)]
        weights = [None, torch.rand(5, device=device), None]
        passes = list(zip(made, weights, (1.0, 0.5, 1.0), strict=True))
        losses = [graphs.learn("all", model, (x, weight), factor) for x, weight, factor in passes]
        expected = direct(model, passes)
        torch.testing.assert_close(torch.stack(losses), expected[0])
        for p, wanted in zip(model.parameters(), expected[1:], strict=True):
            torch.testing.assert_close(p.grad, wanted)
        with torch.no_grad():  # as an optimizer does: in place
            for p in model.parameters():
                p.sub_(0.1 * p.grad)  # type: ignore[operator]
    if device == "cpu":
        assert (again.recorded, again.replayed) == (2, 4 * 3 - 2 + 2)  # a first pass is made, then tried once


def test_a_recording_that_gives_something_else_is_not_used_and_told() -> None:
    model, told, again = Small(), [], Again(spoil=1.1)
    graphs = Graphs(list(model.parameters()), again)
    graphs.on_warning = told.append
    for n in (2, 2, 3):
        model.zero_grad(set_to_none=True)
        x = torch.randn(n, 3)
        graphs.learn("all", model, (x, None), 1.0)
        for p, wanted in zip(model.parameters(), direct(model, [(x, None, 1.0)])[1:], strict=True):
            torch.testing.assert_close(p.grad, wanted)
    assert again.recorded == 1 and len(told) == 1 and "only slower" in told[0]


def test_what_cannot_be_recorded_is_computed_as_it_is() -> None:
    def refuse(work: Work) -> Recorded:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    model, told = Small(), []
    graphs = Graphs(list(model.parameters()), refuse)
    graphs.on_warning = told.append
    x = torch.randn(2, 3)
    graphs.learn("all", model, (x, None), 2.0)
    torch.testing.assert_close(model.first.weight.grad, direct(model, [(x, None, 2.0)])[1])
    assert told == [
        "CUDA graphs are not used, because a pass cannot be recorded (operation not permitted when stream is "
        "capturing); training goes on without, only slower."
    ]


def test_gradients_that_are_not_finite_decide_nothing() -> None:
    model, told, again = Small(), [], Again()
    graphs = Graphs(list(model.parameters()), again)
    graphs.on_warning = told.append
    assert not graphs.learn("all", model, (torch.full((2, 3), float("nan")), None), 1.0).isfinite()
    assert not told and graphs.trusted
    graphs.learn("all", model, (torch.randn(2, 3), None), 1.0)
    assert again.recorded == 2 and graphs.trusted


def test_so_many_shapes_and_no_more_are_recorded() -> None:
    model, again = Small(), Again()
    graphs = Graphs(list(model.parameters()), again)
    for n in range(1, MOST + 5):
        graphs.learn("all", model, (torch.randn(n, 3), None), 1.0)
    assert again.recorded == MOST


def test_training_with_recorded_passes_ends_in_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on pocket, its passes recorded by `Again`, of photos and of what the base keeps, and the same without."""
    from PIL import Image

    from maquette.config import TrainConfig
    from maquette.stages import train
    from maquette.training import running
    from maquette.training.job import Job

    photos = tmp_path / "photos"
    photos.mkdir()
    for i, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (64, 64 + 32 * (i == 2)), colour).save(photos / f"{i}.png")
    recorders: list[Again] = []

    def prepared(*args: object, **named: object) -> Job:
        job = original(*args, **named)  # type: ignore[arg-type]
        recorders.append(Again())
        job.graphs = Graphs(job.parameters, recorders[-1])
        return job

    original, files = running.prepare, []
    for name in ("plain", "recorded"):
        config = {
            "photos": photos, "subject": "zkw disc", "base": "pocket", "steps": 4, "batch_size": 2, "rank": 2,
            "out": tmp_path / name, "sample_prompts": [], "prior_preservation": True, "dtype": "fp32",
        }  # fmt: skip
        files.append(train.run(TrainConfig.parse(config)).file)
        monkeypatch.setattr(running, "prepare", prepared)
    from safetensors.torch import load_file

    plain, recorded = (load_file(str(file)) for file in files)
    assert recorders[0].replayed > recorders[0].recorded > 0
    for key, wanted in plain.items():
        torch.testing.assert_close(recorded[key], wanted, atol=1e-4, rtol=1e-3)
