"""The pages of the studio, rendered on the server. They read projects, jobs and run folders."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.staticfiles import StaticFiles

from . import home, photos, playground, results, training

router = APIRouter()
for part in (home, photos, training, results, playground):
    router.include_router(part.router)


def mount(app: FastAPI) -> None:
    """Serve the style sheet, the scripts and the icons."""
    app.mount("/static", StaticFiles(directory=Path(__file__).parent.parent / "static"), name="static")
