"""The words of a drawing, and the LoRAs that a prompt's tags name, with what their side-cars ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..adapters import block_weights
from ..adapters.file import Adapter
from ..errors import MaquetteError
from ..parsing import read_object
from ..prompts import Network, parse_networks, replace_networks
from .draw_settings import PromptSettings
from .lora_folder import find_loras, known_lora
from .lora_tags import LoraTag, Wish, first_ranks


@dataclass
class Words:
    """The prompts without comments; the prompt also without its tags (plain), and what these name. hints: sentences on
    what a LoRA's side-car suggests.
    """

    prompt: str
    plain: str
    negative: str
    files: dict[str, Path]
    loras: list[Wish]
    warnings: list[str]
    hints: list[str]

    @property
    def adapters(self) -> list[Adapter]:
        return [wish.adapter for wish in self.loras]


def files_of(
    tags: Sequence[LoraTag], settings: PromptSettings, known: Mapping[str, Path] | None, warnings: list[str]
) -> dict[str, Path]:
    """Name -> file, in the order of the tags. known: LoRAs by name, instead of those of a folder.

    Raises MaquetteError for a LoRA that is not there; lenient settings go on without it, as A1111 does, and add to the
    warnings.
    """
    files: dict[str, Path] = {}
    for name in dict.fromkeys(tag.name for tag in tags):
        try:
            files |= find_loras([name], settings.lora_dir) if known is None else known_lora(name, known)
        except MaquetteError as error:
            if not settings.lenient:
                raise
            warnings.append(f"{error} Drawn without it.")
    return files


def wish_of(tag: LoraTag, adapter: Adapter, family: str, presets: Mapping[str, str]) -> Wish:
    """What a tag asks for. family: of the base, for block weights; presets: block weights by name.

    Raises MaquetteError for block weights at fault.
    """
    if tag.rank is not None:
        adapter = first_ranks(adapter, tag.rank)
    blocks = None
    if tag.blocks is not None:
        try:
            blocks = block_weights.parse(tag.blocks, family, presets)
        except MaquetteError as error:
            raise MaquetteError(f"The prompt's <lora:{tag.name}:…:lbw=…>: {error}") from error
    return Wish(adapter, tag.te, tag.unet, blocks, tag.start, tag.stop)


def side_cars(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """What stands in A1111's NAME.json beside each LoRA; nothing where there is none that can be read."""
    return {name: _side_car(file.with_suffix(".json")) for name, file in files.items()}


def _side_car(path: Path) -> dict[str, Any]:
    try:
        return read_object(path) if path.is_file() else {}
    except MaquetteError:
        return {}


def activated(prompt: str, plain: str, cars: Mapping[str, Mapping[str, Any]]) -> str:
    """The prompt with the words that side-cars ask for and it lacks, and with their weights where tags have none."""
    missing = dict.fromkeys(_asked(car) for car in cars.values())
    added = "".join(f", {words}" for words in missing if words and words not in plain)
    return replace_networks(prompt, lambda network: _weighed(network, cars)) + added


def _weighed(network: Network, cars: Mapping[str, Mapping[str, Any]]) -> str:
    """The tag, with its side-car's weight where it has none. A1111 writes 0 for none."""
    if len(network.positional) == 1 and not {"te", "unet"} & network.named.keys():
        weight = cars.get(network.positional[0], {}).get("preferred weight")
        if isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < abs(weight) <= 10:
            return str(replace(network, positional=[*network.positional, f"{weight:g}"]))
    return str(network)


def _asked(car: Mapping[str, Any]) -> str:
    words = car.get("activation text")
    return words.strip() if isinstance(words, str) else ""


def hints_of(plain: str, cars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each LoRA whose words the prompt lacks."""
    asked = {name: _asked(car) for name, car in cars.items()}
    return [
        f"{name} is called by the words {words!r}, which the prompt lacks: write them into it, or draw with activation."
        for name, words in asked.items()
        if words and words not in plain
    ]


def surprises(given: Sequence[str], kept: Sequence[str]) -> list[str]:
    """What is done as in A1111 and may surprise: comments that go, tags of the negative prompt that do nothing.

    given: prompt and negative prompt; kept: the same without comments.
    """
    warnings = []
    for whole, part in zip(given, kept, strict=True):
        if whole != part:
            comment = whole[whole.index("#") :].split("\n")[0]
            warnings.append(
                f"{comment[:60]!r} in the prompt is a comment and left out, as in A1111; write it without #, or draw "
                "with prompt_comments off."
            )
    if tags := parse_networks(kept[1])[1]:
        warnings.append(f"<{tags[0].kind}:…> in the negative prompt is read as words; name LoRAs in the prompt itself.")
    return warnings
