"""The text that makes a picture again: A1111's keys in A1111's order ("infotext")."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..families.base import BaseModel
from ..formats import safetensors
from ..formats.png import number_text
from .control_unit import MODES, RESIZE_MODES, ControlUnit
from .draw_settings import DrawSettings
from .enlarging import UPSCALERS
from .lora_folder import lora_hash
from .pictures.preprocessors import PREPROCESSORS
from .samplers import schedule_of
from .words import Words

DEFAULT_CFG = {"pocket": 4.0}
_SHORT = 10


def cfg_scale(settings: DrawSettings, base: BaseModel) -> float:
    """The scale asked for, or what suits the base."""
    return settings.cfg_scale if settings.cfg_scale is not None else usual_cfg_scale(base)


def usual_cfg_scale(base: BaseModel) -> float:
    """What suits the base."""
    return DEFAULT_CFG.get(base.spec.name, 7.0)


def values_of(
    settings: DrawSettings,
    base: BaseModel,
    passes: Sequence[Words],
    size: tuple[int, int],
    init_hash: str | None = None,
    embeddings: Mapping[str, Path] | None = None,
    second: BaseModel | None = None,
    refiner: BaseModel | None = None,
) -> dict[str, Any]:
    """The last line of the text; "Seed" and "Variation seed" are each picture's own. passes: the words of each drawing.
    size: (width, height). embeddings: the files of textual inversions that the prompts call, by name. second: the model
    of the second drawing, where it is another one; refiner: who ends the last.
    """
    sampler, schedule = schedule_of(settings.sampler)
    samplers = [sampler, *([settings.hires_sampler] if settings.hires and settings.hires_sampler else [])]
    beginning = settings.init_image is not None
    texts = "".join(words.plain + words.negative for words in passes)
    loras = {name: file for words in passes for name, file in words.files.items()}
    return {
        "Steps": settings.steps,
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": number_text(cfg_scale(settings, base)),
        "Seed": None,
        "Size": f"{size[0]}x{size[1]}",
        "Model hash": base.content_hash[:_SHORT],
        "Model": Path(base.source).stem if base.source != "pocket" else "pocket",
        "VAE hash": base.vae_hash[:_SHORT] or None,
        "VAE": Path(base.vae_source).name or None,
        "Prediction type": base.told_prediction or None,
        **_variation(settings),
        "Denoising strength": number_text(settings.strength) if beginning or settings.hires else None,
        "Clip skip": settings.clip_skip if settings.clip_skip > 1 else None,
        "Init image hash": init_hash,
        **settings.noise_values(*samplers),
        **_hires(settings, second),
        **_image(settings),
        "Refiner": None if refiner is None else short_title(refiner),
        "Refiner switch at": None if refiner is None else number_text(settings.refiner_switch_at),
        **{f"ControlNet {i}": unit_text(unit) for i, unit in enumerate(settings.controls)},
        **settings.sampler_values(*samplers),
        "Lora hashes": _listed(loras, lora_hash),
        "TI hashes": _listed(embeddings or {}, safetensors.file_sha256),
        "Emphasis": settings.emphasis if set("([") & set(texts) and settings.emphasis != "Original" else None,
        "Prompt comments": "False" if "#" in texts and not settings.prompt_comments else None,
        "Prompt editing": "exact" if settings.prompt_editing == "exact" else None,
        "Tiled VAE": "True" if settings.tiled_vae else None,
        "Version": f"maquette-{__version__}",
    }


def _listed(files: Mapping[str, Path], hash_of: Callable[[Path], str]) -> str | None:
    """Each with its short hash."""
    return ", ".join(f"{name}: {hash_of(file)[:12]}" for name, file in files.items()) or None


def _variation(settings: DrawSettings) -> dict[str, Any]:
    varied = settings.variation_strength > 0
    return {
        "Variation seed": settings.variation_seed if varied else None,
        "Variation seed strength": number_text(settings.variation_strength) if varied else None,
        "Seed resize from": settings.seed_resize_from,
    }


def short_title(base: BaseModel) -> str:
    """A1111's name of a checkpoint: the file's, and the beginning of its hash."""
    name = Path(base.source).stem if base.source != "pocket" else "pocket"
    return f"{name} [{base.content_hash[:_SHORT]}]"


def _hires(settings: DrawSettings, second: BaseModel | None) -> dict[str, Any]:
    if not settings.hires:
        return {}
    upscaler = settings.hires_upscaler
    sampler, schedule = schedule_of(settings.hires_sampler) if settings.hires_sampler else (None, None)
    by_size = f"{settings.hires_width or 0}x{settings.hires_height or 0}"
    return {
        "Hires upscale": _set(settings.hires_scale),
        "Hires resize": None if settings.hires_scale else by_size,
        "Hires steps": settings.hires_steps,
        "Hires upscaler": upscaler if upscaler in UPSCALERS else Path(upscaler).stem,
        "Hires checkpoint": None if second is None else short_title(second),
        "Hires sampler": sampler,
        "Hires schedule type": schedule,
        "Hires CFG Scale": _set(settings.hires_cfg_scale),
        "Hires prompt": settings.hires_prompt or None,
        "Hires negative prompt": settings.hires_negative_prompt or None,
    }


def _image(settings: DrawSettings) -> dict[str, Any]:
    """Keys of image to image. Those of the second group are ours: A1111 does not write them."""
    if settings.init_image is None:
        return {}
    masked = bool(settings.mask or settings.extend)
    only = masked and settings.only_masked
    beside = "file" if settings.mask and settings.extend else None  # without extend the keys of masks say it
    own = {
        "Mask": "transparency" if settings.mask == "transparency" else beside,
        "Extend": ", ".join(settings.extend) or None,
        "Resize mode": settings.resize_mode if settings.resize_mode != "crop" else None,
        "Exact steps": "True" if settings.exact_steps else None,
    }
    if not masked:
        return own
    return {
        "Mask blur": number_text(settings.mask_blur),
        "Mask mode": "Inpaint not masked" if settings.mask_invert else None,
        "Inpaint area": "Only masked" if only else None,
        "Masked area padding": settings.mask_padding if only else None,
        "Masked content": settings.masked_content if settings.masked_content != "original" else None,
        **own,
    }


def unit_text(unit: ControlUnit) -> str:
    """A ControlNet's settings as A1111's extension writes them."""
    known = PREPROCESSORS[unit.preprocessor]
    file = Path(unit.model)
    short = f" [{safetensors.file_sha256(file)[:8]}]" if file.is_file() else ""
    values = {
        "Module": unit.preprocessor,
        "Model": f"{file.stem}{short}",
        "Weight": number_text(unit.weight),
        "Resize Mode": RESIZE_MODES[unit.resize],
        "Threshold A": number_text(known.a if unit.a is None else unit.a),
        "Threshold B": number_text(known.b if unit.b is None else unit.b),
        "Guidance Start": number_text(unit.start),
        "Guidance End": number_text(unit.end),
        "Pixel Perfect": "True",
        "Control Mode": MODES[unit.mode],
    }
    return ", ".join(f"{key}: {value}" for key, value in values.items())


def for_picture(values: Mapping[str, Any], seed: int, variation_seed: int) -> dict[str, Any]:
    """The values with one picture's own seeds."""
    own: dict[str, Any] = {"Seed": seed}
    if values.get("Variation seed") is not None:
        own["Variation seed"] = variation_seed
    return {**values, **own}


def _set(value: float | None) -> str | None:
    return None if value is None else number_text(value)
