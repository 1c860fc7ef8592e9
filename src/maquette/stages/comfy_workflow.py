"""`maquette generate --comfy FILE.json`: the workflow for ComfyUI beside the pictures."""

from __future__ import annotations

import secrets
from pathlib import Path

from ..errors import MaquetteError
from ..events import Event, Listener
from ..families.base import BaseModel
from ..files import write_json
from ..sampling.apply_embeddings import embedding_files
from ..sampling.beginning import canvas_of
from ..sampling.comfy import workflow
from ..sampling.comfy_parts import Facts
from ..sampling.draw_settings import GenerateConfig
from ..sampling.infotext import cfg_scale
from ..sampling.jobs import MAX_SEED, drawings_of


def written(config: GenerateConfig, base: BaseModel, on_event: Listener) -> GenerateConfig:
    """Write the workflow, where one is asked for. Returns the configuration, with the seed that the workflow names.

    Raises MaquetteError for what ComfyUI cannot draw, and where the file exists.
    """
    path = config.comfy
    if path is None:
        return config
    if path.exists():
        raise MaquetteError(f"{path} exists already; give a new name with --comfy, one for each drawing.")
    if config.seed == -1:
        config = config.model_copy(update={"seed": secrets.randbelow(MAX_SEED)})
    settings = next(iter(drawings_of(config)))
    made = workflow(settings, _facts(settings, base))
    write_json(path, made.nodes)
    for note in made.notes:
        on_event(Event("warning", {"message": f"{path.name}: {note}"}))
    on_event(Event("saved", {"path": str(path)}))
    return config


def _facts(settings: GenerateConfig, base: BaseModel) -> Facts:
    canvas = canvas_of(settings, base.spec.native_size)
    prompts = [settings.prompt, settings.negative_prompt]
    prompts += [text for text in (settings.hires_prompt, settings.hires_negative_prompt) if text]
    return Facts(
        base.source,
        base.spec.name,
        int(base.unet.config.in_channels),
        str(base.scheduler_config.get("prediction_type", "epsilon")),
        cfg_scale(settings, base),
        (canvas.width, canvas.height),
        tuple(embedding_files(base, prompts, settings.embedding_dir)),
        vae=str(Path(settings.vae)) if settings.vae else "",
        zero_snr=bool(base.scheduler_config.get("rescale_betas_zero_snr")),
    )
