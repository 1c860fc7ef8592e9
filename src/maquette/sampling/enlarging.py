"""Hires fix: the size of the second drawing, and how the first is brought to it, by A1111's names."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import MaquetteError
from ..families.base import BaseModel
from .inpainting import signed_pixels

if TYPE_CHECKING:
    from .draw_settings import HiresSettings


class LatentWay(NamedTuple):
    """How latents are enlarged: torch's mode of interpolation."""

    mode: str
    antialias: bool = False


LATENT = {
    "Latent": LatentWay("bilinear"),
    "Latent (antialiased)": LatentWay("bilinear", True),
    "Latent (bicubic)": LatentWay("bicubic"),
    "Latent (bicubic antialiased)": LatentWay("bicubic", True),
    "Latent (nearest)": LatentWay("nearest"),
    "Latent (nearest-exact)": LatentWay("nearest-exact"),
}
PIXELS = ("Lanczos", "Nearest")
UPSCALERS = (*LATENT, *PIXELS)


def find_upscaler(name: str) -> str:
    """The upscaler in its usual spelling. Raises MaquetteError with the list for an unknown one."""
    asked = " ".join(name.split()).lower()
    for known in UPSCALERS:
        if asked == known.lower():
            return known
    near = difflib.get_close_matches(name, UPSCALERS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise MaquetteError(f"There is no upscaler {name!r}.{hint} Upscalers: {', '.join(UPSCALERS)}.")


@dataclass(frozen=True)
class Enlargement:
    """Pixels: to what the first drawing is enlarged, and what of it is drawn; the rest is cut off on both sides."""

    width: int
    height: int
    kept_width: int
    kept_height: int

    @classmethod
    def of(cls, settings: HiresSettings, width: int, height: int, factor: int) -> Enlargement:
        """For a first drawing of width x height. factor: pixels per latent cell."""

        def whole(side: float) -> int:
            return max(factor, int(side) // factor * factor)

        if settings.hires_scale:
            size = whole(width * settings.hires_scale), whole(height * settings.hires_scale)
            return cls(*size, *size)
        w, h = settings.hires_width or 0, settings.hires_height or 0
        if not w or not h:
            size = (w, whole(height * w / width)) if w else (whole(width * h / height), h)
            return cls(*size, *size)
        if width * h < height * w:  # the first is slimmer than what is asked for
            return cls(w, whole(w * height / width), w, h)
        return cls(whole(h * width / height), h, w, h)


@torch.no_grad()
def enlarged(base: BaseModel, latents: Tensor, size: Enlargement, upscaler: str) -> Tensor:
    """(B, 4, h, w) latents of the first drawing -> those that the second begins from, unit-scaled."""
    factor = base.spec.latent_factor
    if way := LATENT.get(upscaler):
        cells = size.height // factor, size.width // factor
        latents = F.interpolate(latents, cells, mode=way.mode, antialias=way.antialias)
    else:
        latents = torch.cat([_by_pixels(base, each[None], size, upscaler) for each in latents])
    down = latents.shape[2] - size.kept_height // factor
    right = latents.shape[3] - size.kept_width // factor
    rows = slice(down // 2, latents.shape[2] - (down + 1) // 2)
    return latents[:, :, rows, right // 2 : latents.shape[3] - (right + 1) // 2]


def _by_pixels(base: BaseModel, latents: Tensor, size: Enlargement, upscaler: str) -> Tensor:
    """One picture: decoded, resized and encoded."""
    from PIL.Image import Resampling

    from .images import to_image

    how = Resampling.NEAREST if upscaler == "Nearest" else Resampling.LANCZOS
    picture = to_image(base.decode(latents)[0]).resize((size.width, size.height), how)
    return base.encode_images(signed_pixels(picture))[0].to(latents)
