"""What there is: bases, LoRAs, samplers, schedules, upscalers, VAEs. None of it needs the drawing process."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from .answering import A1111Route, engine_of
from .names import LATENT_UPSCALERS, SAMPLERS, SCHEDULES, UPSCALERS
from .options import title

router = APIRouter(route_class=A1111Route, tags=["a1111"], prefix="/sdapi/v1")


@router.get("/sd-models")
def sd_models(request: Request) -> list[dict[str, Any]]:
    """Bases. Their hashes are known once they have drawn."""
    engine = engine_of(request)
    return [
        {
            "title": title(engine, model),
            "model_name": model.name,
            "hash": engine.hashes.get(model.path, "")[:10] or None,
            "sha256": engine.hashes.get(model.path) or None,
            "filename": model.path,
            "config": None,
        }
        for model in engine.library.models()
    ]


@router.get("/loras")
def loras(request: Request) -> list[dict[str, Any]]:
    """LoRAs by the names of prompts."""
    return [
        {"name": lora.name, "alias": lora.alias, "path": lora.path, "metadata": lora.metadata}
        for lora in engine_of(request).library.loras()
    ]


@router.get("/sd-vae")
def sd_vae(request: Request) -> list[dict[str, str]]:
    """VAE files."""
    return [{"model_name": name, "filename": path} for name, path in engine_of(request).library.vaes().items()]


@router.get("/samplers")
def samplers() -> list[dict[str, Any]]:
    """Samplers by A1111's names."""
    return [{"name": name, "aliases": list(aliases), "options": {}} for name, aliases in SAMPLERS.items()]


@router.get("/schedulers")
def schedulers() -> list[dict[str, Any]]:
    """Schedule types by A1111's names and labels."""
    rho = {"karras": 7.0, "polyexponential": 1.0}
    return [
        {
            "name": name,
            "label": label,
            "aliases": None,
            "default_rho": rho.get(name, -1.0),
            "need_inner_model": name in ("sgm_uniform", "turbo", "simple", "normal", "ddim", "beta"),
        }
        for label, name in SCHEDULES.items()
    ]


@router.get("/upscalers")
def upscalers(request: Request) -> list[dict[str, Any]]:
    """Upscalers of pixels: those that are built in, and files."""
    files = engine_of(request).library.upscalers()
    names = dict.fromkeys(UPSCALERS) | files
    return [
        {"name": name, "model_name": name if path else None, "model_path": path, "model_url": None, "scale": 4.0}
        for name, path in names.items()
    ]


@router.get("/latent-upscale-modes")
def latent_upscale_modes() -> list[dict[str, str]]:
    """How latents are enlarged by hires fix."""
    return [{"name": name} for name in LATENT_UPSCALERS]


@router.post("/refresh-checkpoints")
@router.post("/refresh-loras")
@router.post("/refresh-vae")
def refresh() -> None:
    """Nothing to do: folders are looked into each time."""
