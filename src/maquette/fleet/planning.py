"""`maquette fleet plan`: what is new, done and invalid, and what it will take; and what `run` begins with."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..config.fleet import FleetConfig, FleetSettings
from ..config.train import TrainConfig
from ..errors import MaquetteError
from ..files import read_text
from ..limits import CONFIGURATION_BYTES
from ..parsing import parse_toml, read_toml
from . import layout, rows
from .index import Index
from .jobs import Bad, Job, read_jobs
from .records import price_of
from .rows import read_rows
from .store import Store, open_store

SHOWN = 100  # bad rows that a plan names


@dataclass
class PlanResult:
    """What `fleet run` would do."""

    root: str
    jobs: int
    new: int
    done: int
    failed: int  # or rejected: they stay so until `fleet retry`
    cancelled: int
    invalid: int
    bad: list[dict[str, str]]  # the first of them, each with place, id and why
    photos: int  # of new jobs
    seconds: float | None  # of workers; None where nothing tells how long a job takes
    hours: float | None  # until the end, with so many workers
    cost: float | None
    currency: str
    by_tenant: dict[str, int] = field(default_factory=dict)  # new jobs

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Opened:
    """The store with its settings and what is done in it."""

    store: Store
    settings: FleetSettings
    index: Index
    cancelled: set[str]

    def state(self, job: Job) -> str:
        """ "new", "done", "failed", "rejected" or "cancelled"."""
        known = self.index.marks.get((job.tenant, job.mark))
        if known is None and self.cancelled and layout.name_hash(job.tenant, job.id) in self.cancelled:
            return "cancelled"
        return known or "new"

    def state_of_bad(self, bad: Bad) -> str:
        """ "done" where the row's result is there and only its photos are gone, else "invalid"."""
        return self.index.rows.get(bad.row, "invalid")


def open_root(config: FleetConfig, write: bool = False) -> Opened:
    """Open the store. write: keep the settings that are named there. Raises MaquetteError."""
    store = open_store(config.root)
    settings = read_settings(config, store)
    if write and config.settings is not None:
        store.write(layout.PINNED, read_text(config.settings, CONFIGURATION_BYTES, "settings of a fleet").encode())
    return Opened(store, settings, Index.read(store), set(store.folders(layout.CANCELLED)))


def read_settings(config: FleetConfig, store: Store) -> FleetSettings:
    """fleet.toml: the one that is named, else the root's, else none."""
    if config.settings is not None:
        return FleetSettings.parse(read_toml(config.settings), str(config.settings))
    try:
        text = store.read(layout.PINNED).decode()
    except FileNotFoundError:
        return FleetSettings()
    name = f"{config.root}/{layout.PINNED}"
    return FleetSettings.parse(parse_toml(text, name), name)


def jobs_of(config: FleetConfig, store: Store, settings: FleetSettings) -> Iterator[Job | Bad]:
    """The jobs of the file that is named, else all that were submitted to the root. Raises MaquetteError."""
    if config.jobs is not None:
        check_defaults(settings)
        found = read_rows(config.jobs, settings.defaults)
        yield from read_jobs(found, config.jobs.absolute().parent, priced=bool(settings.prices))
        return
    submitted = [entry.name for entry in store.files(layout.JOBS)]
    if not submitted:
        raise MaquetteError(f"Nothing was submitted to {config.root} yet; name a file of jobs.")
    seen: set[tuple[str, str, str]] = set()
    for name in submitted:
        for line in store.read(name).splitlines():
            job = Job.of_line(line)
            if (job.tenant, job.id, job.row) not in seen:
                seen.add((job.tenant, job.id, job.row))
                yield job


def check_defaults(settings: FleetSettings) -> None:
    """Raise MaquetteError for a default that no job can have."""
    for key in settings.defaults:
        if key == "id":
            raise MaquetteError("fleet.toml: a default id would be that of every job.")
        if key not in rows.known_keys():
            TrainConfig.parse({"photos": "photos", key: 0}, "fleet.toml, [defaults]")


class Submission:
    """Jobs on their way into the store, as one object named by its contents: submitting again changes nothing."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._digest = hashlib.sha256()
        self._lines: list[bytes] = []

    def add(self, job: Job) -> None:
        line = job.to_line()
        self._digest.update(line)
        self._lines.append(line)

    def write(self) -> None:
        name = f"{layout.JOBS}/{self._digest.hexdigest()[:24]}.jsonl"
        if self._lines and not self.store.exists(name):
            self.store.write(name, b"".join(self._lines))


def plan(config: FleetConfig) -> PlanResult:
    """Say what a run would do; nothing is written but, with config.submit, the jobs. Raises MaquetteError for a file
    that is none.
    """
    opened = open_root(config, write=config.submit)
    submission = Submission(opened.store)
    counts: Counter[str] = Counter()
    tenants: Counter[str] = Counter()
    bases: Counter[str] = Counter()
    bad: list[dict[str, str]] = []
    photos = 0
    for job in jobs_of(config, opened.store, opened.settings):
        if isinstance(job, Bad):
            state = opened.state_of_bad(job)
            if state == "invalid" and len(bad) < SHOWN:
                bad.append({"place": job.place, "id": job.id, "why": job.why})
        else:
            state = opened.state(job)
            if config.submit:
                submission.add(job)
            if state == "new":
                photos += job.photos
                tenants[job.tenant] += 1
                bases[job.base] += 1
        counts[state] += 1
    submission.write()
    seconds = _seconds(bases, opened)
    price = price_of("cpu" if not config.devices else "", opened.settings.prices)
    if price is None and len(opened.settings.prices) == 1:
        price = next(iter(opened.settings.prices.values()))
    return PlanResult(
        config.root, sum(counts.values()), counts["new"], counts["done"], counts["failed"] + counts["rejected"],
        counts["cancelled"], counts["invalid"], bad, photos, seconds,
        None if seconds is None else seconds / 3600 / max(config.workers, len(config.devices)),
        None if seconds is None or price is None else seconds / 3600 * price, opened.settings.currency, dict(tenants),
    )  # fmt: skip


def _seconds(bases: Counter[str], opened: Opened) -> float | None:
    """Of all new jobs, by what results of their base took; None where nothing tells it."""
    total = 0.0
    for base, count in bases.items():
        one = opened.index.usual_seconds(Path(base).name) or opened.settings.seconds_per_job
        if one is None:
            return None
        total += one * count
    return total
