"""The axes of a grid: `NAME=VALUES`, where NAME is one of A1111's, a key of a drawing, or a LoRA's or ControlNet's."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from ...errors import MaquetteError
from ..control_unit import ControlUnit
from ..lora_folder import DEFAULT_FOLDER, SUFFIXES, lora_files
from .changes import Change, TagChange
from .settings import GridConfig
from .values import numbers, texts

# A1111's names of axes, and short ones, by key.
_NAMES = {
    "cfg": "cfg_scale", "checkpoint name": "base", "model": "base", "var seed": "variation_seed",
    "var strength": "variation_strength", "schedule": "schedule_type", "denoising": "denoising_strength",
    "rng source": "noise_source", "sigma churn": "s_churn", "sigma min": "s_tmin", "sigma max": "s_tmax",
    "sigma noise": "s_noise", "always discard next to last sigma": "discard_penultimate_sigma", "negative prompt":
    "negative_prompt", "hires schedule": "hires_schedule_type", "style": "styles", "hires cfg": "hires_cfg_scale",
}  # fmt: skip
_SEARCH = ("search", "prompt s/r", "s/r")
_NO_AXES = {"x", "y", "z", "out", "batch_size", "batch_count", "preview_every", "controls", "extend"}
_OWN = ("search", "lora", "checkpoint", "weight", "size", "control")
_SIZE = re.compile(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*")
_STEP = re.compile(r"-(\d+)$")
NONE = "none"
NOTHING_SAID = "(nothing)"
_PROMPTS = ("prompt", "negative_prompt", "hires_prompt", "hires_negative_prompt")


@dataclass(frozen=True)
class Axis:
    """title and labels: for people. changes: of each value."""

    title: str
    labels: list[str]
    changes: list[Change]


NOTHING = Axis("", [""], [Change()])


def read_axis(written: str | None, config: GridConfig) -> Axis:
    """An axis as it is written; None is one without effect. Raises MaquetteError for what cannot be understood."""
    if written is None:
        return NOTHING
    name, equals, values = written.partition("=")
    name = " ".join(name.split())
    if not equals or not name or not values.strip():
        raise MaquetteError(f"The axis {written!r} is not of the form NAME=VALUES; write weight=0.4-1 [4].")
    axis_name, _, target = name.partition(":")
    axis_name = re.sub(r"[\s_.-]+", " ", axis_name).strip().lower()
    axis = _axis(axis_name, target.strip(), values, config, name)
    if not axis.labels:
        raise MaquetteError(f"The axis {name} has no values.")
    return axis


def _axis(axis_name: str, target: str, values: str, config: GridConfig, name: str) -> Axis:
    if axis_name in _SEARCH:
        return _search(texts(values))
    if axis_name in ("weight", "lora weight"):
        weights = [f"{weight:g}" for weight in numbers(values, False, name)]
        changes = [Change(tag=TagChange(target or None, weight=weight)) for weight in weights]
        return Axis(f"weight of {target}" if target else "weight", weights, changes)
    if axis_name == "lora":
        found = _given(values)
        names = [None if each.lower() == NONE else each for each in found]
        return Axis("LoRA", found, [Change(tag=TagChange(target or None, lora=each)) for each in names])
    if axis_name == "checkpoint":
        return _checkpoints(values, target, config, name)
    if axis_name == "size":
        return _sizes(_given(values))
    if axis_name == "control" or axis_name.startswith("control "):
        return _control(axis_name.removeprefix("control").strip() or "weight", target, values, name)
    if target:
        raise MaquetteError(f"The axis {name}: only lora, checkpoint, weight and control take a name behind a colon.")
    return _key(axis_name, values, name)


def _given(values: str) -> list[str]:
    return [value for value in texts(values) if value]


def _search(found: Sequence[str]) -> Axis:
    """A1111's "Prompt S/R": the first value is searched, and stands for itself."""
    if not found or not found[0]:
        raise MaquetteError("The axis search begins with the words to look for: search=red, blue, green.")
    return Axis("", [each or NOTHING_SAID for each in found], [Change(swap=(found[0], each)) for each in found])


def _sizes(found: Sequence[str]) -> Axis:
    changes = []
    for text in found:
        match = _SIZE.fullmatch(text)
        if match is None:
            raise MaquetteError(f"The axis size has {text!r}; write sizes such as 512x768.")
        changes.append(Change(keys={"width": int(match[1]), "height": int(match[2])}))
    return Axis("size", list(found), changes)


def _key(axis_name: str, values: str, name: str) -> Axis:
    key = _NAMES.get(axis_name, axis_name.replace(" ", "_"))
    if key not in GridConfig.model_fields or key in _NO_AXES:
        known = sorted({*_OWN, *_NAMES, *(each for each in GridConfig.model_fields if each not in _NO_AXES)})
        near = difflib.get_close_matches(axis_name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise MaquetteError(
            f"There is no axis {name!r}.{hint} Axes: checkpoint, lora, weight, search, prompt, seed, sampler, "
            "schedule, steps, cfg, clip skip, size, denoising, base, control weight, or any key of a drawing."
        )
    if key in _PROMPTS:  # one without words is one as well
        found: list[Any] = texts(values)
        labels = [each or NOTHING_SAID for each in found]
    else:
        labels, found = _typed(GridConfig.model_fields[key].annotation, values, name)
    if key == "styles":
        found = [[each] for each in found]
    if key in ("base", "vae", "init_image", "mask", "hires_base", "refiner"):
        labels = [Path(each).stem for each in found]
    if key == "steps" and any(not each >= 1 for each in found):
        raise MaquetteError(f"The axis {name} has a number of steps below 1.")
    title = "" if key == "prompt" else key.replace("_", " ").replace("cfg", "CFG")
    return Axis(title, labels, [Change(keys={key: each}) for each in found])


def _control(axis_name: str, target: str, values: str, name: str) -> Axis:
    key = axis_name.replace(" ", "_")
    if key not in ControlUnit.model_fields:
        raise MaquetteError(f"The axis {name}: a ControlNet has {', '.join(ControlUnit.model_fields)}.")
    if (target and not target.isdecimal()) or target == "0":
        raise MaquetteError(f"The axis {name}: write the number of the ControlNet, as control {axis_name}:2=…")
    labels, found = _typed(ControlUnit.model_fields[key].annotation, values, name)
    if key in ("model", "image"):
        labels = [Path(each).stem for each in found]
    changes = [Change(control=(int(target or 1), {key: each})) for each in found]
    return Axis(f"control {axis_name}" + (f" {target}" if target else ""), labels, changes)


def _typed(annotation: Any, values: str, name: str) -> tuple[list[str], list[Any]]:
    """Labels and values of the type that a key has."""
    kind = _kind(annotation)
    if kind in (int, float):
        found = numbers(values, kind is int, name)
        return [f"{value:g}" if kind is float else str(value) for value in found], list(found)
    given = _given(values)
    if kind is bool:
        truths = {"true": True, "yes": True, "false": False, "no": False}
        if wrong := [each for each in given if each.lower() not in truths]:
            raise MaquetteError(f"The axis {name} has {wrong[0]!r}; write true, false.")
        return given, [truths[each.lower()] for each in given]
    return given, list(given)


def _kind(annotation: Any) -> Any:
    """int, float, bool, or something that is written as text."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return _kind(next(part for part in get_args(annotation) if part is not type(None)))
    return annotation if annotation in (bool, int, float) else str


def _checkpoints(values: str, target: str, config: GridConfig, name: str) -> Axis:
    """Of the LoRA that the prompt names: steps in its run's file names, "final" for the LoRA itself, "none", or all."""
    run = target or _only_lora(config.prompt, name)
    stem = _STEP.sub("", run)
    files = lora_files(config.lora_dir)
    steps = {int(match[1]): each for each in files if (match := _STEP.search(each)) and _STEP.sub("", each) == stem}
    found: list[tuple[str, str | None]] = []
    for text in _given(values):
        if text.lower() == "all":
            found += [(str(step), steps[step]) for step in sorted(steps)]
        elif text.lower() in ("final", NONE):
            found.append((text.lower(), stem if text.lower() == "final" else None))
        else:
            found += [(f"{step:g}", steps.get(int(step), "")) for step in numbers(text, True, name)]
    wrong = [label for label, file in found if file == ""]
    if wrong or not found:
        where = DEFAULT_FOLDER if config.lora_dir is None else config.lora_dir
        there = ", ".join(str(step) for step in sorted(steps)) or "none"
        what = f"has no {wrong[0]}" if wrong else "has no values"
        raise MaquetteError(
            f"The axis {name} {what}: checkpoints of {stem} in {where} ({stem}-000100{SUFFIXES[0]} …): {there}."
        )
    changes = [Change(tag=TagChange(run, lora=file)) for _, file in found]
    return Axis("checkpoint", [label for label, _ in found], changes)


def _only_lora(prompt: str, name: str) -> str:
    from ...prompts import parse_networks

    names = dict.fromkeys(tag.positional[0] for tag in parse_networks(prompt)[1] if tag.positional)
    if len(names) != 1:
        raise MaquetteError(
            f"The axis {name} needs to know whose checkpoints: write <lora:NAME:1> in the prompt, or checkpoint:NAME=…"
        )
    return next(iter(names))
