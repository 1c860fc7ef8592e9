"""`maquette sweep`: a grid or a random search of settings as ordinary jobs of the fleet, ranked by the evaluation."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..config import TrainConfig, parse_setting
from ..config.fleet import FleetConfig
from ..config.sweep import SweepConfig
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore
from . import driving, index, keys, layout
from .executor import Executor
from .jobs import Bad, Job
from .planning import jobs_of, read_settings
from .rows import grid_name
from .store import Store, open_store
from .trainer import USUAL

MOST = 100_000  # combinations of a grid


@dataclass
class Tried:
    """One combination of settings, with what the evaluation says of its LoRA."""

    id: str
    settings: dict[str, Any]
    score: float
    accepted: bool
    step: int
    weight: float
    seconds: float
    file: str


@dataclass
class SweepResult:
    """The combinations, the best first: those that pass no limit of overtraining before the others."""

    root: str
    status: str
    tried: list[Tried]
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def sweep(
    config: SweepConfig,
    on_event: Listener = ignore,
    cancel: Cancel | None = None,
    executor: Executor | None = None,
    trainer: str = USUAL,
) -> SweepResult:
    """Train every combination that has no result yet, evaluate each, and rank them. After a stop the same call goes on.

    Raises MaquetteError for settings that make no jobs.
    """
    rows = rows_of(config)
    with tempfile.TemporaryDirectory() as scratch:
        jobs = Path(scratch) / "sweep.jsonl"
        jobs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        fleet = FleetConfig(
            jobs=jobs, root=config.root, address=config.address, workers=config.workers, slots=config.slots
        )
        ended = driving.run(fleet, _by_id(on_event, jobs, rows), cancel, executor, trainer)
        store = open_store(config.root)
        jobs_now = list(jobs_of(fleet, store, read_settings(fleet, store)))
    problems = [*dict.fromkeys(bad["why"] for bad in ended.bad), *ended.problems]
    return SweepResult(config.root, ended.status, _ranked(store, rows, jobs_now), problems)


def _by_id(on_event: Listener, jobs: Path, rows: list[dict[str, Any]]) -> Listener:
    """A listener that hears of a combination by its id, instead of its line in a file that goes."""
    line = re.compile(re.escape(f"{jobs}, line ") + r"(\d+)")

    def listen(event: Event) -> None:
        if event.kind == "warning":
            told = line.sub(lambda found: str(rows[int(found[1]) - 1]["id"]), event.data["message"])
            event = Event("warning", {"message": told})
        on_event(event)

    return listen


def rows_of(config: SweepConfig) -> list[dict[str, Any]]:
    """The jobs. Raises MaquetteError."""
    fixed: dict[str, Any] = {}
    lists: dict[str, list[Any]] = {}
    ranges: dict[str, tuple[Any, Any]] = {}
    for text in config.settings:
        named, value = parse_setting(text)
        (key,) = TrainConfig.in_new_names({named: value})
        if key not in TrainConfig.model_fields:
            TrainConfig.parse({"photos": config.photos, key: value}, "sweep")  # which says what was meant
        if key in fixed or key in lists or key in ranges:
            raise MaquetteError(f"{key} is set twice: give all its values at once (--set {key}=A,B).")
        if isinstance(value, str) and ".." in value:
            ranges[key] = _ends(key, value)
        elif isinstance(value, str) and "," in value:
            lists[key] = [parse_setting(f"{key}={part.strip()}")[1] for part in value.split(",")]
            if twice := next((one for one in lists[key] if lists[key].count(one) > 1), None):
                raise MaquetteError(f"{key} is to be {twice} twice, which would be the same training: name it once.")
        else:
            fixed[key] = value
    if ranges and config.samples is None:
        raise MaquetteError(f"{next(iter(ranges))} is a range, from which values are drawn: say how many (--samples).")
    if not lists and not ranges:
        raise MaquetteError("There is nothing to try: give a setting with several values (--set rank=4,16).")
    shared = {
        "photos": keys.path_from(Path.cwd(), str(config.photos)), "subject": config.subject,
        "base": keys.base_from(Path.cwd(), config.base), "seed": config.seed, "sample_prompts": [], "choose": False,
        "then": ["evaluate"], **fixed,
    }  # fmt: skip
    return [{**shared, **values, "id": grid_name("sweep", values)} for values in _chosen(config, lists, ranges)]


def _chosen(
    config: SweepConfig, lists: dict[str, list[Any]], ranges: dict[str, tuple[Any, Any]]
) -> list[dict[str, Any]]:
    """All combinations, or so many that are drawn, no two alike."""
    count = math.prod(map(len, lists.values()))
    if config.samples is None:
        if count > MOST:
            raise MaquetteError(f"That is {count} combinations: draw some of them (--samples 50).")
        return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    source = random.Random(config.seed)
    found: dict[str, dict[str, Any]] = {}
    for _ in range(100 * config.samples):
        values = {key: source.choice(options) for key, options in lists.items()}
        values |= {key: _drawn(source, *ends) for key, ends in ranges.items()}
        found.setdefault(json.dumps(values, sort_keys=True), values)
        if len(found) == config.samples:
            break
    return list(found.values())


def _ends(key: str, text: str) -> tuple[Any, Any]:
    """ "1e-5..1e-3" -> (1e-5, 1e-3)."""
    low, _, high = text.partition("..")
    ends = [parse_setting(f"{key}={part.strip()}")[1] for part in (low, high)]
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends) or not ends[0] < ends[1]:
        raise MaquetteError(f"{key}={text} is no range of numbers such as 1e-5..1e-3.")
    return ends[0], ends[1]


def _drawn(source: random.Random, low: Any, high: Any) -> Any:
    """A number of the range: evenly in the logarithm where both ends are above 0; whole where both ends are."""
    value = math.exp(source.uniform(math.log(low), math.log(high))) if low > 0 else source.uniform(low, high)
    if isinstance(low, int) and isinstance(high, int):
        return min(high, max(low, round(value)))
    return float(f"{value:.3g}")


def _ranked(store: Store, rows: list[dict[str, Any]], jobs: list[Job | Bad]) -> list[Tried]:
    """The results of these rows, whatever else has the same id in the root: of an equal score the earlier row first."""
    fixed = {key for key in rows[0] if all(row[key] == rows[0][key] for row in rows)} if len(rows) > 1 else set()
    results = list(index.results(store))
    known = {(line["tenant"], line["key"]): line for line in results if "key" in line}
    found: dict[str, dict[str, Any]] = {}  # by the cheap key, and by the row where its photos are gone
    for line in results:
        result = known.get((line["tenant"], line.get("alias", line.get("key", ""))))
        if result is not None and result["status"] == "done" and result["score"] is not None:
            found[f"{line['tenant']} {line['mark']}"] = found[line["row"]] = result
    tried: list[Tried] = []
    for row, job in zip(rows, jobs, strict=True):
        if (result := found.get(job.row if isinstance(job, Bad) else f"{job.tenant} {job.mark}")) is None:
            continue
        place = f"{layout.attempts(result['tenant'], result['key'])}/{result['attempt']}/lora.safetensors"
        settings = {key: value for key, value in row.items() if key not in fixed | {"id", "then", "photos"}}
        tried.append(
            Tried(
                row["id"], settings, result["score"], result["accepted"], result["step"], result["weight"],
                sum(result["seconds"].values()), f"{store.address}/{place}",
            )
        )  # fmt: skip
    return sorted(tried, key=lambda one: (not one.accepted, -one.score))
