"""Jobs as people write them: rows of a .jsonl, .csv or .toml file, with the place of each fault."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..config import TrainConfig, parse_setting
from ..errors import MaquetteError
from ..files import read_text, slug
from ..parsing import parse_json, read_toml

LARGEST_ROWS = 4_000_000_000  # bytes of a file of jobs; a million rows take some 200 MB
OWN = ("id", "tenant", "photos", "subject", "base", "set", "seed", "priority", "deadline", "max_cost", "then")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")  # 0,0001, where semicolons are between cells
NOT_OF_A_JOB = ("out", "device", "two_pass")  # keys of the training that the fleet decides


class Row(NamedTuple):
    """A row as it was read, with where it stands ("jobs.jsonl, line 3"); `fault` says why it is none."""

    place: str
    values: dict[str, Any]
    fault: str = ""


def read_rows(file: Path, defaults: dict[str, Any] | None = None) -> Iterator[Row]:
    """The rows of a file, one by one. Raises MaquetteError for a file that is none; a bad row is a Row with a fault.

    defaults: keys that every row has which does not say otherwise.
    """
    readers = {".jsonl": _of_lines, ".ndjson": _of_lines, ".csv": _of_csv, ".toml": _of_toml}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise MaquetteError(f"{file} is no file of jobs: give .jsonl, .csv or .toml.")
    for row in reader(file):
        yield Row(row.place, {**defaults, **row.values}, row.fault) if defaults else row


def _of_lines(file: Path) -> Iterator[Row]:
    name = str(file)
    for number, line in enumerate(_lines(file), start=1):
        if line.isspace():
            continue
        place = f"{name}, line {number}"
        try:
            values = json.loads(line)
            if "\\u" in line or not isinstance(values, dict):
                values = parse_json(line, place)
            if not isinstance(values, dict):
                raise MaquetteError(f"{place} is no JSON object.")
        except (ValueError, RecursionError) as error:
            yield Row(place, {}, f"{place} is not valid JSON: {error}.")
        except MaquetteError as error:
            yield Row(place, {}, str(error))
        else:
            yield Row(place, values)


def _lines(file: Path) -> Iterator[str]:
    """Lines of a large file, decoded one by one."""
    try:
        with file.open("rb") as handle:
            for number, line in enumerate(handle, start=1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise MaquetteError(f"{file}, line {number} is not UTF-8 text; save it as UTF-8.") from error
    except OSError as error:
        raise MaquetteError(f"{file} cannot be read: {error.strerror or error}.") from error


def _of_csv(file: Path) -> Iterator[Row]:
    text = read_text(file, LARGEST_ROWS, "file of jobs")
    head = text.partition("\n")[0]
    between = ";" if head.count(";") > head.count(",") else ","  # as Excel writes where numbers have commas
    reader = csv.DictReader(io.StringIO(text), strict=True, delimiter=between)
    for number, cells in enumerate(_cells(reader, file), start=2):
        place = f"{file}, line {number}"
        if None in cells:
            yield Row(place, {}, f"{place} has more cells than the first line has names.")
            continue
        filled = {key.strip(): value.strip() for key, value in cells.items() if value and value.strip()}
        values: dict[str, Any] = {}
        for key, value in filled.items():
            plain = key in ("id", "tenant", "photos", "subject", "base", "deadline", "then")
            if between == ";" and not plain and _DECIMAL_COMMA.fullmatch(value):
                value = value.replace(",", ".")
            values[key] = value if plain else parse_setting(f"{key}={value}")[1]
        yield Row(place, values)


def _cells(reader: csv.DictReader[str], file: Path) -> Iterator[dict[str, str]]:
    """Each row by the names of the first. Raises MaquetteError for an open quote, and a name there twice."""
    begin = 1
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise MaquetteError(f"{file}, line 1 names the column {twice!r} twice: remove one.")
        begin = reader.line_num + 1
        for cells in reader:
            yield cells
            begin = reader.line_num + 1
    except csv.Error as error:
        where = f"{file}, from line {begin} on,"
        raise MaquetteError(f"{where} cannot be read: {error}. See that each quote is closed.") from error


def _of_toml(file: Path) -> Iterator[Row]:
    """`[[job]]` tables, each with what `[defaults]` says, and once for each combination of the lists in `[grid]`."""
    content = read_toml(file)
    if unknown := content.keys() - {"defaults", "grid", "job"}:
        raise MaquetteError(f"{file} has the unknown key {min(unknown)!r}; it may have [defaults], [grid] and [[job]].")
    jobs, grid, common = content.get("job", []), content.get("grid", {}), content.get("defaults", {})
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs) or not jobs:
        raise MaquetteError(f"{file} has no jobs: write each as a table [[job]].")
    for key, table in (("defaults", common), ("grid", grid)):
        if not isinstance(table, dict):
            raise MaquetteError(f"{file}: {key} is no table: write [{key}], and its keys below.")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise MaquetteError(f"{file}: {key} in [grid] is no list of values.")
    for number, job in enumerate(jobs, start=1):
        for values in combinations(grid):
            named = {"id": grid_name(str(job["id"]), values)} if "id" in job else {}
            yield Row(f"{file}, job {number}", {**common, **job, **values, **named})


def combinations(grid: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Each combination of one value per key; of an empty grid the empty one."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def grid_name(name: str, values: dict[str, Any]) -> str:
    """ "anna" and {rank: 8} -> "anna-rank-8"."""
    return "-".join([name, *(f"{key}-{_in_a_name(value)}" for key, value in values.items())])


def _in_a_name(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    below_zero = isinstance(value, int | float) and value < 0
    return ("-" if below_zero else "") + slug(str(value))


def settings_of(values: dict[str, Any]) -> dict[str, Any]:
    """The keys of the training in a row: its own, and those of `set`. Raises MaquetteError naming what is none."""
    inner = values.get("set", {})
    if not isinstance(inner, dict):
        raise MaquetteError("set is no table of keys and values.")
    found = {key: value for key, value in values.items() if key not in OWN or key in ("subject", "base", "seed")}
    found |= inner
    for key in NOT_OF_A_JOB:
        if key in found:
            raise MaquetteError(f"{key} is not a job's: the fleet decides it. Leave it out.")
    if "photos" in found:
        raise MaquetteError("photos stands in set; it is a key of the job itself.")
    return found


def known_keys() -> set[str]:
    """Every key that a row may have, or that is refused by name."""
    return {*OWN, *TrainConfig.model_fields, *TrainConfig.renamed}
