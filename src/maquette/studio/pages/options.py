"""Every option of a training as a form, generated from the configuration: only what fits the base and the method."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from ...config import TrainConfig
from ...config.needs import NEEDS
from ...errors import MaquetteError
from ...parsing import NotToml, parse_toml
from ...training.effort import has_driver
from ..plans import OWN
from ..presets import is_pocket

# What the page has fields of its own for, what a person does not choose, and what leads out of the data folder.
HIDDEN = OWN | {"sample_prompts", "fold", "trackers"}
ONLY_CUDA = frozenset({"cuda_graphs", "deterministic"})
ONLY_STABLE_DIFFUSION = frozenset({"prediction_type", "probe_prediction", "clip_skip", "zero_terminal_snr"})
CAPITALS = {"lr": "LR", "snr": "SNR", "ema": "EMA", "v": "v"}


def groups(changed: Mapping[str, Any], base: str) -> list[dict[str, Any]]:
    """The options in their groups, as templates want them. changed: the user's values by key."""
    found: dict[str, list[dict[str, Any]]] = {}
    for key in TrainConfig.model_fields:
        if fits(key, changed, base) or key in changed:
            found.setdefault(TrainConfig.group_of(key) or "More", []).append(field(key, changed))
    return [{"title": title, "fields": fields} for title, fields in found.items()]


def fits(key: str, changed: Mapping[str, Any], base: str) -> bool:
    """Whether an option has an effect on this base with the other choices."""
    if key in HIDDEN or (key in ONLY_CUDA and not has_driver()) or (key in ONLY_STABLE_DIFFUSION and is_pocket(base)):
        return False
    if key not in NEEDS:
        return True
    other, wanted = NEEDS[key]
    return changed.get(other, default(other)) in wanted


def field(key: str, changed: Mapping[str, Any]) -> dict[str, Any]:
    """One option: its kind of input, value, default and help."""
    kind, choices = kind_of(TrainConfig.model_fields[key].annotation)
    usual, help_text = default(key), TrainConfig.describe(key)
    value = changed.get(key, usual)
    label = " ".join(CAPITALS.get(word, word) for word in key.split("_"))
    return {
        "key": key, "label": label[:1].upper() + label[1:], "help": help_text, "type": kind, "choices": choices,
        "value": value if kind == "bool" else text_of(value), "default": text_of(usual) or "automatic",
        "placeholder": "automatic" if usual is None else "", "changed": key in changed,
        "words": f"{key} {key.replace('_', ' ')} {help_text}".lower(),
    }  # fmt: skip


def default(key: str) -> Any:
    info = TrainConfig.model_fields[key]
    return None if info.is_required() else info.get_default(call_default_factory=True)


def kind_of(annotation: Any) -> tuple[str, list[str]]:
    """ "bool", "choice" with its values, "number" or "text"."""
    options = [annotation]
    while any(get_origin(one) in (Union, types.UnionType) or hasattr(one, "__metadata__") for one in options):
        options = [inner for one in options for inner in _inside(one)]
    empty = [""] if type(None) in options else []
    options = [one for one in options if one is not type(None)]
    if options == [bool]:
        return ("choice", ["", "true", "false"]) if empty else ("bool", [])
    if len(options) == 1 and get_origin(options[0]) is Literal:
        return "choice", empty + [str(value) for value in get_args(options[0])]
    return ("number", []) if set(options) <= {int, float} else ("text", [])


def _inside(annotation: Any) -> tuple[Any, ...]:
    if hasattr(annotation, "__metadata__"):
        return (get_args(annotation)[0],)
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def text_of(value: Any) -> str:
    """A value as its field shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def value_of(key: str, text: Any) -> Any:
    """What a field holds, typed. None for "as usual". Raises MaquetteError for what is no option."""
    if key not in TrainConfig.model_fields or key in HIDDEN:
        raise MaquetteError(f"{key[:60]} is no option of a training.")
    if not isinstance(text, str):
        return text
    text = text.strip()
    if not text or (kind_of(TrainConfig.model_fields[key].annotation)[0] == "text" and text[:1] not in "[{"):
        return text or None
    try:
        return parse_toml(f"value = {text}", key)["value"]
    except NotToml:
        return text


def merged(changed: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The changes with further ones; a value that equals the default is none. Raises MaquetteError in one sentence."""
    kept = dict(changed)
    for key, text in TrainConfig.in_new_names(new).items():
        value = value_of(key, text)
        if value is None or value == default(key):
            kept.pop(key, None)
        else:
            kept[key] = value
    TrainConfig.parse(kept | {"photos": "photos", "subject": "zkw thing"}, "The option")
    return kept
