"""Jobs: rows that were checked, with their cheap key, in little memory, since there may be a million."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..errors import MaquetteError
from ..files import read_toml
from . import keys, layout, photos
from .rows import Row, known_keys, settings_of

THEN = ("evaluate", "generate:PACK.toml")
LOWEST, HIGHEST, USUAL = 0, 9, 5


@dataclass(frozen=True, slots=True)
class Job:
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


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that cannot be run, and why."""

    place: str
    id: str
    why: str
    row: str = ""  # as of a Job, where the row itself is in order and only its files are missing


def read_jobs(rows: Iterable[Row], folder: Path) -> Iterator[Job | Bad]:
    """Each row as a job, or as what is wrong with it. folder: paths in rows begin here."""
    reader = _Reader(folder)
    for row in rows:
        if row.fault:
            yield Bad(row.place, "", row.fault)
            continue
        yield reader.read(row)


class _Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[int] = set()
        self.known = known_keys()
        self.listings: dict[str, photos.Listing | str] = {}
        self.packs: dict[str, dict[str, Any]] = {}
        self.templates: dict[str, str] = {}  # hashes of settings that many rows share
        self.paths: dict[str, str] = {}
        self.named: dict[tuple[Any, ...], str] = {}

    def read(self, row: Row) -> Job | Bad:
        told, place = row.values, row.place
        name = str(told.get("id") or "")
        bare = ""
        try:
            tenant, priority, deadline = self._head(told)
            settings, given = self._settings(told)
            then = self._then(told.get("then", []))
            where = self._photos(told.get("photos"))
            body: dict[str, Any] = {"photos": where, "settings": given, "then": then}
            if (most := told.get("max_cost")) is not None:
                if isinstance(most, bool) or not isinstance(most, int | float) or most <= 0:
                    raise MaquetteError("max_cost is a number above 0.")
                body["max_cost"] = most
            text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
            follows = json.dumps(then, sort_keys=True) if then else ""
            bare = layout.name_hash(tenant, where if isinstance(where, str) else json.dumps(where), settings, follows)
            name = name or bare[:12]
            self._once(tenant, name)
            listing = self._listing(where)
            mark = layout.name_hash(settings, follows, listing.mark, self._files(given))
            base = given.get("base", "pocket")
            return Job(name, tenant, mark, bare, priority, deadline, base, listing.photos, text)
        except MaquetteError as error:
            return Bad(place, name, str(error), bare)

    def _head(self, told: dict[str, Any]) -> tuple[str, int, float]:
        tenant, priority = told.get("tenant", "default"), told.get("priority", USUAL)
        if unknown := next((key for key in told if key not in self.known), None):
            TrainConfig.parse({"photos": "photos", unknown: told[unknown]}, "the job")  # which says what was meant
            raise MaquetteError(f"the job has the unknown key {unknown!r}.")
        if not isinstance(tenant, str) or not layout.TENANT.fullmatch(tenant):
            raise MaquetteError(f"tenant = {tenant!r} is no name of letters, digits, - and _.")
        if isinstance(priority, bool) or not isinstance(priority, int) or not LOWEST <= priority <= HIGHEST:
            raise MaquetteError(f"priority = {priority!r} is no whole number from {LOWEST} to {HIGHEST}.")
        return tenant, priority, _seconds(told.get("deadline"))

    def _once(self, tenant: str, name: str) -> None:
        known = hash((tenant, name))
        if known in self.seen:
            raise MaquetteError(f"the id {name!r} is there twice.")
        self.seen.add(known)

    def _settings(self, told: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """(what tells them from others, the keys as they were given). What many rows share is checked once."""
        given = settings_of(told)
        for key in keys.FILES:
            if isinstance(given.get(key), str):
                given[key] = self._path(given[key])
        subject, seed = given.get("subject"), given.get("seed", 0)
        plain = isinstance(subject, str | None) and type(seed) is int and 0 <= seed < 2**63 and "kind" not in given
        shared = {key: value for key, value in given.items() if not plain or key not in ("subject", "seed")}
        name = json.dumps(shared, sort_keys=True, default=str)
        if name not in self.templates:
            config = TrainConfig.parse({"photos": "photos", **shared}, "the job")
            self.templates[name] = layout.name_hash(json.dumps(keys.settings(config), sort_keys=True))
        return f"{self.templates[name]} {seed} {subject}" if plain else self.templates[name], given

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
                path = self._path(file)
                if path not in self.packs:
                    self.packs[path] = read_toml(path)
                found.append({"generate": self.packs[path]})
            else:
                raise MaquetteError(f"then = {step!r} is no step; there are {' and '.join(THEN)}.")
        return found

    def _path(self, place: str) -> str:
        """A path that a row names, from its file's folder; names and addresses as they are."""
        if keys.is_name(place) or photos.is_remote(place):
            return place
        if place not in self.paths:
            self.paths[place] = str(self.folder / Path(place).expanduser())
        return self.paths[place]

    def _photos(self, told: Any) -> photos.Photos:
        if isinstance(told, str) and told:
            return self._path(told)
        if isinstance(told, list) and told and all(isinstance(one, str) for one in told):
            return [self._path(one) for one in told]
        raise MaquetteError("the job lacks 'photos': a folder, an address, or a list of files.")

    def _listing(self, where: photos.Photos) -> photos.Listing:
        """As `photos.listing`, each place once."""
        name = where if isinstance(where, str) else json.dumps(where)
        found = self.listings.get(name)
        if found is None:
            try:
                found = photos.listing(where)
            except MaquetteError as error:
                found = str(error)
            self.listings[name] = found
        if isinstance(found, str):
            raise MaquetteError(found)
        return found

    def _files(self, given: dict[str, Any]) -> str:
        """Marks of the files that settings name."""
        named = tuple(given.get(key) for key in keys.FILES)
        if named not in self.named:
            places = dict(zip(keys.FILES, named, strict=True)) | {"base": given.get("base") or "pocket"}
            marks = {key: keys.file_mark(str(place)) for key, place in places.items() if place is not None}
            self.named[named] = json.dumps(marks)
        return self.named[named]


def _seconds(deadline: Any) -> float:
    """A date as TOML or ISO 8601 has it, in seconds since 1970; without a time zone it is UTC."""
    if deadline is None:
        return float("inf")
    try:
        when = deadline if isinstance(deadline, datetime) else datetime.fromisoformat(str(deadline))
    except ValueError as error:
        raise MaquetteError(f"deadline = {deadline!r} is no date such as 2026-12-24T18:00:00Z.") from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def listed_files(job: Job, listing: Callable[[photos.Photos], photos.Listing] = photos.listing) -> tuple[str, ...]:
    """The files of a job's photos, as they lie there now."""
    return listing(json.loads(job.body)["photos"]).files
