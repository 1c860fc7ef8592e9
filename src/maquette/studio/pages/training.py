"""Train: presets, what stands in the way, advanced options, and the view of a training at work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from ...errors import MaquetteError
from ...training.effort import has_driver
from ...training.kinds import endings, style_prompts
from .. import plans, presets, texts
from ..core import studio_of
from ..library import Library
from . import jobs, options, readiness
from .routes import page_router
from .shell import html

if TYPE_CHECKING:
    from ..core import Studio
    from ..job import Job
    from ..store import Project

router = page_router()
PRESETS: tuple[tuple[presets.Preset, str, str], ...] = (
    ("quick", "Quick", "A first look: do the photos work?"),
    ("good", "Good", "As long as your photos need. Right for nearly everything."),
    ("best", "Best", "Longer, with more checkpoints to choose the best from."),
)
ESTIMATED = "Estimated within a factor of three, with no other program at work"
PROMPTS = 3
POCKET_WORDS = "Pocket, a small one that comes along"
Prompt = Annotated[str, Field(max_length=400)]


class Changes(BaseModel):
    """What the page changed."""

    model_config = ConfigDict(extra="forbid")

    preset: Literal["quick", "good", "best"] | None = None
    base: Annotated[str, Field(max_length=300)] | None = None
    prompts: Annotated[list[Prompt], Field(max_length=8)] | None = None
    changed: Annotated[dict[str, Any], Field(max_length=150)] | None = None
    reset: Literal["all"] | Annotated[list[str], Field(max_length=150)] | None = None


class Start(BaseModel):
    """The prompts as they stand in the page's fields."""

    model_config = ConfigDict(extra="forbid")

    prompts: Annotated[list[Prompt], Field(max_length=8)] = Field(default_factory=list)


@router.get("/p/{project_id}/train")
def train(request: Request, project_id: str) -> HTMLResponse:
    """The choices; while a training waits or works, that."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    active = at_work(studio, project)
    shared: dict[str, Any] = {"place": "project", "step": "train", "project": project}
    if active is not None:
        after = sum(1 for _ in active.events_after(0))
        return html(request, "train.html", job=jobs.live(active), after=after, **shared)
    return html(
        request,
        "train.html",
        job=None,
        ended=readiness.ended(newest(studio, project)),
        **choices(studio, project),
        **shared,
    )


@router.get("/ui/p/{project_id}/live", response_model=None)
def live(request: Request, project_id: str) -> Response:
    """The training at work; the last one where none is."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    job = at_work(studio, project) or newest(studio, project)
    if job is None:  # it was deleted; the page goes on by itself
        return Response(status_code=204)
    return html(request, "live.html", job=jobs.live(job))


@router.get("/ui/p/{project_id}/preflight")
def preflight_piece(request: Request, project_id: str) -> HTMLResponse:
    studio = studio_of(request)
    return html(request, "preflight.html", preflight=preflight(studio, studio.store.project(project_id)))


@router.get("/ui/p/{project_id}/advanced")
def advanced(request: Request, project_id: str) -> HTMLResponse:
    """The drawer of all options."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    changed = project.changed
    found = options.groups(changed, base_of(studio, project))
    total = sum(len(group["fields"]) for group in found)
    shown = as_texts(studio, project)
    return html(request, "advanced.html", groups=found, total=total, changed=len(changed), texts=shown, project=project)


@router.get("/ui/p/{project_id}/kohya")
def kohya(request: Request, project_id: str) -> HTMLResponse:
    """The training as Kohya's command. It needs torch, in a process of its own: asked for when it is looked at."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    config = plans.configured(studio, project, preset_of(project), wanted(studio, project))
    return html(request, "code.html", text=texts.kohya(studio, project, config))


@router.post("/ui/p/{project_id}/settings")
def change(request: Request, project_id: str, changes: Changes) -> dict[str, Any]:
    """Keep what was chosen. Answers with what follows from it: steps, time, memory, the number of changed options."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    with project.lock:
        kept = project.settings
        options_now = project.changed
        if changes.reset is not None:
            gone = list(options_now) if changes.reset == "all" else changes.reset
            options_now = {key: value for key, value in options_now.items() if key not in gone}
        if changes.changed:
            options_now = options.merged(options_now, changes.changed)
        kept |= changes.model_dump(exclude_none=True, include={"preset", "base", "prompts"}) | {"changed": options_now}
        project.change(settings=kept)
    shown_choices = choices(studio, project)
    costs = {preset["key"]: {part: preset[part] for part in ("time", "rest")} for preset in shown_choices["presets"]}
    return {"changed": shown_choices["changed"], "summary": shown_choices["summary"], "costs": costs}


@router.post("/ui/p/{project_id}/start")
def start(request: Request, project_id: str, wish: Start) -> dict[str, str]:
    """Queue the training that is chosen. Raises MaquetteError with what stands in the way."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    prompts = [prompt for prompt in (text.strip() for text in wish.prompts) if prompt]
    if prompts:
        project.change(settings=project.settings | {"prompts": prompts})
    for line in preflight(studio, project)["lines"]:
        if line["level"] == "bad":
            raise MaquetteError(line["text"])
    job = plans.start(studio, project, "train", preset_of(project), wanted(studio, project))
    return {"id": job.id}


def at_work(studio: Studio, project: Project) -> Job | None:
    """The project's training that waits or works."""
    states = (*jobs.WORKING, "queued")
    return next((job for job in trainings(studio, project) if job.state in states), None)


def newest(studio: Studio, project: Project) -> Job | None:
    return next(iter(trainings(studio, project)), None)


def trainings(studio: Studio, project: Project) -> list[Job]:
    """The project's trainings, the newest first."""
    found = [j for j in studio.queue.jobs() if j.spec.get("project") == project.id and j.spec["kind"] == "train"]
    return sorted(found, key=lambda job: -job.spec["created"])


def preset_of(project: Project) -> presets.Preset:
    preset = project.settings.get("preset", "good")
    return preset if isinstance(preset, str) and preset in presets.SHARES else "good"


def prompts_of(studio: Studio, project: Project) -> list[str]:
    """The user's sample prompts, else those that suit the kind."""
    mine = project.settings.get("prompts")
    if isinstance(mine, list) and mine:
        return [str(prompt) for prompt in mine] + [""] * (PROMPTS - len(mine))
    pocket = presets.is_pocket(base_of(studio, project))
    if project.kind == "style":
        return style_prompts(project.phrase, pocket)[:PROMPTS]
    usual = endings(project.kind, pocket)
    return [f"a photo of {project.phrase}", *(f"a photo of {project.phrase} {ending}" for ending in usual)][:PROMPTS]


def wanted(studio: Studio, project: Project) -> dict[str, Any]:
    """The keys of the training that the user chose."""
    return project.changed | {"sample_prompts": [prompt for prompt in prompts_of(studio, project) if prompt]}


def base_of(studio: Studio, project: Project) -> str:
    """The path of the base; its name where it is gone."""
    try:
        return presets.base_of(studio, project)
    except MaquetteError:
        return str(project.settings.get("base"))


def choices(studio: Studio, project: Project) -> dict[str, Any]:
    """What the page shows before a training."""
    base, changed, preset = base_of(studio, project), project.changed, preset_of(project)
    used = len(project.used())
    costs = presets.costs(studio, used, base, changed)
    shown = []
    for key, name, what in PRESETS:
        cost = costs[key]
        memory = f"{cost.memory_bytes / 1e9:.1f} GB" if cost.memory_bytes else "memory unknown"
        time = spoken(cost.seconds) if cost.seconds else "time unknown"
        shown.append({"key": key, "name": name, "what": what, "time": time, "rest": f"{memory} · {cost.steps} steps"})
    models = Library([studio.settings.bases_folder], [], studio.settings.base).models()
    name = str(project.settings.get("base") or studio.settings.base)
    chosen = next((model.name for model in models if name in (model.name, model.path)), name)
    words = {model.name: POCKET_WORDS if model.path == "pocket" else model.name for model in models}
    machine = "graphics card" if has_driver() else "processor; it has no graphics card"
    how = "As measured in your last training" if costs[preset].measured else ESTIMATED
    title = next(name for key, name, _ in PRESETS if key == preset)
    mine = next(one for one in shown if one["key"] == preset)
    return {
        "presets": shown, "machine": f"{how}, on this computer's {machine}.", "changed": len(changed),
        "bases": list({chosen: words.get(chosen, f"{chosen} (missing)")}.items() | words.items()),
        "bases_folder": str(studio.settings.bases_folder), "preflight": preflight(studio, project),
        "settings": {"preset": preset, "base": chosen, "prompts": prompts_of(studio, project)},
        "summary": f"{title}: {used} photos, {mine['time']}",
    }  # fmt: skip


def spoken(seconds: float) -> str:
    """ "≈ 11 min", as roughly as it is known."""
    if seconds < 55:
        return f"≈ {max(10, round(seconds / 10) * 10)} s"
    if seconds < 165:
        return f"≈ {max(2, round(seconds / 30)) / 2:g} min"
    return f"≈ {seconds / 60:.0f} min" if seconds < 5400 else f"≈ {seconds / 3600:.1f} h"


def preflight(studio: Studio, project: Project) -> dict[str, Any]:
    """What must be right before the start."""
    try:
        base = presets.base_of(studio, project)
    except MaquetteError:
        return readiness.preflight(studio, project, None)
    costs = presets.costs(studio, len(project.used()), base, project.changed)
    return readiness.preflight(studio, project, costs[preset_of(project)])


def as_texts(studio: Studio, project: Project) -> list[tuple[str, str, str]]:
    """The training as maquette reads it: name, title, text."""
    config = plans.configured(studio, project, preset_of(project), wanted(studio, project))
    return [
        ("toml", "As TOML", texts.toml(config)),
        ("command", "As a command line", texts.command(config)),
    ]
