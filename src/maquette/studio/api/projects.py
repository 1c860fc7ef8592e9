"""Projects."""

from __future__ import annotations

from fastapi import APIRouter, Request

from .. import plans
from ..core import studio_of
from .common import ERRORS, jobs_of
from .models import Done, NewProject, ProjectChange, ProjectInfo

router = APIRouter(prefix="/projects", tags=["projects"], responses=dict(ERRORS))


@router.get("")
def list_projects(request: Request) -> list[ProjectInfo]:
    """All projects, the newest first."""
    studio = studio_of(request)
    return [ProjectInfo.of(project, jobs_of(studio, project.id)) for project in studio.store.projects()]


@router.post("", status_code=201)
def create_project(request: Request, new: NewProject) -> ProjectInfo:
    """Make a project."""
    project = studio_of(request).store.create(new.name, new.kind, new.subject, new.token)
    return ProjectInfo.of(project, [])


@router.get("/{project_id}")
def get_project(request: Request, project_id: str) -> ProjectInfo:
    """One project."""
    studio = studio_of(request)
    return ProjectInfo.of(studio.store.project(project_id), jobs_of(studio, project_id))


@router.patch("/{project_id}")
def change_project(request: Request, project_id: str, change: ProjectChange) -> ProjectInfo:
    """Change names, words or settings."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    values = change.model_dump(exclude_none=True, exclude={"settings"})
    with project.lock:
        if change.settings is not None:
            plans.require_possible(change.settings.changed or {})
            if change.settings.base is not None:
                studio.engine.library.model(change.settings.base)
            kept = project.settings | change.settings.model_dump(exclude_unset=True)
            values["settings"] = {key: value for key, value in kept.items() if value is not None}
        project.change(**values)
    return ProjectInfo.of(project, jobs_of(studio, project_id))


@router.delete("/{project_id}")
def delete_project(request: Request, project_id: str) -> Done:
    """Delete a project with its photos, captions, jobs and files. Nothing of it is left."""
    studio_of(request).delete_project(project_id)
    return Done()
