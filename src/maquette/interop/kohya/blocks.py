"""Kohya's numbered blocks of a UNet, 25 of Stable Diffusion 1 and 2 and 23 of SDXL, and maquette's ranks by name.

There a rank and an alpha stand for each number, for convolutions with a kernel apart; here the ranks go by parts of
layers' names. Either says what the other does, as far as all layers of a block are alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from ...config import TrainConfig
from ...errors import MaquetteError
from ...families.trainable import kohya_names
from ...methods.base import MethodSpec
from ...methods.spec import spec_of

_SD = re.compile(r"lora_unet_((down|up)_blocks_(\d)_(resnets|attentions|downsamplers|upsamplers)_(\d)_|(mid_block)_)")
_SDXL = re.compile(r"lora_unet_((input_blocks|middle_block|output_blocks)_(\d)_)")
_SDXL_FIRST = {"input_blocks": 1, "middle_block": 10, "output_blocks": 13}
_IN_ATTENTION = re.compile(r"transformer_blocks|_proj_(in|out)$")
KEYS = ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas")

Layers = dict[str, bool]
"""Names of layers, and whether each has a kernel larger than 1 x 1."""


def count(xl: bool) -> int:
    """How many blocks there are; the first of all and SDXL's last have no layer that a LoRA could adapt."""
    return 23 if xl else 25


def place(name: str, xl: bool) -> tuple[int, str] | None:
    """The block's number of a layer, and the part of its name that this block's layers of the kind begin with."""
    match = (_SDXL if xl else _SD).match(name)
    if match is None:
        return None
    if xl:
        return _SDXL_FIRST[match[2]] + int(match[3]), match[1]
    if match[6]:
        return 12, match[1]
    inside = 2 if match[4].endswith("samplers") else int(match[5])
    return (1 if match[2] == "down" else 13) + 3 * int(match[3]) + inside, match[1]


@cache
def _table(xl: bool, conv: bool) -> dict[int, dict[str, Layers]]:
    """Number -> beginning of names -> the layers that are trained, of the full-size UNet."""
    table: dict[int, dict[str, Layers]] = {}
    for key, shape in kohya_names("sdxl" if xl else "sd1", conv=True).items():
        name, _, what = key.partition(".")
        found = place(name, xl)
        if what == "lora_down.weight" and found and (conv or _IN_ATTENTION.search(name)):
            table.setdefault(found[0], {}).setdefault(found[1], {})[name] = shape[2:] not in ((), (1, 1))
    return table


def write(config: TrainConfig, xl: bool, conv: bool) -> dict[str, str] | None:
    """Kohya's lists for a configuration's block_ranks and block_alphas; None where a block's layers are not alike."""
    spec = spec_of(config)
    table = _table(xl, conv)
    lists: dict[str, list[str]] = {key: [] for key in (KEYS if conv else KEYS[:2])}
    for number in range(count(xl)):
        layers = {name: kernel for group in table.get(number, {}).values() for name, kernel in group.items()}
        for kernel, prefix in ((False, ""), (True, "conv_"))[: 1 + conv]:
            wanted = {_numbers(spec, name, kernel) for name, has in layers.items() if has == kernel}
            if len(wanted) > 1:
                return None
            rank, alpha = wanted.pop() if wanted else spec.rank_and_alpha(kernel)
            lists[f"{prefix}block_dims"].append(str(rank))
            lists[f"{prefix}block_alphas"].append(f"{alpha:g}")
    return {key: ",".join(values) for key, values in lists.items()}


def _numbers(spec: MethodSpec, name: str, kernel: bool) -> tuple[int, float]:
    return (0, 1.0) if spec.block_rank(name) == 0 else spec.for_module(name).rank_and_alpha(kernel)


def read(
    arguments: Mapping[str, str], plain: tuple[int, float], kernels: tuple[int, float] | None, source: str
) -> tuple[dict[str, int], dict[str, float]]:
    """block_ranks and block_alphas for Kohya's lists. There is one of block_dims, and its length tells the family.

    plain: rank and alpha of layers without a list; kernels: those of convolutions, None where none is trained.
    Raises MaquetteError for a list that is too long, too short or not of numbers.
    """
    size = arguments["block_dims"].count(",") + 1
    xl = size == count(True)
    if not xl and size != count(False):
        raise MaquetteError(
            f"{source}: block_dims has {size} numbers; the UNet of Stable Diffusion 1 and 2 has {count(False)} blocks, "
            f"that of SDXL {count(True)}."
        )
    conv = kernels is not None or "conv_block_dims" in arguments
    beside = kernels or (plain[0], 1.0)
    lists = {
        kernel: [_list(arguments, f"{prefix}block_{what}", size, default, source)
                 for what, default in zip(("dims", "alphas"), usually, strict=True)]
        for kernel, prefix, usually in ((False, "", plain), (True, "conv_", beside))
    }  # fmt: skip
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}

    def tell(pattern: str, wanted: tuple[int, float]) -> None:
        ranks[pattern] = wanted[0]
        if wanted[0]:
            alphas[pattern] = wanted[1]

    for number, groups in sorted(_table(xl, conv).items()):
        own = {kernel: (int(dims[number]), alpha[number] or dims[number]) for kernel, (dims, alpha) in lists.items()}
        for beginning, layers in groups.items():
            usual = {False: plain, True: beside}
            first = not all(layers.values())  # whether the group has layers without kernels
            if own[not first] != usual[not first]:
                tell(beginning, own[not first])
                usual[True] = own[not first]
            if first and own[True] != usual[True]:
                for name in (name for name, kernel in layers.items() if kernel):
                    tell(name.removeprefix("lora_unet_"), own[True])
    return ranks, alphas


def _list(arguments: Mapping[str, str], key: str, size: int, default: float, source: str) -> list[float]:
    if key not in arguments:
        return [default] * size
    try:
        values = [float(value) for value in arguments[key].split(",")]
    except ValueError as error:
        raise MaquetteError(f"{source}: {key} = {arguments[key]} is not a list of numbers.") from error
    if len(values) != size:
        raise MaquetteError(f"{source}: {key} has {len(values)} numbers, but block_dims {size}.")
    return values
