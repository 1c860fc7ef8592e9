"""The cells of a grid: their settings, files and labels, and the order of drawing that loads least."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import MaquetteError
from ...parsing import parse_json
from ...prompts import parse_networks, strip_comments
from ..apply_embeddings import all_files
from ..jobs import MAX_SEED
from ..styles import DEFAULT_FILE
from .axes import NOTHING, Axis, read_axis
from .changes import Change, changed
from .settings import GridConfig

MOST_CELLS = 10_000
_OF_THE_GRID = {"x", "y", "z", "out"}


@dataclass(frozen=True)
class Cell:
    """place: (x, y, z), from 0. settings: parsed as a drawing's own would be."""

    place: tuple[int, int, int]
    settings: GridConfig

    @property
    def file(self) -> str:
        x, y, z = self.place
        return f"cells/z{z + 1}-y{y + 1}-x{x + 1}.png"


@dataclass(frozen=True)
class Plan:
    """axes: x, y, z. cells: x running fastest, then y. asked: what a grid that goes on must ask for again."""

    axes: tuple[Axis, Axis, Axis]
    cells: list[Cell]
    asked: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        x, y, z = (len(axis.labels) for axis in self.axes)
        return x, y, z

    def labels(self, axis: int) -> list[str]:
        """With the axis' title before each value."""
        chosen = self.axes[axis]
        return [f"{chosen.title} {label}".strip() for label in chosen.labels]

    def in_order(self) -> list[Cell]:
        """For drawing: what costs most changes least often: bases, then other models, LoRAs, weights, and the rest."""
        costs = [_opened, _others, _loras, _tags]
        first: list[dict[Any, int]] = [{} for _ in costs]
        keys = {}
        for i, cell in enumerate(self.cells):
            prices = [cost(cell.settings) for cost in costs]
            keys[cell.place] = (*(seen.setdefault(key, i) for seen, key in zip(first, prices, strict=True)), i)
        return sorted(self.cells, key=lambda cell: keys[cell.place])


def plan_of(config: GridConfig, seeds: dict[str, int] | None = None) -> Plan:
    """All cells, each checked as a drawing's settings are. seeds: instead of those that are -1, as a grid that goes on
    has them. Raises MaquetteError for an axis that cannot be read and for settings that do not go together.
    """
    axes = read_axis(config.x, config), read_axis(config.y, config), read_axis(config.z, config)
    if axes == (NOTHING,) * 3:
        raise MaquetteError("A grid needs an axis: give --x NAME=VALUES, such as --x seed=1-4.")
    values = {key: value for key, value in config.given().items() if key not in _OF_THE_GRID}
    for key in ("batch_size", "batch_count"):
        if values.get(key, 1) != 1:
            raise MaquetteError(f"A grid draws one picture a cell; leave out {key} and give an axis seed=1-4.")
    settings = _plain(config.model_dump(exclude_unset=True, exclude=_OF_THE_GRID))
    asked = {"axes": {"x": config.x, "y": config.y, "z": config.z}, "settings": settings}
    seeds = seeds or {key: secrets.randbelow(MAX_SEED) for key in ("seed", "variation_seed")}
    axes = _seeded(axes[0], seeds), _seeded(axes[1], seeds), _seeded(axes[2], seeds)
    x, y, z = (len(axis.labels) for axis in axes)
    if x * y * z > MOST_CELLS:
        raise MaquetteError(f"This grid would have {x * y * z} pictures; {MOST_CELLS} is the most.")
    cells = []
    for k, j, i in itertools.product(range(z), range(y), range(x)):
        place = i, j, k
        cell_values = changed(values, [axis.changes[n] for axis, n in zip(axes, place, strict=True)])
        for key, seed in seeds.items():
            if cell_values.get(key, -1) == -1:
                cell_values[key] = seed
        cells.append(Cell(place, GridConfig.parse(cell_values, "the grid")))
    return Plan(axes, cells, {**asked, "seeds": seeds})


def _seeded(axis: Axis, seeds: dict[str, int]) -> Axis:
    """An axis of seeds with a seed of its own for each -1, as A1111 has it: those behind the one that was drawn."""
    for key, seed in seeds.items():
        numbers = [change.keys.get(key) for change in axis.changes]
        if -1 in numbers:
            found = [seed + i if number == -1 else number for i, number in enumerate(numbers)]
            axis = Axis(axis.title, [str(number) for number in found], [Change(keys={key: n}) for n in found])
    return axis


def _plain(values: dict[str, Any]) -> Any:
    """As JSON gives them back."""
    return parse_json(json.dumps(values, default=_written), "the settings")


def _written(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)


def _opened(settings: GridConfig) -> Any:
    return settings.base, *settings.opening().values()


def _others(settings: GridConfig) -> Any:
    return settings.hires_base, settings.refiner, *(unit.model for unit in settings.controls)


def _loras(settings: GridConfig) -> Any:
    return tuple(tag.positional[:1] and tag.positional[0] for tag in _networks(settings))


def _tags(settings: GridConfig) -> Any:
    return tuple(str(tag) for tag in _networks(settings))


def _networks(settings: GridConfig) -> Any:
    texts = [settings.prompt, settings.hires_prompt or ""]
    read = [strip_comments(text) for text in texts] if settings.prompt_comments else texts
    return [tag for text in read for tag in parse_networks(text)[1]]


def files_of(plan: Plan, found: Callable[[Sequence[str], Path | None], dict[str, Path]]) -> list[Path]:
    """Every file that the cells are drawn with, in order of names. found: LoRAs by name. Raises MaquetteError for one
    that is not there.
    """
    paths: set[Path] = set()
    named: dict[Path | None, set[str]] = {}
    for cell in plan.cells:
        names = {tag.positional[0] for tag in _networks(cell.settings) if tag.positional and not cell.settings.lenient}
        named.setdefault(cell.settings.lora_dir, set()).update(names)
    for folder, names in named.items():
        paths |= set(found(sorted(names), folder).values())
    for cell in plan.cells:
        settings = cell.settings
        own = [settings.vae, None if settings.base == "pocket" else settings.base, settings.init_image, settings.mask]
        own += [settings.hires_base, settings.refiner, settings.hires_upscaler]
        own += [each for unit in settings.controls for each in (unit.model, unit.image)]
        own += [settings.block_weights, settings.wildcard_dir]
        own += [settings.styles_file or DEFAULT_FILE] if settings.styles else []
        paths |= {Path(each) for each in own if each and Path(each).exists()}
    return sorted(paths | _embeddings(plan.cells))


def _embeddings(cells: Sequence[Cell]) -> set[Path]:
    """The textual inversions that the cells' words may call."""
    found: set[Path] = set()
    for folder in {cell.settings.embedding_dir for cell in cells}:
        own = (cell.settings for cell in cells if cell.settings.embedding_dir == folder)
        prompts = {(each.prompt, each.negative_prompt, each.hires_prompt, each.hires_negative_prompt) for each in own}
        texts = " ".join(text.lower() for each in prompts for text in each if text)
        found |= {file for file in all_files(folder) if file.stem.lower() in texts}
    return found
