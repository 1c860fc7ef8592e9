"""Jobs: rows that were checked, with their cheap key, in little memory, since there may be a million."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring as _quoted
from pathlib import Path
from typing import Any, NamedTuple

from ..config import TrainConfig
from ..errors import MaquetteError
from ..files import portable
from ..parsing import read_toml
from . import keys, layout, photos
from .rows import Row, known_keys, settings_of
from .trainer import require_pack

THEN = ("evaluate", "generate:PACK.toml")
LOWEST, HIGHEST, USUAL = 0, 9, 5
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class Job(NamedTuple):  # which is made in a third of a data class's time
    """A row that can be run. `body` is JSON: photos, settings, then, max_cost."""

    id: str
    tenant: str
    mark: str  # the cheap key
    row: str  # hash of the row alone, by which a result is found when its photos are gone
    priority: int
    deadline: float  # seconds since 1970; infinite where there is none
    base: str
    photos: int
    body: str

    def to_line(self) -> bytes:
        """A line of JSON, which has no infinity."""
        written = self._asdict()
        if self.deadline == float("inf"):
            written["deadline"] = None
        return _ENCODER.encode(written).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Job:
        """The job that `to_line` wrote."""
        written = json.loads(line)
        if written["deadline"] is None:
            written["deadline"] = float("inf")
        return cls(**written)


UNPRICED = "max_cost needs [prices] in fleet.toml: name it with --settings, or leave max_cost out."


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that cannot be run, and why."""

    place: str
    id: str
    why: str
    row: str = ""  # as of a Job, where the row itself is in order and only its files are missing


def read_jobs(rows: Iterable[Row], folder: Path, priced: bool = True) -> Iterator[Job | Bad]:
    """Each row as a job, or as what is wrong with it. folder: paths in rows begin here. priced: whether there are
    prices, without which nothing is known of what a job costs.
    """
    reader = _Reader(folder, priced)
    for row in rows:
        if row.fault:
            yield Bad(row.place, "", row.fault)
            continue
        yield reader.read(row)


_VARY = ("id", "photos", "subject", "seed")
"""Keys in which rows that are alike otherwise differ: all else of a row is looked at once for all of them."""
MOST_SHAPES = 10_000  # kept at a time, since rows may differ in more


@dataclass(frozen=True, slots=True)
class _Shape:
    """What rows have in common that differ in _VARY only."""

    tenant: str
    priority: int
    deadline: float
    base: str
    settings: str  # tells them from others
    varies: bool  # subject and seed tell them apart too
    follows: str
    named: tuple[str, ...]  # files that settings name, but for the base that is usual
    files: str
    fault: str  # of a file that a setting names
    body: str  # of the Job, a format for photos, subject and seed


@dataclass(frozen=True, slots=True)
class _Place:
    """Where photos lie. fault: what is wrong with them; mark and count: as of a `photos.Listing`."""

    name: str
    text: str  # JSON
    mark: str
    count: int
    fault: str = ""


class _Reader:
    """Makes jobs of rows. What many of them share is checked, hashed and encoded once."""

    def __init__(self, folder: Path, priced: bool) -> None:
        self.folder, self.priced = folder, priced
        self.seen: set[int] = set()
        self.known = known_keys()
        self.shapes: dict[str, _Shape | str] = {}  # or what is wrong with it
        self.places: dict[str, _Place] = {}
        self.packs: dict[str, dict[str, Any]] = {}
        self.templates: dict[str, str] = {}  # hashes of settings that many rows share
        self.named: dict[tuple[Any, ...], str] = {}

    def read(self, row: Row) -> Job | Bad:
        values = row.values
        name = str(values.get("id", "")) if values.get("id") is not None else ""
        bare = ""
        try:
            shape, place = self._shape(values), self._photos(values.get("photos"))
            subject, seed = values.get("subject"), values.get("seed", 0)
            settings = f"{shape.settings} {seed} {subject}" if shape.varies else shape.settings
            bare = layout.name_hash(shape.tenant, place.name, settings, shape.follows, *shape.named)
            name = name or bare[:12]
            self._once(shape.tenant, name)
            if fault := place.fault or shape.fault:
                raise MaquetteError(fault)
            mark = layout.name_hash(settings, shape.follows, place.mark, shape.files)
            quoted = _quoted(subject) if isinstance(subject, str) else "null"
            body = shape.body % {"photos": place.text, "subject": quoted, "seed": seed}
            return Job(
                name, shape.tenant, mark, bare, shape.priority, shape.deadline, shape.base, place.count, body
            )  # fmt: skip
        except MaquetteError as error:
            return Bad(row.place, name, str(error), bare)

    def _shape(self, values: dict[str, Any]) -> _Shape:
        """What a row has in common with others. Raises MaquetteError for what is wrong with all of them."""
        varies = "set" not in values and _is_plain(values)
        alike = {key: None if key in _VARY and (varies or key in ("id", "photos")) else values[key] for key in values}
        known = f"{varies}{alike}"  # with the types of values, and their order
        if (found := self.shapes.get(known)) is None:
            if len(self.shapes) >= MOST_SHAPES:
                self.shapes.clear()
            try:
                found = self._new_shape(values, varies)
            except MaquetteError as error:
                found = str(error)
            self.shapes[known] = found
        if isinstance(found, str):
            raise MaquetteError(found)
        return found

    def _new_shape(self, values: dict[str, Any], varies: bool) -> _Shape:
        tenant, priority, deadline = self._head(values)
        settings, given = self._settings(values, varies)
        then = self._then(values.get("then", []))
        if "evaluate" in then:
            _require_choice(given)
        body: dict[str, Any] = {"photos": None, "settings": given, "then": then}
        if (most := values.get("max_cost")) is not None:
            if isinstance(most, bool) or not isinstance(most, int | float) or not 0 < most < math.inf:
                raise MaquetteError("max_cost is a number above 0.")
            body["max_cost"] = most
        follows = json.dumps(then, sort_keys=True) if then else ""
        files, fault = "", ""
        try:
            files = self._files(given)
        except MaquetteError as error:
            fault = str(error)
        if most is not None and not self.priced:
            fault = fault or UNPRICED
        base = given.get("base", "pocket")
        named = tuple(f"{key} {given[key]}" for key in keys.FILES if given.get(key) not in (None, "pocket"))
        text = _format(body, varies)
        return _Shape(tenant, priority, deadline, base, settings, varies, follows, named, files, fault, text)

    def _head(self, values: dict[str, Any]) -> tuple[str, int, float]:
        tenant, priority = values.get("tenant", "default"), values.get("priority", USUAL)
        if unknown := next((key for key in values if key not in self.known), None):
            TrainConfig.parse({"photos": "photos", unknown: values[unknown]}, "the job")  # which says what was meant
            raise MaquetteError(f"the job has the unknown key {unknown!r}.")
        if not isinstance(tenant, str) or not layout.TENANT.fullmatch(tenant):
            raise MaquetteError(f"tenant = {tenant!r} is no name of letters, digits, - and _.")
        if portable(tenant) != tenant:
            raise MaquetteError(f"tenant = {tenant!r} is a name that Windows keeps to itself; choose another.")
        if isinstance(priority, bool) or not isinstance(priority, int) or not LOWEST <= priority <= HIGHEST:
            raise MaquetteError(f"priority = {priority!r} is no whole number from {LOWEST} to {HIGHEST}.")
        return tenant, priority, _seconds(values.get("deadline"))

    def _once(self, tenant: str, name: str) -> None:
        known = hash((tenant, name))
        if known in self.seen:
            raise MaquetteError(f"the id {name!r} is there twice.")
        self.seen.add(known)

    def _settings(self, values: dict[str, Any], varies: bool) -> tuple[str, dict[str, Any]]:
        """(what tells them from others, the keys as they were given). varies: subject and seed are added by the row."""
        given = settings_of(values)
        for key in keys.FILES:
            if isinstance(given.get(key), str):
                given[key] = keys.base_from(self.folder, given[key])
        plain = _is_plain(given)
        shared = {key: value for key, value in given.items() if not plain or key not in ("subject", "seed")}
        name = json.dumps(shared, sort_keys=True, default=str)
        if name not in self.templates:
            config = TrainConfig.parse({"photos": "photos", **shared}, "the job")
            self.templates[name] = layout.name_hash(json.dumps(keys.settings(config), sort_keys=True))
        added = f" {given.get('seed', 0)} {given.get('subject')}" if plain and not varies else ""
        return self.templates[name] + added, given

    def _then(self, steps: Any) -> list[Any]:
        """What follows the training; of generate the pack's keys and values, so that workers need no file."""
        if isinstance(steps, str):
            steps = [step.strip() for step in steps.split(";") if step.strip()]
        if not isinstance(steps, list):
            raise MaquetteError("then is no list of steps.")
        found: list[Any] = []
        for step in steps:
            what, _, file = str(step).partition(":")
            if what == "evaluate" and not file:
                found.append("evaluate")
            elif what == "generate" and file:
                path = keys.path_from(self.folder, file)
                if path not in self.packs:
                    pack = read_toml(path)
                    require_pack(pack, path)
                    self.packs[path] = pack
                found.append({"generate": self.packs[path]})
            else:
                raise MaquetteError(f"then = {step!r} is no step; there are {' and '.join(THEN)}.")
        return found

    def _photos(self, where_given: Any) -> _Place:
        """As `photos.listing`, each place once."""
        known = where_given if isinstance(where_given, str) else repr(where_given)
        if known not in self.places or not where_given:
            where: photos.Photos
            if isinstance(where_given, str) and where_given:
                where = keys.path_from(self.folder, where_given)
            elif isinstance(where_given, list) and where_given and all(isinstance(one, str) for one in where_given):
                where = [keys.path_from(self.folder, one) for one in where_given]
            else:
                raise MaquetteError("the job lacks 'photos': a folder, an address, or a list of files.")
            mark, count, fault = "", 0, ""
            try:
                found = photos.listing(where)
                mark, count = found.mark, found.photos
            except MaquetteError as error:
                fault = str(error)
            name = where if isinstance(where, str) else json.dumps(where)
            self.places[known] = _Place(name, _encoded(where), mark, count, fault)
        return self.places[known]

    def _files(self, given: dict[str, Any]) -> str:
        """Marks of the files that settings name."""
        named = tuple(given.get(key) for key in keys.FILES)
        if named not in self.named:
            places = dict(zip(keys.FILES, named, strict=True)) | {"base": given.get("base") or "pocket"}
            marks = {key: keys.file_mark(str(place)) for key, place in places.items() if place is not None}
            self.named[named] = json.dumps(marks)
        return self.named[named]


def _require_choice(given: dict[str, Any]) -> None:
    """Raise MaquetteError where a training is seen to save one checkpoint alone."""
    steps, every = given.get("steps"), given.get("save_every_steps")
    if isinstance(steps, int) and isinstance(every, int) and every >= steps and not given.get("save_every_epochs"):
        raise MaquetteError(
            f"save_every_steps = {every} leaves one checkpoint of {steps} steps, and evaluate chooses between several: "
            "save more often, or leave evaluate out."
        )


def _is_plain(values: dict[str, Any]) -> bool:
    """Whether subject and seed are of their types, so that rows with others of them need no check of their own."""
    subject, seed = values.get("subject"), values.get("seed", 0)
    return isinstance(subject, str | None) and type(seed) is int and 0 <= seed < 2**63 and "kind" not in values


def _encoded(value: Any) -> str:
    return _ENCODER.encode(value)


def _format(body: dict[str, Any], varies: bool) -> str:
    """JSON with %(photos)s, and where they vary %(subject)s and %(seed)s, in the places of these."""
    slots = ("subject", "seed") if varies else ()
    given = [f"{_escaped(key)}:{f'%({key})s' if key in slots else _escaped(value)}"
             for key, value in body["settings"].items()]  # fmt: skip
    rest = "".join(f",{_escaped(key)}:{_escaped(value)}" for key, value in body.items() if key in ("then", "max_cost"))
    return f'{{"photos":%(photos)s,"settings":{{{",".join(given)}}}{rest}}}'


def _escaped(value: Any) -> str:
    return _encoded(value).replace("%", "%%")


def _seconds(deadline: Any) -> float:
    """A date as TOML or ISO 8601 has it, in seconds since 1970; without a time zone it is UTC."""
    if deadline is None:
        return float("inf")
    try:
        when = deadline if isinstance(deadline, datetime) else datetime.fromisoformat(str(deadline))
    except ValueError as error:
        raise MaquetteError(f"deadline = {deadline!r} is no date such as 2026-12-24T18:00:00Z.") from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
