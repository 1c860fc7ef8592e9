"""Home: the projects, or where to begin; the queue; the settings drawer; the strip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from ... import __version__
from ..core import studio_of
from .jobs import LEVELS, WORDS, WORKING, percent_of, short
from .routes import page_router
from .shell import html, theme

if TYPE_CHECKING:
    from ..core import Studio
    from ..store import Project

router = page_router()
WHO = "Who may open it"
MOSAIC = 3  # pictures on a project's card
MOST_ENDED = 10  # jobs that are over, in the queue


@router.get("/")
def home(request: Request) -> HTMLResponse:
    """All projects, the newest first; where there is none, the way to the first."""
    studio = studio_of(request)
    projects = [project_view(studio, project) for project in studio.store.projects()]
    return html(request, "home.html", place="home", projects=projects, folder=str(studio.folder))


def project_view(studio: Studio, project: Project) -> dict[str, Any]:
    """A project's card."""
    jobs = [job for job in studio.queue.jobs() if job.spec.get("project") == project.id and job.spec["kind"] == "train"]
    newest = max(jobs, key=lambda job: job.spec["created"], default=None)
    state = newest.state if newest is not None else ""
    photos = project.photos()
    step = "train" if state in (*WORKING, "queued", "failed") else "results" if state else "photos"
    used = sum(not photo.excluded for photo in photos)
    words = f"{project.subject} · {used} photo{'' if used == 1 else 's'}"
    percent = percent_of(newest.status()) if newest is not None and state in WORKING else None
    return {
        "id": project.id, "name": project.name, "url": f"/p/{project.id}/{step}", "words": words,
        "state": f"Training {percent} %" if state == "running" and percent is not None else WORDS.get(state, "Draft"),
        "level": LEVELS.get(state, ""), "percent": percent,
        "thumbs": [f"/api/projects/{project.id}/photos/{photo.id}/picture" for photo in photos[:MOSAIC]],
    }  # fmt: skip


@router.get("/ui/strip")
def strip(request: Request) -> HTMLResponse:
    """The job at work, as every page shows it."""
    return html(request, "strip.html")


@router.get("/queue")
def queue(request: Request) -> HTMLResponse:
    """The jobs in their order."""
    return html(request, "queue.html", place="queue", jobs=job_views(studio_of(request)))


@router.get("/ui/queue")
def queue_piece(request: Request) -> HTMLResponse:
    return html(request, "jobs.html", jobs=job_views(studio_of(request)))


def job_views(studio: Studio) -> list[dict[str, Any]]:
    """The job at work, those that wait, and the last that are over."""
    jobs = studio.queue.jobs()
    waiting = [job.id for job in jobs if job.state == "queued"]
    views, ended = [], 0
    for job in jobs:
        view = short(job, job.spec.get("title") or "A job")
        over = view["state"] in ("finished", "failed", "stopped")
        ended += over
        if ended > MOST_ENDED:
            break
        place = waiting.index(job.id) if job.id in waiting else None
        step = "results" if view["state"] in ("finished", "stopped") and view["kind"] == "train" else "train"
        step = "photos" if view["kind"] == "caption" else step
        view |= {"place": place, "last": bool(waiting) and job.id == waiting[-1]}
        view |= {"url": f"/p/{view['project']}/{step}", "words": WORDS[view["state"]]}
        views.append(view)
    return views


@router.get("/ui/settings")
def settings(request: Request) -> HTMLResponse:
    """What the drawer shows: where things are, who may come in, what can be deleted."""
    studio = studio_of(request)
    chosen = studio.settings
    facts = [("Projects, photos, trained files", str(studio.folder)), ("Base models", str(chosen.bases_folder))]
    facts += [("Further LoRA files", str(folder)) for folder in chosen.loras]
    facts.append((WHO, "this network, with the password" if chosen.lan else "this computer alone"))
    address = f"{request.url.scheme}://{request.url.netloc}"
    words = "Programs that speak AUTOMATIC1111's API, or OpenAI's for pictures, can draw with what you trained"
    api = {"address": address if chosen.api else "", "words": f"{words}{', at:' if chosen.api else '.'}"}
    projects = [{"id": project.id, "name": project.name} for project in studio.store.projects()]
    return html(
        request,
        "settings.html",
        theme=theme(request),
        facts=facts,
        who=WHO,
        api=api,
        projects=projects,
        version=__version__,
    )
