"""Results: which checkpoint is kept and why, every checkpoint's pictures, and what to do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Query, Request
from fastapi.responses import HTMLResponse

from ...errors import MaquetteError
from ...parsing import read_object
from ..core import studio_of
from ..names import is_id
from . import jobs
from .routes import page_router
from .shell import html
from .training import at_work, trainings

if TYPE_CHECKING:
    from ..core import Studio
    from ..job import Job
    from ..store import Project

router = page_router()
# Measures of a verdict as bars: what a person calls them, and the names that evaluations have for them.
BARS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Likeness", ("likeness",)), ("Follows prompts", ("obedience", "following", "edit_retention")),
    ("Variety", ("diversity", "variety")),
)  # fmt: skip
HERO = 4  # pictures beside the verdict
MORE = 0.5  # share of the steps that "train longer" proposes to add


@router.get("/p/{project_id}/results")
def results(request: Request, project_id: str, job: Annotated[str, Query(max_length=64)] = "") -> HTMLResponse:
    """The verdict on the newest training, or on the one that is named."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    there = [each for each in trainings(studio, project) if each.run.final.exists() or each.run.checkpoints()]
    there = [each for each in there if each.state not in (*jobs.WORKING, "queued")]
    chosen = next((each for each in there if is_id(job) and each.id == job), there[0] if there else None)
    shown: dict[str, Any] = {
        "runs": [{"id": each.id, "words": run_words(each)} for each in there],
        "busy": at_work(studio, project) is not None, "others": others(studio, chosen),
        "result": None if chosen is None else view(project, chosen),
    }  # fmt: skip
    return html(request, "results.html", place="project", step="results", project=project, **shown)


def run_words(job: Job) -> str:
    """A training in a list: when, how long."""
    import time

    when = time.strftime("%d %b, %H:%M", time.localtime(job.spec["created"]))
    return f"{when} · {job.status().get('steps') or 0} steps"


def view(project: Project, job: Job) -> dict[str, Any]:
    """Everything the page shows of a training that has ended."""
    run, verdict = job.run, verdict_of(job)
    steps = list(run.checkpoints())
    recommended = int(verdict.get("step") or (steps[-1] if steps else 0))
    choice = job.spec.get("choice")
    mine = choice if isinstance(choice, dict) and choice.get("step") in steps else None
    step = int(mine["step"]) if mine else recommended
    weight = float((mine or verdict).get("weight") or 1.0)
    columns, prompts = jobs.pictures(job)
    rows = best_rows(verdict)
    for column in columns:
        column["note"] = note(rows.get(column["step"]))
    file = run.final if run.final.is_file() else run.checkpoints()[steps[-1]]
    return {
        "job": job.id, "step": step, "weight": weight, "recommended": recommended, "overridden": step != recommended,
        "reasons": reasons(verdict, mine is not None and step != recommended, rows.get(step)),
        "warnings": [str(warning) for warning in verdict.get("overtrained", [])], "bars": bars(rows.get(step)),
        "hero": hero(columns, prompts, step), "columns": columns, "prompts": prompts,
        "file": f"/api/files/{job.id}/{file.name}", "filename": file.name, "size": size(file),
        "report": run.report.is_file(),
        "trigger": project.phrase, "base": jobs.base_name(job), "try_it": f"/play?job={job.id}",
        "more": int((job.status().get("steps") or step) * (1 + MORE)),
    }  # fmt: skip


def verdict_of(job: Job) -> dict[str, Any]:
    """evaluation.json; {} where the training was stopped before there was one."""
    try:
        return read_object(job.run.evaluation)
    except MaquetteError:
        return {}


def best_rows(verdict: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Step -> the row of its best weight; of the chosen step that of the chosen weight."""
    best: dict[int, dict[str, Any]] = {}
    for row in verdict.get("rows", []):
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            continue
        chosen = (row["step"], row.get("weight")) == (verdict.get("step"), verdict.get("weight"))
        before = best.get(row["step"])
        if before is None or chosen or (_score(row) > _score(before) and not before.get("chosen")):
            best[row["step"]] = row | {"chosen": chosen}
    return best


def _score(row: dict[str, Any]) -> float:
    score = row.get("score")
    return float(score) if isinstance(score, int | float) else float("-inf")


def reasons(verdict: dict[str, Any], overridden: bool, row: dict[str, Any] | None) -> list[str]:
    """Why this one, in sentences."""
    if overridden:
        return [f"You chose this one. The studio would keep step {verdict.get('step')}."]
    reasons = [str(reason) for reason in verdict.get("reasons", [])]
    return reasons or ["The checkpoints were not compared; this is the last one."]


def bars(row: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The measures that a person understands, between 0 and 1."""
    found = []
    for name, keys in BARS:
        value = next((row[key] for key in keys if isinstance(row.get(key), int | float)), None) if row else None
        if value is not None:
            share = min(1.0, max(0.0, float(value)))
            found.append({"name": name, "value": round(share, 3), "percent": round(100 * share)})
    return found


def note(row: dict[str, Any] | None) -> str:
    """A column's likeness."""
    value = row.get("likeness") if row else None
    return f"likeness {min(100, round(100 * value))} %" if isinstance(value, int | float) else ""


def hero(columns: list[dict[str, Any]], prompts: list[str], step: int) -> list[dict[str, str]]:
    """Pictures of the kept checkpoint, else of the last that has some."""
    column = next((each for each in columns if each["step"] == step), columns[-1] if columns else None)
    if column is None:
        return []
    pairs = zip(column["pictures"], prompts, strict=True)
    return [{"src": src, "alt": prompt} for src, prompt in pairs if src][:HERO]


def size(file: Any) -> str:
    try:
        length = file.stat().st_size
    except OSError:
        return "0 MB"
    return f"{length / 1e6:.1f} MB" if length > 1e5 else f"{length / 1e3:.0f} kB"


def others(studio: Studio, chosen: Job | None) -> list[dict[str, str]]:
    """Other projects' finished trainings, of the same base, to merge with."""
    if chosen is None:
        return []
    base = chosen.spec["config"].get("base")
    found = []
    for job in studio.queue.jobs():
        same = job.spec["kind"] == "train" and job.spec["config"].get("base") == base
        if same and job.id != chosen.id and job.run.final.exists():
            found.append({"id": job.id, "words": f"{job.spec.get('title') or 'A training'}, {run_words(job)}"})
    return found
