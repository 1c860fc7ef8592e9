"""How a LoRA and its strength are written on the command line: FILE[:W[,te=…][,unet=…][,lbw=…]]."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..adapters import block_weights
from ..adapters.file import Adapter
from ..adapters.reading import load
from ..errors import MaquetteError
from ..sampling.lora_tags import MAX_MULTIPLIER
from ..weights.merge import Lora

_OPTIONS = re.compile(r"(?P<file>.+?):(?P<told>[-+]?[0-9.][-+0-9.eE]*(,.*)?|(te|unet|lbw)=.*)", re.DOTALL)
_KEYS = ("te", "unet", "lbw")


@dataclass(frozen=True)
class LoraOption:
    """What was written: the file, multipliers for text encoders and UNet, and block weights as text, "" for none."""

    file: Path
    te: float = 1.0
    unet: float = 1.0
    lbw: str = ""

    @property
    def weight(self) -> str:
        """The strength in words, for the family tree."""
        weights = f"{self.te:g}" if self.te == self.unet else f"te {self.te:g}, unet {self.unet:g}"
        return f"{weights}, lbw {self.lbw}" if self.lbw else weights

    def opened(self, family: str, presets: Mapping[str, str] | None = None) -> Lora:
        """The adapter with its strengths. family: of the model, which the block weights' list must fit."""
        adapter = load(self.file)
        return self.of(adapter, family, presets)

    def of(self, adapter: Adapter, family: str, presets: Mapping[str, str] | None = None) -> Lora:
        """The strengths for an adapter that was opened already."""
        blocks = block_weights.parse(self.lbw, family, presets) if self.lbw else None
        return Lora(adapter, self.te, self.unet, blocks)


def parse(text: str) -> LoraOption:
    """A LoRA as written. One number stands for both networks; `te=` and `unet=` override it. lbw: a list of numbers
    with commas, or a preset's name.

    Raises MaquetteError for anything else, with the way to write it.
    """
    match = _OPTIONS.fullmatch(text)
    if match is None or Path(text).exists():
        return LoraOption(Path(text))
    first, *rest = match["told"].split(",")
    values: dict[str, str] = {}
    if "=" in first:
        rest.insert(0, first)
    else:
        values["te"] = values["unet"] = first
    last = ""
    for piece in rest:
        key, equals, value = piece.partition("=")
        if equals and key.strip() in _KEYS:
            last = key.strip()
            values[last] = value
        elif last == "lbw" and not equals:
            values["lbw"] += f",{piece}"
        else:
            raise MaquetteError(f"{text}: {piece!r} has no meaning; {_how()}")
    numbers = {key: _number(text, values[key]) for key in ("te", "unet") if key in values}
    return LoraOption(Path(match["file"]), numbers.get("te", 1.0), numbers.get("unet", 1.0), values.get("lbw", ""))


def _number(text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError as error:
        raise MaquetteError(f"{text}: {value!r} is no number; {_how()}") from error
    if not abs(number) <= MAX_MULTIPLIER or math.isnan(number):
        raise MaquetteError(f"{text}: a multiplier lies between -{MAX_MULTIPLIER:g} and {MAX_MULTIPLIER:g}.")
    return number


def _how() -> str:
    return "write FILE, FILE:0.8, FILE:0.8,te=0.5 or FILE:0.8,lbw=OUTALL."
