"""What `maquette compare` trains: each combination of method, base and settings, as a run of its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import TrainConfig, parse_setting
from ..config.compare import METHODS, CompareConfig
from ..errors import MaquetteError
from ..files import slug

OWN = ("photos", "subject", "base", "out", "device")  # keys that are the same for all, or that `bases` compares


@dataclass(frozen=True)
class Variant:
    """name: of its run folder and in the table. config: of its training."""

    name: str
    config: TrainConfig


def variants(compare: CompareConfig, out: Path) -> tuple[list[Variant], list[str]]:
    """The runs, and sentences on combinations that make none, such as regularization for a method without.

    Raises MaquetteError where nothing is left to compare.
    """
    fixed, swept = _settings(compare.settings)
    _require_settings(compare, fixed, swept)
    one_method = fixed.pop("method", None)
    methods = compare.methods or [one_method or "lora"]
    if not compare.methods and not compare.bases and not swept:
        methods = list(METHODS)
    found: list[Variant] = []
    left: list[str] = []
    for method, base, values in itertools.product(methods, compare.bases or [compare.base], _combined(swept)):
        name = _name(compare, methods, method, base, _short(values, swept))
        keys = {**_common(compare), **fixed, **values, "method": method, "base": base, "out": out / name}
        try:
            found.append(Variant(name, TrainConfig.parse(keys, name)))
        except MaquetteError as error:
            left.append(f"{name} is left out: {error}")
    names = [variant.name for variant in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise MaquetteError(f"{twice} would be trained twice: give each value once.")
    if not found or (len(found) < 2 and not compare.bases):
        reason = left[0] if left else "name methods, bases, or a setting with several values (--set rank=4,16)"
        raise MaquetteError(f"There is nothing to compare: {reason}")
    return found, left


def _common(compare: CompareConfig) -> dict[str, Any]:
    """What all have in common; nothing is chosen at the end of a training, since all are measured on one panel."""
    values = {
        "photos": compare.photos, "subject": compare.subject, "seed": compare.seed, "device": compare.device,
        "sample_prompts": [], "choose": False,
    }  # fmt: skip
    if compare.steps is not None:
        values |= {"steps": compare.steps, "save_every_steps": math.ceil(compare.steps / compare.checkpoints)}
    return values


def _settings(texts: list[str]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Values for all, and by key the values that are compared. A list in brackets is one value."""
    fixed: dict[str, Any] = {}
    swept: dict[str, list[Any]] = {}
    for text in texts:
        key, value = parse_setting(text)
        if key in fixed or key in swept:
            raise MaquetteError(f"{key} is set twice: give all its values at once (--set {key}=A,B).")
        if isinstance(value, str) and "," in value and not value.startswith("["):
            swept[key] = [parse_setting(f"{key}={part.strip()}")[1] for part in value.split(",")]
        else:
            fixed[key] = value
    return fixed, swept


def _require_settings(compare: CompareConfig, fixed: dict[str, Any], swept: dict[str, list[Any]]) -> None:
    """Raise MaquetteError for a setting that an option of compare decides, and which would be passed over."""
    given = {**fixed, **swept}
    owned = [key for key in OWN if key in given]
    owned += ["method"] if "method" in swept or ("method" in given and compare.methods) else []
    owned += ["steps"] if "steps" in given and compare.steps is not None else []
    if owned:
        option = {"method": "--methods lora,loha", "base": "--base, or --bases twice", "photos": "PHOTOS"}
        raise MaquetteError(
            f"{owned[0]} is no setting here, compare has an option for it: {option.get(owned[0], f'--{owned[0]}')}."
        )
    if "prediction_type" in swept:
        raise MaquetteError(
            "prediction_type is what the base predicts, of which one is right: give one value, or leave it out."
        )


def _combined(swept: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*swept.values()):
        yield dict(zip(swept, values, strict=True))


def _short(values: dict[str, Any], swept: dict[str, list[Any]]) -> dict[str, Any]:
    """The values as names have them: of files and folders the last part, where that tells them apart."""
    found = {}
    for key, value in values.items():
        names = {Path(one).name if isinstance(one, str) else one for one in swept[key]}
        found[key] = Path(value).name if isinstance(value, str) and len(names) == len(swept[key]) else value
    return found


def _name(compare: CompareConfig, methods: list[str], method: str, base: str, values: dict[str, Any]) -> str:
    """Of what differs: "lora", "lora-rank-4", "anime-lora"."""
    parts = [Path(base).stem] if compare.bases else []
    parts += [method] if len(methods) > 1 or not (compare.bases or values) else []
    parts += [f"{key}-{str(value).lower() if isinstance(value, bool) else value}" for key, value in values.items()]
    return slug("-".join(parts))
