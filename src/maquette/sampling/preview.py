"""Rough pictures of a drawing at work: colours that are a straight line of each latent cell's numbers."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..events import Event, Listener
from ..families.base import BaseModel
from .images import to_image

if TYPE_CHECKING:
    from PIL.Image import Image

_CELLS = 16  # sides of the picture that the line is fitted to, in latent cells
_LINES = "maquette_latent_to_rgb"


class Previews:
    """Sends an event "preview" after every so many steps: `step`, and `pictures` as data URLs of PNG."""

    def __init__(self, base: BaseModel, every: int, on_event: Listener) -> None:
        self.base, self.every, self.on_event = base, every, on_event

    def after(self, i: int, x0: Tensor) -> None:
        """To be called after step i (from 0), with the clean latents (B, 4, h, w) as the denoiser sees them."""
        if not self.every or (i + 1) % self.every:
            return
        pictures = [_data_url(to_image(each)) for each in rough(self.base, x0)]
        self.on_event(Event("preview", {"step": i + 1, "pictures": pictures}))


@torch.no_grad()
def rough(base: BaseModel, latents: Tensor) -> Tensor:
    """(B, 4, h, w) unit-scaled latents -> (B, 3, h, w) in [0, 1]: a pixel for each cell."""
    line = getattr(base, _LINES, None)
    if line is None:
        line = _fitted(base)
        setattr(base, _LINES, line)
    x = latents.float().cpu()
    return (torch.einsum("bchw,cd->bdhw", x, line[:-1]) + line[-1][None, :, None, None]).clamp(0, 1)


def _fitted(base: BaseModel) -> Tensor:
    """(5, 3): the least-squares line from a cell's four numbers (and 1) to its colour, of a picture of flat colours."""
    random = torch.Generator().manual_seed(0)
    blocks = torch.rand(1, 3, _CELLS // 2, _CELLS // 2, generator=random)
    colours = torch.nn.functional.interpolate(blocks, scale_factor=2, mode="bilinear")  # (1, 3, cells, cells)
    pixels = torch.nn.functional.interpolate(colours, scale_factor=base.spec.latent_factor, mode="bilinear")
    mean = base.encode_images(pixels.to(base.device) * 2 - 1)[0].float().cpu()
    cells = torch.cat([mean[0].flatten(1).T, torch.ones(_CELLS**2, 1)], dim=1)
    line: Tensor = torch.linalg.lstsq(cells, colours[0].flatten(1).T).solution
    return line


def _data_url(picture: Image) -> str:
    stream = BytesIO()
    picture.save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
