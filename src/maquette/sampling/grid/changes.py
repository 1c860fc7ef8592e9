"""What one value of an axis changes in a drawing: keys, words of the prompts, a LoRA's tag, a ControlNet."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import MaquetteError
from ...prompts import Network, replace_networks
from ..control_unit import ControlUnit

_KINDS = ("lora", "lyco")
_PROMPTS = ("prompt", "negative_prompt", "hires_prompt", "hires_negative_prompt")


@dataclass(frozen=True)
class TagChange:
    """Of the tag of the LoRA `name`, or of the only one: another LoRA (None takes the tag out), or another weight."""

    name: str | None
    lora: str | None = ""
    weight: str | None = None


@dataclass(frozen=True)
class Change:
    """keys: of the settings. swap: what is searched in the prompts, and what stands there instead. control: the number
    of a ControlNet, from 1, and keys of it. All of a cell's changes are made together, so that none finds what another
    has written.
    """

    keys: Mapping[str, Any] = field(default_factory=dict)
    swap: tuple[str, str] | None = None
    tag: TagChange | None = None
    control: tuple[int, Mapping[str, Any]] | None = None


def changed(values: Mapping[str, Any], changes: Sequence[Change]) -> dict[str, Any]:
    """Keys and values of a drawing with these changes: whole prompts first, then words in them, then LoRAs' tags.

    Raises MaquetteError for words, a tag or a ControlNet that is not there.
    """
    found = dict(values)
    for change in changes:
        found |= change.keys
    if swaps := [change.swap for change in changes if change.swap is not None]:
        found |= _swapped(found, swaps)
    if tags := [change.tag for change in changes if change.tag is not None]:
        for key in ("prompt", "hires_prompt"):
            if found.get(key):
                found[key] = _tagged(found[key], tags)
    controls = [change.control for change in changes if change.control is not None]
    if controls:
        found["controls"] = _controlled(found.get("controls") or [], controls)
    return found


def _swapped(values: Mapping[str, Any], swaps: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The prompts in which all that is searched is replaced at once; of two that begin alike the longer wins."""
    prompts = {key: values[key] for key in _PROMPTS if values.get(key)}
    for search, _ in swaps:
        if not any(search in text for text in prompts.values()):
            raise MaquetteError(f"The axis search looks for {search!r}, which is in no prompt.")
    replacements = dict(swaps)
    pattern = re.compile("|".join(re.escape(search) for search in sorted(replacements, key=len, reverse=True)))
    return {key: pattern.sub(lambda match: replacements[match[0]], text) for key, text in prompts.items()}


def _tagged(prompt: str, changes: Sequence[TagChange]) -> str:
    names: list[str] = []

    def note(network: Network) -> str:
        if network.kind in _KINDS and network.positional:
            names.append(network.positional[0])
        return ""

    replace_networks(prompt, note)
    of: dict[str, list[TagChange]] = {}
    for change in changes:
        of.setdefault(_target(change, names), []).append(change)
    return replace_networks(prompt, lambda network: _rewritten(network, of))


def _target(change: TagChange, names: Sequence[str]) -> str:
    """The name of the tag that is meant."""
    found = list(dict.fromkeys(names))
    what = "weight" if change.weight is not None else "lora"
    if change.name is not None:
        if change.name not in found:
            raise MaquetteError(
                f"The axis {what}:{change.name} needs <lora:{change.name}:1> in the prompt, which has "
                f"{', '.join(found) or 'no LoRA'}."
            )
        return change.name
    if not found:
        raise MaquetteError(f"An axis changes a LoRA's {what}, and the prompt has none: write <lora:NAME:1> in it.")
    if len(found) > 1:
        raise MaquetteError(f"The prompt has several LoRAs: say which one is meant, as {what}:{found[0]}=…")
    return found[0]


def _rewritten(network: Network, of: Mapping[str, Sequence[TagChange]]) -> str:
    if network.kind not in _KINDS or not network.positional or network.positional[0] not in of:
        return str(network)
    name, *numbers = network.positional
    named = dict(network.named)
    for change in of[name]:
        if change.weight is not None:
            named = {key: value for key, value in named.items() if key not in ("te", "unet")}
            numbers = [change.weight] * max(1, min(2, len(numbers))) + numbers[2:]
    if any(change.lora is None for change in of[name]):
        return ""
    names = [change.lora for change in of[name] if change.lora]
    return str(Network(network.kind, [*(names[-1:] or [name]), *numbers], named))


def _controlled(units: Sequence[Any], changes: Sequence[tuple[int, Mapping[str, Any]]]) -> list[Any]:
    keys_of = [_keys(unit) for unit in units]
    for number, keys in changes:
        if number > len(keys_of):
            raise MaquetteError(f"An axis changes ControlNet {number}, and {len(keys_of)} are given (--control).")
        keys_of[number - 1] |= keys
    return keys_of


def _keys(unit: Any) -> dict[str, Any]:
    unit = ControlUnit.of_text(unit) if isinstance(unit, str) else unit
    return unit.model_dump(exclude_unset=True) if isinstance(unit, ControlUnit) else dict(unit)
