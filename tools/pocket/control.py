"""A small ControlNet for the pocket base, taught with scenes and their edges (Zhang et al. 2302.05543).

python -m tools.pocket.control SPRITES --out WORK [--steps N]
It starts from the base's own weights with zero convolutions; the base stays frozen. To fit into 6 MB it has one
transformer and one middle block of the base's. A killed run goes on where it was when called again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from maquette.core.noise import noise_process
from maquette.families import load
from maquette.families.base import BaseModel
from maquette.families.unet import ControlNetModel
from maquette.formats.safetensors import save
from maquette.sampling.pictures.edges import canny

from .encoded import pixels_of, posteriors, shards_of, texts_of
from .scenes import COLOURS, OBJECTS, PATTERNS, SIZE, STYLES, Sprites, background, caption_of, paste, with_article
from .training import Averaged, Run, warm_stable_decay

MIN_SNR_GAMMA = 5.0
EMPTY_CAPTIONS = 0.2
LEARNING_RATE = 1e-3
SHARD = 1024
CONFIG: dict[str, Any] = {
    "_class_name": "ControlNetModel", "in_channels": 4, "block_out_channels": [64, 128, 192], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"], "mid_block_type": "UNetMidBlock2D",
    "cross_attention_dim": 128, "attention_head_dim": 4, "norm_num_groups": 16, "conditioning_channels": 3,
    "conditioning_embedding_out_channels": [16, 32, 64], "controlnet_conditioning_channel_order": "rgb",
}  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """A scene, what it shows, and its edges."""

    pixels: np.ndarray  # (64, 64, 3) uint8
    edges: np.ndarray  # (64, 64) uint8, 0 or 255
    caption: str  # empty where the base does not know the object
    object: int  # index into OBJECTS, -1 for others


def compose(rng: np.random.Generator, sprites: Sprites, known: bool = False) -> Shown:
    """One object anywhere, at many sizes, turned and mirrored: what the base draws only where it is shown how.

    known: only objects of the base, upright and on a plain ground (to measure).
    """
    style = list(STYLES)[rng.integers(len(STYLES))]
    colour = list(COLOURS)[rng.integers(len(COLOURS))]
    pattern = None if known or rng.random() < 0.8 else PATTERNS[rng.integers(len(PATTERNS))]
    names = list(OBJECTS)
    index = int(rng.integers(len(names)))
    stem, caption = OBJECTS[names[index]], caption_of(rng, with_article(names[index]), colour, pattern, style)
    if not known and rng.random() < 0.3:
        stems = [s for f, s in sprites.of if f == style]
        index, stem, caption = -1, stems[rng.integers(len(stems))], ""
    canvas = background(rng, colour, pattern).copy()
    angle = 0.0 if known or rng.random() < 0.5 else float(rng.uniform(-40, 40))
    sprite = turned(sprites.of[style, stem], round(rng.uniform(0.45, 0.9) * SIZE), angle, bool(rng.random() < 0.5))
    slack = SIZE - sprite.shape[0]
    paste(canvas, sprite, int(rng.integers(0, slack + 1)), int(rng.integers(0, slack + 1)))
    pixels = (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
    low = 100.0 if known else float(rng.uniform(60, 140))
    return Shown(pixels, canny(pixels, low, 2 * low), caption, index)


def turned(sprite: Image.Image, pixels: int, angle: float, mirrored: bool) -> np.ndarray:
    """A premultiplied sprite, turned and at a size: float32 (pixels, pixels, 4) in [0, 1]."""
    if mirrored:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    bands = [b.rotate(angle, Image.Resampling.BICUBIC).resize((pixels, pixels), Image.Resampling.BICUBIC)
             for b in sprite.split()]  # fmt: skip
    return np.stack([np.asarray(b, np.float32) for b in bands], axis=2) / 255


@dataclass
class Pool:
    """Encoded scenes: latent mean and deviation (N, 4, 16, 16) fp16, edges (N, 64, 64) uint8, rows into texts."""

    mean: Tensor
    std: Tensor
    edges: Tensor
    caption: Tensor  # (N,) int64
    texts: Tensor  # (M, 77, 128) fp16; row 0 is the empty caption


@torch.no_grad()
def build_pool(sprites: Sprites, base: BaseModel, folder: Path, shards: int) -> Pool:
    """Compose and encode `shards` x 1,024 scenes; each shard is a file, so that a killed run goes on at the next."""

    def shard(k: int) -> dict[str, Any]:
        rng = np.random.default_rng((11, k))
        scenes = [compose(rng, sprites) for _ in range(SHARD)]
        return {
            **posteriors(base, pixels_of([s.pixels for s in scenes])),
            "edges": torch.from_numpy(np.stack([s.edges for s in scenes])),
            "captions": [s.caption for s in scenes],
        }

    parts = shards_of(folder, "control", shards, shard)
    mean, std, edges = (torch.cat([part[key] for part in parts]) for key in ("mean", "std", "edges"))
    return Pool(mean, std, edges, *texts_of(base, parts))


def build(unet: nn.Module, seed: int = 1) -> ControlNetModel:
    """A ControlNet that as yet adds nothing: the base's weights where it has the same layers, zero convolutions."""
    torch.manual_seed(seed)
    control = ControlNetModel(CONFIG)
    own = control.state_dict()
    control.load_state_dict({k: v for k, v in unet.state_dict().items() if k in own}, strict=False)
    for last in (
        *control.controlnet_down_blocks,
        control.controlnet_mid_block,
        control.controlnet_cond_embedding.conv_out,
    ):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return control.train()


def loss_of(
    base: BaseModel, control: nn.Module, x0: Tensor, texts: Tensor, edges: Tensor, noise: Tensor, t: Tensor
) -> Tensor:
    """min-SNR-weighted v-loss (2303.09556, 2202.00512) of the base that the ControlNet guides."""
    process = noise_process(base.scheduler_config)
    x_t = process.add_noise(x0, noise, t)
    picture = (edges.float() / 255)[:, None].expand(-1, 3, -1, -1)
    added = control(x_t, t, texts, picture)
    error = (
        (base.unet(x_t, t, texts, control=added, features=None) - process.target(x0, noise, t)).square().mean((1, 2, 3))
    )
    return (process.loss_weight(t, MIN_SNR_GAMMA, False, False, 0.0) * error).mean()


def train(base: BaseModel, pool: Pool, folder: Path, steps: int, batch: int, seed: int = 1) -> ControlNetModel:
    """Train or continue; returns the averaged weights. State: folder/control.pt."""
    control = build(base.unet, seed)
    optimizer = torch.optim.AdamW(
        control.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    mean = Averaged(control, 0.995)
    run = Run(folder / "control.pt", steps, {"control": control, "optimizer": optimizer, "mean": mean})
    window: list[float] = []
    for step in run.steps():
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(base, control, *samples(pool, batch, seed * 1_000_003 + step))
        loss.backward()
        nn.utils.clip_grad_norm_(control.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * warm_stable_decay(step, steps, warmup=100)
        optimizer.step()
        control.zero_grad()
        mean.update(step)
        window.append(loss.item())
        if step % 25 == 24:
            print(f"control {step + 1}/{steps} loss {np.mean(window[-25:]):.4f} {run.seconds:.0f} s", flush=True)
    control.load_state_dict(mean.values)
    return control.eval()


def samples(pool: Pool, batch: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Latents (B, 4, 16, 16), texts (B, 77, 128), edges (B, 64, 64), noise and timesteps (B,) of one step."""
    g = torch.Generator().manual_seed(seed)
    i = torch.randint(len(pool.mean), (batch,), generator=g)
    x0 = pool.mean[i].float() + pool.std[i].float() * torch.randn(batch, 4, 16, 16, generator=g)
    rows = torch.where(torch.rand(batch, generator=g) < EMPTY_CAPTIONS, 0, pool.caption[i])
    noise = torch.randn(batch, 4, 16, 16, generator=g)
    u = (torch.arange(batch) + torch.rand(batch, generator=g)) / batch  # stratified over the schedule
    return x0, pool.texts[rows].float(), pool.edges[i], noise, (u * 1000).long().clamp(max=999)


def write(control: nn.Module, folder: Path) -> None:
    """The diffusers folder that ships, in fp16."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2, sort_keys=True) + "\n")
    save(
        {k: v.half().contiguous() for k, v in control.state_dict().items()},
        folder / "diffusion_pytorch_model.safetensors",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sprites", type=Path, help="folder with noto/, fluent-3d/ and fluent-flat/ of 128-pixel PNGs")
    parser.add_argument("--out", type=Path, required=True, help="work folder: state to continue from, and `controlnet`")
    parser.add_argument("--shards", type=int, default=8, help="pool size in units of 1,024 scenes")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1, help="cores to use")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    base = load("pocket")
    pool = build_pool(Sprites.load(args.sprites), base, args.out, args.shards)
    write(train(base, pool, args.out, args.steps, args.batch), args.out / "controlnet")
    print(f"written: {args.out / 'controlnet'}", flush=True)


if __name__ == "__main__":
    main()
