"""What clients ask for and maquette has nothing of: well-formed and empty, so that they go on."""

from __future__ import annotations

import os
from typing import Any

from fastapi import APIRouter, Request

from .answering import A1111Route, engine_of

router = APIRouter(route_class=A1111Route, tags=["a1111"])
_EMPTY_LISTS = ("hypernetworks", "face-restorers", "realesrgan-models", "script-info", "extensions")


def _empty_list() -> list[Any]:
    """Nothing of the kind."""
    return []


for _name in _EMPTY_LISTS:
    router.add_api_route(f"/sdapi/v1/{_name}", _empty_list, methods=["GET"], operation_id=_name.replace("-", "_"))


@router.get("/sdapi/v1/embeddings")
def embeddings() -> dict[str, dict[str, Any]]:
    """Textual inversions, of which none are listed."""
    return {"loaded": {}, "skipped": {}}


@router.get("/sdapi/v1/scripts")
def scripts() -> dict[str, list[str]]:
    """Scripts; that of ControlNet tells clients that it is there."""
    return {"txt2img": ["controlnet", "controlnet m2m"], "img2img": ["controlnet", "controlnet m2m"]}


@router.get("/sdapi/v1/cmd-flags")
def cmd_flags() -> dict[str, Any]:
    """None that a client could use."""
    return {"api": True}


@router.get("/sdapi/v1/memory")
def memory() -> dict[str, Any]:
    """Main memory, as far as the system says."""
    total = free = 0
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    return {"ram": {"free": free, "used": total - free, "total": total}, "cuda": {"error": "unavailable"}}


@router.post("/sdapi/v1/unload-checkpoint")
@router.post("/sdapi/v1/reload-checkpoint")
def unload_checkpoint(request: Request) -> dict[str, Any]:
    """Free the base's memory; the next drawing opens it again."""
    engine_of(request).release()
    return {}


@router.get("/internal/ping")
def ping() -> dict[str, Any]:
    """Alive."""
    return {}
