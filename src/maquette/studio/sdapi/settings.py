"""From A1111's keys to those of DrawSettings, and what of them cannot be done."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException

from ..engine import DrawingEngine
from .control import units_of
from .names import LATENT_UPSCALERS, UPSCALERS, UnknownName, sampler_and_schedule
from .options import model_named, option, vae_path
from .requests import LARGEST_SIDE, MOST_PICTURES, Common, ImageToImage, TextToImage
from .styles import styled
from .uploads import mask_for, picture_bytes

FILLS = ("fill", "original", "latent noise", "latent nothing")
RESIZE_MODES = ("just", "crop", "fill", "latent")
_LEAST_SIDE = 16  # as of every drawing
USUAL_SAMPLER = "Euler"
_NOISE = {"CPU": "CPU", "GPU": "NV", "NV": "NV"}  # A1111's "GPU" is a card of NVIDIA's, whose numbers NV has anywhere


def wish_of(body: Common, engine: DrawingEngine) -> tuple[dict[str, Any], list[str]]:
    """(request for the engine, warnings). Raises HTTPException: 404 for unknown names, 422 for what is not served."""
    _require_served(body)
    controls, notes = units_of(body.alwayson_scripts, engine)
    prompt, negative, unknown = styled(body.prompt or "", body.negative_prompt or "", body.styles, engine)
    sampler, schedule = _sampler(body.sampler_name or body.sampler_index or USUAL_SAMPLER, body.scheduler or "")
    wish: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative,
        "seed": -1 if body.seed is None else body.seed,
        "steps": body.steps or 20,
        "cfg_scale": body.cfg_scale,
        "sampler": sampler,
        "schedule_type": schedule,
        "width": body.width,
        "height": body.height,
        "batch_size": body.batch_size or 1,
        "batch_count": body.n_iter or 1,
        "clip_skip": _clip_skip(body, engine),
        "ensd": _whole(_setting(body, engine, "eta_noise_seed_delta")),
        "noise_source": _NOISE.get(str(_setting(body, engine, "randn_source")), "CPU"),
        "controls": controls,
        **_variation(body),
        **{key: value for key in _PLAIN if (value := getattr(body, key)) is not None},
    }
    if wish["batch_size"] * wish["batch_count"] > MOST_PICTURES:
        raise HTTPException(422, f"batch_size x n_iter is more than {MOST_PICTURES}.")
    wish |= _hires(body, engine, sampler) if isinstance(body, TextToImage) else {}
    wish |= _beginning(body) if isinstance(body, ImageToImage) else {}
    return wish, [*notes, *unknown, *_unserved(body)]


_PLAIN = ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise")


def _require_served(body: Common) -> None:
    if body.script_name:
        raise HTTPException(422, f"Script '{body.script_name[:60]}' not found: maquette runs no scripts.")


def _sampler(name: str, schedule: str) -> tuple[str, str]:
    try:
        return sampler_and_schedule(name, schedule)
    except UnknownName as error:
        raise HTTPException(404, str(error)) from error


def _setting(body: Common, engine: DrawingEngine, key: str) -> Any:
    """Of override_settings, else of the options."""
    value = body.override_settings.get(key)
    return option(engine, key) if value is None else value


def _clip_skip(body: Common, engine: DrawingEngine) -> int:
    """1 is the last layer; 0 and nothing say the same."""
    wanted = body.override_settings.get("CLIP_stop_at_last_layers") or body.clip_skip
    layers = _whole(wanted if wanted is not None else option(engine, "CLIP_stop_at_last_layers"))
    return min(max(1, layers), 12)


def _whole(value: Any) -> int:
    try:
        return min(max(int(value), -(2**62)), 2**62)
    except (TypeError, ValueError, OverflowError):
        return 0


def _variation(body: Common) -> dict[str, Any]:
    wish: dict[str, Any] = {}
    if body.subseed_strength:
        wish |= {"variation_seed": -1 if body.subseed is None else body.subseed}
        wish |= {"variation_strength": body.subseed_strength}
    width, height = body.seed_resize_from_w or 0, body.seed_resize_from_h or 0
    if width > 0 and height > 0:
        wish["seed_resize_from"] = f"{min(width, LARGEST_SIDE)}x{min(height, LARGEST_SIDE)}"
    return wish


def _hires(body: TextToImage, engine: DrawingEngine, first: str) -> dict[str, Any]:
    """Of the second drawing. first: the sampler of the first."""
    if not body.enable_hr:
        return {}
    wish: dict[str, Any] = {"denoising_strength": body.denoising_strength}
    wide, high = body.hr_resize_x or 0, body.hr_resize_y or 0
    if wide or high:
        if max(wide, high) < _LEAST_SIDE:
            raise HTTPException(422, f"hr_resize_x and hr_resize_y are 0 or {_LEAST_SIDE} and more.")
        wish |= {"hires_width": wide // 8 * 8 or None, "hires_height": high // 8 * 8 or None}
    else:
        wish["hires_scale"] = body.hr_scale or 2.0
        if max(body.width or 0, body.height or 0) * wish["hires_scale"] > 2 * LARGEST_SIDE:
            raise HTTPException(422, f"hr_scale makes a side of more than {2 * LARGEST_SIDE} pixels.")
    wish["hires_upscaler"] = _upscaler(body.hr_upscaler or "Latent", engine)
    wish["hires_steps"] = body.hr_second_pass_steps or None
    scheduler = "" if body.hr_scheduler in (None, "Use same scheduler") else str(body.hr_scheduler)
    own = body.hr_sampler_name not in (None, "", "Use same sampler")
    if own or scheduler:
        name = body.hr_sampler_name if own else first
        wish["hires_sampler"], wish["hires_schedule_type"] = _sampler(str(name), scheduler)
    if body.hr_checkpoint_name not in (None, "", "Use same checkpoint"):
        wish["hires_base"] = model_named(engine, str(body.hr_checkpoint_name)).path
    prompts = body.hr_prompt or "", body.hr_negative_prompt or ""
    made = styled(*prompts, body.styles, engine)[:2]
    for key, text, new in zip(("hires_prompt", "hires_negative_prompt"), prompts, made, strict=True):
        wish[key] = new if text else None
    return wish


def _upscaler(name: str, engine: DrawingEngine) -> str:
    """An upscaler of `sampling` by A1111's name: its own name, or a file. Raises HTTPException 404."""
    known = {each: each for each in (*LATENT_UPSCALERS, *UPSCALERS)} | {"None": "Nearest"} | engine.library.upscalers()
    asked = " ".join(name.split()).lower()
    found = next((way for each, way in known.items() if each.lower() == asked), None)
    if found is None:
        raise HTTPException(404, f"Upscaler not found; there are {', '.join(known)}.")
    return found


def _beginning(body: ImageToImage) -> dict[str, Any]:
    if not body.init_images:
        raise HTTPException(404, "Init image not found")
    wish: dict[str, Any] = {
        "init_image": picture_bytes(body.init_images[0], "init_images[0]"),
        "denoising_strength": 0.75 if body.denoising_strength is None else body.denoising_strength,
        "resize_mode": RESIZE_MODES[body.resize_mode or 0],
    }
    if body.mask:
        blur = body.mask_blur if body.mask_blur is not None else body.mask_blur_x
        wish |= {
            "mask": mask_for(picture_bytes(body.mask, "mask"), wish["init_image"]),
            "mask_blur": 4.0 if blur is None else blur,
            "mask_invert": bool(body.inpainting_mask_invert),
            "masked_content": FILLS[body.inpainting_fill or 0],
            "only_masked": body.inpaint_full_res is not False,
        }
        if wish["only_masked"]:  # clients send a padding always
            wish["mask_padding"] = body.inpaint_full_res_padding or 0
    return wish


_LEFT_OUT = ("restore_faces", "tiling", "infotext", "refiner_checkpoint")


def _unserved(body: Common) -> list[str]:
    """What is asked for and not done, in words."""
    asked = {key: getattr(body, key, None) for key in _LEFT_OUT}
    notes = [f"{key} is not served and left out." for key, value in asked.items() if value and value != "None"]
    if isinstance(body, ImageToImage):
        if len(body.init_images) > 1:
            notes.append("Only the first of init_images is drawn from.")
        if body.initial_noise_multiplier not in (None, 0, 1):
            notes.append("initial_noise_multiplier is not served and left out.")
    return notes


def overridden(body: Common, wish: dict[str, Any]) -> dict[str, Any]:
    """The options that override_settings name, as they counted in a wish."""
    counted = {
        "CLIP_stop_at_last_layers": wish["clip_skip"],
        "eta_noise_seed_delta": wish["ensd"],
        "randn_source": wish["noise_source"],
    }
    return {key: value for key, value in counted.items() if body.override_settings.get(key) is not None}


def model_of(body: Common, engine: DrawingEngine) -> dict[str, Any]:
    """base and vae that override_settings name. Raises HTTPException 404."""
    found: dict[str, Any] = {}
    if name := body.override_settings.get("sd_model_checkpoint"):
        found["base"] = model_named(engine, str(name)).name
    if vae := body.override_settings.get("sd_vae"):
        found["vae"] = vae_path(engine, str(vae))
    return found
