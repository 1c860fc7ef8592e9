"""python -m tools.pocket SPRITES MERGES --out WORK: everything from sprites to the shipped folder.

A killed run goes on where it was when called again with the same arguments. MERGES is CLIP's published
`bpe_simple_vocab_16e6.txt.gz`. The stages: autoencoder, towers, pool of encoded scenes, UNet, assembly.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import torch

from . import assemble, tokenizer, towers, unet, vae
from .scenes import Sprites


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sprites", type=Path, help="folder with noto/, fluent-3d/ and fluent-flat/ of 128-pixel PNGs")
    parser.add_argument("merges", type=Path, help="CLIP's merge list")
    parser.add_argument("--out", type=Path, required=True, help="work folder: states to continue from, and `weights`")
    parser.add_argument(
        "--stage", choices=["vae", "towers", "pool", "unet", "all"], default="all", help="stop after it"
    )
    parser.add_argument("--vae-steps", type=int, default=2400)
    parser.add_argument("--towers-steps", type=int, default=950)
    parser.add_argument("--shards", type=int, default=10, help="pool size in units of 4,096 scenes")
    parser.add_argument("--unet-steps", type=int, default=10000, help="of 32 samples; may be raised to continue")
    parser.add_argument("--decay", type=float, default=0.3, help="last share of the UNet's steps with falling rate")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="cores to use")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    sprites = Sprites.load(args.sprites)
    if args.stage != "towers":
        encoder = vae.train(sprites, args.out, args.vae_steps)
        if args.stage == "vae":
            print(f"vae: {vae.psnr(encoder, sprites):.2f} dB on held-out scenes", flush=True)
            return
    with tempfile.TemporaryDirectory() as folder:
        from transformers import CLIPTokenizer

        tokenizer.write(args.merges, Path(folder))
        pairs = CLIPTokenizer.from_pretrained(folder)
    pair = towers.train(sprites, pairs, args.out, args.towers_steps)
    if args.stage == "towers":
        objects, styles = towers.accuracy(pair.image, sprites)
        print(f"towers: object head {objects:.1%}, style head {styles:.1%} on fresh scenes", flush=True)
        return
    pool = unet.build_pool(sprites, encoder, pair.text, pairs, args.out, args.shards)
    if args.stage == "pool":
        return
    network = unet.train(pool, args.out, args.unet_steps, args.decay, workers=args.threads)
    assemble.write(args.out / "weights", encoder, pair, network, args.merges)
    print(f"written: {args.out / 'weights'}", flush=True)


if __name__ == "__main__":
    main()
