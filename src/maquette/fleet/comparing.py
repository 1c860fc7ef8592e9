"""`maquette compare`: methods, bases or settings side by side, on the same photos, steps and panel."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..config.compare import CompareConfig
from ..config.fleet import FleetConfig
from ..errors import MaquetteError
from ..evaluation import comparing
from ..evaluation.choice import Row, score
from ..events import Cancel, Cancelled, Event, Listener, ignore, until
from ..files import slug, write_json, write_text
from ..parsing import read_object
from ..report import compare_page
from ..run_folder import RunFolder
from ..stages import compare_judge
from ..training.variants import Variant, variants
from . import driving, index, keys, layout, unchanged
from .local import LocalExecutor
from .run_trainer import RUN_TRAINER, record_of
from .store import LocalStore

OUTCOME = "compare.json"
JOBS = "fleet"  # folder of what the fleet keeps of the trainings


@dataclass
class Compared:
    """A training in the table. base: it was trained on; used: the base it was measured on."""

    name: str
    method: str
    base: str
    used: str
    step: int
    weight: float
    score: float
    values: dict[str, float]
    overtrained: list[str]
    file: str
    file_bytes: int
    seconds: float
    memory_bytes: int | None
    steps: int
    pictures: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)


@dataclass
class CompareResult:
    """The table, what it says in words, and where table and pictures lie."""

    out: str
    report: str
    picture: str
    answers: list[str]
    left_out: list[str]
    trainings: list[Compared]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(config: CompareConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> CompareResult:
    """Train what is not trained yet, measure what is not measured yet, and write the table and its page.

    After a kill the same call goes on. Raises MaquetteError for what cannot be trained, and for a folder that holds
    another comparison, or one of other photos.
    """
    out = config.out or Path("runs") / f"compare-{slug(config.subject)}"
    chosen, left = variants(config, out)
    _begin(config, out)
    unchanged.require(out, [variant.config for variant in chosen])
    for message in left:
        on_event(Event("warning", {"message": message}))
    on_event = until(cancel, on_event)
    _train(config, chosen, out, on_event, cancel)
    measured = compare_judge.measure_all(config, chosen, out, on_event)
    trainings = [_compared(variant, used, out, measured[variant.name, used]) for variant, used in _pairs(chosen)]
    result = CompareResult(
        str(out), str(out / "compare.html"), str(out / "pictures.png"), _answers(config, trainings, measured), left,
        trainings,
    )  # fmt: skip
    values = result.to_json()
    compare_page.write(values, out)
    write_json(out / OUTCOME, values)
    on_event(Event("done", values))
    return result


def _begin(config: CompareConfig, out: Path) -> None:
    """Make the folder, or see that what lies there is this comparison."""
    place = out / "compare.toml"
    text = config.model_copy(update={"out": None, "jobs": 1}).to_toml()
    if place.exists():
        if CompareConfig.read(place) != CompareConfig.parse(config.model_dump() | {"out": None, "jobs": 1}):
            raise MaquetteError(f"{out} holds another comparison ({place} differs): choose another --out.")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MaquetteError(f"{out} is not empty; choose another --out.")
    write_text(place, text)


def _pairs(chosen: list[Variant]) -> list[tuple[Variant, str]]:
    """Each training with the bases that it is used on: its own first."""
    bases = list(dict.fromkeys(variant.config.base for variant in chosen))
    return [(v, used) for v in chosen for used in sorted(bases, key=lambda base: base != v.config.base)]


def _train(config: CompareConfig, chosen: list[Variant], out: Path, on_event: Listener, cancel: Cancel | None) -> None:
    """Train what has no record yet, as jobs of a fleet whose run folders stay; what was begun goes on where it was.

    Raises MaquetteError for one that failed, Cancelled once `cancel` is set.
    """

    def tell(event: Event) -> None:
        if event.kind == "progress":
            done = sum(_trained(out, variant).exists() for variant in chosen)
            on_event(Event("progress", {"what": "training", "done": done, "of": len(chosen)}))
        else:
            on_event(event)

    tell(Event("progress"))
    waiting = [variant for variant in chosen if not _trained(out, variant).exists()]
    if not waiting:
        return
    root = out / JOBS
    jobs, log = root / "jobs.jsonl", root / "workers.log"
    _forget(LocalStore(root))
    write_text(jobs, "".join(json.dumps(_row(variant.name, variant.config)) + "\n" for variant in waiting))
    executor = LocalExecutor(config.jobs, _devices(config), RUN_TRAINER, log, fresh=True)
    ended = driving.run(FleetConfig(jobs=jobs, root=str(root)), tell, cancel, executor, runs=out)
    if cancel is not None and cancel.is_set():
        raise Cancelled("Stopped; what was finished is kept. Go on with the same command.")
    reasons = {bad["id"]: bad["why"] for bad in ended.bad}
    reasons |= {name: why for name, _, why in (problem.partition(": ") for problem in ended.problems)}
    for variant in waiting:
        if not _trained(out, variant).exists():
            why = reasons.get(variant.name, f"why stands in {log}.")
            raise MaquetteError(f"{variant.name} could not be trained: {why}")


def _forget(store: LocalStore) -> None:
    """Take back results: what counts here is the record beside a run folder. Signs of life of others stay."""
    store.remove([layout.PARTS, *(layout.result(*run) for run in index.runs(store))])


def _row(name: str, config: TrainConfig) -> dict[str, Any]:
    """A training as a job."""
    row = config.model_dump(mode="json", exclude_unset=True, exclude={"out", "device"})
    row["photos"] = keys.path_from(Path.cwd(), row["photos"])
    row |= {key: keys.base_from(Path.cwd(), row[key]) for key in keys.FILES if row.get(key) is not None}
    return {"id": name, **row}


def _devices(config: CompareConfig) -> list[str]:
    """Graphics cards of the workers, "" for none; [] for what there is."""
    kind, _, number = config.device.partition(":")
    if kind == "cpu":
        return [""] * config.jobs
    return [number] * config.jobs if number else []


def _trained(out: Path, variant: Variant) -> Path:
    return record_of(out / variant.name)


def _compared(variant: Variant, used: str, out: Path, measured: compare_judge.Measured) -> Compared:
    training = read_object(_trained(out, variant))
    assert variant.config.out is not None
    file = RunFolder(variant.config.out).checkpoint(measured.row.step)
    return Compared(
        variant.name, variant.config.method, variant.config.base, used, measured.row.step, measured.row.weight,
        score(measured.row.values), dict(measured.row.values), measured.overtrained, str(file), file.stat().st_size,
        training["seconds"], training["memory_bytes"], training["steps"], [str(path) for path in measured.pictures],
        measured.prompts,
    )  # fmt: skip


def _answers(
    config: CompareConfig, trainings: list[Compared], measured: dict[tuple[str, str], compare_judge.Measured]
) -> list[str]:
    """What the table says, in words: for each base which training is best, and whether the base matters."""
    sentences: list[str] = []
    for base in dict.fromkeys(one.base for one in trainings):
        own = {one.name: measured[one.name, base].row for one in trainings if one.base == base == one.used}
        if len(own) > 1:
            sentences += ([f"On {base}:"] if config.bases else []) + comparing.ranking(own)
    if config.bases:
        first: dict[tuple[str, str], Row] = {}
        for one in trainings:
            first.setdefault((one.base, one.used), measured[one.name, one.used].row)
        sentences += comparing.base_matters(first)
    return sentences
