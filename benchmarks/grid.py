"""The grid of docs/grid.md: trains a LoRA of the demo's photos and draws 5 checkpoints x 4 weights x 3 prompts.

    python -m benchmarks.grid FOLDER

FOLDER keeps photos, run and grid; what is there already is used. Prints the seconds of the grid. Compare the picture
with docs/images/grid.png by eye.
"""

from __future__ import annotations

import sys
from pathlib import Path

import maquette
from maquette.demo.mascot import SUBJECT, write_photos
from maquette.demo.settings import TRAINING

STEPS, CHECKPOINTS = 130, 5
AXES = {"x": "checkpoint=all", "y": "weight=0.4-1 [4]", "z": "search=red, blue, yellow"}
PROMPT = f"a photo of {SUBJECT} on a red background <lora:zkw-robot:1>"


def main(folder: Path) -> None:
    run = folder / "zkw-robot"
    write_photos(folder / "photos")
    if not run.exists():
        settings = {"steps": STEPS, "save_every_steps": STEPS // CHECKPOINTS, "choose": False, "sample_prompts": []}
        maquette.train(folder / "photos", subject=SUBJECT, out=run, **settings, **TRAINING)
    result = maquette.grid(PROMPT, lora_dir=run, seed=1, out=folder / "grid", **AXES)
    print(f"{result.picture}: {result.drawn} pictures in {result.seconds:.0f} s ({result.kept} were there)")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
