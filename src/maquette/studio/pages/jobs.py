"""Jobs as pages show them: percent, remaining time, pictures of checkpoints, the curve of the loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import parsing
from ...errors import MaquetteError
from ...limits import RECORD_BYTES
from ...run_folder import RunFolder
from ..names import NotFound

if TYPE_CHECKING:
    from ..core import Studio
    from ..job import Job

WORKING = ("running", "stopping", "paused")
WORDS = {
    "queued": "Queued", "running": "Running", "paused": "Paused", "stopping": "Stopping", "finished": "Ready",
    "failed": "Failed", "stopped": "Stopped",
}  # fmt: skip
LEVELS = {"running": "live", "stopping": "live", "paused": "warn", "finished": "good", "failed": "bad"}
KINDS = {"train": "Training", "caption": "Captions", "evaluate": "Verdict", "merge": "Merge"}
LOG_LINES, LOG_BYTES = 60, 20_000
CURVE = (600, 160)  # width and height of the plot, in its own units
MOST_POINTS = 400
SMOOTH = 0.08  # weight of the newest loss in the running mean


def running(studio: Studio) -> dict[str, Any] | None:
    """The job that has the machine, for the strip on every page."""
    active = studio.queue.active()
    if active is None:
        return None
    try:
        return short(active, active.spec.get("title") or "A job")
    except NotFound:  # deleted meanwhile
        return None


def short(job: Job, name: str) -> dict[str, Any]:
    """What strip and queue say of a job."""
    state, status, kind = job.state, job.status(), job.spec["kind"]
    words = (
        f"{KINDS[kind]} {percent}\u202f%" if (percent := percent_of(status)) is not None and state == "running" else ""
    )
    return {
        "id": job.id, "project": job.spec.get("project", ""), "name": name, "kind": kind, "kind_words": KINDS[kind],
        "state": state, "words": words or WORDS[state], "level": LEVELS.get(state, ""), "percent": percent,
        "left": duration(status.get("remaining_seconds")) if state == "running" else "", "line": line_of(job, status),
    }  # fmt: skip


def percent_of(status: dict[str, Any]) -> int | None:
    """How much is done: of the steps; of what is counted where there are none yet."""
    done, of = (
        (status.get("step"), status.get("steps")) if status.get("steps") else (status.get("done"), status.get("of"))
    )
    if not isinstance(done, int | float) or not isinstance(of, int | float) or of <= 0:
        return None
    return max(0, min(100, int(100 * done / of)))


def duration(seconds: Any) -> str:
    """ "6 min left"; "" where nobody knows."""
    if not isinstance(seconds, int | float) or seconds < 0:
        return ""
    if seconds < 60:
        return "under a minute left"
    return f"{seconds / 60:.0f} min left" if seconds < 5400 else f"{seconds / 3600:.1f} hours left"


def line_of(job: Job, status: dict[str, Any]) -> str:
    """One line on how far a job is."""
    state = job.state
    if state == "queued":
        return "Begins when the job before it has ended."
    if state == "paused":
        return f"Rests at step {status.get('step', 0)}. Everything is saved; try it, then go on."
    if state == "stopping":
        return "Finishes the step at work and saves everything …"
    if state in ("failed", "stopped", "finished"):
        return str(status.get("message") or f"Step {status.get('step', 0)} of {status.get('steps', 0)}")
    what = str(status.get("what") or "Starting: loading the base")
    if status.get("of") and what != "training":
        what += f", {status['done']} of {status['of']}"
    if status.get("steps"):
        what = f"step {status['step']}/{status['steps']}" + ("" if what == "training" else f" · {what}")
    return " · ".join(part for part in (what, duration(status.get("remaining_seconds"))) if part)


def live(job: Job) -> dict[str, Any]:
    """Everything the live view shows of a job."""
    view = short(job, job.spec.get("title") or "")
    run = job.run
    columns, prompts = pictures(job)
    # Told aloud at every tenth percent and at a change of state only.
    tenth = None if view["percent"] is None else view["percent"] // 10 * 10
    announce = (
        view["words"] if view["state"] != "running" or tenth is None else f"{KINDS[view['kind']]}, {tenth} percent"
    )
    return view | {
        "columns": columns, "prompts": prompts, "loss": curve(run), "log": tail(job), "announce": announce,
    }  # fmt: skip


def pictures(job: Job) -> tuple[list[dict[str, Any]], list[str]]:
    """The sample pictures as columns of a table, the base first, and the prompts, which are its rows."""
    run = job.run
    folders = run.sample_folders()
    prompts: list[str] = []
    for folder in folders.values():
        prompts = prompts or sample_prompts(folder)
    columns = []
    for step, folder in folders.items():
        there = [
            f"/api/files/{job.id}/samples/{step:06d}/{i}.png" if (folder / f"{i}.png").is_file() else ""
            for i in range(len(prompts))
        ]
        if any(there):
            columns.append({"step": step, "title": f"Step {step}" if step else "Base alone", "pictures": there})
    return columns, prompts


def sample_prompts(folder: Path) -> list[str]:
    """The prompts of a folder of sample pictures; empty where they cannot be read."""
    try:
        prompts = parsing.read_json(folder / "prompts.json", RECORD_BYTES, "list of prompts")
    except MaquetteError:
        return []
    return [str(prompt) for prompt in prompts] if isinstance(prompts, list) else []


def curve(run: RunFolder) -> dict[str, Any] | None:
    """The loss as two lines of points: each step's, and its running mean; marks where checkpoints lie."""
    points = [(int(line["step"]), float(line["loss"])) for line in run.read_metrics()]
    if len(points) < 2:
        return None
    mean, smooth = points[0][1], []
    for _, loss in points:
        mean += SMOOTH * (loss - mean)
        smooth.append(mean)
    thin = max(1, len(points) // MOST_POINTS)
    raw, means = points[::thin], [(step, value) for (step, _), value in zip(points, smooth, strict=True)][::thin]
    (width, height), first, last = CURVE, points[0][0], points[-1][0]
    ordered = sorted(loss for _, loss in raw)
    top = max(ordered[int(0.98 * (len(ordered) - 1))], max(value for _, value in means)) * 1.05 or 1.0  # spikes are cut

    def across(step: int) -> float:
        return round((step - first) / max(1, last - first) * width, 1)

    def place(step: int, loss: float) -> str:
        return f"{across(step)},{max(0.0, height * (1 - loss / top)):.1f}"

    return {
        "width": width, "height": height, "first": first, "last": last, "words": f"now {smooth[-1]:.4f}",
        "raw": " ".join(place(*point) for point in raw), "mean": " ".join(place(*point) for point in means),
        "rules": [height * part // 4 for part in range(1, 5)],
        "marks": [across(step) for step in run.checkpoints() if first < step < last],
    }  # fmt: skip


def tail(job: Job) -> str:
    """The end of the job's log, with no folder of this computer in it."""
    return "\n".join(job.end_of_log(LOG_BYTES).splitlines()[-LOG_LINES:])


def base_name(job: Job) -> str:
    """The base's name, without its folder."""
    return Path(str(job.spec["config"].get("base", "pocket"))).name
