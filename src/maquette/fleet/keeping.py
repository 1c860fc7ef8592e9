"""`maquette fleet retry`, `cancel` and `gc`: what is done again, what is not done, what nothing refers to."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from ..config.fleet import FleetConfig
from ..errors import MaquetteError
from . import index, layout
from .claiming import alive
from .jobs import Bad, Job
from .planning import jobs_of, read_settings
from .records import read_result
from .store import Store, open_store


@dataclass
class KeptResult:
    """What was changed, or with gc would be."""

    root: str
    what: str  # "retry", "cancel" or "gc"
    jobs: int
    removed: bool  # gc: whether it was done
    bytes: int = 0
    names: list[str] = field(default_factory=list)  # of jobs, or with gc of folders
    kinds: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def retry(config: FleetConfig) -> KeptResult:
    """Take back results of failures (all, or of one kind, or of named jobs), and cancellations of named jobs: the next
    run tries them again. Results that are done stay. Raises MaquetteError for an id that nothing has.
    """
    store = open_store(config.root)
    parts, names, kinds = index.Parts(store), [], Counter[str]()
    known: set[str] = set()
    shared = _shared(config, store)
    for result in index.results(store):
        job = result["job"]
        known.add(job)
        named = job in config.ids or (result["tenant"], result.get("key")) in shared
        wanted = named if config.ids else result["status"] != "done"
        if "alias" in result or result["status"] == "done" or not wanted:
            continue
        if config.failed not in ("all", result["kind"]):
            continue
        store.remove([layout.result(result["tenant"], result["key"])])
        parts.add(index.retried(result))
        names.append(job)
        kinds[result["kind"]] += 1
    parts.flush()
    for job in _named(config, store):
        known.add(job.id)
        place = layout.cancelled(job.tenant, job.id)
        if store.exists(place):
            store.remove([place])
            names.append(job.id)
    _require_known(config, known)
    return KeptResult(config.root, "retry", len(names), True, names=names, kinds=dict(kinds))


def _shared(config: FleetConfig, store: Store) -> set[tuple[str, str]]:
    """Tenant and key of results that named jobs have from others, since they are the same work."""
    if not config.ids:
        return set()
    lines = index.results(store)
    return {(line["tenant"], line["alias"]) for line in lines if "alias" in line and line["job"] in config.ids}


def cancel(config: FleetConfig) -> KeptResult:
    """Say that jobs are not to be run: those with the ids, or all without a result. A run at work stops them too.

    Raises MaquetteError where neither is given, and for an id that nothing has.
    """
    if not config.ids and not config.all:
        raise MaquetteError("Which jobs? Name them (--ids anna --ids bert), or give --all.")
    store = open_store(config.root)
    done = {note["row"] for note in index.results(store)}
    names: list[str] = []
    known: set[str] = set()
    for job in _named(config, store):
        known.add(job.id)
        if job.row not in done:
            note = {"tenant": job.tenant, "job": job.id, "time": time.time()}
            store.write(layout.cancelled(job.tenant, job.id), json.dumps(note).encode())
            names.append(job.id)
    _require_known(config, known)
    return KeptResult(config.root, "cancel", len(names), True, names=names)


def _named(config: FleetConfig, store: Store) -> Iterator[Job]:
    """The submitted jobs with the ids; all where none is named."""
    if not config.ids and config.failed != "all":
        return
    for job in jobs_of(FleetConfig(root=config.root), store, read_settings(config, store)):
        if not isinstance(job, Bad) and (not config.ids or job.id in config.ids):
            yield job


def _require_known(config: FleetConfig, known: set[str]) -> None:
    for name in config.ids:
        if name not in known:
            raise MaquetteError(f"No job with the id {name!r} was submitted to {config.root}.")


def gc(config: FleetConfig) -> KeptResult:
    """List attempts that no result refers to and nobody works on, and with config.yes remove them.

    Attempts of a job without a result that hold a state to go on from stay.
    """
    store = open_store(config.root)
    names: list[str] = []
    total = 0
    for tenant, key in index.runs(store):
        place = layout.attempts(tenant, key)
        attempts = store.folders(place)
        kept = _referred(store, tenant, key)
        for attempt in attempts:
            folder = f"{place}/{attempt}"
            if attempt == kept or _at_work(store, folder):
                continue
            if kept is None and store.folders(f"{folder}/state"):
                continue
            names.append(folder)
            total += sum(entry.size for entry in store.files(folder))
    if config.yes:
        store.remove(names)
    return KeptResult(config.root, "gc", len(names), config.yes, total, names)


def _referred(store: Store, tenant: str, key: str) -> str | None:
    """The attempt that a result names, "" where it names none; None without a result."""
    with contextlib.suppress(FileNotFoundError):
        result = read_result(store.read(layout.result(tenant, key)))
        if result is not None:
            return str(result["attempt"])
    return None


def _at_work(store: Store, folder: str) -> bool:
    try:
        return alive(json.loads(store.read(f"{folder}/claim.json")))
    except (FileNotFoundError, ValueError):
        return False
