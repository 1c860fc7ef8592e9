"""png-info, and enlarging pictures without drawing anything anew."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from ...formats import pictures
from ...formats.picture_files import parameters_of
from ...formats.png import KEY, parse_infotext
from .answering import A1111Route
from .names import UPSCALERS
from .uploads import picture_bytes

router = APIRouter(route_class=A1111Route, tags=["a1111"], prefix="/sdapi/v1")
LARGEST = 8192
_LONGEST = 100_000  # characters of a text that is sent back


class PngInfo(BaseModel):
    """Body of png-info."""

    image: str = ""


@router.post("/png-info")
def png_info(body: PngInfo) -> dict[str, Any]:
    """The text inside a picture, and its keys and values."""
    text, items = text_of(body)
    return {"info": text, "items": items, "parameters": parse_infotext(text) if text else {}}


def text_of(body: PngInfo) -> tuple[str, dict[str, str]]:
    """The text that says how a picture was drawn, and the other texts in it by their keys. Raises HTTPException."""
    if not body.image.strip():
        raise HTTPException(404, "Image not found")
    picture = pictures.open_picture(BytesIO(picture_bytes(body.image)))
    items = {str(k): v[:_LONGEST] for k, v in picture.info.items() if isinstance(v, str) and k != KEY}
    return parameters_of(picture)[:_LONGEST], items


class Upscale(BaseModel):
    """Body of extra-single-image. Other keys are let pass."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    image: str = ""
    resize_mode: Annotated[int, Field(ge=0, le=1)] = 0
    upscaling_resize: Annotated[float, Field(gt=0, le=8)] = 2.0
    upscaling_resize_w: Annotated[int, Field(ge=1, le=LARGEST)] = 512
    upscaling_resize_h: Annotated[int, Field(ge=1, le=LARGEST)] = 512
    upscaling_crop: bool = True
    upscaler_1: str | None = "None"


@router.post("/extra-single-image")
def extra_single_image(body: Upscale) -> dict[str, str]:
    """A picture enlarged by Lanczos."""
    if not body.image.strip():
        raise HTTPException(404, "Image not found")
    return {"html_info": "", "image": _enlarged(body, body.image)}


class Named(BaseModel):
    """A picture of a batch."""

    data: str
    name: str = ""


class UpscaleBatch(Upscale):
    """Body of extra-batch-images."""

    imageList: Annotated[list[Named], Field(max_length=16)] = Field(default_factory=list)


@router.post("/extra-batch-images")
def extra_batch_images(body: UpscaleBatch) -> dict[str, Any]:
    """Several pictures, enlarged."""
    return {"html_info": "", "images": [_enlarged(body, each.data) for each in body.imageList]}


def _enlarged(body: Upscale, text: str) -> str:
    picture = pictures.open_picture(BytesIO(picture_bytes(text))).convert("RGB")
    if body.resize_mode == 1:
        size = body.upscaling_resize_w, body.upscaling_resize_h
    else:
        size = (
            max(1, round(picture.width * body.upscaling_resize)),
            max(1, round(picture.height * body.upscaling_resize)),
        )
    if size[0] * size[1] > LARGEST * LARGEST // 2:
        raise HTTPException(
            422, f"{size[0]} x {size[1]} pixels are more than {LARGEST * LARGEST // 2_000_000} million."
        )
    how = _way(body.upscaler_1 or "None")
    fit = body.resize_mode == 1 and body.upscaling_crop
    made = ImageOps.fit(picture, size, how) if fit else picture.resize(size, how)
    stream = BytesIO()
    made.save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


def _way(name: str) -> Image.Resampling:
    """How pixels are made by an upscaler. Raises HTTPException 404 for one that is not there, or only draws."""
    if name not in UPSCALERS:
        raise HTTPException(404, f"Upscaler not found; pictures are enlarged here by {', '.join(UPSCALERS)}.")
    return Image.Resampling.NEAREST if name == "Nearest" else Image.Resampling.LANCZOS
