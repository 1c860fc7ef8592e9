import pytest
import torch

from maquette.fast import attention


def unet() -> torch.nn.Module:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    torch.manual_seed(0)
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=8,
        **blocks,
    )


def outputs(model: torch.nn.Module, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The output and its gradient by the input."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 8, 8, generator=generator).to(dtype).requires_grad_()
    text = torch.randn(2, 7, 12, generator=generator).to(dtype)
    y = model.to(dtype)(x, torch.tensor([3, 500]), text).sample
    y.float().square().mean().backward()
    assert x.grad is not None
    return y.float(), x.grad.float()


def test_every_layer_is_replaced_and_float32_is_the_same() -> None:
    plain, fast = unet(), unet()
    assert attention.install(fast) == 8
    for expected, found in zip(outputs(plain, torch.float32), outputs(fast, torch.float32), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_bf16_is_as_near_to_float32_as_the_fused_kernel() -> None:
    """Both differ from float32 by bf16 rounding; the plain one may be at most half as much again away."""
    exact = outputs(unet(), torch.float32)
    fused = outputs(unet(), torch.bfloat16)
    fast = unet()
    attention.install(fast)
    plain = outputs(fast, torch.bfloat16)
    for e, f, p in zip(exact, fused, plain, strict=True):
        assert (p - e).square().mean().sqrt() < 1.5 * (f - e).square().mean().sqrt()


@pytest.mark.parametrize("tokens", [(16, 16), (64, 77), (1100, 1100)])
def test_attend_by_the_definition(tokens: tuple[int, int]) -> None:
    n, m = tokens
    q, k, v = (torch.randn(1, 2, size, 8).bfloat16() for size in (n, m, m))
    scores = torch.einsum("bhnd,bhmd->bhnm", q.float(), k.float()) / 8**0.5
    expected = torch.einsum("bhnm,bhmd->bhnd", scores.softmax(-1), v.float())
    torch.testing.assert_close(attention.attend(q, k, v).float(), expected, atol=0.02, rtol=0.02)


def test_a_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="no mask"):
        attention.PlainAttention()(None, torch.zeros(1, 2, 4), None, torch.zeros(1, 2, 2))
