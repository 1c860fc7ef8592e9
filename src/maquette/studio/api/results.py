"""What a job has made: pictures, the verdict, files to download."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import FileResponse

from ...limits import RECORD_BYTES
from ...parsing import read_json
from .. import results
from ..core import studio_of
from ..names import NotFound
from .common import ERRORS, send
from .jobs import info
from .models import Choice, JobInfo, Merge

router = APIRouter(tags=["results"], responses=dict(ERRORS))
Number = Annotated[int, Path(ge=0, le=10**12)]


@router.get("/jobs/{job_id}/samples")
def list_samples(request: Request, job_id: str) -> list[dict[str, Any]]:
    """The pictures of each checkpoint, step 0 being the base: step, prompts and the pictures' URLs."""
    run = studio_of(request).queue.job(job_id).run
    found = []
    for step, folder in run.sample_folders().items():
        if (folder / "prompts.json").exists():
            prompts = read_json(folder / "prompts.json", RECORD_BYTES, "list of prompts")
            urls = [f"/api/files/{job_id}/samples/{step:06d}/{at}.png" for at in range(len(prompts))]
            found.append({"step": step, "prompts": prompts, "pictures": urls})
    return found


@router.get("/jobs/{job_id}/samples/{step}/{number}.png", response_class=FileResponse, include_in_schema=False)
@router.get("/files/{job_id}/samples/{step}/{number}.png", response_class=FileResponse)
def get_sample(request: Request, job_id: str, step: Number, number: Number) -> FileResponse:
    """One picture."""
    run = studio_of(request).queue.job(job_id).run
    return send(run.samples(step) / f"{number}.png", run.path, "image/png")


@router.get("/jobs/{job_id}/metrics")
def get_metrics(request: Request, job_id: str, after: int = 0) -> dict[str, list[float]]:
    """Step, loss and learning rate of each step after a step."""
    lines = [line for line in studio_of(request).queue.job(job_id).run.read_metrics() if line["step"] > after]
    return {key: [line.get(key, 0.0) for line in lines] for key in ("step", "loss", "learning_rate")}


@router.get("/jobs/{job_id}/results")
def get_results(request: Request, job_id: str) -> dict[str, Any]:
    """The verdict: the recommended checkpoint, why, every row that was measured, and the files."""
    job = studio_of(request).queue.job(job_id)
    run = job.run
    files = [_file(job_id, path) | {"step": step} for step, path in run.checkpoints().items()]
    final = _file(job_id, run.final) if run.final.exists() else None
    return {
        "job": job_id,
        "project": job.spec["project"],
        "verdict": results.verdict(job),
        "checkpoints": files,
        "file": final,
        "choice": job.spec.get("choice"),
    }


def _file(job_id: str, path: FilePath) -> dict[str, Any]:
    return {"name": path.name, "bytes": path.stat().st_size, "url": f"/api/files/{job_id}/{path.name}"}


@router.get("/files/{job_id}/{name}", response_class=FileResponse)
def get_file(request: Request, job_id: str, name: str) -> FileResponse:
    """Download the file or a checkpoint by the name that the results list."""
    run = studio_of(request).queue.job(job_id).run
    for path in (run.final, *run.checkpoints().values(), run.report):
        if path.name == name and path.exists():
            return send(path, run.path, "application/octet-stream", name)
    raise NotFound("There is no such file; it may have been deleted.")


@router.get("/jobs/{job_id}/bundle.zip", response_class=FileResponse, include_in_schema=False)
@router.get("/jobs/{job_id}/zip", response_class=FileResponse)
def get_zip(request: Request, job_id: str) -> FileResponse:
    """The file with its card, side-car and sample pictures, as one archive."""
    studio = studio_of(request)
    job = studio.queue.job(job_id)
    path = results.pack(job)
    return send(path, job.path, "application/zip", f"{job.run.name}.zip")


@router.get("/jobs/{job_id}/report", response_class=FileResponse)
def get_report(request: Request, job_id: str) -> FileResponse:
    """The report as a file: one page with all figures and pictures."""
    run = studio_of(request).queue.job(job_id).run
    return send(run.report, run.path, "text/html", f"{run.name}.html")


@router.post("/jobs/{job_id}/choice")
def choose(request: Request, job_id: str, choice: Choice) -> dict[str, Any]:
    """Take another checkpoint than the recommended one for the file, or the recommended one again."""
    results.choose(studio_of(request).queue.job(job_id), choice.step, choice.weight)
    return get_results(request, job_id)


@router.post("/jobs/{job_id}/evaluate", status_code=201)
def evaluate(request: Request, job_id: str) -> JobInfo:
    """Queue the comparison of a training's checkpoints, where the training was too short to do it itself."""
    studio = studio_of(request)
    return info(request, results.evaluate(studio, studio.queue.job(job_id)))


@router.post("/merge", status_code=201)
def merge(request: Request, merge: Merge) -> JobInfo:
    """Queue the merging of several jobs' files into one LoRA."""
    studio = studio_of(request)
    return info(request, results.merge(studio, merge.jobs, merge.weights, merge.name, merge.rank))
