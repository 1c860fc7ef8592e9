"""/sdapi/v1/options: the few of A1111's options that change a drawing; others are taken and forgotten."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body, HTTPException, Request

from ...errors import MaquetteError
from ..engine import DrawingEngine
from ..library import Weights
from .answering import A1111Route, engine_of

router = APIRouter(route_class=A1111Route, tags=["a1111"])
DEFAULTS: dict[str, Any] = {"CLIP_stop_at_last_layers": 1, "eta_noise_seed_delta": 0, "randn_source": "CPU"}
FIXED: dict[str, Any] = {"samples_format": "png", "samples_save": False, "enable_pnginfo": True, "return_grid": False}
_LARGEST = 2**31 - 1


def option(engine: DrawingEngine, key: str) -> Any:
    """An option's value as it is now."""
    return engine.options.get(key, DEFAULTS[key])


def title(engine: DrawingEngine, model: Weights) -> str:
    """A1111's title of a base: the file, and the beginning of its hash once it is known."""
    short = engine.hashes.get(model.path, "")[:10]
    return f"{model.file_name} [{short}]" if short else model.file_name


def model_named(engine: DrawingEngine, name: str) -> Weights:
    """A base by its title, name or file name. Raises HTTPException 404."""
    try:
        return engine.library.model(name)
    except MaquetteError as error:
        raise HTTPException(404, str(error)) from error


def vae_path(engine: DrawingEngine, name: str) -> str | None:
    """The file of a VAE; None for the base's own. Raises HTTPException 404."""
    if name.strip().lower() in ("", "automatic", "none"):
        return None
    known = engine.library.vaes()
    for file, path in known.items():
        if name.strip().lower() in (file.lower(), file.lower().rpartition(".")[0]):
            return path
    raise HTTPException(404, f"There is no VAE {name[:60]!r}; there are {', '.join(['Automatic', 'None', *known])}.")


@router.get("/sdapi/v1/options")
def get_options(request: Request) -> dict[str, Any]:
    """Options as they are now."""
    engine = engine_of(request)
    vae = next((name for name, path in engine.library.vaes().items() if path == engine.vae), "Automatic")
    return {
        "sd_model_checkpoint": title(engine, engine.model),
        "sd_checkpoint_hash": engine.hashes.get(engine.model.path, ""),
        "sd_vae": vae,
        **FIXED,
        **{key: option(engine, key) for key in DEFAULTS},
    }


@router.post("/sdapi/v1/options")
def set_options(request: Request, body: dict[str, Any] = Body()) -> None:
    """Change some; the base is opened by the next drawing."""
    engine = engine_of(request)
    wanted = body.get("sd_model_checkpoint")
    if wanted is not None and not isinstance(wanted, str):
        raise HTTPException(422, "sd_model_checkpoint is the name of a model.")
    changed = {key: _checked(key, body[key]) for key in DEFAULTS if body.get(key) is not None}
    if (vae := body.get("sd_vae")) is not None:
        path = vae_path(engine, str(vae))
    if wanted:
        engine.model = model_named(engine, wanted)
    if vae is not None:
        engine.vae = path
    engine.options |= changed


def _checked(key: str, value: Any) -> Any:
    if isinstance(DEFAULTS[key], str):
        return value if value in ("CPU", "GPU", "NV") else DEFAULTS[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise HTTPException(422, f"{key} is a whole number.")
    return int(value)
