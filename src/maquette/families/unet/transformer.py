"""The transformer of a level: self-attention, attention to the text and a gated feed-forward layer for every pixel
(arXiv 2112.10752, appendix E.2.1).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .checkpointing import Checkpointed
from .levels import Level

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q (B, heads, n, d), k and v (B, heads, m, d) -> softmax(q k^T / sqrt(d)) v, (B, heads, n, d)."""


class KeptText:
    """A text that layers attend to again and again while their weights stay: each layer's keys and values are kept.

    tokens: (B, m, D), which one network reads, or a ControlNet beside it.
    """

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        self._made: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keys_and_values(self, layer: Attention) -> tuple[Tensor, Tensor]:
        """(B, m, C) each, computed once."""
        if layer not in self._made:
            self._made[layer] = layer.to_k(self.tokens), layer.to_v(self.tokens)
        return self._made[layer]


class Attention(nn.Module):
    """Multi-head attention (arXiv 1706.03762, section 3.2.2). `attend` may be replaced, layer by layer."""

    attend: Attend

    def __init__(self, width: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context or width, width, bias=False)
        self.to_v = nn.Linear(context or width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width), nn.Identity()])
        self.attend = nn.functional.scaled_dot_product_attention

    def forward(self, x: Tensor, context: Tensor | KeptText | None = None) -> Tensor:
        """x (B, n, C), to itself or to context (B, m, D) -> (B, n, C)."""
        context = x if context is None else context
        q = self.to_q(x)  # (B, n, C)
        if isinstance(context, KeptText):
            k, v = context.keys_and_values(self)  # (B, m, C)
        else:
            k, v = self.to_k(context), self.to_v(context)  # (B, n or m, C)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (q, k, v))  # (B, heads, n or m, d)
        y = self.attend(q, k, v).transpose(1, 2).flatten(2)  # (B, n, C)
        out: Tensor = self.to_out[0](y)  # (B, n, C)
        return out


class GEGLU(nn.Module):
    """x W times GELU(x V) (arXiv 2002.05202, equation 6)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, C) -> (B, n, 4C)."""
        x, gate = self.proj(x).chunk(2, dim=-1)  # (B, n, 4C) each
        return x * nn.functional.gelu(gate)


class FeedForward(nn.Module):
    """Every token by itself: four times as wide, gated, and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, C) -> (B, n, C)."""
        y: Tensor = self.net[2](self.net[0](x))  # (B, n, C) by way of (B, n, 4C)
        return y


class BasicTransformerBlock(nn.Module):
    """Attention among pixels, attention to the text, feed-forward; norms before, sums behind each."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads, context)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor | KeptText) -> Tensor:
        """x (B, n, C), context (B, m, D) -> (B, n, C)."""
        x = self.attn1(self.norm1(x)) + x  # (B, n, C)
        x = self.attn2(self.norm2(x), context) + x  # (B, n, C)
        result: Tensor = self.ff(self.norm3(x)) + x  # (B, n, C)
        return result


class Transformer2DModel(Checkpointed):
    """Transformer blocks over a picture's pixels as tokens, from projection to projection, and the picture added."""

    def __init__(self, level: Level, depth: int) -> None:
        super().__init__()
        self.linear = level.linear
        self.norm = nn.GroupNorm(level.groups, level.width, eps=1e-6)
        self.proj_in = self._projection(level)
        blocks = (BasicTransformerBlock(level.width, level.heads, level.context) for _ in range(depth))
        self.transformer_blocks = nn.ModuleList(blocks)
        self.proj_out = self._projection(level)

    @staticmethod
    def _projection(level: Level) -> nn.Module:
        return nn.Linear(level.width, level.width) if level.linear else nn.Conv2d(level.width, level.width, 1)

    def forward(self, x: Tensor, context: Tensor | KeptText) -> Tensor:
        """x (B, C, h, w), context (B, m, D) -> (B, C, h, w)."""
        height, width = x.shape[2:]
        y = self.norm(x)  # (B, C, h, w)
        y = self.proj_in(_tokens(y)) if self.linear else _tokens(self.proj_in(y))  # (B, hw, C)
        for block in self.transformer_blocks:
            y = self.run(block, y, context)  # (B, hw, C)
        if self.linear:
            return _picture(self.proj_out(y), height, width) + x  # (B, C, h, w)
        result: Tensor = self.proj_out(_picture(y, height, width)) + x  # (B, C, h, w)
        return result


def _tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, hw, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _picture(y: Tensor, height: int, width: int) -> Tensor:
    """(B, hw, C) -> (B, C, h, w)."""
    result: Tensor = y.unflatten(1, (height, width)).permute(0, 3, 1, 2).contiguous()
    return result
