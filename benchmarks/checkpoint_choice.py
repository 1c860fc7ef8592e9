"""Which checkpoint is right? How often the rule that chooses one is wrong, on subjects the pocket base never saw.

python -m benchmarks.checkpoint_choice PHASE --sprites FOLDER [--work out/choice] [--subjects N] [--runs N]
python -m benchmarks.checkpoint_choice together --jobs 15 --seconds 500 --sprites FOLDER   # the first three at once

Phases, each of which goes on where it was stopped:
  train    learn every subject in four settings of a balanced fraction (choice/plan.py), each far past its best
  truth    judge every checkpoint at five weights on fresh scenes, 64 pictures each (--draws 4, of 16 pictures)
  measure  what `maquette evaluate` measures of the same checkpoints, which sees the photos only
  again    likeness by the eye as it is now, of the pictures that `measure` kept; several processes at once
  fit      limits and weights of the rule on half of the subjects, regret on the other half, beside rivals'
  bounds   what the truth's own noise allows, and other forms of the rule (choice/floor.py, choice/others.py)
  report   the same as tables and a plot in docs/measurements/checkpoint_choice.md, every row in benchmarks/results/
FOLDER holds sprites: PNG files with transparency, or one folder of them for each style.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from benchmarks.choice import (
    bounds,
    fitting,
    latents,
    measuring,
    plan,
    results,
    subjects,
    telling,
    together,
    training,
    truth,
)
from benchmarks.choice.candidates import Run, finished
from benchmarks.choice.cases import cases
from benchmarks.choice.drawing import SHOWN, Room, a_photo, sprites_at, with_article
from benchmarks.choice.rivals import rivals
from benchmarks.choice.utility import regret
from maquette.errors import MaquetteError
from maquette.evaluation.rule import RULE
from maquette.formats import safetensors

SEED = 2026
ROOT = Path(__file__).parent.parent
PAGE, PLOT = ROOT / "docs/measurements/checkpoint_choice.md", ROOT / "docs/images/checkpoint_choice.svg"
ROWS = ROOT / "benchmarks/results/checkpoint_choice.jsonl.gz"
PLOTTED = (
    "the rule as shipped", "last step, weight 1", "least train loss, weight 1", "least held-out loss, weight 1",
    "DVAR's stop, weight 1", "pocket's tower alone, weight 1",
)  # fmt: skip


def log(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


@contextmanager
def alone(work: Path, phase: str) -> Iterator[None]:
    """One process at a time for each phase of a work folder."""
    with (work / f"{phase}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"{phase} is at work in {work} already.") from None
        yield


def cast(work: Path, sprites: Path, count: int) -> list[subjects.Subject]:
    """The subjects of a work folder, chosen at its first use."""
    told = work / "subjects.json"
    if not told.exists():
        log("choosing subjects")
        chosen = subjects.choose(Room.open(), sprites, count, SEED)
        told.write_text(json.dumps([subject.told() for subject in chosen], indent=1))
    known = json.loads(told.read_text())
    if len(known) != count:
        raise SystemExit(f"{work} has {len(known)} subjects; give --subjects {len(known)} or another --work.")
    return [subjects.restore(entry, sprites) for entry in known]


def train(work: Path, people: list[subjects.Subject], most: int | None) -> None:
    for setting in list(plan.settings(len(people)))[:most]:
        train_one(work, people, setting)


def train_one(work: Path, people: list[subjects.Subject], setting: plan.Setting) -> None:
    """Train a setting, unless that is done."""
    folder, subject = work / "runs" / setting.name, people[setting.subject]
    if done(folder, plan.key(setting, subject.told())):
        return
    try:
        told = training.train(setting, subject, folder)
    except MaquetteError as error:  # a rate that breaks the numbers is a result, too
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "failed.txt").write_text(str(error))
        log(f"{setting.name}: {error}")
        return
    log(f"{setting.name}: {told['processor_seconds']:.0f} s of processor, {told['seconds']:.0f} s")


def done(folder: Path, key: str) -> bool:
    """Whether the run is there, made with these settings, or is known to fail."""
    if (folder / "failed.txt").exists():
        return True
    file = folder / "run.json"
    return file.exists() and json.loads(file.read_text())["key"] == key


def judge(work: Path, people: list[subjects.Subject], most: int | None, draws: int = truth.DRAWS) -> None:
    """Judge what is trained; whatever is trained meanwhile, too."""
    room, juries = Room.open(), {}
    known = everything_else(room, work)
    while todo := [run for run in finished(work, len(people))[:most] if not judged(work, run, draws)]:
        number = todo[0].told["subject"]
        if number not in juries:
            juries[number] = truth.Jury(room, people[number], known)
        judge_one(work, todo[0], juries[number], draws)


def judge_one(work: Path, run: Run, jury: truth.Jury, draws: int) -> None:
    """Judge a run's cells."""
    (work / "truth").mkdir(exist_ok=True)
    with timed(f"{run.name}: judged"):
        truth.judge_run(run, jury, work / "truth" / f"{run.name}.json", draws)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Log afterwards how long the block took."""
    began, processor = time.perf_counter(), time.process_time()
    yield
    log(f"{what}, {time.process_time() - processor:.0f} s of processor, {time.perf_counter() - began:.0f} s")


def judged(work: Path, run: Run, draws: int) -> bool:
    return truth.judged(run, work / "truth" / f"{run.name}.json", draws)


def measure(work: Path, people: list[subjects.Subject], most: int | None) -> None:
    """Measure what is trained, of each run every cell."""
    room = Room.open()
    while todo := [run for run in finished(work, len(people))[:most] if not measured(work, run)]:
        measure_one(work, people, room, todo[0])


def measure_one(work: Path, people: list[subjects.Subject], room: Room, run: Run) -> None:
    """Measure a run's cells."""
    (work / "measures").mkdir(exist_ok=True)
    subject = people[run.told["subject"]]
    with timed(f"{run.name}: measured"):
        latents.keep_latents(room, run, subject, work / "latents" / f"{run.name}.safetensors")
        measuring.measure_run(room, run, subject, work / "measures" / f"{run.name}.json")


def measured(work: Path, run: Run) -> bool:
    """Whether all is measured, with the measures as they are now."""
    file = work / "measures" / f"{run.name}.json"
    if not file.exists():
        return False
    told = json.loads(file.read_text())
    return told.get("done", False) and (told["key"], told["code"]) == (run.key, measuring.code())


def again(work: Path, people: list[subjects.Subject], most: int | None) -> None:
    """Measure likeness anew by the kept pictures, with the eye as it is now."""
    room, runs = Room.open(), {run.name: run for run in finished(work, len(people))[:most]}

    def one(name: str) -> None:
        run, files = runs[name], {kind: work / kind / name for kind in ("latents", "measures")}
        latents.look_again(
            room, run, people[run.told["subject"]],
            files["latents"].with_suffix(".safetensors"), files["measures"].with_suffix(".json"),
        )  # fmt: skip
        log(f"{name}: looked at again")

    together.share(list(runs), work / "locks", float("inf"), one, lambda name: measured(work, runs[name]))


def worker(work: Path, people: list[subjects.Subject], most: int | None, draws: int, until: float) -> None:
    """Whole runs, those that no other process is at: train, judge, measure."""
    room = Room.open()
    known = everything_else(room, work)
    settings = {setting.name: setting for setting in list(plan.settings(len(people)))[:most]}

    def complete(name: str) -> bool:
        folder, subject = work / "runs" / name, people[settings[name].subject]
        if not done(folder, plan.key(settings[name], subject.told())):
            return False
        if (folder / "failed.txt").exists():
            return True
        run = Run.read(folder)
        return judged(work, run, draws) and measured(work, run)

    def whole(name: str) -> None:
        train_one(work, people, settings[name])
        folder = work / "runs" / name
        if (folder / "failed.txt").exists():
            return
        run, jury = Run.read(folder), truth.Jury(room, people[settings[name].subject], known)
        judge_one(work, run, jury, draws)
        measure_one(work, people, room, run)

    together.share(list(settings), work / "locks", until, whole, complete)


def fit(work: Path, people: list[subjects.Subject], most: int | None) -> None:
    """Regret of the rule and of its rivals, from what is there."""
    known = cases(work, len(people))[:most]
    if not known:
        raise SystemExit(f"No run of {work} is trained, judged and measured yet.")
    told = results.results(known)
    (work / "results.json").write_text(json.dumps(told, indent=1))
    print(telling.tables(told))


def report(work: Path, people: list[subjects.Subject], most: int | None) -> None:
    """The page, the plot and the rows, from what `fit` found."""
    known = cases(work, len(people))[:most]
    told = json.loads((work / "results.json").read_text())
    if told["runs"] != len(known):
        raise SystemExit(f"{work}/results.json knows {told['runs']} runs, {len(known)} are there: call fit first.")
    worth = f"Mean worth by step and weight, each run's best being 1:\n\n{telling.worth_map(known)}"
    picture = f"![Share of the runs by regret, a line for each way to choose](../images/{PLOT.name})"
    text = f"{telling.tables(told)}\n\n{picture}\n\n{worth}"
    PAGE.write_text(telling.put_between_marks(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
    ways = {"the rule as shipped": fitting.chooser(RULE), **rivals(known)}
    curves = {name: [regret(case.worths, ways[name](case)) for case in known] for name in ways if name in PLOTTED}
    PLOT.write_text(telling.regret_plot(curves), encoding="utf-8")
    results.write_rows(known, ROWS)
    log(f"{PAGE.relative_to(ROOT)}, {PLOT.relative_to(ROOT)} and {ROWS.relative_to(ROOT)} from {len(known)} runs")


def bound(work: Path, people: list[subjects.Subject], most: int | None) -> None:
    """What the noise allows and what other rules reach, into the page."""
    told = bounds.bounds(cases(work, len(people))[:most])
    (work / "bounds.json").write_text(json.dumps(told, indent=1))
    text = telling.put_between_marks(PAGE.read_text(encoding="utf-8"), bounds.page(told), bounds.BEGIN, bounds.END)
    PAGE.write_text(text, encoding="utf-8")
    print(bounds.page(told))


def everything_else(room: Room, work: Path) -> Tensor:
    """(N, 192) features of what the base draws for its own words, from which probes tell the subjects."""
    file = work / "known.safetensors"
    if not file.exists():
        prompts = [a_photo(with_article(o), c) for o in room.court.objects for c in SHOWN]
        pictures = room.draw(prompts, list(range(len(prompts))))
        safetensors.save({"features": room.court.tower.features(pictures * 2 - 1).detach().cpu()}, file)
    return safetensors.load(file)["features"].to(room.base.device)


PHASES = {
    "train": train,
    "truth": judge,
    "measure": measure,
    "again": again,
    "fit": fit,
    "bounds": bound,
    "report": report,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=[*PHASES, "together", "worker"])
    parser.add_argument("--sprites", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/choice"))
    parser.add_argument("--subjects", type=int, default=plan.SUBJECTS)
    parser.add_argument("--runs", type=int, help="the first so many of the runs only")
    parser.add_argument("--draws", type=int, default=truth.DRAWS, help="of 16 pictures, by which a cell is judged")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes of `together`")
    parser.add_argument("--seconds", type=float, default=1e9, help="that `together` may take")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    sprites = sprites_at(args.sprites)
    if args.phase == "worker":
        worker(args.work, cast(args.work, sprites, args.subjects), args.runs, args.draws, time.time() + args.seconds)
        return
    if args.phase == "together":
        with alone(args.work, args.phase):
            cast(args.work, sprites, args.subjects)
            everything_else(Room.open(), args.work)
            failed = together.start(["worker", *sys.argv[2:]], args.jobs, time.time() + args.seconds)
        sys.exit(f"{failed} processes failed" if failed else None)
    if args.phase == "again":
        again(args.work, cast(args.work, sprites, args.subjects), args.runs)
        return
    with alone(args.work, args.phase):
        people = cast(args.work, sprites, args.subjects)
        more = {"draws": args.draws} if args.phase == "truth" else {}
        PHASES[args.phase](args.work, people, args.runs, **more)


if __name__ == "__main__":
    sys.exit(main())
