"""The central noun: a denoiser predicts, from a noisy latent, what the schedule's prediction type asks for.

Trainer, evaluator and sampler speak only to `Denoiser` and pass `Conditioning` through unread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

Padding = Callable[[str, Tensor, int], Tensor]
"""A family's rule for texts of other lengths: (name of the tensor, (B, n, …), length) -> (B, length, …)."""


def repeat_last(name: str, x: Tensor, length: int) -> Tensor:
    """Stable Diffusion's rule: prompts of fewer 77-token chunks repeat their last vector, as in A1111."""
    missing = length - x.shape[1]
    return x if missing == 0 else torch.cat([x, x[:, -1:].expand(-1, missing, *x.shape[2:])], dim=1)


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser is conditioned on besides the noisy latent and the timestep: tensors with a batch axis.

    tokens: (B, 77·k, D) text features for cross-attention.
    pooled: (B, P) pooled text vector (SDXL), or None.
    time_ids: (B, 6) SDXL size and crop numbers, in pixels: original h, w, crop top, left, target h, w; or None.
    concat: (B, C, h, w) channels joined to the latent (inpainting: mask and masked-image latent), or None.
    control: (B,) how much of what ControlNets add each row gets, or None: all of it.
    others: what else a family conditions on, by its own names; what is as long as the tokens is cut and padded as they.
    padding: how the family makes texts equally long.
    memo: where a model may keep what it works out of these tensors alone, while its weights stay; None: nowhere. What
    is cut, joined or moved has none.
    """

    tokens: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None
    concat: Tensor | None = None
    control: Tensor | None = None
    others: Mapping[str, Tensor] = field(default_factory=dict)
    padding: Padding = repeat_last
    memo: dict[str, Any] | None = field(default=None, compare=False)

    def fields(self) -> tuple[Tensor | None, ...]:
        """The tensors, in the order in which `rebuild` takes them."""
        return self.tokens, self.pooled, self.time_ids, self.concat, self.control, *self.others.values()

    @property
    def rebuild(self) -> Callable[..., Conditioning]:
        """What makes such a Conditioning of other tensors; it holds none itself."""
        names, padding = tuple(self.others), self.padding

        def build(*tensors: Tensor | None) -> Conditioning:
            tokens, pooled, time_ids, concat, control, *others = tensors
            assert tokens is not None
            named = {name: x for name, x in zip(names, others, strict=True) if x is not None}
            return Conditioning(tokens, pooled, time_ids, concat, control, named, padding)

        return build

    def _map(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        return self.rebuild(*(None if x is None else change(x) for x in self.fields()))

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> Conditioning:
        return self._map(lambda x: x[index])

    def to(self, *args: Any, **kwargs: Any) -> Conditioning:
        """Move or cast every tensor (time_ids too: embeddings of sizes tolerate the compute dtype)."""
        return self._map(lambda x: x.to(*args, **kwargs))

    def joined_chunks(self, tokens: Tensor) -> Conditioning:
        """One text of the k chunks in this batch: `tokens` (1, k·n, D), what is as long too, else the first chunk's."""
        whole = {
            name: x.reshape(1, -1, *x.shape[2:]) if x.shape[1:2] == self.tokens.shape[1:2] else x[:1]
            for name, x in self.others.items()
        }
        return replace(self[:1], tokens=tokens, others=whole)

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Join along the batch; shorter texts are padded by the family's rule."""
        longest = max(p.tokens.shape[1] for p in parts)

        def padded(part: Conditioning) -> tuple[Tensor | None, ...]:
            length = part.tokens.shape[1]
            others = {
                n: part.padding(n, x, longest) if x.shape[1:2] == (length,) else x for n, x in part.others.items()
            }
            return replace(part, tokens=part.padding("tokens", part.tokens, longest), others=others).fields()

        def join(column: tuple[Tensor | None, ...]) -> Tensor | None:
            there = [x for x in column if x is not None]
            return torch.cat(there) if len(there) == len(column) else None

        return parts[0].rebuild(*map(join, zip(*map(padded, parts), strict=True)))


class Denoiser(Protocol):
    """predict(x_t, t, conditioning) -> the model's raw output, of the schedule's prediction type.

    x_t: (B, C, h, w) noisy latents, unit-scaled. t: (B,) timesteps: int64 in [0, T), of a flow float32 in (0, T].
    Result: (B, C, h, w).
    """

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor: ...
