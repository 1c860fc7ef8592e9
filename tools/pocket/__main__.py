"""python -m tools.pocket SPRITES --out WORK: everything from sprites to the shipped folder; a killed run goes on where it was."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from . import vae as vae_stage
from .scenes import Sprites


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sprites", type=Path, help="folder with noto/, fluent-3d/ and fluent-flat/ of 128-pixel PNGs")
    parser.add_argument("--out", type=Path, required=True, help="work folder: states to continue from")
    parser.add_argument("--vae-steps", type=int, default=2400)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    sprites = Sprites.load(args.sprites)
    vae = vae_stage.train(sprites, args.out, args.vae_steps)
    print(f"vae: {vae_stage.psnr(vae, sprites):.2f} dB on held-out scenes", flush=True)


if __name__ == "__main__":
    main()
