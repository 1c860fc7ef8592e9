"""A photo as the evaluation sees it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Example:
    """A photo. pixels: (3, H, W) in [-1, 1]. held: training did not see it. mask: (1, H, W), 1 where its subject is;
    None where nobody has said so.
    """

    pixels: Tensor
    caption: str
    name: str = ""
    held: bool = False
    mask: Tensor | None = None
