"""What the UNet is told besides text: the timestep, and SDXL's pooled text and size numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Timesteps(nn.Module):
    """Numbers as waves, cos before sin (arXiv 1706.03762, section 3.5): wavelengths from 2 pi to 10000 x 2 pi."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, t: Tensor) -> Tensor:
        """(N,) -> (N, width), float32."""
        half = self.width // 2
        exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device)  # (half,)
        angles = t[:, None].float() * torch.exp(exponent / half)[None]  # (N, half)
        waves = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)  # (N, 2 half)
        return nn.functional.pad(waves, (0, 1)) if self.width % 2 else waves


class TimestepEmbedding(nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(given, width)
        self.act = nn.SiLU()
        self.linear_2 = nn.Linear(width, width)

    def forward(self, waves: Tensor) -> Tensor:
        """(B, given) -> (B, width)."""
        x = self.act(self.linear_1(waves))  # (B, width)
        y: Tensor = self.linear_2(x)  # (B, width)
        return y


class ConditioningEmbeddings(nn.Module):
    """The part of UNet and ControlNet that makes one vector of timestep and, in SDXL, pooled text and sizes."""

    time_proj: Timesteps
    time_embedding: TimestepEmbedding

    def add_embeddings(self, width: int, size_width: int | None, pooled_and_sizes: int | None) -> None:
        """width: channels of the first level. The others: channels for each size number, and of all with the text; None
        where there are none.
        """
        self.time_proj = Timesteps(width)
        self.time_embedding = TimestepEmbedding(width, 4 * width)
        if size_width is not None and pooled_and_sizes is not None:
            self.add_time_proj = Timesteps(size_width)
            self.add_embedding = TimestepEmbedding(pooled_and_sizes, 4 * width)

    def embed(self, x: Tensor, t: Tensor, pooled: Tensor | None, sizes: Tensor | None) -> Tensor:
        """x (B, C, h, w) gives batch and type; t (B,) or (); pooled (B, P), sizes (B, 5 or 6) -> (B, 4 width)."""
        waves = self.time_proj(t.reshape(-1).to(x.device).expand(len(x))).to(x.dtype)  # (B, width)
        emb: Tensor = self.time_embedding(waves)  # (B, 4 width)
        if not hasattr(self, "add_embedding"):
            return emb
        if pooled is None or sizes is None:
            raise ValueError("this UNet needs the pooled text vector and the size numbers")
        numbers = self.add_time_proj(sizes.flatten()).reshape(len(pooled), -1)  # (B, 6 x 256)
        added: Tensor = self.add_embedding(torch.cat([pooled, numbers], dim=-1).to(emb.dtype))  # (B, 4 width)
        return emb + added
