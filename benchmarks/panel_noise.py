"""How much the panel itself decides: seeds of the panel over the checkpoints of a run, and what measuring costs.

python -m benchmarks.panel_noise RUN [--seeds 5] [--size quick|small|standard|large] [--weights 0.5,0.7,1] [--panels 3]
    [--panel-only] [--json FILE]

Prints, for each measure and for the score, Spearman's correlation between seeds over the candidates, which are all
checkpoints at each of the weights (the mean over all pairs of seeds), what each seed chooses, and the processor
seconds of one candidate. With --panels each seed stands for the mean of so many panels, as `maquette evaluate --seeds`
takes it. What was measured is kept in the JSON file after every panel, and is not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from maquette.config import TrainConfig
from maquette.evaluation import Row, build_panel, choose, measure_items
from maquette.evaluation.choice import score
from maquette.evaluation.noise import joined
from maquette.evaluation.panel import LARGE, QUICK, SMALL, STANDARD, Size
from maquette.families import load
from maquette.run_folder import RunFolder
from maquette.training.defaults import subject_of
from maquette.training.photos import read_photos
from maquette.training.verdicts import examples

SIZES = {"quick": QUICK, "small": SMALL, "standard": STANDARD, "large": LARGE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--panels", type=int, default=1)
    parser.add_argument("--size", choices=SIZES, default="standard")
    parser.add_argument("--weights", default="1")
    parser.add_argument("--panel-only", action="store_true", help="without drawing pictures: a quarter of the time")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    weights = [float(weight) for weight in arguments.weights.split(",")]
    known = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else []
    measured = panels(arguments.run, SIZES[arguments.size], weights, not arguments.panel_only, len(known))
    for rows in itertools.islice(measured, arguments.seeds * arguments.panels - len(known)):
        known.append([{"step": row.step, "weight": row.weight, "items": dict(row.items)} for row in rows])
        if arguments.json:
            arguments.json.write_text(json.dumps(known))
    found = [[Row.of(r["step"], r["weight"], r["items"]) for r in rows] for rows in known]
    tell([joined(found[i :: arguments.seeds]) for i in range(arguments.seeds)])


def panels(run: Path, size: Size, weights: Sequence[float], drawings: bool, first: int) -> Iterator[list[Row]]:
    """What panels of the seeds `first`, `first` + 1, ... say of every checkpoint at every weight."""
    folder = RunFolder.open(run)
    config = TrainConfig.read(folder.config)
    base = load(config.base)
    dataset = read_photos(config, base, lambda what, done, of: None)[0]
    photos, subject = examples(dataset, base), subject_of(config, dataset) or ""
    for seed in itertools.count(first):
        panel = build_panel(base, photos, subject, size=size, seed=seed, clip_skip=config.clip_skip)
        rows, began = [], time.process_time()
        for step, file in folder.checkpoints().items():
            for weight in weights:
                rows.append(Row.of(step, weight, measure_items(base, file, weight, panel, drawings)))
        seconds = (time.process_time() - began) / len(rows)
        print(f"panel {seed}: {seconds:.1f} s of processor time for a candidate", flush=True)
        yield rows


def tell(found: Sequence[Sequence[Row]]) -> None:
    """found: of each seed the candidates, in one order."""
    for seed, rows in enumerate(found):
        chosen = choose(rows)
        print(f"seed {seed}: step {chosen.step} at weight {chosen.weight:g}")
    for name in [*found[0][0].values, "score"]:
        series = [[score(r.values) if name == "score" else r.values[name] for r in rows] for rows in found]
        pairs = [spearmanr(a, b).statistic for a, b in itertools.combinations(series, 2) if np.ptp(a) and np.ptp(b)]
        noise = float(np.std(series, axis=0).mean())
        across = float(np.std(np.mean(series, axis=0)))
        rank = f"{np.mean(pairs):5.2f}" if pairs else "    –"  # a measure that does not vary ranks nothing
        print(f"{name:18} Spearman {rank}   noise {noise:.3f}   over candidates {across:.3f}")


if __name__ == "__main__":
    main()
