"""Photos whose subject is set before other backgrounds, so that pictures asked for with a background have something to
be compared with: no photo shows the subject there.

What belongs to the background is found by colour: whatever is reached from the border through pixels of the border's
colours (region growing, Adams and Bischof 1994; the colours by k-means). An outline is believed where it hardly moves
when the tolerance does (as of MSER, Matas et al. 2002); other photos stay whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

BORDER = 0.03  # of the shorter side: pixels that are taken for background
COLOURS = 4  # of the border, at most
TOLERANCE = 0.12  # distance of a pixel from one of them in any channel, of values in [-1, 1]
SPREAD = 3.0  # or so many of that colour's own deviations, if that is more
STABLE = 0.8  # overlap of the outlines by 0.8 and 1.25 of the tolerance: the part of the larger that the smaller covers
LEAST, MOST = 0.03, 0.85  # of the picture; an outline that takes less or more is none
HALO = 0.05  # of the shorter side around a subject: its edge and shadow are no background either
ROUNDS = 8  # of k-means
SIDE = 256  # pixels of the longer side at which an outline is looked for


def subject_outlines(pixels: Tensor) -> Tensor:
    """(n, 3, H, W) in [-1, 1] -> (n, 1, H, W), 1 for the subject and 0 for what lies around it, soft at the edge;
    1 everywhere where no background is found.
    """
    height, width = pixels.shape[-2:]
    shrink = min(1.0, SIDE / max(height, width))
    small = F.interpolate(pixels.float(), scale_factor=shrink, mode="area") if shrink < 1 else pixels.float()
    outlines = torch.stack([_outline(picture) for picture in small])
    return F.interpolate(outlines, (height, width), mode="bilinear") if shrink < 1 else outlines


def _outline(picture: Tensor) -> Tensor:
    edge = _frame(picture.shape[-2:]).to(picture.device)
    colours, tolerances = _palette(picture[:, edge].T)
    off = (picture[:, None] - colours.T[:, :, None, None]).abs().amax(0)  # (K, H, W)
    wide, outline, narrow = (
        ~_reached((off <= factor * tolerances[:, None, None]).any(0), edge) for factor in (0.8, 1.0, 1.25)
    )
    found = LEAST <= outline.float().mean() <= MOST and narrow.sum() >= STABLE * wide.sum()
    if not found:
        return torch.ones_like(picture[:1])
    soft = outline.float()[None]
    return F.avg_pool2d(soft, 3, 1, 1, count_include_pad=False) * soft


def _frame(size: Sequence[int]) -> Tensor:
    """(H, W) bool: the border."""
    width = max(2, round(BORDER * min(size)))
    edge = torch.ones(*size, dtype=torch.bool)
    edge[width:-width, width:-width] = False
    return edge


def _palette(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(m, 3) pixels of the border -> their colours (K, 3) and each one's tolerance (K,). A colour that takes less than
    a tenth of the border is none: there the subject reaches over the edge.
    """
    colours = pixels.median(0).values[None]
    for _ in range(COLOURS - 1):  # each new one begins at the pixel that is farthest from those there are
        colours = torch.cat([colours, pixels[torch.cdist(pixels, colours).amin(1).argmax()][None]])
    for _ in range(ROUNDS):
        own = F.one_hot(torch.cdist(pixels, colours).argmin(1), COLOURS).to(pixels)  # (m, K)
        counts = own.sum(0)
        colours = torch.where(counts[:, None] > 0, own.T @ pixels / counts.clamp(min=1)[:, None], colours)
    spread = (own.T @ torch.cdist(pixels, colours).amin(1).square() / counts.clamp(min=1) / 3).sqrt()
    kept = counts >= len(pixels) / 10
    return colours[kept], (SPREAD * spread).clamp(min=TOLERANCE)[kept]


def _reached(open_: Tensor, start: Tensor) -> Tensor:
    """(H, W) bool: the part of `open_` that hangs together with `start`."""
    reached = (open_ & start)[None, None].float()
    free = open_[None, None].float()
    while True:
        grown = F.max_pool2d(reached, 3, 1, 1) * free
        if torch.equal(grown, reached):
            return reached[0, 0].bool()
        reached = grown


def backgrounds(pixels: Tensor, outlines: Tensor) -> Tensor:
    """The pictures (n, 3, H, W) without their subject: what is behind it is filled in from around it (pull-push,
    Gortler et al. 1996, "The lumigraph"). Of a picture without an outline the border alone is taken.
    """
    wide = 2 * max(1, round(HALO * min(pixels.shape[-2:]))) + 1
    covered = F.max_pool2d((outlines > 0).float(), (wide, 1), 1, (wide // 2, 0))
    known = 1 - F.max_pool2d(covered, (1, wide), 1, (0, wide // 2))
    frame = _frame(pixels.shape[-2:]).to(known)
    known = torch.where(known.flatten(1).amax(1)[:, None, None, None] > 0, known, frame)
    return _filled(pixels.float() * known, known)


def _filled(weighted: Tensor, weight: Tensor) -> Tensor:
    """(n, 3, H, W) values times their weights (n, 1, H, W) of 0 to 1 -> values everywhere."""
    height, width = weighted.shape[-2:]
    if max(height, width) == 1:
        return weighted / weight.clamp(min=1e-6)
    size = (height + 1) // 2, (width + 1) // 2
    coarse = _filled(F.adaptive_avg_pool2d(weighted, size), F.adaptive_avg_pool2d(weight, size))
    return weighted + (1 - weight) * F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)


def set_before(pixels: Tensor, outlines: Tensor, behind: Tensor) -> Tensor:
    """The subjects of (..., 3, H, W), as (..., 1, H, W) outlines them, before these backgrounds."""
    return outlines * pixels + (1 - outlines) * behind
