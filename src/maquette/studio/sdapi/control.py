"""The ControlNet extension: its units in `alwayson_scripts`, and its lists."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ...formats.pictures import open_picture
from ...sampling.control_unit import MODES as MODE_TEXTS
from ...sampling.control_unit import RESIZE_MODES as RESIZE_TEXTS
from ..engine import DrawingEngine
from .answering import A1111Route, engine_of
from .uploads import picture_bytes

router = APIRouter(route_class=A1111Route, tags=["controlnet"])
MOST_UNITS = 4
MODES = ("balanced", "prompt", "control")
RESIZE = ("just", "crop", "fill")
# The extension's names of preprocessors -> ours; ours are known as well.
MODULES = {
    "none": "none",
    "canny": "canny",
    "scribble_xdog": "scribble",
    "blur_gaussian": "blur",
    "tile_resample": "tile",
    "threshold": "threshold",
    "invert (from white bg & black line)": "invert",
    "t2ia_color_grid": "colour",
}
_OTHER_TEXTS = {"scale to fit (inner fit)": "crop", "envelope (outer fit)": "fill"}


class Unit(BaseModel):
    """One unit, by the extension's names. Others are let pass."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    enabled: bool | None = True
    module: str | None = "none"
    model: str | None = "None"
    weight: Annotated[float, Field(ge=0, le=2)] | None = 1.0
    image: Any = None
    input_image: Any = None
    resize_mode: int | str | None = 1
    threshold_a: float | None = -1
    threshold_b: float | None = -1
    guidance_start: Annotated[float, Field(ge=0, le=1)] | None = 0.0
    guidance_end: Annotated[float, Field(ge=0, le=1)] | None = 1.0
    control_mode: int | str | None = 0


def units_of(scripts: dict[str, Any], engine: DrawingEngine) -> tuple[list[dict[str, Any]], list[str]]:
    """(controls by the keys of ControlUnit, warnings) of alwayson_scripts.

    Raises HTTPException 422 for another script that is given something to do.
    """
    units: list[dict[str, Any]] = []
    for name, script in scripts.items():
        args = script.get("args") if isinstance(script, dict) else script
        if not args:
            continue
        if str(name).lower() != "controlnet":
            raise HTTPException(422, f"Always on script '{str(name)[:60]}' is not served; only ControlNet is.")
        if not isinstance(args, list) or len(args) > MOST_UNITS:
            raise HTTPException(422, f"ControlNet: args is a list of at most {MOST_UNITS} units.")
        units += [unit for each in args if (unit := _unit(each, engine)) is not None]
    return units, []


def _unit(raw: Any, engine: DrawingEngine) -> dict[str, Any] | None:
    try:
        unit = Unit.model_validate(raw)
    except ValidationError as error:
        fault = error.errors()[0]
        raise HTTPException(
            422, f"ControlNet: {'.'.join(map(str, fault['loc'])) or 'a unit'}: {fault['msg']}."
        ) from error
    if unit.enabled is False or (unit.model or "None") == "None":
        return None
    wish: dict[str, Any] = {
        "model": _model(str(unit.model), engine),
        "preprocessor": _module(unit.module or "none"),
        "weight": 1.0 if unit.weight is None else unit.weight,
        "start": unit.guidance_start or 0.0,
        "end": 1.0 if unit.guidance_end is None else unit.guidance_end,
        "mode": _chosen(unit.control_mode, MODES, MODE_TEXTS, "control_mode"),
        "resize": _chosen(unit.resize_mode, RESIZE, RESIZE_TEXTS, "resize_mode"),
    }
    for key, value in (("a", unit.threshold_a), ("b", unit.threshold_b)):
        if value is not None and value >= 0:
            wish[key] = value
    shown = unit.image or unit.input_image
    if isinstance(shown, dict):
        shown = shown.get("image")
    if shown:
        wish["image"] = picture_bytes(str(shown), "The picture of a ControlNet")
    return wish


def _model(name: str, engine: DrawingEngine) -> str:
    """What is opened, by a name with or without a hash behind it."""
    known = engine.library.controlnets()
    asked = name.partition(" [")[0].strip().lower()
    for each, place in known.items():
        if asked in (each.lower(), f"{each.lower()}.safetensors"):
            return place
    raise HTTPException(404, f"There is no ControlNet {name[:60]!r}; there are {', '.join(known)}.")


def _module(name: str) -> str:
    wanted = name.strip().lower()
    for theirs, ours in MODULES.items():
        if wanted in (theirs, ours):
            return ours
    raise HTTPException(404, f"There is no preprocessor {name[:60]!r}; there are {', '.join(MODULES)}.")


def _chosen(value: int | str | None, names: tuple[str, ...], texts: dict[str, str], key: str) -> str:
    """A choice by its number or its text."""
    if isinstance(value, int):
        if 0 <= value < len(names):
            return names[value]
    elif value is not None:
        by_text = {text.lower(): name for name, text in texts.items()} | {name: name for name in names} | _OTHER_TEXTS
        if value.strip().lower() in by_text:
            return by_text[value.strip().lower()]
    raise HTTPException(422, f"ControlNet: {key} is one of {', '.join(texts[name] for name in names)}.")


@router.get("/controlnet/version")
def version() -> dict[str, int]:
    """The extension's interface, version 3."""
    return {"version": 3}


@router.get("/controlnet/model_list")
def model_list(request: Request) -> dict[str, list[str]]:
    """ControlNets by name."""
    return {"model_list": list(engine_of(request).library.controlnets())}


@router.get("/controlnet/module_list")
def module_list() -> dict[str, Any]:
    """Preprocessors by the extension's names."""
    return {"module_list": list(MODULES), "module_detail": {}}


@router.get("/controlnet/settings")
def settings() -> dict[str, int]:
    """How many units there can be."""
    return {"control_net_unit_count": MOST_UNITS}


Threshold = Annotated[
    float,
    Field(le=4096, allow_inf_nan=False),
    BeforeValidator(lambda value: -1 if value is None else value),
]


class Detection(BaseModel):
    """Body of detect."""

    controlnet_module: str = "none"
    controlnet_input_images: Annotated[list[str], Field(max_length=4)] = Field(default_factory=list)
    controlnet_threshold_a: Threshold = -1
    controlnet_threshold_b: Threshold = -1


@router.post("/controlnet/detect")
def detect(body: Detection) -> dict[str, Any]:
    """What a ControlNet is shown of pictures."""
    from ...sampling.pictures.preprocessors import preprocess

    module = _module(body.controlnet_module)
    a, b = (value if value >= 0 else None for value in (body.controlnet_threshold_a, body.controlnet_threshold_b))
    made = []
    for text in body.controlnet_input_images:
        stream = BytesIO()
        picture = open_picture(BytesIO(picture_bytes(text, "controlnet_input_images"))).convert("RGB")
        preprocess(picture, module, a, b).save(stream, format="PNG")
        made.append(base64.b64encode(stream.getvalue()).decode())
    return {"images": made, "info": "Success"}
