"""How strong a LoRA, or a share of a blend, is in each block of the UNet: the field's lists of numbers and presets.

Blocks are called as in A1111's extensions, after the LDM names: IN00 … (`input_blocks`), M00 (`middle_block`), OUT00 …
(`output_blocks`), and BASE for the text encoders and what stands outside the blocks. A list has 17 values for a LoRA
and 26 for all blocks of Stable Diffusion 1 and 2, or 12 and 20 for SDXL; what a shorter list leaves out gets 0 (as
sd-webui-lora-block-weight does).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import MaquetteError
from ..files import read_text
from ..formats import keys
from ..formats.keys import UNetLayout
from ..limits import CONFIGURATION_BYTES
from . import kohya_names

BASE = "BASE"
_DEPTH = {"sd1": 12, "sd2": 12, "sdxl": 9, "pocket": 6}  # input blocks, as many as output blocks
_LAYOUTS = {"sdxl": keys.SDXL_LAYOUT, "pocket": UNetLayout(1, frozenset({0, 1}))}
# The blocks in which a LoRA on attention has layers.
_ATTENTION = {
    "sd1": ((1, 2, 4, 5, 7, 8), range(3, 12)),
    "sd2": ((1, 2, 4, 5, 7, 8), range(3, 12)),
    "sdxl": ((4, 5, 7, 8), range(6)),
}
_MOST = 100.0
_LIST = re.compile(r"[-+0-9.,\seE]+")
_BLOCK = re.compile(r"(input_blocks|middle_block|output_blocks)\.(\d+)\.")


def blocks(family: str) -> tuple[str, ...]:
    """Every block of a family, in the order of the full list: BASE, IN00 …, M00, OUT00 …"""
    depth = range(_DEPTH.get(family, 12))
    return (BASE, *(f"IN{i:02}" for i in depth), "M00", *(f"OUT{i:02}" for i in depth))


def attention_blocks(family: str) -> tuple[str, ...]:
    """The blocks of the short list, which a LoRA on attention layers has."""
    if family not in _ATTENTION:
        return blocks(family)
    inside, outside = _ATTENTION[family]
    return (BASE, *(f"IN{i:02}" for i in inside), "M00", *(f"OUT{i:02}" for i in outside))


def block_of_layer(part: str, path: str, layout: UNetLayout) -> str:
    """The block of a layer. part: "unet", or a text encoder; path: its diffusers path."""
    if part != "unet":
        return BASE
    ldm = keys.unet_to_ldm(path, layout)
    if match := _BLOCK.match(f"{ldm}."):
        return (
            "M00" if match[1] == "middle_block" else f"{match[1][:-10].upper().removesuffix('PUT')}{int(match[2]):02}"
        )
    return "OUT" if ldm.startswith("out.") else BASE


def block_of(name: str, family: str) -> str:
    """The block of a LoRA's module. Raises ValueError for names of no layer."""
    found = block_of_layer(*kohya_names.layer(name), _LAYOUTS.get(family, keys.SD_LAYOUT))
    return blocks(family)[-1] if found == "OUT" else found


@dataclass(frozen=True)
class BlockWeights:
    """A number for each block of a family; blocks that are not named have 0."""

    family: str
    values: Mapping[str, float]

    def of_block(self, block: str) -> float:
        """The number of a block; "OUT", the output layers behind all blocks, goes with the last."""
        return self.values.get(blocks(self.family)[-1] if block == "OUT" else block, 0.0)

    def of_module(self, name: str) -> float:
        """The number for a LoRA's module; 1 for a name that is no layer of Stable Diffusion."""
        try:
            return self.of_block(block_of(name, self.family))
        except ValueError:
            return 1.0


def parse(text: str, family: str, presets: Mapping[str, str] | None = None) -> BlockWeights:
    """Block weights as they are written: numbers with commas between them, or the name of a preset.

    family: "sd1", "sd2", "sdxl", "pocket", or any other word for Stable Diffusion 1. presets: name -> list of numbers,
    of a person's own file, before those that are built in. Raises MaquetteError for lists of another length.
    """
    text = text.strip()
    if presets and text in presets:
        return _numbers(presets[text], family, f"the preset {text}")
    if text in PRESETS:
        return BlockWeights(family, PRESETS[text](family))
    if not _LIST.fullmatch(text):
        known = [*(presets or {}), *PRESETS]
        near = difflib.get_close_matches(text, known, 1, 0.6)
        hint = f"did you mean {near[0]}? " if near else ""
        raise MaquetteError(
            f"there is no preset of block weights called {text[:60]!r}; {hint}Known are {', '.join(known)}."
        )
    return _numbers(text, family, f"the block weights {_short(text)}")


def read_presets(path: str | Path) -> dict[str, str]:
    """Name -> list of numbers, of a file in the form of A1111's extension: `NAME:1,0,…` on each line, # for comments.

    Raises MaquetteError naming the line that is otherwise.
    """
    found = {}
    for number, line in enumerate(read_text(path, CONFIGURATION_BYTES, "file of presets").splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        name, colon, values = line.partition(":")
        if not colon or not _LIST.fullmatch(values):
            raise MaquetteError(f"{path}, line {number}: write a preset as NAME:1,0,0.5,…")
        found[name.strip()] = values.strip()
    return found


def _numbers(text: str, family: str, what: str) -> BlockWeights:
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError as error:
        raise MaquetteError(f"{what} hold something that is no number; write them as 1,0,0.5,…") from error
    if not all(abs(value) <= _MOST for value in values):  # not so for NaN either
        raise MaquetteError(f"{what} hold a number that is not between -{_MOST:g} and {_MOST:g}.")
    lists = {len(names): names for names in (blocks(family), attention_blocks(family))}
    if len(values) not in lists:
        wanted = " or ".join(str(count) for count in sorted(lists))
        raise MaquetteError(f"{what} are {len(values)} values; this kind of model takes {wanted}.")
    return BlockWeights(family, dict(zip(lists[len(values)], values, strict=True)))


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}…"


def _chosen(*ranges: Callable[[int], Iterable[str]], base: float = 1.0) -> Callable[[str], dict[str, float]]:
    """A preset of ones in the blocks that the functions name; they are given the number of input blocks."""

    def make(family: str) -> dict[str, float]:
        depth = _DEPTH.get(family, 12)
        wanted = {block for names in ranges for block in names(depth)}
        usual = set(attention_blocks(family))
        return {BASE: base} | {block: 1.0 for block in blocks(family) if block in wanted & usual}

    return make


def _in(first: float, last: float) -> Callable[[int], Iterable[str]]:
    """Input blocks from a share of the depth to another."""
    return lambda depth: [f"IN{i:02}" for i in range(round(first * depth), round(last * depth))]


def _out(first: float, last: float) -> Callable[[int], Iterable[str]]:
    return lambda depth: [f"OUT{i:02}" for i in range(round(first * depth), round(last * depth))]


def _middle(depth: int) -> Iterable[str]:
    return ["M00"]


def _curve(value: Callable[[float, int, int], float]) -> Callable[[str], dict[str, float]]:
    """A preset from x in [0, 1] along the UNet, the block's place from 0 on, and the last place; BASE has 0."""

    def make(family: str) -> dict[str, float]:
        inner = blocks(family)[1:]
        last = len(inner) - 1
        return {BASE: 0.0} | {block: value(i / last, i, last) for i, block in enumerate(inner)}

    return make


def _all(number: float) -> Callable[[str], dict[str, float]]:
    return lambda family: dict.fromkeys(blocks(family), number)


def _wrap(count: int) -> Callable[[str], dict[str, float]]:
    return _curve(lambda x, i, last: float(i < count // 2 or i > last - count // 2))


def _smooth(x: float) -> float:
    return x * x * (3 - 2 * x)


PRESETS: dict[str, Callable[[str], dict[str, float]]] = {
    # sd-webui-lora-block-weight's, for LoRAs. Of SDXL, for which it has none, the same share of the depth.
    "NONE": _all(0.0),
    "ALL": _all(1.0),
    "ALL0.5": _all(0.5),
    "INS": _chosen(_in(0, 5 / 12)),
    "IND": _chosen(_in(5 / 12, 1)),
    "INALL": _chosen(_in(0, 1)),
    "MIDD": _chosen(_in(5 / 12, 1), _middle, _out(0, 7 / 12)),
    "OUTD": _chosen(_out(0, 7 / 12)),
    "OUTS": _chosen(_out(7 / 12, 1)),
    "OUTALL": _chosen(_out(0, 1)),
    # supermerger's, for blends: the share of the second model.
    "GRAD_V": _curve(lambda x, i, last: abs(1 - 2 * x)),
    "GRAD_A": _curve(lambda x, i, last: 1 - abs(1 - 2 * x)),
    "FLAT_25": _curve(lambda x, i, last: 0.25),
    "FLAT_75": _curve(lambda x, i, last: 0.75),
    "WRAP08": _wrap(8),
    "WRAP12": _wrap(12),
    "WRAP14": _wrap(14),
    "WRAP16": _wrap(16),
    "SMOOTHSTEP": _curve(lambda x, i, last: _smooth(x)),
    "REVERSE-SMOOTHSTEP": _curve(lambda x, i, last: 1 - _smooth(x)),
    "COSINE": _curve(lambda x, i, last: (1 + math.cos(math.pi * x)) / 2),
    "REVERSE_COSINE": _curve(lambda x, i, last: (1 - math.cos(math.pi * x)) / 2),
}
"""Name -> what gives block -> number for a family."""
