"""A pocket base that inpaints: nine input channels, taught on scenes with random parts hidden. Does not ship.

python -m tools.pocket.inpainting SPRITES [--out WORK] [--steps N]
It starts from the base's own weights, with nothing in the five channels more (mask and masked picture), as Stable
Diffusion's inpainting models did. The result is WORK/pocket-inpainting.safetensors; without --out it is kept in the
user's cache, and made once. A killed run goes on where it was when called again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maquette.core.noise import noise_process
from maquette.core.seeds import seeded
from maquette.families import checkpoint, load, modules, save
from maquette.families.base import BaseModel
from maquette.families.pocket import POCKET, WEIGHTS
from maquette.files import cache_of_user
from maquette.sampling.inpainting import extra_channels
from maquette.training.inpainting import random_mask

from .encoded import pixels_of, posteriors, shards_of, texts_of
from .scenes import SIZE, Sprites, batch_of
from .training import Averaged, Run, warm_stable_decay

MIN_SNR_GAMMA = 5.0
EMPTY_CAPTIONS = 0.1
LEARNING_RATE = 5e-4
SHARD = 1024
FILE = "pocket-inpainting.safetensors"


@dataclass
class Pool:
    """Encoded scenes: latent mean and deviation (N, 4, 16, 16), mask and masked picture (N, 5, 16, 16), all in fp16,
    and rows into the captions' features (M, 77, 128), of which row 0 is the empty caption.
    """

    mean: Tensor
    std: Tensor
    shown: Tensor
    caption: Tensor
    texts: Tensor


@torch.no_grad()
def build_pool(sprites: Sprites, base: BaseModel, folder: Path, shards: int) -> Pool:
    """Compose and encode `shards` x 1,024 scenes, each with one mask; each shard is a file."""

    def shard(k: int) -> dict[str, Any]:
        scenes, random = batch_of(np.random.default_rng((13, k)), sprites, SHARD), seeded(13, "masks", k)
        x = pixels_of([s.pixels for s in scenes])
        return {
            **posteriors(base, x),
            "shown": torch.stack([extra_channels(base, one, random_mask(SIZE, SIZE, random)) for one in x]).half(),
            "captions": [s.caption for s in scenes],
        }

    parts = shards_of(folder, "inpainting", shards, shard)
    mean, std, shown = (torch.cat([part[key] for part in parts]) for key in ("mean", "std", "shown"))
    return Pool(mean, std, shown, *texts_of(base, parts))


def widened(unet: nn.Module) -> dict[str, Tensor]:
    """The base's weights with five input channels more, of zeros."""
    state = {name: tensor.float().clone() for name, tensor in unet.state_dict().items()}
    state["conv_in.weight"] = nn.functional.pad(state["conv_in.weight"], (0, 0, 0, 0, 0, 5))
    return state


def train(base: BaseModel, pool: Pool, folder: Path, steps: int, batch: int, seed: int = 1) -> dict[str, Tensor]:
    """Train or continue; returns the averaged weights. State: folder/inpainting.pt."""
    config = checkpoint.read_folder(WEIGHTS, POCKET).configs["unet"] | {"in_channels": 9}
    unet = modules.build_unet(config)
    unet.load_state_dict(widened(base.unet), assign=True)
    unet.requires_grad_().train()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    mean = Averaged(unet, 0.99)
    run = Run(folder / "inpainting.pt", steps, {"unet": unet, "optimizer": optimizer, "mean": mean})
    process, window = noise_process(base.scheduler_config), []
    for step in run.steps():
        x0, shown, texts, noise, t = samples(pool, batch, seed * 1_000_003 + step)
        x_t = process.add_noise(x0, noise, t)
        with torch.autocast("cpu", torch.bfloat16):
            answer = unet(torch.cat([x_t, shown], 1), t, texts, features=None)
        error = (answer.float() - process.target(x0, noise, t)).square().mean((1, 2, 3))
        loss = (process.loss_weight(t, MIN_SNR_GAMMA, False, False, 0.0) * error).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * warm_stable_decay(step, steps, warmup=50)
        optimizer.step()
        unet.zero_grad()
        mean.update(step)
        window.append(loss.item())
        if step % 25 == 24:
            print(f"inpainting {step + 1}/{steps} loss {np.mean(window[-25:]):.4f} {run.seconds:.0f} s", flush=True)
    return mean.values


def samples(pool: Pool, batch: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Latents, mask and masked picture, texts, noise and timesteps of one step."""
    g = torch.Generator().manual_seed(seed)
    i = torch.randint(len(pool.mean), (batch,), generator=g)
    x0 = pool.mean[i].float() + pool.std[i].float() * torch.randn(batch, 4, 16, 16, generator=g)
    rows = torch.where(torch.rand(batch, generator=g) < EMPTY_CAPTIONS, 0, pool.caption[i])
    noise = torch.randn(batch, 4, 16, 16, generator=g)
    u = (torch.arange(batch) + torch.rand(batch, generator=g)) / batch  # stratified over the schedule
    return x0, pool.shown[i].float(), pool.texts[rows].float(), noise, (u * 1000).long().clamp(max=999)


def write(weights: dict[str, Tensor], path: Path) -> None:
    """The whole model as one file in fp16."""
    model = checkpoint.read_folder(WEIGHTS, POCKET)
    model.parts["unet"] = weights
    model.configs["unet"] = model.configs["unet"] | {"in_channels": 9}
    save.write_single_file(model, path, torch.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sprites", type=Path, help="folder with noto/, fluent-3d/ and fluent-flat/ of 128-pixel PNGs")
    parser.add_argument("--out", type=Path, default=cache_of_user() / "pocket-inpainting", help="work folder")
    parser.add_argument("--shards", type=int, default=6, help="pool size in units of 1,024 scenes")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1, help="cores to use")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    made = args.out / FILE
    if not made.exists():
        base = load("pocket")
        pool = build_pool(Sprites.load(args.sprites), base, args.out, args.shards)
        write(train(base, pool, args.out, args.steps, args.batch), made)
    print(f"written: {made}", flush=True)


if __name__ == "__main__":
    main()
