"""`maquette fleet status` and `report`: what is done, what failed and why, how long it took and what it cost."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..config.fleet import FleetConfig
from ..errors import MaquetteError
from ..files import shown_bytes, write_text
from . import index, layout
from .claiming import alive, claims
from .jobs import Job
from .planning import jobs_of, read_settings
from .records import price_of
from .store import Store, open_store

SHOWN = 100  # failures that are listed


@dataclass
class StatusResult:
    """Every job that was submitted, by what has become of it, with times and costs of the results."""

    root: str
    jobs: int
    waiting: int
    running: int
    cancelled: int
    done: int
    rejected: int
    failed: int
    same: int  # jobs that are done by another's result
    by_kind: dict[str, int]  # failures
    by_tenant: dict[str, dict[str, int]]
    failures: list[dict[str, str]]  # the first of them
    queue_seconds: list[float]  # median and 95th percentile
    run_seconds: list[float]
    parts: dict[str, float]  # seconds by part of the work, of all results
    useful_seconds: float
    wasted_seconds: float
    idle_seconds: float
    cold_seconds: float
    bytes: int
    cost: float | None  # of all attempts; None without prices
    idle_cost: float | None
    storage_cost: float  # of a month
    cost_per_lora: float | None
    cost_per_accepted: float | None
    accepted: int  # by the evaluation
    judged: int
    currency: str
    report: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Sums:
    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    tenants: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)
    queue: array[float] = field(default_factory=lambda: array("d"))
    run: array[float] = field(default_factory=lambda: array("d"))
    parts: Counter[str] = field(default_factory=Counter)
    wasted: float = 0.0
    bytes: int = 0
    cost: float = 0.0
    priced: int = 0
    accepted: int = 0
    judged: int = 0

    def add(self, result: dict[str, Any]) -> None:
        """A result."""
        status = result["status"]
        self.counts[status] += 1
        self.tenants.setdefault(result["tenant"], Counter())[status] += 1
        if status != "done":
            self.kinds[result["kind"]] += 1
            if len(self.failures) < SHOWN:
                names = ("tenant", "job", "kind", "message")
                self.failures.append({name: str(result[name]) for name in names})
        if result["started"] and result["submitted"]:
            self.queue.append(max(0.0, result["started"] - result["submitted"]))
        self.run.append(sum(result["seconds"].values()))
        for part, seconds in result["seconds"].items():
            self.parts[part] += seconds
        self.wasted += result["wasted_seconds"]
        self.bytes += result["size"]
        if result["cost"] is not None:
            self.cost += result["cost"]
            self.priced += 1
        if result["accepted"] is not None:
            self.judged += 1
            self.accepted += result["accepted"]


def status(config: FleetConfig) -> StatusResult:
    """Read the root; nothing is written. Raises MaquetteError where nothing was submitted."""
    store = open_store(config.root)
    settings = read_settings(config, store)
    sums = _Sums()
    known: dict[str, str] = {}  # by row
    own: set[str] = set()  # rows of the results themselves, each of one job
    keys: set[tuple[str, str]] = set()
    for line in index.results(store):
        if "alias" in line:
            known.setdefault(line["row"], line["status"])
            continue
        known[line["row"]] = line["status"]
        own.add(line["row"])
        sums.add(line)
        keys.add((line["tenant"], line["key"]))
    cancelled_names = set(store.folders(layout.CANCELLED))
    total = waiting = cancelled = ended = 0
    for job in jobs_of(FleetConfig(root=config.root), store, settings):
        total += 1
        assert isinstance(job, Job)  # what was submitted was in order
        if job.row in known:
            ended += 1
            if job.row in own:
                own.remove(job.row)
            elif (status := known[job.row]) != "done":
                sums.counts[status] += 1
                sums.tenants.setdefault(job.tenant, Counter())[status] += 1
        elif layout.name_hash(job.tenant, job.id) in cancelled_names:
            cancelled += 1
        else:
            waiting += 1
    running = sum(any(alive(c) for c in claims(store, *run)) for run in index.runs(store) if run not in keys)
    idle, cold, idle_cost = _sessions(store, settings.prices)
    done, priced = sums.counts["done"], bool(sums.priced)
    whole = sums.cost + (idle_cost or 0.0)
    return StatusResult(
        root=config.root, jobs=total, waiting=max(0, waiting - running), running=running, cancelled=cancelled,
        done=done, rejected=sums.counts["rejected"], failed=sums.counts["failed"],
        same=max(0, ended - sums.counts.total()),
        by_kind=dict(sums.kinds), by_tenant={name: dict(counts) for name, counts in sorted(sums.tenants.items())},
        failures=sums.failures, queue_seconds=percentiles(sums.queue), run_seconds=percentiles(sums.run),
        parts={part: round(seconds, 3) for part, seconds in sums.parts.items()},
        useful_seconds=sum(sums.parts.values()), wasted_seconds=sums.wasted, idle_seconds=idle, cold_seconds=cold,
        bytes=sums.bytes, cost=whole if priced else None, idle_cost=idle_cost,
        storage_cost=sums.bytes / 1e9 * settings.storage_price,
        cost_per_lora=whole / done if priced and done else None,
        cost_per_accepted=whole / sums.accepted if priced and sums.accepted else None,
        accepted=sums.accepted, judged=sums.judged, currency=settings.currency,
    )  # fmt: skip


def _sessions(store: Store, prices: dict[str, float]) -> tuple[float, float, float | None]:
    """Seconds in which workers waited, and until they were ready, and what the waiting cost."""
    idle = cold = cost = 0.0
    for entry in store.files(layout.SESSIONS):
        for worker in json.loads(store.read(entry.name))["workers"]:
            start = float(worker.get("cold", 0.0))
            rest = max(0.0, float(worker["lived"]) - float(worker["busy"]) - start)
            cold, idle = cold + start, idle + rest
            cost += (rest + start) / 3600 * (price_of(str(worker.get("device", "")), prices) or 0.0)
    return idle, cold, cost if prices else None


def percentiles(values: array[float]) -> list[float]:
    """Median and 95th percentile by nearest rank; [] of none."""
    if not values:
        return []
    found = sorted(values)
    return [found[max(0, -(-len(found) * share // 100) - 1)] for share in (50, 95)]


def report(config: FleetConfig) -> StatusResult:
    """`status`, and the page of it. Raises MaquetteError where the page cannot be written."""
    from ..report.fleet_page import page

    found = status(config)
    out = config.out or Path("fleet-report.html")
    if out.exists() and out.is_dir():
        raise MaquetteError(f"{out} is a folder; name a file with --out.")
    found.report = str(out)
    write_text(out, page(found.to_json(), table(found)))
    return found


def table(found: StatusResult) -> list[tuple[str, str]]:
    """The figures in words, for the terminal and the page."""
    all_seconds = found.useful_seconds + found.wasted_seconds + found.idle_seconds + found.cold_seconds

    def money(value: float | None) -> str:
        nothing = "no prices" if found.cost is None else "there is none yet"
        return nothing if value is None else f"{found.currency}{value:.4g}"

    def spread(pair: list[float]) -> str:
        return "" if not pair else f"{pair[0]:.1f} s, 95 % below {pair[1]:.1f} s"

    def share(part: float) -> str:
        return f"{part:.0f} s ({part / all_seconds:.0%})" if all_seconds else "0 s"

    return [
        ("jobs", str(found.jobs)),
        ("waiting", str(found.waiting)),
        ("running", str(found.running)),
        ("done", str(found.done)),
        ("done by another's result", str(found.same)),
        ("rejected", str(found.rejected)),
        ("failed", str(found.failed)),
        ("cancelled", str(found.cancelled)),
        ("accepted by the evaluation", f"{found.accepted} of {found.judged}"),
        ("time in the queue", spread(found.queue_seconds)),
        ("time of a job", spread(found.run_seconds)),
        ("useful work", share(found.useful_seconds)),
        ("wasted in attempts that failed", share(found.wasted_seconds)),
        ("workers waiting", share(found.idle_seconds)),
        ("workers starting", share(found.cold_seconds)),
        ("size of the results", shown_bytes(found.bytes)),
        ("cost in all", money(found.cost)),
        ("cost of a LoRA", money(found.cost_per_lora)),
        ("cost of an accepted LoRA", money(found.cost_per_accepted)),
        ("keeping them for a month", f"{found.currency}{found.storage_cost:.2g}"),
    ]
