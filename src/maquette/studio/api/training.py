"""What a training would be, and starting one."""

from __future__ import annotations

from fastapi import APIRouter, Request

from .. import plans
from ..core import Studio
from ..job import Job
from ..names import Busy
from .common import ERRORS, studio_of
from .jobs import info
from .models import JobInfo, NewJob

router = APIRouter(prefix="/projects/{project_id}", tags=["training"], responses=dict(ERRORS))


@router.post("/jobs", status_code=201)
def create_job(request: Request, project_id: str, new: NewJob) -> JobInfo:
    """Queue a training (or the description of the photos). While one of the project waits or works, there is one."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    job = plans.start(studio, project, new.kind, new.preset, new.settings)
    return info(request, job)


def fresh(studio: Studio, job_id: str, steps: int) -> Job:
    """A new training from the weights of a finished one."""
    before = studio.queue.job(job_id)
    if not before.run.final.exists():
        raise Busy("This job has no file to begin from.")
    project = studio.store.project(before.spec["project"])
    changed = {k: v for k, v in before.spec["config"].items() if k not in ("photos", "out", "from_lora", "epochs")}
    changed |= {"steps": steps, "from_lora": str(before.run.final)}
    return plans.train(studio, project, changed, preset=before.spec.get("preset"))
