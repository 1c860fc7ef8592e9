"""The prompts of a drawing: without comments, and the LoRAs that their tags name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import adapters
from ..adapters import block_weights
from ..adapters.file import Adapter
from ..errors import MaquetteError
from ..files import read_object
from ..prompts import Network, parse_networks, replace_networks, strip_comments
from .lora_folder import find_loras, known_lora
from .lora_tags import LoraTag, Wish, first_ranks, tags_of


@dataclass(frozen=True)
class Reading:
    """How prompts are read.

    family: of the base, for block weights. comments: leave out what stands behind #. lora_dir: where LoRAs are looked
    for. presets: a file of block weights by name. lenient: go on without a LoRA that is not there, as A1111 does.
    activation: add the words that a LoRA's side-car asks for, and take its weight where none is written. known: LoRAs
    by name, instead of those of a folder.
    """

    family: str = "sd1"
    comments: bool = True
    lora_dir: Path | None = None
    presets: Path | None = None
    lenient: bool = False
    activation: bool = False
    known: Mapping[str, Path] | None = None


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

    @classmethod
    def read(cls, prompt: str, negative: str, how: Reading, load: Callable[[Path], Adapter] = adapters.load) -> Words:
        """load: opens a LoRA's file. Raises MaquetteError for a tag at fault, an unknown LoRA, too long a prompt."""
        given = [prompt, negative]
        if how.comments:
            prompt, negative = strip_comments(prompt), strip_comments(negative)
        plain, networks = parse_networks(prompt)
        tags = tags_of(networks, plain)
        warnings = _warnings(given, [prompt, negative], negative)
        files = _found(tags, how, warnings)
        tags = [tag for tag in tags if tag.name in files]
        cars = {name: side_car(file) for name, file in files.items()}
        hints = []
        if how.activation:
            added = _activation(plain, cars)
            prompt = replace_networks(prompt, lambda network: _weighed(network, cars)) + added
            plain, networks = parse_networks(prompt)
            tags = [tag for tag in tags_of(networks, plain) if tag.name in files]
        else:
            hints = [text for name, car in cars.items() if (text := _hint(name, car, plain))]
        presets = block_weights.read_presets(how.presets) if how.presets else {}
        loras = [_wish(tag, load(files[tag.name]), how.family, presets) for tag in tags]
        return cls(prompt, plain, negative, files, loras, warnings, hints)

    @property
    def adapters(self) -> list[Adapter]:
        return [wish.adapter for wish in self.loras]


def side_car(file: Path) -> dict[str, Any]:
    """What stands in A1111's NAME.json beside a LoRA; nothing where there is none that can be read."""
    path = file.with_suffix(".json")
    try:
        return read_object(path) if path.is_file() else {}
    except MaquetteError:
        return {}


def _found(tags: Sequence[LoraTag], how: Reading, warnings: list[str]) -> dict[str, Path]:
    """Name -> file, in the order of the tags; lenient: without those that are not there."""
    files: dict[str, Path] = {}
    for name in dict.fromkeys(tag.name for tag in tags):
        try:
            files |= find_loras([name], how.lora_dir) if how.known is None else known_lora(name, how.known)
        except MaquetteError as error:
            if not how.lenient:
                raise
            warnings.append(f"{error} Drawn without it.")
    return files


def _wish(tag: LoraTag, adapter: Adapter, family: str, presets: Mapping[str, str]) -> Wish:
    if tag.rank is not None:
        adapter = first_ranks(adapter, tag.rank)
    blocks = None
    if tag.blocks is not None:
        try:
            blocks = block_weights.parse(tag.blocks, family, presets)
        except MaquetteError as error:
            raise MaquetteError(f"The prompt's <lora:{tag.name}:…:lbw=…>: {error}") from error
    return Wish(adapter, tag.te, tag.unet, blocks, tag.start, tag.stop)


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


def _activation(plain: str, cars: Mapping[str, Mapping[str, Any]]) -> str:
    """The words of the side-cars that the prompt lacks, with commas in front."""
    missing = dict.fromkeys(_asked(car) for car in cars.values())
    return "".join(f", {words}" for words in missing if words and words not in plain)


def _hint(name: str, car: Mapping[str, Any], plain: str) -> str | None:
    words = _asked(car)
    if not words or words in plain:
        return None
    return f"{name} is called by the words {words!r}, which the prompt lacks; --activation adds them."


def _warnings(given: Sequence[str], kept: Sequence[str], negative: str) -> list[str]:
    """What is done as in A1111 and may surprise: comments that go, tags of the negative prompt that do nothing."""
    warnings = []
    for whole, part in zip(given, kept, strict=True):
        if whole != part:
            comment = whole[whole.index("#") :].split("\n")[0]
            warnings.append(
                f"{comment[:60]!r} in the prompt is a comment and left out, as in A1111; --no-prompt-comments keeps it."
            )
    if tags := parse_networks(negative)[1]:
        warnings.append(f"<{tags[0].kind}:…> in the negative prompt is read as words; name LoRAs in the prompt itself.")
    return warnings
