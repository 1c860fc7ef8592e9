"""What the studio is, and its settings."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from ... import __version__
from ..core import fake_engine
from .common import ERRORS, studio_of

router = APIRouter(tags=["settings"], responses=dict(ERRORS))


@router.get("/state")
def get_state(request: Request) -> dict[str, Any]:
    """Version, and the job that has the machine."""
    studio = studio_of(request)
    active = studio.queue.active()
    return {"version": __version__, "engine": "fake" if fake_engine() else "real", "job": active.id if active else None}


@router.get("/settings")
def get_settings(request: Request) -> dict[str, Any]:
    """The settings; the password is never told."""
    settings = studio_of(request).settings
    told = settings.model_dump(mode="json", exclude={"password"})
    return told | {"data": str(settings.folder), "password": settings.password is not None}
