import pytest
import torch

from maquette.families.unet import UNet2DConditionModel
from maquette.fast import attention


def unet() -> torch.nn.Module:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        {
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "cross_attention_dim": 12,
            "attention_head_dim": 4,
            "norm_num_groups": 8,
        }
    )


def outputs(model: torch.nn.Module, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The output and its gradient by the input."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 8, 8, generator=generator).to(dtype).requires_grad_()
    text = torch.randn(2, 7, 12, generator=generator).to(dtype)
    y = model.to(dtype)(x, torch.tensor([3, 500]), text)
    y.float().square().mean().backward()
    assert x.grad is not None
    return y.float(), x.grad.float()


def test_every_layer_is_replaced_and_float32_is_the_same(with_bf16: None) -> None:
    plain, fast = unet(), unet()
    assert attention.install(fast) == 8
    for expected, found in zip(outputs(plain, torch.float32), outputs(fast, torch.float32), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_bf16_is_as_near_to_float32_as_the_fused_kernel(with_bf16: None) -> None:
    """Both differ from float32 by bf16 rounding; the plain one may be at most half as much again away."""
    exact = outputs(unet(), torch.float32)
    fused = outputs(unet(), torch.bfloat16)
    fast = unet()
    attention.install(fast)
    plain = outputs(fast, torch.bfloat16)
    for e, f, p in zip(exact, fused, plain, strict=True):
        assert (p - e).square().mean().sqrt() < 1.5 * (f - e).square().mean().sqrt()


SIZES = [(16, 16), (64, 77), (1100, 1100), (2100, 1300)]  # the last two in blocks, of two and one block a head


@pytest.mark.parametrize("tokens", SIZES)
def test_attend_by_the_definition(tokens: tuple[int, int]) -> None:
    n, m = tokens
    q, k, v = (torch.randn(1, 2, size, 8).bfloat16() for size in (n, m, m))
    scores = torch.einsum("bhnd,bhmd->bhnm", q.float(), k.float()) / 8**0.5
    expected = torch.einsum("bhnm,bhmd->bhnd", scores.softmax(-1), v.float())
    torch.testing.assert_close(attention.attend(q, k, v).float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("tokens", SIZES)
def test_gradients_are_those_of_the_definition(
    tokens: tuple[int, int], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:
        monkeypatch.setattr(attention, "LARGEST_KEPT", 0)
    n, m = tokens
    inputs = [torch.randn(2, 2, size, 8).bfloat16().requires_grad_() for size in (n, m, m)]
    weights = torch.randn(2, 2, n, 8)
    made = torch.autograd.grad((attention.attend(*inputs).float() * weights).sum(), inputs)
    exact = [x.detach().float().requires_grad_() for x in inputs]
    expected = torch.autograd.grad((torch.nn.functional.scaled_dot_product_attention(*exact) * weights).sum(), exact)
    for found, wanted in zip(made, expected, strict=True):
        assert found.dtype == torch.bfloat16
        assert (found.float() - wanted).norm() < 0.01 * wanted.norm()


def test_tables_are_kept_for_the_way_back_only() -> None:
    q, k, v = (torch.randn(1, 2, 1100, 8).bfloat16().requires_grad_() for _ in range(3))
    kept = attention.attend(q, k, v).grad_fn.next_functions[0][0].saved_tensors  # type: ignore[union-attr]
    assert [tuple(x.shape) for x in kept[3:]] == [(1100, 1100)] * 2
    with torch.no_grad():
        assert attention.attend(q, k, v).grad_fn is None
