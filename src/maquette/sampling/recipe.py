"""From the text inside a picture, of this program or of A1111, to the settings that draw it again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..formats.png import parse_infotext
from .control_unit import MODES, RESIZE_MODES
from .samplers import SAMPLERS, schedule_of

_SIMPLE: dict[str, tuple[str, Callable[[str], Any]]] = {
    "Prompt": ("prompt", str),
    "Negative prompt": ("negative_prompt", str),
    "Steps": ("steps", int),
    "Sampler": ("sampler", str),
    "Schedule type": ("schedule_type", str),
    "CFG scale": ("cfg_scale", float),
    "CFG Rescale": ("cfg_rescale", float),
    "Seed": ("seed", int),
    "Size-1": ("width", int),
    "Size-2": ("height", int),
    "Variation seed": ("variation_seed", int),
    "Variation seed strength": ("variation_strength", float),
    "Denoising strength": ("denoising_strength", float),
    "Clip skip": ("clip_skip", int),
    "ENSD": ("ensd", int),
    "Eta": ("eta", float),
    "Eta DDIM": ("eta", float),
    "Sigma churn": ("s_churn", float),
    "Sigma tmin": ("s_tmin", float),
    "Sigma tmax": ("s_tmax", float),
    "Sigma noise": ("s_noise", float),
    "Emphasis": ("emphasis", str),
    "Prompt editing": ("prompt_editing", str),
    "Hires upscale": ("hires_scale", float),
    "Hires steps": ("hires_steps", int),
    "Hires upscaler": ("hires_upscaler", str),
    "Hires sampler": ("hires_sampler", str),
    "Hires schedule type": ("hires_schedule_type", str),
    "Refiner switch at": ("refiner_switch_at", float),
    "Hires CFG Scale": ("hires_cfg_scale", float),
    "Hires prompt": ("hires_prompt", str),
    "Hires negative prompt": ("hires_negative_prompt", str),
    "Mask blur": ("mask_blur", float),
    "Masked area padding": ("mask_padding", int),
    "Masked content": ("masked_content", str),
    "Resize mode": ("resize_mode", str),
}
_CONTROL: dict[str, tuple[str, Callable[[str], Any]]] = {
    "module": ("preprocessor", str),
    "preprocessor": ("preprocessor", str),
    "weight": ("weight", float),
    "threshold a": ("a", float),
    "threshold b": ("b", float),
    "guidance start": ("start", float),
    "guidance end": ("end", float),
}
# What A1111 and much used extensions draw with and maquette has not.
_ABSENT = (
    "Face restoration", "Tiling", "Hypernet", "Noise multiplier", "Extra noise", "Conditional mask weight",
    "Soft inpainting enabled", "Image CFG scale", "Schedule min sigma", "Schedule max sigma", "Schedule rho",
    "SGM noise multiplier", "Skip Early CFG", "NGMS", "Token merging ratio", "Token merging ratio hr",
    "Old prompt editing timelines", "Beta schedule alpha", "Beta schedule beta", "UniPC variant", "UniPC skip type",
    "UniPC order", "Noise Schedule", "ADetailer model", "Dynamic thresholding enabled",
)  # fmt: skip
_PAIR = re.compile(r"\s*([\w /]+?):\s*(\([^)]*\)|[^,]*)(?:,|$)")


@dataclass
class Recipe:
    """settings: keys and values of DrawSettings. The rest names what no text can hold: files, by name and hash.

    controls: of each ControlNet "model" as it is called in the text, and its settings.
    """

    settings: dict[str, Any]
    model: str | None = None
    model_hash: str | None = None
    vae: str | None = None
    prediction: str | None = None
    hires_model: str | None = None
    refiner: str | None = None
    init_hash: str | None = None
    begun: bool = False  # from a picture
    masked: bool = False  # by a file
    lora_hashes: dict[str, str] = field(default_factory=dict)
    controls: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)  # what cannot be done here


def read_recipe(text: str) -> Recipe:
    """A picture's text -> how to draw it again. Values that are no numbers where numbers belong are left out, named in
    `unknown`.
    """
    values = {key: value for key, value in parse_infotext(text).items() if not value.startswith("Use same ")}
    recipe = Recipe({}, values.get("Model"), values.get("Model hash"), values.get("VAE"))
    if (predicts := values.get("Prediction type")) in ("epsilon", "v_prediction", "flow"):
        recipe.prediction = predicts
    recipe.hires_model, recipe.refiner = values.get("Hires checkpoint"), values.get("Refiner")
    for key, (name, kind) in _SIMPLE.items():
        _take(recipe.settings, recipe.unknown, values, key, name, kind)
    _mend_schedule(recipe.settings)
    # A1111 leaves RNG out where noise came from the graphics card, whose numbers NV has.
    recipe.settings["noise_source"] = {"CPU": "CPU", "GPU": "GPU"}.get(values.get("RNG", ""), "NV")
    for name, key in (("seed_resize_from", "Seed resize from"), ("hires", "Hires resize")):
        if f"{key}-1" in values:
            _take_size(recipe.settings, name, int(values[f"{key}-1"]), int(values[f"{key}-2"]))
    recipe.absent = [f"{key}: {values[key]}" for key in _ABSENT if values.get(key, "False") != "False"]
    recipe.settings |= _masks(values)
    recipe.init_hash = values.get("Init image hash")
    hires = any(key.startswith("Hires ") for key in values)
    recipe.begun = bool(recipe.init_hash) or ("Denoising strength" in values and not hires)
    marked = {"Mask blur", "Mask mode", "Inpaint area", "Masked content"} & values.keys()
    recipe.masked = values.get("Mask") == "file" or bool(marked and not {"Mask", "Extend"} & values.keys())
    pairs = (part.rpartition(":") for part in values.get("Lora hashes", "").split(",") if ":" in part)
    recipe.lora_hashes = {name.strip(): short.strip() for name, _, short in pairs}
    recipe.controls = [_control(values[key], recipe.unknown) for key in sorted(values) if key.startswith("ControlNet ")]
    return recipe


def _take(
    settings: dict[str, Any],
    unknown: list[str],
    values: Mapping[str, str],
    key: str,
    name: str,
    kind: Callable[[str], Any],
) -> None:
    if key not in values:
        return
    try:
        settings[name] = kind(values[key])
    except ValueError:
        unknown.append(f"{key}: {values[key]}")


def _mend_schedule(settings: dict[str, Any]) -> None:
    """Before A1111 1.9 a sampler without schedule in its name had the uniform one."""
    name = settings.get("sampler", "")
    if "schedule_type" not in settings and name in SAMPLERS and not SAMPLERS[name].by_timesteps:
        settings["schedule_type"] = "Uniform" if schedule_of(name)[1] != "Automatic" else "Automatic"


def _take_size(settings: dict[str, Any], name: str, width: int, height: int) -> None:
    if name == "hires":
        settings["hires_width"], settings["hires_height"] = width or None, height or None
    elif width > 0 and height > 0:  # A1111 writes -1x-1 or 0x0 for none
        settings[name] = f"{width}x{height}"


def _masks(values: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if values.get("Mask mode") == "Inpaint not masked":
        found["mask_invert"] = True
    if values.get("Inpaint area") == "Only masked":
        found["only_masked"] = True
    if values.get("Exact steps") == "True":
        found["exact_steps"] = True
    if values.get("Discard penultimate sigma") == "True":
        found["discard_penultimate_sigma"] = True
    if values.get("Tiled VAE") == "True":
        found["tiled_vae"] = True
    if values.get("Prompt comments") == "False":
        found["prompt_comments"] = False
    if values.get("Mask") == "transparency":
        found["mask"] = "transparency"
    if "Extend" in values:
        found["extend"] = [part.strip() for part in values["Extend"].split(",")]
    return found


def _control(text: str, unknown: list[str]) -> dict[str, Any]:
    """One ControlNet, as its extension writes it since 1.1.4 or wrote it before."""
    pairs = {key.strip().lower(): value.strip() for key, value in _PAIR.findall(text)}
    found: dict[str, Any] = {"model": re.sub(r"\s*\[[0-9a-f]+\]$", "", pairs.get("model", ""))}
    for key, (name, kind) in _CONTROL.items():
        _take(found, unknown, pairs, key, name, kind)
    if "starting/ending" in pairs:
        start, _, end = pairs["starting/ending"].strip("()").partition(",")
        _take(found, unknown, {"start": start.strip(), "end": end.strip()}, "start", "start", float)
        _take(found, unknown, {"end": end.strip()}, "end", "end", float)
    for key, name, names in (("control mode", "mode", MODES), ("resize mode", "resize", RESIZE_MODES)):
        written = pairs.get(key, "").lower()
        found |= dict([(name, short) for short, known in names.items() if known.lower() == written])
    return found
