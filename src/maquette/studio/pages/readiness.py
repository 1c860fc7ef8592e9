"""What must be right before a training starts, and what became of the last one, in sentences with their remedies."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from ...errors import MaquetteError
from .. import plans, presets
from . import jobs

if TYPE_CHECKING:
    from ..core import Studio
    from ..job import Job
    from ..store import Project

ROOM_POCKET, ROOM = 50_000_000, 2_000_000_000  # bytes of disk that a run takes at least
FILM = 10  # pictures above the list
SMALLER = '{"changed": {"batch_size": 1, "gradient_checkpointing": true}}'  # what "use less memory" changes
REMEDIES = {
    "room": "Make room on the disk, then go on.", "base": "Choose another base below.", "photos": "Look at the photos.",
}  # fmt: skip


class Lines:
    """The lines of the list, each "good", "warn" or "bad"; a bad one holds the training up."""

    def __init__(self) -> None:
        self.lines: list[dict[str, str]] = []

    def tell(self, key: str, level: str, text: str, remedy: str = "", link: str = "") -> None:
        self.lines.append({"key": key, "level": level, "text": text, "remedy": remedy, "link": link})

    def view(self) -> dict[str, Any]:
        return {"ready": all(line["level"] != "bad" for line in self.lines), "lines": self.lines}


def preflight(studio: Studio, project: Project, cost: presets.Cost | None) -> dict[str, Any]:
    """cost: of the chosen preset; None where the base is gone."""
    lines = Lines()
    _photos(lines, project)
    used = project.used()
    pictures = [f"/api/projects/{project.id}/photos/{photo.id}/picture" for photo in used]
    try:
        base = presets.base_of(studio, project)
        name = "pocket" if base == "pocket" else str(project.settings.get("base") or studio.settings.base)
        lines.tell("base", "good", f"The base {name} is there")
    except MaquetteError as missing:
        base = ""
        lines.tell("base", "bad", f"{missing} Choose another base.")
    if cost is not None:
        _memory(lines, cost)
    free, need = shutil.disk_usage(studio.folder).free, ROOM_POCKET if presets.is_pocket(base) else ROOM
    if free > need:
        lines.tell("disk", "good", f"{free / 1e9:.0f} GB of disk are free")
    else:
        text = f"The disk has {free / 1e9:.1f} GB left and {need / 1e9:.1f} are needed. Make room."
        lines.tell("disk", "bad", text)
    return lines.view() | {"film": pictures[:FILM]}


def _photos(lines: Lines, project: Project) -> None:
    photos = project.used()
    board, bare = f"/p/{project.id}/photos", sum(not photo.caption for photo in photos)
    if len(photos) < plans.LEAST_PHOTOS:
        text = f"{len(photos)} photos are too few; it takes {plans.LEAST_PHOTOS} at least."
        return lines.tell("photos", "bad", text, "Add photos", board)
    lines.tell("photos", "good", f"{len(photos)} photos")
    if bare:
        text = f"{bare} without a caption: each counts as “a photo of {project.phrase}”."
        lines.tell("captions", "warn", text, "Describe them", board)
    else:
        lines.tell("captions", "good", "Every photo has its caption")


def _memory(lines: Lines, cost: presets.Cost) -> None:
    """Whether the computer's memory holds the training, where the system tells how much there is."""
    free = presets.free_memory()
    if free is None or cost.memory_bytes is None:
        return
    if free < cost.memory_bytes:
        text = f"It takes about {cost.memory_bytes / 1e9:.1f} GB of memory and {free / 1e9:.1f} are free."
        lines.tell("memory", "warn", f"{text} Close other programs.")
    else:
        lines.tell("memory", "good", f"{free / 1e9:.0f} GB of memory are free")


def ended(job: Job | None) -> dict[str, Any] | None:
    """What became of the last training; None where there was none."""
    if job is None:
        return None
    status, state = job.status(), job.state
    remedy, step = str(status.get("remedy")), max(job.run.saved_steps(), default=0)
    over = "The last training is ready." if state == "finished" else f"Stopped at step {status.get('step', 0)}."
    return {
        "failed": state == "failed", "what": str(status.get("message") or over), "remedy": REMEDIES.get(remedy, ""),
        "resumable": state != "finished" and step > 0, "step": step, "id": job.id,
        "smaller": SMALLER if remedy == "smaller" else "", "details": jobs.tail(job) if state == "failed" else "",
        "results": f"/p/{job.spec['project']}/results?job={job.id}" if job.run.final.exists() else "",
    }  # fmt: skip
