"""Compiled blocks give what the blocks themselves give, there and back, with every method."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from maquette import methods
from maquette.config import TrainConfig
from maquette.families.unet.blocks import ResnetBlock2D
from maquette.families.unet.levels import Level
from maquette.families.unet.transformer import BasicTransformerBlock
from maquette.fast import compiled
from maquette.formats import safetensors
from maquette.methods.base import MethodSpec
from maquette.stages import train

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(compiled.lacking(CPU) is not None, reason="no C++ compiler")
heavy = pytest.mark.heavy


class Blocks(nn.Module):
    """One block of each kind that is compiled, and a layer that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResnetBlock2D(8, Level(16, 1, (), 2, 12, False, time=12, groups=4, eps=1e-6))
        self.transformer = BasicTransformerBlock(16, 2, 12)
        self.last = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor, time: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        x = self.resnet(x, time).flatten(2).transpose(1, 2)
        y: torch.Tensor = self.last(self.transformer(x, told))
        return y


def adapted(method: str) -> tuple[Blocks, Any]:
    """Blocks with adapters on every frozen linear layer and convolution of the two, whose factors are random."""
    torch.manual_seed(0)
    blocks = Blocks().requires_grad_(False)
    slots: dict[str, tuple[nn.Module, str]] = {}
    for name, module in blocks.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and name != "last":
            parent, _, attribute = name.rpartition(".")
            slots["lora_unet_" + name.replace(".", "_")] = (blocks.get_submodule(parent), attribute)
    made = methods.attach(method, slots, MethodSpec(rank=2, conv_rank=2, factor=4))
    for group in made.parameter_groups().values():
        for p in group:
            p.data += 0.1 * torch.randn(p.shape)
    return blocks, made


def gradients(blocks: Blocks, made: Any, *inputs: torch.Tensor) -> list[torch.Tensor]:
    parameters = [p for group in made.parameter_groups().values() for p in group]
    output = blocks(*inputs)
    return [output.detach(), *torch.autograd.grad(output.square().mean(), parameters)]


def inputs(photos: int = 2) -> tuple[torch.Tensor, ...]:
    return torch.randn(photos, 8, 4, 4), torch.randn(photos, 12), torch.randn(photos, 5, 12)


@pytest.fixture(params=["aot_eager", pytest.param("inductor", marks=[heavy, needs_compiler])])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes of the blocks' graphs, forward and backward: they are run as they are, or by compiled C++, which
    takes half a minute where PyTorch has not compiled it before.
    """
    compile = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: compile(self, backend=request.param, **how))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("method", ["locon", *(pytest.param(name, marks=heavy) for name in ("dora", "loha", "lokr"))])
def test_output_and_gradients_are_those_of_the_blocks(method: str) -> None:
    from torch._dynamo.utils import counters

    blocks, made = adapted(method)
    given = inputs()
    expected = gradients(blocks, made, *given)
    counters.clear()
    assert compiled.install(blocks) == 2
    for _ in range(2):
        for ours, wanted in zip(gradients(blocks, made, *given), expected, strict=True):
            torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-4)
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]  # each block whole, once


@pytest.mark.usefixtures("backend")
def test_without_adapters_and_turned_off_the_blocks_still_answer_rightly() -> None:
    from torch._dynamo.utils import counters

    blocks, made = adapted("lora")
    plain, given = copy.deepcopy(blocks), inputs(1)
    compiled.install(blocks)
    counters.clear()
    with compiled.off(), torch.no_grad():
        torch.testing.assert_close(blocks(*given), plain(*given))
        assert not counters["stats"]["unique_graphs"]
    with torch.no_grad():
        torch.testing.assert_close(blocks(*given), plain(*given), atol=1e-5, rtol=1e-4)
        made.set_multiplier(0.0)
        without = blocks(*given)
        made.detach()
        torch.testing.assert_close(without, blocks(*given), atol=1e-5, rtol=1e-4)
        assert (without - plain(*given)).abs().max() > 1e-3
    assert counters["stats"]["unique_graphs"]


@needs_compiler
@pytest.mark.heavy
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_compiled_run_ends_in_the_same_file_and_resumes_to_the_same_bytes(tmp_path: Path, dtype: str) -> None:
    from PIL import Image

    photos = tmp_path / "photos"
    photos.mkdir()
    for i, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (64, 64 + 32 * (i == 2)), colour).save(photos / f"{i}.png")

    def trained(name: str, **options: Any) -> Path:
        values = {
            "photos": photos, "subject": "zkw disc", "base": "pocket", "steps": 4, "batch_size": 2, "rank": 2,
            "out": tmp_path / name / "disc", "prior_preservation": True, "dtype": dtype,
            "keep_state": True,
        }  # fmt: skip
        train.run(TrainConfig.parse(values | options))
        return tmp_path / name / "disc"

    whole = trained("compiled", compile=True)
    parts = trained("parts", compile=True, steps=2, lr_scheduler="constant")
    again = trained("again", compile=True, lr_scheduler="constant")
    train.resume(parts, {"steps": 4})
    assert (parts / "disc.safetensors").read_bytes() == (again / "disc.safetensors").read_bytes()
    exact = trained("exact", dtype="fp32")
    # AdamW's first steps turn rounding into whole steps: in bf16 no farther from fp32 than uncompiled bf16 is
    most = 0.01 * _norm(exact) if dtype == "fp32" else 1.25 * _norm(exact, trained("plain"))
    assert _norm(exact, whole) < most


def _norm(run: Path, other: Path | None = None) -> float:
    """Of what a run learned, or of the difference from another's."""
    one = safetensors.load(run / "disc.safetensors")
    two = safetensors.load(other / "disc.safetensors") if other else {}
    learned = [key for key in one if other or "lora_up" in key]
    return float(torch.cat([(one[key].float() - two.get(key, torch.tensor(0))).flatten() for key in learned]).norm())
