"""Runs in processes of their own, to be killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SETTINGS = {
    "subject": "zkw disc", "batch_size": 2, "rank": 2, "dtype": "fp32", "ema_decay": 0.9, "flip_aug": True,
    "caption_dropout": 0.2, "dropout": 0.1, "noise_offset": 0.05, "sample_prompts": ["a photo of zkw disc"],
    "sample_steps": 1, "save_every_steps": 2, "keep_last": 2, "keep_steps": [4],
}  # fmt: skip

CHILD = """
import sys
from pathlib import Path
from maquette.config import TrainConfig
from maquette.stages import train
def tell(event):
    print(event.kind, event.data.get("step"), flush=True)
settings, run = sys.argv[1:]
if (Path(run) / "run.toml").exists():
    train.resume(run, None, tell)
else:
    train.run(TrainConfig.read(settings), tell)
"""


def make_photos(folder: Path, count: int = 3) -> Path:
    """Pictures of a yellow disc, each with its own caption."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[0:64, 0:64]
    for i in range(count):
        pixels = np.full((64, 64, 3), (60 * i, 90, 200 - 50 * i), np.uint8)
        pixels[(x - 20 - 8 * i) ** 2 + (y - 32) ** 2 < 15**2] = (240, 220, 60)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"a photo of zkw disc, number {i}")
    return folder


def start(settings: Path, run: Path) -> subprocess.Popen[str]:
    """Begin the run, or go on with it."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(settings), str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},  # to the same bits as here
    )


def kill_often(settings: Path, run: Path, kills: int, seed: int) -> list[str]:
    """Kill the run at random moments: in its writes, within a step, while it starts. Returns the last words."""
    dice, told = random.Random(seed), []
    for _ in range(kills):
        child = start(settings, run)
        assert child.stdout is not None
        word = "starting"
        for _ in range(dice.randrange(9)):
            word = child.stdout.readline().strip() or word
        time.sleep(dice.random() * 0.4)
        assert child.poll() is None, f"the run ended before its kills: {child.communicate()[1]}"
        child.kill()
        child.communicate()
        told.append(word)
    return told
