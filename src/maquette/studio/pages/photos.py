"""The photo board."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.responses import HTMLResponse, PlainTextResponse

from .. import captions
from ..core import studio_of
from .routes import page_router
from .shell import html

if TYPE_CHECKING:
    from ..core import Studio
    from ..examine import Examined, Finding
    from ..photos import Photo
    from ..store import Project

router = page_router()
KINDS = (("person", "Person"), ("animal", "Animal"), ("object", "Object"), ("style", "Style"))
FEW, ENOUGH, MANY = 4, 8, 60  # photos: fewer cannot be trained; enough to learn; more than it takes
MOST_TAGS = 60


@router.get("/p/{project_id}/photos")
def board(request: Request, project_id: str) -> HTMLResponse:
    """The page."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    return html(
        request, "photos.html", place="project", step="photos", project=project, kinds=KINDS, tags=tags_of(project),
        photos=views(studio, project), enough=enough(project), swap=False,
    )  # fmt: skip


@router.get("/ui/p/{project_id}/cards")
def cards(request: Request, project_id: str) -> HTMLResponse:
    """The cards, and the count at the foot of the page."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    return html(request, "cards.html", photos=views(studio, project), enough=enough(project), swap=True)


@router.get("/ui/p/{project_id}/tags")
def tags(request: Request, project_id: str) -> HTMLResponse:
    return html(request, "tags.html", tags=tags_of(studio_of(request).store.project(project_id)))


@router.get("/ui/p/{project_id}/stamp")
def stamp(request: Request, project_id: str) -> PlainTextResponse:
    """A text that differs after every change of a photo, whichever page made it."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    state = "".join(f"{photo.id}{photo.version}{photo.excluded}" for photo in project.photos())
    state += str(studio.facts.known_base(base_name(studio, project)) is not None)  # then the crops are known
    return PlainTextResponse(hashlib.sha256(state.encode()).hexdigest()[:16])


def views(studio: Studio, project: Project) -> list[dict[str, Any]]:
    """What each card shows."""
    examined = project.examined(studio.known_facts(project))
    return [view(project, photo, examined) for photo in project.photos()]


def base_name(studio: Studio, project: Project) -> str:
    return str(project.settings.get("base") or studio.settings.base)


def view(project: Project, photo: Photo, examined: Examined) -> dict[str, Any]:
    return {
        "id": photo.id, "name": photo.original_name, "width": photo.width, "height": photo.height,
        "src": f"/api/projects/{project.id}/photos/{photo.id}/picture", "caption": photo.caption,
        "excluded": photo.excluded, "masked": photo.mask is not None, "version": photo.version,
        "crop": examined.frames.get(photo.id), "problems": problems(examined.findings.get(photo.id, [])),
    }  # fmt: skip


def problems(findings: list[Finding]) -> list[dict[str, str]]:
    """What is wrong, and what was mended while it was read."""
    return [{"text": one.message, "short": one.short, "level": one.level} for one in findings]


def tags_of(project: Project) -> list[tuple[str, int]]:
    """Parts of captions between commas with their counts, the most frequent first."""
    return captions.tags(project)[:MOST_TAGS]


def enough(project: Project) -> dict[str, str]:
    """Whether there are enough photos, in words."""
    photos = project.photos()
    used = sum(not photo.excluded for photo in photos)
    counted = f"{len(photos)} photo{'' if len(photos) == 1 else 's'}"
    text = counted if used == len(photos) else f"{counted}, {used} used"
    if used < FEW:
        return {"text": text, "word": "too few", "level": "bad"}
    if used < ENOUGH:
        return {"text": text, "word": "few", "level": "warn"}
    return {"text": text, "word": "more than it takes" if used > MANY else "enough", "level": "good"}
