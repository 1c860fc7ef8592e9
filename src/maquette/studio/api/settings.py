"""What the studio is, and its settings."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from ... import __version__
from .. import demo
from ..core import fake_engine, studio_of
from ..names import NotFound
from .common import ERRORS
from .models import ProjectInfo, SettingsChange

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
    shown = settings.model_dump(mode="json", exclude={"password"})
    return shown | {"data": str(settings.folder), "password": settings.password is not None}


@router.patch("/settings")
def change_settings(request: Request, change: SettingsChange) -> dict[str, Any]:
    """Switch the API for other programs on or off, or choose the usual base. It is kept for the next start, where
    options of the command line come first.
    """
    studio = studio_of(request)
    if change.base is not None and change.base not in {model.path for model in studio.engine.library.models()}:
        raise NotFound("There is no such base; /api/bases lists those that are there.")
    if change.base is not None:
        studio.engine.set_model(change.base)
    if changes := change.model_dump(exclude_none=True):
        studio.change_settings(changes)
    return get_settings(request)


@router.get("/bases")
def list_bases(request: Request) -> list[dict[str, str]]:
    """The base models that are there: pocket, and what lies in the folder of bases."""
    return [{"base": model.path, "name": model.name} for model in studio_of(request).engine.library.models()]


@router.post("/demo", status_code=201)
def make_demo(request: Request) -> ProjectInfo:
    """A project with the fourteen drawn photos of a small robot, to try everything."""
    return ProjectInfo.of(demo.project(studio_of(request).store), [])
