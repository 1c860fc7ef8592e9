"""The UNet: v-prediction with min-SNR weighting on a pool of encoded scenes, text encoder and VAE frozen."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from .scenes import DRAWN, Sprites, batch_of, objects_in
from .towers import tokens_of
from .training import Averaged, Run, warm_stable_decay
from .vae import to_tensor

MIN_SNR_GAMMA = 5.0
EMPTY_CAPTIONS = 0.1
LEARNING_RATE = 1.5e-3
SHARD = 4096

SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "rescale_betas_zero_snr": False,
}


def build() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(64, 128, 192), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128, attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip


@dataclass
class Pool:
    """Encoded scenes: latent mean and deviation (N, 4, 16, 16) in fp16, and the row of each caption's embedding."""

    mean: Tensor
    std: Tensor
    caption: Tensor  # (N,) int64 into texts
    texts: Tensor  # (M, 77, 128) bf16; row 0 is the empty caption

    def __len__(self) -> int:
        return len(self.mean)


@torch.no_grad()
def build_pool(sprites: Sprites, vae: nn.Module, text: nn.Module, tokenizer: Any, folder: Path, shards: int) -> Pool:
    """Encode `shards` × 4,096 scenes and keep those of DRAWN objects only.

    Each shard is a file, so a killed run continues at the next one.
    """
    captions: list[str] = []
    parts = []
    for k in range(shards):
        path = folder / f"pool-{k:03d}.pt"
        if not path.exists():
            scenes = [s for i in range(SHARD // 64) for s in batch_of(np.random.default_rng((7, k, i)), sprites, 64)]
            x = to_tensor([s.pixels for s in scenes])
            with torch.autocast("cpu", torch.bfloat16):
                posteriors = [vae.encode(p).latent_dist for p in x.split(64)]
            data = {
                "mean": torch.cat([p.mean for p in posteriors]).half(),
                "std": torch.cat([p.std for p in posteriors]).half(),
            }
            torch.save({**data, "captions": [s.caption for s in scenes]}, path.with_suffix(".tmp"))
            os.replace(path.with_suffix(".tmp"), path)
            print(f"pool {k + 1}/{shards}", flush=True)
        parts.append(torch.load(path, weights_only=True))
        captions += parts[-1]["captions"]
    kept = [i for i, caption in enumerate(captions) if set(objects_in(caption)) <= set(DRAWN)]
    captions = [captions[i] for i in kept]
    unique = ["", *sorted(set(captions) - {""})]
    row = {c: i for i, c in enumerate(unique)}
    texts = []
    for i in range(0, len(unique), 256):
        ids = tokens_of(tokenizer, unique[i : i + 256], longest=False)
        with torch.autocast("cpu", torch.bfloat16):
            texts.append(text(ids).last_hidden_state.bfloat16())
    caption = torch.tensor([row[c] for c in captions])
    mean, std = (torch.cat([p[key] for p in parts])[kept] for key in ("mean", "std"))
    return Pool(mean, std, caption, torch.cat(texts))


def alphas_cumprod() -> Tensor:
    betas = torch.linspace(SCHEDULER["beta_start"] ** 0.5, SCHEDULER["beta_end"] ** 0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def loss_of(unet: nn.Module, z: Tensor, texts: Tensor, noise: Tensor, t: Tensor, abar: Tensor) -> Tensor:
    """min-SNR-weighted v-loss (Hang et al. 2303.09556, Salimans & Ho 2202.00512): min(snr, γ)/(snr + 1) · ‖v̂ − v‖²."""
    a = abar[t].view(-1, 1, 1, 1)
    x_t = a.sqrt() * z + (1 - a).sqrt() * noise
    v = a.sqrt() * noise - (1 - a).sqrt() * z
    snr = (abar / (1 - abar))[t]
    with torch.autocast("cpu", torch.bfloat16):
        out = unet(x_t, t, texts, return_dict=False)[0]
    return ((out.float() - v).square().mean((1, 2, 3)) * snr.clamp(max=MIN_SNR_GAMMA) / (snr + 1)).mean()


def train(
    pool: Pool, folder: Path, steps: int, decay: float = 0.3, seed: int = 3, batch: int = 32, workers: int = 2
) -> UNet2DConditionModel:
    """Train or continue; returns the averaged weights. State: folder/unet.pt. `steps` may be changed between runs.

    Each worker is a process with one thread and its share of the batch: on a shared machine far quicker than threads,
    which wait for each other in every operation.
    """
    if folder.joinpath("unet.pt").exists() and torch.load(folder / "unet.pt", weights_only=True)["step"] >= steps:
        return averaged(folder)
    port = 20000 + os.getpid() % 20000
    arguments = (workers, port, pool, folder, steps, decay, seed, batch)
    torch.multiprocessing.spawn(_worker, arguments, nprocs=workers)  # type: ignore[attr-defined]
    return averaged(folder)


def averaged(folder: Path) -> UNet2DConditionModel:
    """The averaged weights of folder/unet.pt, at whatever step it was saved."""
    unet = build()
    unet.load_state_dict(torch.load(folder / "unet.pt", weights_only=True)["mean"])
    return unet.eval()


def _worker(
    rank: int, workers: int, port: int, pool: Pool, folder: Path, steps: int, decay: float, seed: int, batch: int
) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=workers)
    torch.manual_seed(seed)
    unet = build()
    unet.set_attn_processor(AttnProcessor())  # plain bmm + softmax: faster than SDPA on a CPU at these sizes
    parameters = list(unet.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    mean = Averaged(unet, 0.999)
    run = Run(folder / "unet.pt", steps, {"unet": unet, "optimizer": optimizer, "mean": mean}, writes=rank == 0)
    abar = alphas_cumprod()
    window: list[float] = []
    for step in run.steps():
        z, texts, noise, t = (x[rank::workers] for x in samples(pool, batch, seed * 1_000_003 + step))
        loss = loss_of(unet, z, texts, noise, t, abar)
        loss.backward()
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        torch.distributed.all_reduce(flat)
        flat /= workers
        flat *= (1.0 / flat.norm()).clamp(max=1.0)  # clip to norm 1
        for g, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            g.copy_(part.view_as(g))
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * warm_stable_decay(step, steps, warmup=100, decay=decay)
        optimizer.step()
        unet.zero_grad()
        mean.update(step)
        window.append(loss.item())
        if rank == 0 and step % 50 == 49:
            speed = batch * (step + 1) / max(run.seconds, 1e-9)
            recent = float(np.mean(window[-50:]))
            print(f"unet {step + 1}/{steps} loss {recent:.4f} {run.seconds:.0f} s {speed:.0f}/s", flush=True)
    torch.distributed.destroy_process_group()


def samples(pool: Pool, batch: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, text features, noise and timesteps of one step: (B, 4, 16, 16), (B, 77, 128), (B, 4, 16, 16), (B,)."""
    g = torch.Generator().manual_seed(seed)
    i = torch.randint(len(pool), (batch,), generator=g)
    z = pool.mean[i].float() + pool.std[i].float() * torch.randn(batch, 4, 16, 16, generator=g)
    rows = torch.where(torch.rand(batch, generator=g) < EMPTY_CAPTIONS, 0, pool.caption[i])
    noise = torch.randn(batch, 4, 16, 16, generator=g)
    u = (torch.arange(batch) + torch.rand(batch, generator=g)) / batch  # stratified over the schedule
    return z, pool.texts[rows].float(), noise, (u * 1000).long().clamp(max=999)
