"""`maquette grid`: pictures over two or three axes, as one labelled picture, a page, and the single ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore
from ..files import is_regular, read_bytes, write_json, write_text
from ..formats.picture_files import read_parameters
from ..formats.png import write_png
from ..parsing import read_object
from ..report.grid_page import Shown, page, picture
from ..sampling.grid.plan import Cell, Plan, files_of, plan_of
from ..sampling.grid.settings import GridConfig
from ..sampling.lora_folder import find_loras
from ..sampling.pipeline import Pipeline

__all__ = ["GridConfig", "GridResult", "run"]

DEFAULT_OUT = Path("out/grid")
RECORD = "grid.json"
_CELL_BYTES = 200_000_000


@dataclass
class GridResult:
    """What a grid left behind. drawn: pictures of this time; kept: those that were there. picture and page: None where
    it was stopped before all were drawn.
    """

    out: str
    status: str  # "finished", or "stopped": the same command goes on
    picture: str | None
    page: str | None
    cells: list[str]
    drawn: int
    kept: int
    seconds: float
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(config: GridConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> GridResult:
    """Draw the cells that are not there yet, then the labelled picture and the page.

    A grid that was stopped or killed goes on where the same is asked for again, to the same bytes. Setting `cancel`
    ends after the picture at work. Raises MaquetteError before anything is drawn for what cannot be, and for a folder
    that holds another grid.
    """
    began = time.perf_counter()
    cancel = cancel or Cancel()
    out, plan = _begun(config)
    missing = [cell for cell in plan.in_order() if not _whole(out / cell.file)]
    result = GridResult(str(out), "stopped", None, None, [], 0, len(plan.cells) - len(missing), 0.0)
    _draw(plan, missing, out, result, on_event, cancel)
    result.cells = [str(out / cell.file) for cell in plan.cells if (out / cell.file).is_file()]
    if result.drawn == len(missing):
        result.status = "finished"
        shown = _shown(plan, out)
        result.picture, result.page = str(out / "grid.png"), str(out / "grid.html")
        write_png(picture(shown), out / "grid.png")
        write_text(out / "grid.html", page(shown))
        for path in (result.picture, result.page):
            on_event(Event("saved", {"path": path}))
    result.seconds = time.perf_counter() - began
    on_event(Event("done", result.to_json()))
    return result


def _begun(config: GridConfig) -> tuple[Path, Plan]:
    """The folder, with a record of what is asked for, and the plan with the seeds of the record."""
    plan = plan_of(config)
    files = _stamps(files_of(plan, find_loras))
    for out in [config.out] if config.out else _free_names():
        if (out / RECORD).exists():
            record = read_object(out / RECORD)
            asked = record.get("asked", {})
            same = isinstance(asked, dict) and {**asked, "seeds": None} == {**plan.asked, "seeds": None}
            if same and record.get("files") == files:
                return out, plan_of(config, _seeds(asked, out))
            if config.out is None:
                continue
            what = "drawn with files that have changed since" if same else "another grid"
            raise MaquetteError(f"{out} holds a grid {what}; give another --out." if same else _other(out))
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            if config.out is None:
                continue
            raise MaquetteError(f"{out} is there and holds no grid; give another --out.")
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / RECORD, {"asked": plan.asked, "files": files, "cells": _listed(plan)})
        return out, plan
    raise AssertionError  # names never end


def _other(out: Path) -> str:
    return f"{out} holds another grid; give another --out."


def _free_names() -> Iterator[Path]:
    yield DEFAULT_OUT
    number = 2
    while True:
        yield DEFAULT_OUT.with_name(f"{DEFAULT_OUT.name}-{number}")
        number += 1


def _seeds(asked: dict[str, Any], out: Path) -> dict[str, int]:
    seeds = asked.get("seeds")
    if not isinstance(seeds, dict) or not all(type(seed) is int and seed >= 0 for seed in seeds.values()):
        raise MaquetteError(f"{out / RECORD} is damaged: its seeds are no whole numbers.")
    return seeds


def _stamps(files: list[Path]) -> dict[str, list[int]]:
    """What shows that a file has changed: size and time, of folders their files'."""
    found = {}
    for file in files:
        inside = sorted(each for each in file.rglob("*") if each.is_file()) if file.is_dir() else [file]
        for each in inside:
            status = each.stat()
            found[str(each)] = [status.st_size, status.st_mtime_ns]
    return found


def _listed(plan: Plan) -> list[dict[str, Any]]:
    """For other programs: which file is which."""
    names = [[*plan.labels(axis)] for axis in range(3)]
    return [
        {"file": cell.file, "labels": [names[axis][place] for axis, place in enumerate(cell.place)]}
        for cell in plan.cells
    ]


def _whole(path: Path) -> bool:
    """Whether a cell is drawn. One that cannot be read is drawn again."""
    try:
        return is_regular(path) and bool(read_parameters(path))
    except MaquetteError:
        return False


def _draw(plan: Plan, missing: list[Cell], out: Path, result: GridResult, on_event: Listener, cancel: Cancel) -> None:
    began = time.perf_counter()

    def tell(event: Event) -> None:
        """What is told of each cell, once; progress is that of the grid."""
        if event.kind in ("warning", "finding") and event.data["message"] not in result.warnings:
            result.warnings.append(event.data["message"])
            on_event(event)

    with _Pipelines(tell) as pipelines:
        for cell in missing:
            if cancel.is_set():
                return
            pipeline = pipelines.of(cell.settings)
            found: list[Any] = []
            pipeline.draw(cell.settings, found.append, tell)
            write_png(found[0].image, out / cell.file, found[0].infotext)
            result.drawn += 1
            left = (time.perf_counter() - began) / result.drawn * (len(missing) - result.drawn)
            done, of = result.kept + result.drawn, len(plan.cells)
            on_event(Event("progress", {"what": "grid", "done": done, "of": of, "remaining_seconds": left}))


class _Pipelines:
    """The pipeline at work, which stays open while cells ask for the same base."""

    def __init__(self, on_event: Listener) -> None:
        self.on_event = on_event
        self.opened: tuple[Any, Pipeline] | None = None

    def __enter__(self) -> _Pipelines:
        return self

    def __exit__(self, *error: object) -> None:
        if self.opened is not None:
            self.opened[1].close()
            self.opened = None

    def of(self, settings: GridConfig) -> Pipeline:
        key = settings.base, settings.opening()
        if self.opened is None or self.opened[0] != key:
            self.__exit__()
            self.opened = (key, Pipeline(settings.base, **settings.opening()))
            for notice in self.opened[1].notices:
                self.on_event(Event("warning", {"message": notice}))
        return self.opened[1]


def _shown(plan: Plan, out: Path) -> Shown:
    """From the files, so that a grid in several goes is that in one."""
    paths = [out / cell.file for cell in plan.cells]
    first = plan.cells[0].settings
    x, y, z = plan.shape
    seeds = {cell.settings.seed for cell in plan.cells}
    facts = [f"{x * y * z} pictures", f"{first.sampler}, {first.steps} steps" if _alike(plan) else ""]
    facts += [f"seed {first.seed}" if len(seeds) == 1 else "", Path(first.base).stem]
    return Shown(
        plan.labels(0),
        plan.labels(1),
        plan.labels(2),
        [read_bytes(path, _CELL_BYTES, "picture of a grid") for path in paths],
        [read_parameters(path) for path in paths],
        plan.asked["settings"].get("prompt") or "Grid",
        f"{'; '.join(filter(None, facts))}.",
    )


def _alike(plan: Plan) -> bool:
    return len({(cell.settings.sampler, cell.settings.steps) for cell in plan.cells}) == 1
