"""txt2img, img2img, progress and interrupt."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

from fastapi import APIRouter, Request

from ...formats.png import parse_infotext
from ..drawings import Drawing
from ..engine import DrawingEngine
from ..gallery import Gallery
from .answering import A1111Route, Answer, engine_of
from .requests import Common, ImageToImage, TextToImage
from .settings import model_of, overridden, wish_of

router = APIRouter(route_class=A1111Route, tags=["a1111"], prefix="/sdapi/v1")


@router.post("/txt2img")
def txt2img(request: Request, body: TextToImage) -> Answer:
    """Pictures from words."""
    return Answer(_drawn(engine_of(request), body))


@router.post("/img2img")
def img2img(request: Request, body: ImageToImage) -> Answer:
    """Pictures from a picture, or a part of it drawn anew."""
    engine = engine_of(request)
    answer = _drawn(engine, body)
    if not body.include_init_images:
        answer["parameters"] |= {"init_images": None, "mask": None}
    return Answer(answer)


def _drawn(engine: DrawingEngine, body: Common) -> dict[str, Any]:
    wish, notes = wish_of(body, engine)
    models = model_of(body, engine)
    drawing = engine.draw(wish | models)
    if body.override_settings_restore_afterwards is False:
        if models:
            engine.model, engine.vae = drawing.model, models.get("vae", engine.vae)
        engine.options |= overridden(body, wish)
    if body.save_images:
        for picture in drawing.pictures:
            Gallery.of(engine).keep(picture)
    images = [base64.b64encode(picture.png).decode() for picture in drawing.pictures]
    return {
        "images": images if body.send_images is not False else [],
        "parameters": body.model_dump(include=set(type(body).model_fields), mode="json"),
        "info": json.dumps(_info(engine, body, wish, drawing, notes)),
    }


def _info(
    engine: DrawingEngine, body: Common, wish: dict[str, Any], drawing: Drawing, notes: list[str]
) -> dict[str, Any]:
    """A1111's account of a drawing, and what maquette has to say about it under `warnings`."""
    pictures = drawing.pictures
    first = pictures[0] if pictures else None
    infotext = parse_infotext(first.infotext) if first else {}
    subseeds = [picture.variation_seed if picture.variation_seed is not None else -1 for picture in pictures]
    return {
        "prompt": first.prompt if first else wish["prompt"],
        "all_prompts": [picture.prompt for picture in pictures],
        "negative_prompt": first.negative_prompt if first else wish["negative_prompt"],
        "all_negative_prompts": [picture.negative_prompt for picture in pictures],
        "seed": first.seed if first else wish["seed"],
        "all_seeds": [picture.seed for picture in pictures],
        "subseed": subseeds[0] if subseeds else -1,
        "all_subseeds": subseeds,
        "subseed_strength": body.subseed_strength or 0,
        "width": first.width if first else wish["width"],
        "height": first.height if first else wish["height"],
        "sampler_name": wish["sampler"],
        "cfg_scale": float(infotext["CFG scale"]) if "CFG scale" in infotext else wish["cfg_scale"],
        "steps": wish["steps"],
        "batch_size": wish["batch_size"],
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": drawing.model.name,
        "sd_model_hash": drawing.model_hash[:10],
        "sd_vae_name": infotext.get("VAE"),
        "sd_vae_hash": infotext.get("VAE hash"),
        "seed_resize_from_w": body.seed_resize_from_w,
        "seed_resize_from_h": body.seed_resize_from_h,
        "denoising_strength": wish.get("denoising_strength"),
        "extra_generation_params": {"Schedule type": wish["schedule_type"]},
        "index_of_first_image": 0,
        "infotexts": [picture.infotext for picture in pictures],
        "styles": [str(name) for name in body.styles] if isinstance(body.styles, list) else [],
        "job_timestamp": _stamp(),
        "clip_skip": wish["clip_skip"],
        "is_using_inpainting_conditioning": False,
        "version": infotext.get("Version", ""),
        "interrupted": drawing.interrupted,
        "warnings": [*notes, *drawing.warnings],
    }


def _stamp() -> str:
    return datetime.datetime.now().strftime("%Y%m%d%H%M%S")


@router.get("/progress")
def progress(request: Request, skip_current_image: bool = False) -> Answer:
    """Where the drawing at work stands. Training says nothing here: its progress is the studio's own."""
    now = engine_of(request).progress()
    each = now.steps // now.job_count if now.job_count else 0
    image = None if skip_current_image or now.preview is None else base64.b64encode(now.preview).decode()
    return Answer(
        {
            "progress": now.fraction,
            "eta_relative": round(now.eta_seconds, 3),
            "state": {
                "skipped": False,
                "interrupted": now.interrupted,
                "stopping_generation": now.interrupted,
                "job": "scripts_txt2img" if now.job_count else "",
                "job_count": now.job_count,
                "job_timestamp": _stamp() if now.job_count else "0",
                "job_no": now.job_no,
                "sampling_step": now.step - now.job_no * each,
                "sampling_steps": each,
            },
            "current_image": image,
            "textinfo": now.text or None,
        }
    )


@router.post("/interrupt")
@router.post("/skip")
def interrupt(request: Request) -> dict[str, Any]:
    """End the drawing at work after its step."""
    engine_of(request).interrupt()
    return {}
