"""What the routes share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi.responses import FileResponse

from ..core import Studio
from ..job import Job
from ..names import NotFound

ERRORS: Mapping[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"example": {"error": "One sentence."}}}}
    for status, text in {400: "It cannot be done as asked", 404: "There is no such thing", 409: "Not now"}.items()
}


def jobs_of(studio: Studio, project: str) -> list[Job]:
    """A project's jobs, the newest first."""
    found = [job for job in studio.queue.jobs() if job.spec.get("project") == project]
    return sorted(found, key=lambda job: -job.spec["created"])


def send(path: Path, root: Path, kind: str, download: str | None = None, keep: bool = False) -> FileResponse:
    """A file of the data folder. Raises NotFound for what is not there, is a link, or lies outside of `root`.

    download: its name as an attachment. keep: it never changes, and a browser may keep it.
    """
    if path.is_symlink() or not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
        raise NotFound("There is no such file; it may have been deleted.")
    headers = {"cache-control": "private, max-age=31536000, immutable" if keep else "no-cache"}
    return FileResponse(path, media_type=kind, filename=download, headers=headers)
