"""Which layers have a weight at each family's full size, as names alone: without torch, slow to import."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ..adapters.kohya_names import named
from ..errors import MaquetteError
from ..formats.headers import header_of

_POCKET = Path(__file__).parent / "pocket" / "weights"

# `{a,b}` stands for a and for b, `{0-3}` for the numbers from 0 to 3; as in a shell.
_ATTENTION = "attn{1,2}.to_{q,k,v,out.0}"
_TRANSFORMER = f"transformer_blocks.%s.{{norm{{1-3}},{_ATTENTION},ff.net.{{0.proj,2}}}}"
_AROUND = "{norm,proj_in,proj_out}"
_RESNET = "{norm1,conv1,time_emb_proj,norm2,conv2}"
_ENDS = "{conv_in,conv_out,conv_norm_out,time_embedding.linear_{1,2}}"


def _level(block: str, layers: str, depth: str = "") -> list[str]:
    """The residual blocks of a level, and the transformers behind them."""
    found = [f"{block}.resnets.{layers}.{_RESNET}"]
    if depth:
        found.append(f"{block}.attentions.{layers}.{{{_AROUND},{_TRANSFORMER % depth}}}")
    return found


def _middle(depth: str) -> list[str]:
    return [
        f"mid_block.resnets.{{0,1}}.{_RESNET}",
        f"mid_block.attentions.0.{{{_AROUND},{_TRANSFORMER % depth}}}",
    ]


_UNET_1 = [
    _ENDS,
    *_level("down_blocks.{0-2}", "{0,1}", "0"),
    *_level("down_blocks.3", "{0,1}"),
    *_middle("0"),
    *_level("up_blocks.0", "{0-2}"),
    *_level("up_blocks.{1-3}", "{0-2}", "0"),
    "{down_blocks.{1,2}.resnets.0,up_blocks.{0-3}.resnets.{0-2}}.conv_shortcut",
    "{down_blocks.{0-2}.down,up_blocks.{0-2}.up}samplers.0.conv",
]
_UNET_XL = [
    _ENDS,
    "add_embedding.linear_{1,2}",
    *_level("down_blocks.0", "{0,1}"),
    *_level("down_blocks.1", "{0,1}", "{0,1}"),
    *_level("down_blocks.2", "{0,1}", "{0-9}"),
    *_middle("{0-9}"),
    *_level("up_blocks.0", "{0-2}", "{0-9}"),
    *_level("up_blocks.1", "{0-2}", "{0,1}"),
    *_level("up_blocks.2", "{0-2}"),
    "{down_blocks.{1,2}.resnets.0,up_blocks.{0-2}.resnets.{0-2}}.conv_shortcut",
    "{down_blocks.{0,1}.down,up_blocks.{0,1}.up}samplers.0.conv",
]


def _text(last: int) -> list[str]:
    layer = "{self_attn.{q,k,v,out}_proj,layer_norm{1,2},mlp.fc{1,2}}"
    return [f"{{embeddings.{{token,position}}_embedding,final_layer_norm,encoder.layers.{{0-{last}}}.{layer}}}"]


_FAMILIES = {
    "sd1": {"unet": _UNET_1, "te": _text(11)},
    "sd2": {"unet": _UNET_1, "te": _text(22)},
    "sdxl": {"unet": _UNET_XL, "te1": _text(11), "te2": [*_text(31), "text_projection"]},
}


@cache
def layer_names(family: str) -> frozenset[str]:
    """The name of every layer with a weight at a family's full size, whether or not Kohya's trainer adapts it.

    Raises MaquetteError for an unknown family.
    """
    return frozenset(named(part, path) for part, paths in _paths(family).items() for path in paths)


def _paths(family: str) -> dict[str, list[str]]:
    """Part as adapters call it -> diffusers or transformers paths."""
    if family == "pocket":
        files = {"unet": "unet/diffusion_pytorch_model", "te": "text_encoder/model"}
        return {part: _in_file(_POCKET / f"{file}.safetensors") for part, file in files.items()}
    if family not in _FAMILIES:
        raise MaquetteError(f"there is no family {family!r}; choose from sd1, sd2, sdxl and pocket.")
    return {
        part: [p for pattern in patterns for p in _expanded(pattern)] for part, patterns in _FAMILIES[family].items()
    }


def _in_file(path: Path) -> list[str]:
    return [name.removesuffix(".weight") for name in header_of(str(path)) if name.endswith(".weight")]


def _expanded(pattern: str) -> Iterator[str]:
    """All that a pattern stands for, each once."""
    before, brace, rest = pattern.partition("{")
    if not brace:
        yield pattern
        return
    words, behind = _words(rest)
    for word in words:
        for middle in _expanded(word):
            for end in _expanded(behind):
                yield before + middle + end


def _words(rest: str) -> tuple[list[str], str]:
    """What stands between the commas up to the brace that closes, and what follows it."""
    words, depth = [""], 0
    for place, letter in enumerate(rest):
        if letter == "}" and depth == 0:
            span = re.fullmatch(r"(\d+)-(\d+)", words[0])
            return [*map(str, range(int(span[1]), int(span[2]) + 1))] if span else words, rest[place + 1 :]
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            words.append("")
        else:
            words[-1] += letter
    raise ValueError(f"a brace is not closed: {rest}")
