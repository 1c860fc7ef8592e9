"""Classifier-free guidance, with several weighted prompts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .denoiser import Conditioning, Denoiser

Parts = Sequence[tuple[Conditioning, float]]
"""Conditionings of B rows each, and how strongly each one guides."""


def guided(
    denoiser: Denoiser, x_t: Tensor, t: Tensor, positives: Parts, negative: Conditioning | None, scale: float
) -> Tensor:
    """Guided prediction: negative + scale · Σ wᵢ (positiveᵢ − negative), in the model's own prediction type.

    Ho & Salimans 2207.12598, equation 6; for several prompts Liu et al. 2206.01714, equation 11 (A1111's `AND`).
    x_t: (B, C, h, w); t: (B,); every conditioning has B rows. Without a negative, or with one prompt of weight 1 at
    scale 1, only the positive prompt is computed. Positives of fewer chunks repeat their last vector; a negative of
    another length is computed by itself at its own, as in A1111.
    """
    return guided_and_negative(denoiser, x_t, t, positives, negative, scale)[0]


def guided_and_negative(
    denoiser: Denoiser,
    x_t: Tensor,
    t: Tensor,
    positives: Parts,
    negative: Conditioning | None,
    scale: float,
    need_negative: bool = False,
    rescale: float = 0.0,
    join: Callable[[Sequence[Conditioning]], Conditioning] = Conditioning.cat,
) -> tuple[Tensor, Tensor | None]:
    """(the guided prediction, the negative prompt's own, None where it was not needed); see `guided`.

    rescale: share phi of the guided prediction that gets the deviation of the unguided one back (`rescaled`). join: as
    `Conditioning.cat`.
    """
    alone = len(positives) == 1 and positives[0][1] == 1
    if negative is None or (alone and scale == 1 and not need_negative):
        return denoiser.predict(x_t, t, positives[0][0]), None
    joined = join([conditioning for conditioning, _ in positives])
    if joined.tokens.shape[1] == negative.tokens.shape[1]:
        outputs = _predict(denoiser, x_t, t, join([joined, negative]))
    else:
        outputs = [*_predict(denoiser, x_t, t, joined), *_predict(denoiser, x_t, t, negative)]
    base = outputs[-1]
    change = sum((weight * (out - base) for (_, weight), out in zip(positives, outputs[:-1], strict=True)), 0 * base)
    guided = base + scale * change
    return rescaled(guided, base + change, rescale) if rescale else guided, base


def rescaled(guided: Tensor, positive: Tensor, phi: float) -> Tensor:
    """Guidance without overexposure: Lin et al. 2305.08891, equations 15 and 16.

    guided: (B, C, h, w), with and without guidance; each row's deviation is that of all its elements.
    """
    dims = tuple(range(1, guided.ndim))
    factor = positive.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
    return guided * (phi * factor + (1.0 - phi))


def _predict(denoiser: Denoiser, x_t: Tensor, t: Tensor, joined: Conditioning) -> list[Tensor]:
    """One prediction of B rows for each B rows of the conditioning, in one call."""
    n = len(joined) // len(x_t)
    return list(denoiser.predict(torch.cat([x_t] * n), torch.cat([t] * n), joined).float().chunk(n))
