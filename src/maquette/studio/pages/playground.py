"""The Playground: A1111's fields, LoRAs as chips, a brush, and what was drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Query, Request
from fastapi.responses import HTMLResponse

from ..api.draw import SHOWN, url
from ..core import studio_of
from ..gallery import Gallery
from ..names import is_id
from ..results import chosen
from ..sdapi.names import SAMPLERS, SCHEDULES
from ..sdapi.settings import FILLS, USUAL_SAMPLER
from .routes import page_router
from .shell import html

if TYPE_CHECKING:
    from ..core import Studio
    from ..library import Library

router = page_router()
USUAL_STEPS = 20
PROMPT = "a photo of a red robot on a green background"


@router.get("/play")
def play(request: Request, job: Annotated[str, Query(max_length=64)] = "") -> HTMLResponse:
    """The page; `job` puts that training's LoRA and words into the prompt."""
    studio = studio_of(request)
    engine = studio.engine
    library, names = engine.library, Gallery.of(engine).names()
    begun = _begun(studio, library, job)
    model = begun.get("model", engine.model.name)
    shown: dict[str, Any] = {
        "prompt": begun.get("prompt", PROMPT if engine.model.path == "pocket" else ""),
        "models": [{"name": each.name, "side": each.side} for each in library.models()],
        "model": model,
        "side": next((each.side for each in library.models() if each.name == model), 512),
        "loras": [lora.name for lora in library.loras()],
        "samplers": list(SAMPLERS),
        "schedules": list(SCHEDULES),
        "sampler": USUAL_SAMPLER,
        "steps": USUAL_STEPS,
        "fills": FILLS,
        "pictures": [{"name": name, "url": url(name)} for name in names[:SHOWN]],
        "blocked": engine.blocked(),
        "api_on": studio.settings.api or studio.settings.password is not None,
    }
    return html(request, "playground.html", place="play", **shown)


def _begun(studio: Studio, library: Library, job_id: str) -> dict[str, str]:
    """prompt and model for trying what a job has trained; {} where there is nothing of it."""
    if not is_id(job_id):
        return {}
    job = next((each for each in studio.queue.jobs() if each.id == job_id), None)
    if job is None or job.spec.get("kind") != "train":
        return {}
    own = job.run.final.is_file() and job.state != "paused"  # else that is of a shorter training
    there = [*job.run.checkpoints().values(), *([job.run.final] if own else [])]
    name = next((lora.name for lora in library.loras() if there and lora.path == str(there[-1])), None)
    if name is None:
        return {}
    weight = chosen(job)[1] if own else None
    project = studio.store.project(str(job.spec["project"]))
    found = {"prompt": f"a photo of {project.phrase} <lora:{name}:{weight or 1:g}>"}
    base = str(job.spec["config"].get("base", "pocket"))
    model = next((each.name for each in library.models() if each.path == base), None)
    return found | ({"model": model} if model else {})
