"""Defaults of training, from the runs of benchmarks/checkpoint_choice.py and a small sweep of the other methods.

python -m benchmarks.defaults sweep --sprites FOLDER [--work out/defaults] [--choice out/choice] [--until 08:40]
python -m benchmarks.defaults sweep --jobs 15 --sprites FOLDER      # so many processes at once, on a graphics card say
python -m benchmarks.defaults tell [--work out/defaults]

`sweep` trains and judges what is missing (choice/extra.py) and goes on where it was stopped. `tell` writes the tables
of docs/defaults.md and one of docs/questions.md from benchmarks/results/checkpoint_choice.jsonl.gz and, where --work is
there, puts what the sweep found into benchmarks/results/defaults.json first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.checkpoint_choice import alone, cast, everything_else
from benchmarks.choice import extra, plan, together
from benchmarks.choice.drawing import Room, sprites_at
from benchmarks.choice.levels import (
    Trained,
    best_cell,
    bracketed,
    default_table,
    further,
    interval,
    paired,
    parts_table,
    rate_table,
    read,
    relative,
)  # fmt: skip
from benchmarks.choice.results import read_rows
from benchmarks.choice.telling import put_between_marks

ROOT = Path(__file__).parent.parent
ROWS, FOUND = ROOT / "benchmarks/results/checkpoint_choice.jsonl.gz", ROOT / "benchmarks/results/defaults.json"
PAGE, QUESTIONS = ROOT / "docs/defaults.md", ROOT / "docs/questions.md"
BEGIN, END = "<!-- figures of benchmarks/defaults.py -->", "<!-- end of figures -->"


def extra_table(found: Sequence[Mapping[str, Any]]) -> str:
    """The small sweep: mean worth of each method and rate, and within subjects what the higher rate changes."""
    by_way: dict[tuple[str, int], dict[int, dict[float, float]]] = {}
    for one in found:
        own = {weight: worth for (_, weight), worth in extra.worths(dict(one)).items()}
        by_way.setdefault((one["method"], one["rate"]), {})[one["subject"]] = own
    lines = [
        "| method | rate | subjects | weight 1 | weight 0.7 | better of both, less the default rate's |",
        "|---" * 6 + "|",
    ]
    for (method, rate), subjects in by_way.items():
        plain = interval([own[1.0] for own in subjects.values()], list(subjects))
        less = [own[0.7] for own in subjects.values() if 0.7 in own]
        shown = f"{np.mean(less):.2f}" if less else "–"
        before, difference = by_way.get((method, 0), {}), "–"
        both = [s for s in subjects if s in before]
        if rate and both:
            differences = [max(subjects[s].values()) - max(before[s].values()) for s in both]
            difference = bracketed(interval(differences, both), "+")
        value = f"{extra.RATES[method][rate]:g}"
        lines.append(f"| {method} | {value} | {len(subjects)} | {bracketed(plain)} | {shown} | {difference} |")
    return "\n".join(lines)


def knobless_table(found: Sequence[Mapping[str, Any]], runs: Sequence[Trained]) -> str:
    """Training without a knob on subjects that nothing was fitted on, and what the sweep's runs of the same subjects
    reach, as shares of the best cell that any of those has. runs: with worths as they are.
    """
    own = [one for one in found if one["method"] == extra.KNOBLESS]
    setting = best_cell([run for run in runs if run.number % 2 == 0])
    lines = [
        "| subject | chosen | worth | last step at weight 1 | the sweep's best setting | best cell of any run |",
        "|---" * 6 + "|",
    ]
    shares: dict[str, list[float]] = {"chosen": [], "last": [], "setting": []}
    for one in own:
        worths, (step, weight) = extra.worths(dict(one)), one["chosen"]
        same = [run for run in runs if run.number == one["subject"]]
        best = max(max(run.worths.values()) for run in same)
        settings = [run.worths[setting] for run in same if run.rate == 0]
        values = {"chosen": worths[step, weight], "last": worths[one["steps"], 1.0]}
        values |= {"setting": float(np.mean(settings))} if settings else {}
        for name, value in values.items():
            shares[name].append(value / best)
        lines.append(
            f"| {one['subject_name']} | {step} of {one['steps']}, weight {weight:g} | {values['chosen']:.2f} "
            f"| {values['last']:.2f} | {values.get('setting', float('nan')):.2f} | {best:.2f} |"
        )
    if own:
        told = {name: bracketed(interval(values, range(len(values)))) for name, values in shares.items() if values}
        lines.append(
            f"\nAs shares of the best cell of any run of the subject (luck included): no knob {told['chosen']}, "
            f"its last step at weight 1 {told['last']}, the sweep's best setting {told.get('setting', '–')}."
        )
    return "\n".join(lines)


def sections(found: Sequence[Mapping[str, Any]], runs: Sequence[Trained]) -> list[str]:
    """Of the small sweep, as far as there is anything of each."""
    heads = {
        f"Other methods, {extra.STEPS} steps of {plan.BATCH} at a constant rate, the same subjects for all, worth "
        "as it is:": extra_table([one for one in found if one["method"] != extra.KNOBLESS]),
        "`maquette train` without a knob on subjects on which nothing was fitted:": knobless_table(found, runs),
    }  # fmt: skip
    return [text for head, table in heads.items() if table.count("\n") > 1 for text in (head, table)]


def tables(runs: Sequence[Trained], found: Sequence[Mapping[str, Any]]) -> str:
    """All of the text between the marks."""
    shares = relative(runs)
    fitted, reported = [r for r in shares if r.number % 2 == 0], [r for r in shares if r.number % 2]
    adapters = [run for run in shares if run.method != "dreambooth"]
    return "\n\n".join(
        [
            f"From {len(runs)} runs of {len({run.subject for run in runs})} subjects. Worth as a share of the best "
            "that any run of the subject has anywhere; mean over runs, by step:",
            rate_table(shares),
            f"Today's defaults at the lower rates, on the {sum(run.rate == 0 for run in reported)} runs of subjects on "
            f"which nothing was fitted and on all {sum(run.rate == 0 for run in shares)} (in brackets 95 % intervals, "
            "by a bootstrap over subjects):",
            default_table(fitted, reported),
            "Best cell of a run, within subjects: higher rate less lower "
            + paired(shares, lambda r: r.rate == 1, lambda r: r.rate == 0)
            + "; with prior preservation less without "
            + paired(shares, lambda r: r.prior, lambda r: not r.prior)
            + "; rank 16 less rank 4 "
            + paired(shares, lambda r: r.method == "lora-16", lambda r: r.method == "lora-4")
            + "; DreamBooth less LoRA "
            + paired(shares, lambda r: r.method == "dreambooth", lambda r: r.method.startswith("lora"))
            + "; LoKr less LoRA "
            + paired(adapters, lambda r: r.method == "lokr", lambda r: r.method.startswith("lora"))
            + "; 14 captioned photos less 14 without captions "
            + paired(shares, lambda r: r.data == "captioned", lambda r: r.data == "uncaptioned")
            + "; 14 captioned photos less 5 "
            + paired(shares, lambda r: r.data == "captioned", lambda r: r.data == "five")
            + ".",
            f"LoKr at {extra.TIMES} times its rate, as by default, less the default's: "
            + further(shares, "lokr", extra.TIMES)
            + ".",
            *(sections(found, runs) if found else ()),
        ]
    )


def tell(work: Path) -> None:
    files = sorted(work.glob("*.json")) if work.is_dir() else []
    if files:
        every = [json.loads(file.read_text()) for file in files]
        order = [one.name for one in extra.extras()]
        every.sort(key=lambda one: order.index(one["name"]))
        FOUND.write_text("[\n" + ",\n".join(json.dumps(one, separators=(",", ":")) for one in every) + "\n]\n")
    found = json.loads(FOUND.read_text()) if FOUND.exists() else []
    runs = read(read_rows(ROWS))
    for page, text in ((PAGE, tables(runs, found)), (QUESTIONS, parts_table(relative(runs)))):
        page.write_text(put_between_marks(page.read_text(encoding="utf-8"), text, BEGIN, END), encoding="utf-8")
        print(text)


def sweep(work: Path, choice: Path, sprites: Path, until: float, jobs: int) -> int:
    """Train and judge what is missing, in so many processes. Returns how many of them failed."""
    for folder in (work, choice):
        folder.mkdir(parents=True, exist_ok=True)
    with alone(work, "sweep"):
        if jobs == 1:
            worker(work, choice, sprites, until)
            return 0
        cast(choice, sprites_at(sprites), plan.SUBJECTS)  # what all of them need
        everything_else(Room.open(), choice)
        return together.start(["worker", *sys.argv[2:]], jobs, module="benchmarks.defaults")


def worker(work: Path, choice: Path, sprites: Path, until: float) -> None:
    """One process of a sweep."""
    people = cast(choice, sprites_at(sprites), plan.SUBJECTS)
    room = Room.open()
    extra.sweep(work, people, room, everything_else(room, choice), until)


def moment(text: str) -> float:
    """Seconds since 1970 of a time of today, HH:MM or HH:MM:SS."""
    form = "%H:%M:%S" if text.count(":") == 2 else "%H:%M"
    return time.mktime(time.strptime(f"{time.strftime('%Y-%m-%d')} {text}", f"%Y-%m-%d {form}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=("sweep", "worker", "tell"))
    parser.add_argument("--sprites", type=Path, help="as benchmarks.checkpoint_choice takes them")
    parser.add_argument("--work", type=Path, default=Path("out/defaults"))
    parser.add_argument("--choice", type=Path, default=Path("out/choice"), help="that benchmark's work folder")
    parser.add_argument("--until", type=moment, default="23:59", help="nothing is begun after this time of today")
    parser.add_argument("--jobs", type=int, default=1, help="processes of `sweep`")
    args = parser.parse_args()
    if args.phase == "tell":
        tell(args.work)
    elif args.sprites is None:
        parser.error("sweep needs --sprites")
    elif args.phase == "worker":
        worker(args.work, args.choice, args.sprites, args.until)
    else:
        failed = sweep(args.work, args.choice, args.sprites, args.until, args.jobs)
        sys.exit(f"{failed} processes failed" if failed else None)


if __name__ == "__main__":
    main()
