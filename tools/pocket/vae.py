"""The autoencoder: 64 × 64 pixels to 16 × 16 × 4 latents, trained on 32-pixel crops of scenes with every sprite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from .scenes import Sprites, batch_of
from .training import Averaged, Run, warm_stable_decay

KL_WEIGHT = 1e-3
GRADIENT_WEIGHT = 0.5


def build() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 64, 96), layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=16, sample_size=64, scaling_factor=1.0, mid_block_add_attention=False,
    )  # fmt: skip


def to_tensor(pictures: list[np.ndarray]) -> Tensor:
    """uint8 (64, 64, 3) pictures -> (B, 3, 64, 64) in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def photographic(rng: np.random.Generator, x: Tensor) -> Tensor:
    """A fifth of the crops get noise or a brightness change, so that real photos are not fully off the manifold."""
    for i in range(x.shape[0]):
        if rng.random() < 0.2:
            grain = torch.from_numpy(rng.normal(0, rng.uniform(0.02, 0.1), x[i].shape).astype(np.float32))
            x[i] = (x[i] * float(rng.uniform(0.6, 1.2)) + grain).clamp(-1, 1)
    return x


def loss_of(vae: AutoencoderKL, x: Tensor) -> Tensor:
    """L1 + MSE + gradient L1 + a little KL, all on pixels in [-1, 1]."""
    posterior = vae.encode(x).latent_dist
    y = vae.decode(posterior.sample()).sample.float()
    edges = sum(F.l1_loss(y.diff(dim=d), x.diff(dim=d)) for d in (-1, -2))
    return F.l1_loss(y, x) + F.mse_loss(y, x) + GRADIENT_WEIGHT * edges + KL_WEIGHT * posterior.kl().mean() / 256


def train(sprites: Sprites, folder: Path, steps: int, seed: int = 1, batch: int = 16) -> AutoencoderKL:
    """Train or continue; returns the averaged weights with unit latents. State: folder/vae.pt."""
    torch.manual_seed(seed)
    vae = build()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    mean = Averaged(vae, 0.998)
    run = Run(folder / "vae.pt", steps, {"vae": vae, "optimizer": optimizer, "mean": mean})
    for step in run.steps():
        rng = np.random.default_rng((seed, step))
        torch.manual_seed(seed * 1_000_003 + step)
        corner = rng.integers(0, 33, (batch, 2))
        scenes = batch_of(rng, sprites, batch, others=0.4)
        crops = [s.pixels[y : y + 32, x : x + 32] for s, (y, x) in zip(scenes, corner, strict=True)]
        x = photographic(rng, to_tensor(crops))
        optimizer.param_groups[0]["lr"] = 2e-3 * warm_stable_decay(step, steps, decay=0.5)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(vae, x)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean.update(step)
        if step % 100 == 0:
            print(f"vae {step}/{steps} loss {loss.item():.4f} {run.seconds:.0f} s", flush=True)
    vae.load_state_dict(mean.values)
    return unit_latents(vae.eval(), sprites)


@torch.no_grad()
def unit_latents(vae: AutoencoderKL, sprites: Sprites, count: int = 512) -> AutoencoderKL:
    """Fold the latents' mean and deviation per channel into quant_conv and post_quant_conv: scaling_factor stays 1."""
    rng = np.random.default_rng(99)
    x = to_tensor([s.pixels for s in batch_of(rng, sprites, count)])
    z = torch.cat([vae.encode(part).latent_dist.mean for part in x.split(64)])
    mu, sigma = z.mean((0, 2, 3)), z.std((0, 2, 3))
    q, p = vae.quant_conv, vae.post_quant_conv
    q.weight[:4] /= sigma[:, None, None, None]
    q.bias[:4] = (q.bias[:4] - mu) / sigma
    q.bias[4:] -= 2 * sigma.log()
    p.bias += p.weight[:, :, 0, 0] @ mu
    p.weight *= sigma[None, :, None, None]
    return vae


@torch.no_grad()
def psnr(vae: AutoencoderKL, sprites: Sprites, count: int = 256, seed: int = 4242) -> float:
    """Decibels on held-out scenes (peak 1), mean over pictures."""
    x = to_tensor([s.pixels for s in batch_of(np.random.default_rng(seed), sprites, count)])
    out = []
    for part in x.split(64):
        y = vae.decode(vae.encode(part).latent_dist.mode()).sample.clamp(-1, 1)
        out.append(-10 * ((y - part) / 2).square().mean((1, 2, 3)).log10())
    return torch.cat(out).mean().item()
