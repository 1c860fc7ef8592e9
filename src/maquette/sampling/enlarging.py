"""Hires fix: the size of the second drawing, and how the first is brought to it, by A1111's names."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import MaquetteError
from ..events import Listener, ignore
from ..families.base import BaseModel
from ..families.upscaler import Upscaler
from .decoding import decoded
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
    """The upscaler in its usual spelling, or a file's path. Raises MaquetteError with the list for an unknown one."""
    key = " ".join(name.split()).lower()
    for known in UPSCALERS:
        if key == known.lower():
            return known
    if Path(name).is_file():
        return name
    near = difflib.get_close_matches(name, UPSCALERS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    own = f"{', '.join(UPSCALERS)}, or a file of ESRGAN's kind"
    raise MaquetteError(f"There is no upscaler {name!r}.{hint} Upscalers: {own}.")


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
def enlarged(
    base: BaseModel,
    second: BaseModel,
    latents: Tensor,
    size: Enlargement,
    upscaler: str | Upscaler,
    on_event: Listener = ignore,
) -> Tensor:
    """(B, 4, h, w) latents that `base` drew -> those that the second drawing, by `second`, begins from, unit-scaled."""
    factor = second.spec.latent_factor
    if isinstance(upscaler, str) and (way := LATENT.get(upscaler)):
        cells = size.height // factor, size.width // factor
        latents = F.interpolate(latents, cells, mode=way.mode, antialias=way.antialias)
    else:
        latents = torch.cat(
            [_by_pixels(second, pixels, size, upscaler) for pixels in decoded(base, latents, on_event, one_by_one=True)]
        )
    down = latents.shape[2] - size.kept_height // factor
    right = latents.shape[3] - size.kept_width // factor
    rows = slice(down // 2, latents.shape[2] - (down + 1) // 2)
    return latents[:, :, rows, right // 2 : latents.shape[3] - (right + 1) // 2]


def _by_pixels(second: BaseModel, pixels: Tensor, size: Enlargement, upscaler: str | Upscaler) -> Tensor:
    """One picture (3, H, W) in [0, 1]: enlarged, and encoded by the second's VAE -> (1, 4, h, w)."""
    from PIL.Image import Resampling

    from .images import to_image
    from .upscaling import upscaled

    picture = to_image(pixels)
    if isinstance(upscaler, Upscaler):
        picture = upscaled(upscaler, picture, size.width, size.height)
    else:
        how = Resampling.NEAREST if upscaler == "Nearest" else Resampling.LANCZOS
        picture = picture.resize((size.width, size.height), how)
    return second.encode_images(signed_pixels(picture))[0].to(pixels)


def require_same_latents(base: BaseModel, second: BaseModel, upscaler: str | Upscaler) -> None:
    """Raise MaquetteError where a second model is to go on with latents that are none of its own."""
    family, other = base.spec, second.spec
    kin = {"sd2": "sd1"}  # which have one autoencoder
    if kin.get(family.name, family.name) == kin.get(other.name, other.name):
        return
    if upscaler in LATENT:
        raise MaquetteError(
            f"{second.source} has other latents than {base.source}, so that {upscaler} cannot enlarge between them: "
            "choose an upscaler of pixels, such as Lanczos."
        )
