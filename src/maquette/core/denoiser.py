"""The central noun: a denoiser predicts, from a noisy latent, what the schedule's prediction type asks for.

Trainer, evaluator and sampler speak only to `Denoiser` and pass `Conditioning` through unread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser is conditioned on besides the noisy latent and the timestep.

    tokens: (B, 77·k, D) text features for cross-attention.
    pooled: (B, P) pooled text vector (SDXL), or None.
    time_ids: (B, 6) SDXL size and crop numbers, in pixels: original h, w, crop top, left, target h, w; or None.
    concat: (B, C, h, w) channels joined to the latent (inpainting: mask and masked-image latent), or None.
    control: (B,) how much of what ControlNets add each row gets, or None: all of it.
    """

    tokens: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None
    concat: Tensor | None = None
    control: Tensor | None = None

    def _map(self, f) -> Conditioning:  # type: ignore[no-untyped-def]
        return Conditioning(*(None if x is None else f(x) for x in self.fields()))  # type: ignore[arg-type]

    def fields(self) -> tuple[Tensor | None, ...]:
        """In the order in which the class takes them."""
        return self.tokens, self.pooled, self.time_ids, self.concat, self.control

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> Conditioning:
        return self._map(lambda x: x[index])

    def to(self, *args: object, **kwargs: object) -> Conditioning:
        """Move or cast every tensor (time_ids too: embeddings of sizes tolerate the compute dtype)."""
        return self._map(lambda x: x.to(*args, **kwargs))

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Join along the batch; prompts of fewer 77-token chunks repeat their last vector, as in A1111."""
        longest = max(p.tokens.shape[1] for p in parts)

        def pad(x: Tensor) -> Tensor:
            missing = longest - x.shape[1]
            return x if missing == 0 else torch.cat([x, x[:, -1:].expand(-1, missing, -1)], dim=1)

        def join(xs: list[Tensor | None]) -> Tensor | None:
            return None if any(x is None for x in xs) else torch.cat(xs)  # type: ignore[arg-type]

        return Conditioning(
            torch.cat([pad(p.tokens) for p in parts]),
            join([p.pooled for p in parts]),
            join([p.time_ids for p in parts]),
            join([p.concat for p in parts]),
            join([p.control for p in parts]),
        )


class Denoiser(Protocol):
    """predict(x_t, t, conditioning) -> the model's raw output, of the schedule's prediction type.

    x_t: (B, C, h, w) noisy latents, unit-scaled. t: (B,) int64 timesteps in [0, T). Result: (B, 4, h, w).
    """

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor: ...
