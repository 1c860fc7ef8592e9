"""Jobs: the queue, one job, its events and its log."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from ...errors import MaquetteError
from ..core import studio_of
from ..job import Job, Reader
from .common import ERRORS
from .models import Done, JobInfo, More, Place
from .streaming import News, event_stream

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=dict(ERRORS))
LOOK = 0.25  # seconds between looks at the file of events
LOG_BYTES = 200_000


def infos(jobs: list[Job]) -> list[JobInfo]:
    """With their places in the queue."""
    waiting = [job.id for job in jobs if job.state == "queued"]
    return [JobInfo.of(job, waiting.index(job.id) if job.id in waiting else None) for job in jobs]


def info(request: Request, job: Job) -> JobInfo:
    if job.state != "queued":
        return JobInfo.of(job)
    waiting = [one.id for one in studio_of(request).queue.jobs() if one.state == "queued"]
    return JobInfo.of(job, waiting.index(job.id) if job.id in waiting else None)


@router.get("")
def list_jobs(request: Request) -> list[JobInfo]:
    """The job at work, those that wait in their order, then the others, the newest first."""
    return infos(studio_of(request).queue.jobs())


@router.get("/{job_id}")
def get_job(request: Request, job_id: str) -> JobInfo:
    """One job."""
    return info(request, studio_of(request).queue.job(job_id))


@router.delete("/{job_id}")
def delete_job(request: Request, job_id: str) -> Done:
    """End a job and delete everything it made."""
    studio_of(request).queue.delete(job_id)
    return Done()


@router.post("/{job_id}/move")
def move_job(request: Request, job_id: str, place: Place) -> JobInfo:
    """Put a waiting job at a place of the queue."""
    return info(request, studio_of(request).queue.move(job_id, place.place))


@router.post("/{job_id}/pause")
def pause_job(request: Request, job_id: str) -> JobInfo:
    """Save, and let the machine draw with the checkpoint so far; no other job begins meanwhile."""
    return info(request, studio_of(request).queue.pause(job_id))


@router.post("/{job_id}/resume")
def resume_job(request: Request, job_id: str) -> JobInfo:
    """Go on with a job that is paused, was stopped or has failed."""
    return info(request, studio_of(request).queue.resume(job_id))


@router.post("/{job_id}/stop")
def stop_job(request: Request, job_id: str) -> JobInfo:
    """End a job and keep what it made."""
    return info(request, studio_of(request).queue.stop(job_id))


@router.post("/{job_id}/sample")
def sample_now(request: Request, job_id: str) -> JobInfo:
    """Save a checkpoint and draw its pictures after the step at work."""
    return info(request, studio_of(request).queue.sample_now(job_id))


@router.get("/{job_id}/log", response_class=PlainTextResponse)
def get_log(request: Request, job_id: str) -> PlainTextResponse:
    """The end of what its process printed."""
    return PlainTextResponse(studio_of(request).queue.job(job_id).end_of_log(LOG_BYTES))


@router.get("/{job_id}/events", response_class=StreamingResponse)
async def stream_events(
    request: Request, job_id: str, last_event_id: Annotated[str | None, Header(max_length=20)] = None, after: int = 0
) -> StreamingResponse:
    """Server-sent events: each line of events.jsonl with its number as `id` and its kind as `event`, resumed behind
    `Last-Event-ID` (or `after`), and `status` (the job as GET gives it, without id) whenever it changes.
    """
    studio = studio_of(request)
    job = await run_in_threadpool(studio.queue.job, job_id)
    seen = int(last_event_id) if last_event_id and last_event_id.isdigit() else max(0, after)
    status, reader = "", Reader(job)

    async def look() -> News:
        nonlocal status
        lines, news = await run_in_threadpool(_news, request, job, reader)
        events = [
            f"id: {number}\nevent: {event['kind']}\ndata: {json.dumps(event)}\n\n"
            for number, event in lines
            if number > seen
        ]
        if news != status:
            status = news
            events.append(f"event: status\ndata: {news}\n\n")
        return events, news == "null"

    return event_stream(request, look, LOOK)


def _news(request: Request, job: Job, reader: Reader) -> tuple[list[tuple[int, dict[str, Any]]], str]:
    """New events, and the job's status as JSON; "null" once it was deleted."""
    try:
        return reader.news(), info(request, job).model_dump_json()
    except MaquetteError:
        return [], "null"


@router.post("/{job_id}/continue")
def go_on(request: Request, job_id: str, more: More) -> JobInfo:
    """Train longer: the same run with more steps, or a new training that begins from its weights."""
    from .training import fresh

    studio = studio_of(request)
    job = fresh(studio, job_id, more.steps) if more.fresh else studio.queue.go_on(job_id, more.steps)
    return info(request, job)
