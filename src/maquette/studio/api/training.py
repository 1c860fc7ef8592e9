"""What a training would be, and starting one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from .. import captions, plans, presets, texts
from ..core import Studio, studio_of
from ..job import Job
from ..names import Busy
from ..pages import options
from ..pages.training import preflight, preset_of
from .common import ERRORS
from .jobs import info
from .models import Check, Cost, JobInfo, NewJob, Plan, Tag, TagEdit, Texts, Undone

router = APIRouter(prefix="/projects/{project_id}", tags=["training"], responses=dict(ERRORS))


@router.post("/jobs", status_code=201)
def create_job(request: Request, project_id: str, new: NewJob) -> JobInfo:
    """Queue a training (or the description of the photos). While one of the project waits or works, there is one."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    settings = project.changed if new.settings is None and new.kind == "train" else new.settings
    job = plans.start(studio, project, new.kind, new.preset or preset_of(project), settings or {})
    return info(request, job)


@router.get("/presets")
def list_presets(request: Request, project_id: str) -> list[Cost]:
    """Quick, Good and Best with steps, seconds and memory, estimated or measured in an earlier training."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    costs = presets.costs(studio, len(project.used()), presets.base_of(studio, project), project.changed)
    return [Cost(preset=name, **vars(cost)) for name, cost in costs.items()]


@router.get("/check")
def check(request: Request, project_id: str) -> Check:
    """What stands in the way of the training that is chosen: each line with its level (good, warn, bad) and remedy."""
    studio = studio_of(request)
    return Check(**preflight(studio, studio.store.project(project_id)))


@router.post("/texts")
def show(request: Request, project_id: str, plan: Plan) -> Texts:
    """The training as TOML, as a command line, and as Kohya's command."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    changed = project.changed if plan.settings is None else plan.settings
    config = plans.configured(studio, project, plan.preset or preset_of(project), changed)
    return Texts(toml=texts.toml(config), command=texts.command(config), kohya=texts.kohya(studio, project, config))


@router.get("/options")
def list_options(request: Request, project_id: str) -> list[dict[str, Any]]:
    """Every option that fits the project's base and method, in groups, with value, default and help."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    return options.groups(project.changed, presets.base_of(studio, project))


@router.get("/tags")
def list_tags(request: Request, project_id: str) -> list[Tag]:
    """The tags of all captions with how many have them, the most frequent first."""
    project = studio_of(request).store.project(project_id)
    return [Tag(tag=tag, count=count) for tag, count in captions.tags(project)]


@router.post("/tags")
def edit_tags(request: Request, project_id: str, edit: TagEdit) -> dict[str, int]:
    """Change the tags of several captions as one step. Answers how many changed."""
    project = studio_of(request).store.project(project_id)
    changed = captions.edit(project, edit.action, edit.tag, edit.to, edit.photos, edit.first)
    return {"changed": changed}


@router.post("/undo")
def undo(request: Request, project_id: str) -> Undone:
    """Take the last change of tags, crops or choice of photos back."""
    what, left = captions.undo(studio_of(request).store.project(project_id))
    return Undone(undone=what, left=left)


def fresh(studio: Studio, job_id: str, steps: int) -> Job:
    """A new training from the weights of a finished one."""
    before = studio.queue.job(job_id)
    if not before.run.final.exists():
        raise Busy("This job has no file to begin from.")
    project = studio.store.project(before.spec["project"])
    changed = {k: v for k, v in before.spec["config"].items() if k not in ("photos", "out", "from_lora", "epochs")}
    changed |= {"steps": steps, "from_lora": str(before.run.final)}
    return plans.train(studio, project, changed, preset=before.spec.get("preset"))
