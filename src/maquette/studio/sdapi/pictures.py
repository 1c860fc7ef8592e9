"""png-info, enlarging by Lanczos, and what of A1111's picture tools is not here."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from ...formats import pictures
from ...formats.picture_files import parameters_of
from ...formats.png import KEY, parse_infotext
from .answering import A1111Route
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
    from PIL import Image, ImageOps

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
    how = Image.Resampling.NEAREST if (body.upscaler_1 or "") == "Nearest" else Image.Resampling.LANCZOS
    fit = body.resize_mode == 1 and body.upscaling_crop
    made = ImageOps.fit(picture, size, how) if fit else picture.resize(size, how)
    stream = BytesIO()
    made.save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


class Interrogation(BaseModel):
    """Body of interrogate."""

    image: str = ""
    model: str = "clip"


@router.post("/interrogate")
def interrogate(body: Interrogation) -> None:
    """A1111's answer where the model is not there: photos are described on the studio's own page."""
    if not body.image.strip():
        raise HTTPException(404, "Image not found")
    raise HTTPException(404, "Model not found: the studio describes photos on its page Photos (Describe all).")
