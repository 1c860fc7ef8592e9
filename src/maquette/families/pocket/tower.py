"""The pocket base's own small CLIP: an image tower aligned with its text encoder; heads name object and style.

It is the project's judge on the pocket base (does a picture show what was asked?) and its CLIP-T / CLIP-I measure.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 192)
EMBEDDING = 96


def _block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
        nn.Conv2d(outside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    )


class ImageTower(nn.Module):
    """Four stride-2 convolution blocks and a mean over space; linear heads on top.

    objects, styles: numbers of classes of the two heads. text_width: width of the text encoder's pooled output.
    """

    def __init__(self, objects: int, styles: int, text_width: int = 128) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_block(i, o) for i, o in zip((3, *WIDTHS), WIDTHS, strict=False)))
        self.image_projection = nn.Linear(WIDTHS[-1], EMBEDDING, bias=False)
        self.text_projection = nn.Linear(text_width, EMBEDDING, bias=False)
        self.object_head = nn.Linear(WIDTHS[-1], objects)
        self.style_head = nn.Linear(WIDTHS[-1], styles)

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, 64, 64) in [-1, 1] -> (B, 192)."""
        result: Tensor = self.blocks(pixels).mean((2, 3))
        return result

    def embed_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, 64, 64) in [-1, 1] -> (B, 96) unit vectors, comparable with `embed_texts`."""
        return F.normalize(self.image_projection(self.features(pixels)), dim=-1)

    def embed_texts(self, pooled: Tensor) -> Tensor:
        """(B, text_width) pooled text-encoder output -> (B, 96) unit vectors."""
        return F.normalize(self.text_projection(pooled), dim=-1)
