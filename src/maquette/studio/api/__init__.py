"""The studio's own HTTP API under /api: JSON in and out, multipart for files, server-sent events for jobs."""

from __future__ import annotations

from fastapi import APIRouter

from . import draw, jobs, photos, projects, results, settings, training

router = APIRouter(prefix="/api")
for part in (projects, photos, training, jobs, results, settings, draw):
    router.include_router(part.router)
