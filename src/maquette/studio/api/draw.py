"""Drawing from the Playground: A1111's keys in, kept pictures out, progress as server-sent events."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

from ...errors import MaquetteError
from ...formats.png import parse_infotext
from ..core import studio_of
from ..drawings import Progress, Refused
from ..gallery import Gallery
from ..names import Busy, NotFound
from ..sdapi.names import UnknownName, sampler_and_schedule
from ..sdapi.pictures import PngInfo, text_of
from ..sdapi.requests import ImageToImage, TextToImage
from ..sdapi.settings import model_of, wish_of
from .common import ERRORS
from .models import Done
from .streaming import News, event_stream

router = APIRouter(prefix="/draw", tags=["draw"], responses=dict(ERRORS))
LOOK = 0.15  # seconds between looks at the progress
SHOWN = 60  # pictures of a list
Axis = Annotated[str, Field(max_length=500)]


class Shown(BaseModel):
    """A kept picture."""

    name: str
    url: str
    seed: int
    infotext: str
    width: int
    height: int


class Drawn(BaseModel):
    """What a request gave."""

    pictures: list[Shown]
    warnings: list[str]
    interrupted: bool


class Wish(ImageToImage, TextToImage):
    """A1111's keys of txt2img; with `init_images` those of img2img; with an axis a grid in one picture."""

    x_axis: Axis | None = None
    y_axis: Axis | None = None
    z_axis: Axis | None = None


@router.post("")
def draw(request: Request, body: Wish) -> Drawn:
    """Draw, and keep the pictures. Waits for drawings that began before."""
    engine = studio_of(request).engine
    given = body.model_dump(exclude_unset=True)
    kind = ImageToImage if body.init_images else TextToImage
    try:
        asked = kind.model_validate(given)
        wish, notes = wish_of(asked, engine)
        axes = {axis: value for axis in "xyz" if (value := getattr(body, f"{axis}_axis"))}
        if axes:
            wish = {key: value for key, value in wish.items() if key not in ("batch_size", "batch_count")} | axes
        drawing = engine.draw(wish | model_of(asked, engine))
    except HTTPException as error:
        raise MaquetteError(str(error.detail)) from error
    except Refused as error:
        raise Busy(str(error)) from error
    gallery = Gallery.of(engine)
    kept = [(gallery.keep(picture), picture) for picture in drawing.pictures]
    pictures = [
        Shown(name=name, url=url(name), seed=p.seed, infotext=p.infotext, width=p.width, height=p.height)
        for name, p in kept
    ]
    return Drawn(pictures=pictures, warnings=[*notes, *drawing.warnings], interrupted=drawing.interrupted)


def url(name: str) -> str:
    """Where a kept picture is."""
    return f"/api/draw/pictures/{name}"


@router.post("/interrupt")
def interrupt(request: Request) -> Done:
    """End the drawing at work after its step."""
    studio_of(request).engine.interrupt()
    return Done()


class Settings(BaseModel):
    """What a picture's text says, by A1111's keys; keys that it does not name are left out. text: the whole of it."""

    text: str
    settings: dict[str, str | int | float]


_KEYS: dict[str, tuple[str, type]] = {
    "Prompt": ("prompt", str),
    "Negative prompt": ("negative_prompt", str),
    "Steps": ("steps", int),
    "CFG scale": ("cfg_scale", float),
    "Seed": ("seed", int),
    "Size-1": ("width", int),
    "Size-2": ("height", int),
    "Clip skip": ("clip_skip", int),
    "Denoising strength": ("denoising_strength", float),
}


@router.post("/read")
def read(body: PngInfo) -> Settings:
    """The settings inside a picture that was drawn here, by A1111 or by another program that writes its text."""
    try:
        text = text_of(body)[0]
    except HTTPException as error:
        raise MaquetteError(str(error.detail)) from error
    return Settings(text=text, settings=settings_of(text))


def settings_of(text: str) -> dict[str, str | int | float]:
    """Values that can be understood, by A1111's keys."""
    given = parse_infotext(text) if text else {}
    found: dict[str, str | int | float] = {}
    for key, (name, kind) in _KEYS.items():
        try:
            if key in given:
                found[name] = kind(given[key])
        except ValueError:
            continue
    try:
        if "Sampler" in given:
            found["sampler_name"], found["scheduler"] = sampler_and_schedule(
                given["Sampler"], given.get("Schedule type", "")
            )
    except UnknownName:
        pass  # of another program: the field stays as it is
    return found


@router.get("/pictures")
def pictures(request: Request, after: Annotated[int, Field(ge=0, le=100_000)] = 0) -> list[dict[str, str]]:
    """Kept pictures, the newest first, so many from the `after`-th on."""
    names = Gallery.of(studio_of(request).engine).names()[after : after + SHOWN]
    return [{"name": name, "url": url(name)} for name in names]


@router.get("/pictures/{name}", response_class=FileResponse)
def picture(request: Request, name: str) -> FileResponse:
    """One of them."""
    path = Gallery.of(studio_of(request).engine).path(name)
    if path is None:
        raise NotFound("There is no such picture; it may have been deleted.")
    return FileResponse(path, media_type="image/png", headers={"cache-control": "private, max-age=31536000, immutable"})


@router.delete("/pictures/{name}")
def delete_picture(request: Request, name: str) -> Done:
    """Delete one of them."""
    if not Gallery.of(studio_of(request).engine).remove(name):
        raise NotFound("There is no such picture; it may have been deleted.")
    return Done()


@router.get("/events", response_class=StreamingResponse)
async def events(request: Request) -> StreamingResponse:
    """Server-sent events `progress`, whenever something changes: busy, fraction, step, steps, eta, text, preview."""
    engine = studio_of(request).engine
    last: Progress | None = None

    async def look() -> News:
        nonlocal last
        now, before = engine.progress(), last
        last = now
        if now == before:
            return (), False
        preview = now.preview if before is None or now.preview is not before.preview else None
        return [f"event: progress\ndata: {json.dumps(_progress(now, preview))}\n\n"], False

    return event_stream(request, look, LOOK)


def _progress(now: Progress, preview: bytes | None) -> dict[str, Any]:
    image = None if preview is None else f"data:image/png;base64,{base64.b64encode(preview).decode()}"
    given = {"busy": now.job_count > 0, "fraction": round(now.fraction, 4), "step": now.step, "steps": now.steps}
    return {**given, "eta": round(now.eta_seconds, 1), "text": now.text, "preview": image}
