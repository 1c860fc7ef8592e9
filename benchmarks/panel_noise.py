"""How much the panel itself decides: seeds of the panel over the checkpoints of a run, and what measuring costs.

python -m benchmarks.panel_noise RUN [--seeds 5] [--size quick|small|standard] [--panel-only] [--json FILE]

Prints, for each measure and for the score, Spearman's correlation between seeds over the checkpoints (the mean over all
pairs of seeds), the step that each seed chooses at weight 1, and the processor seconds of one checkpoint beside those
that training took to reach it, as far as the run was timed here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from maquette.config import TrainConfig
from maquette.evaluation import Row, build_panel, choose, measure_items
from maquette.evaluation.choice import score
from maquette.evaluation.panel import QUICK, SMALL, STANDARD
from maquette.families import load
from maquette.run_folder import RunFolder
from maquette.training.defaults import subject_of
from maquette.training.photos import read_photos
from maquette.training.verdicts import examples

SIZES = {"quick": QUICK, "small": SMALL, "standard": STANDARD}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--size", choices=SIZES, default="standard")
    parser.add_argument("--panel-only", action="store_true", help="without drawing pictures: a quarter of the time")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = RunFolder.open(arguments.run)
    config = TrainConfig.read(folder.config)
    base = load(config.base)
    dataset, *_ = read_photos(config, base, lambda what, done, of: None)
    photos, subject = examples(dataset, base), subject_of(config, dataset) or ""
    found: list[list[Row]] = []
    seconds = []
    for seed in range(arguments.seeds):
        panel = build_panel(base, photos, subject, size=SIZES[arguments.size], seed=seed, clip_skip=config.clip_skip)
        rows = []
        for step, file in folder.checkpoints().items():
            began = time.process_time()
            rows.append(Row.of(step, 1.0, measure_items(base, file, 1.0, panel, not arguments.panel_only)))
            seconds.append(time.process_time() - began)
        found.append(rows)
        print(f"seed {seed}: step {choose(rows).step}", flush=True)
    print(f"one checkpoint: {np.median(seconds):.1f} s of processor time")
    for name in [*found[0][0].values, "score"]:
        series = [[score(r.values) if name == "score" else r.values[name] for r in rows] for rows in found]
        pairs = [spearmanr(a, b).statistic for a, b in itertools.combinations(series, 2) if np.ptp(a) and np.ptp(b)]
        noise = float(np.std(series, axis=0).mean())
        across = float(np.std(np.mean(series, axis=0)))
        rank = f"{np.mean(pairs):5.2f}" if pairs else "    –"  # a measure that does not vary ranks nothing
        print(f"{name:18} Spearman {rank}   noise {noise:.3f}   over steps {across:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps([[row.to_json() for row in rows] for rows in found], indent=1))


if __name__ == "__main__":
    main()
