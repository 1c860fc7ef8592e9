"""What a processor can do decides how layers compute, never what they compute."""

from __future__ import annotations

import copy

import processors
import pytest
import torch
from torch import nn

from maquette.families.unet.transformer import Attention
from maquette.fast import attention, onednn, packed, processor, winograd
from maquette.training.defaults import pick_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
F32 = torch.float32
REST = "everything is computed in fp32, which is many times quicker here and at least as exact."
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def test_types_without_instructions_are_computed_in_float32(has_bf16: bool) -> None:
    for name, dtype in HALVES.items():
        assert processor.multiplies(dtype) == has_bf16
        assert pick_dtype(name, CPU, "lora") == pick_dtype(name, CPU, "dreambooth") == (dtype if has_bf16 else F32)
        assert pick_dtype(name, CUDA, "lora") == dtype  # of which the processor knows nothing
        told = processor.notices(name, pick_dtype(name, CPU, "lora"))
        assert told == ([] if has_bf16 else [f"This processor has no instructions for {name}: {REST}"])
    assert processor.multiplies(F32) and pick_dtype("fp32", CPU, "lora") == F32
    assert processor.notices("fp32", F32) == processor.notices("auto", F32) == []
    assert pick_dtype("auto", CPU, "lora") == (torch.bfloat16 if has_bf16 else F32)
    assert pick_dtype("auto", CPU, "dreambooth") == F32


def test_bf16_that_is_possible_but_slow_is_taken_only_when_asked_for(
    with_bf16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AVX-512 without its bf16 instructions."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert pick_dtype("auto", CPU, "lora") == F32 and pick_dtype("bf16", CPU, "lora") == torch.bfloat16


def test_builds_without_onednn_or_its_questions_answer_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "QUESTIONS", {torch.bfloat16: "_is_nothing_that_it_knows"})
    assert not processor.multiplies(torch.bfloat16) and not processor.packs(torch.bfloat16)
    assert not processor.prefers_bf16()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not processor.packs(F32)
    monkeypatch.undo()
    monkeypatch.setattr(processor, "OPERATORS", ("_of_another_version",))
    assert not processor.packs(F32)


def layers() -> nn.Sequential:
    torch.manual_seed(3)
    made = nn.Sequential(
        nn.Conv2d(80, 96, 3, padding=1), nn.Conv2d(96, 80, 3, padding=1, stride=2), nn.Linear(256, 300)
    )
    return made.requires_grad_(False)


@pytest.mark.parametrize("dtype", [F32, torch.bfloat16], ids=str)
def test_layers_give_the_same_with_either_answer(
    has_bf16: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There and back, to one rounding of the result (twice eps) or, in float32, the root of 864 terms' roundings."""
    monkeypatch.setattr(winograd, "size_for", lambda *_: 0)  # see test_winograd
    plain = layers().to(dtype)
    fast = copy.deepcopy(plain)
    assert packed.install(fast) == (3 if has_bf16 or dtype == F32 else 0)
    for mine, theirs, exact in zip(fast, plain, copy.deepcopy(plain).double(), strict=True):
        shape = (2, 5, 256) if isinstance(mine, nn.Linear) else (2, mine.in_channels, 9, 8)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(4)).to(dtype)
        results = []
        for layer, given in ((mine, x), (theirs, x), (exact, x.double())):
            given = given.clone().requires_grad_(True)
            y = layer(given)
            results.append((y.detach(), *torch.autograd.grad(y.sum(), given)))
        for a, b, right in zip(*results, strict=True):
            assert a.dtype == dtype
            near = 2 * torch.finfo(dtype).eps if dtype != F32 else 2**-23 * 864**0.5
            scale = right.abs().max()
            assert (a - right).abs().max() <= near * scale and (b - right).abs().max() <= near * scale


def test_attention_stays_with_the_fused_kernel_where_bf16_is_slow(has_bf16: bool) -> None:
    assert attention.install(nn.Sequential(Attention(64, 2))) == int(has_bf16)


def test_stand_ins_compute_what_onednn_does() -> None:
    """So that tests with bf16 hold on processors that have none."""
    plain = processors.stand_ins()
    torch.manual_seed(5)
    x, weight, bias = torch.randn(2, 24, 9, 8), torch.randn(40, 24, 3, 3), torch.randn(40)
    layout = onednn.lay_out(weight, (1, 1), x.shape, (1, 2))
    made = onednn.convolve(x, layout, bias, (1, 1), (1, 2))
    close(plain["convolve"](x, plain["lay_out"](weight), bias, (1, 1), (1, 2)), made)
    over = (0, 1)
    back = onednn.lay_out_transposed(weight, (1, 1), over, made.shape, (1, 2))
    mine = plain["convolve_transposed"](made, plain["lay_out_transposed"](weight), (1, 1), over, (1, 2))
    close(mine, onednn.convolve_transposed(made, back, (1, 1), over, (1, 2)))
    assert mine.shape == x.shape
    rows, matrix, offset = torch.randn(3, 50, 24), torch.randn(70, 24), torch.randn(70)
    theirs = onednn.multiply(rows, onednn.lay_out_linear(matrix, 150), offset)
    close(plain["multiply"](rows, plain["lay_out_linear"](matrix), offset), theirs)


def close(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    """Sums of at most 40 * 9 terms in another order."""
    assert mine.shape == theirs.shape
    assert (mine - theirs).abs().max() <= 2**-23 * 360 * theirs.abs().max()
