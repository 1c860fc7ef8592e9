"""Attention as plain matrix products where they beat PyTorch's fused kernel: bf16 on CPUs, up to some thousand tokens.

There the fused kernel's backward pass is one and a half to five times slower (1.2 times the whole pocket step); above,
the table of scores no longer fits the caches and the fused kernel wins.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LARGEST_TABLE = 1024 * 1024  # tokens x tokens of one head


class PlainAttention:
    """A diffusers attention processor for a UNet's transformer blocks: no mask, no norm, no residual of its own."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states: (B, n, D); encoder_hidden_states: (B, m, D'), else self-attention. Result (B, n, D)."""
        if attention_mask is not None:
            raise ValueError("PlainAttention knows no mask")
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, n or m, d)
        y = attend(q, k, v).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](y))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of (B, heads, tokens, d) tensors, by the faster of the two ways."""
    if q.dtype != torch.bfloat16 or q.device.type != "cpu" or q.shape[-2] * k.shape[-2] > LARGEST_TABLE:
        return nn.functional.scaled_dot_product_attention(q, k, v)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return torch.softmax(scores, dim=-1) @ v


def install(unet: nn.Module) -> int:
    """Use PlainAttention in every attention layer it can stand for; returns how many. Other layers are left alone."""
    found = 0
    for module in unet.modules():
        if not hasattr(module, "to_q") or not hasattr(module, "set_processor"):
            continue
        plain = module.group_norm is None and module.spatial_norm is None and not module.residual_connection
        norms = getattr(module, "norm_q", None), getattr(module, "norm_cross", None)
        if plain and norms == (None, None) and module.rescale_output_factor == 1.0:
            module.set_processor(PlainAttention())  # type: ignore[operator]
            found += 1
    return found
