"""Contrastive pre-training of the text encoder with an image tower, on scenes and their captions (as CLIP, 2103.00020).

Without it the UNet learns colour words and no objects: the text encoder is trained here and frozen afterwards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from maquette.families.pocket.tower import ImageTower

from .scenes import OBJECTS, STYLES, Sprites, batch_of
from .training import Run, warm_stable_decay
from .vae import to_tensor

LONG_EVERY = 8  # every so many steps captions are doubled, so that later positions are trained too


def build_text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
            max_position_embeddings=77, projection_dim=128, hidden_act="quick_gelu",
            bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
        )
    )  # fmt: skip


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text = build_text_encoder()
        self.image = ImageTower(len(OBJECTS), len(STYLES))
        self.log_scale = nn.Parameter(torch.tensor(2.66))  # ln(1 / 0.07)


def tokens_of(tokenizer: Any, captions: list[str], longest: bool = True) -> Tensor:
    """Captions -> (B, n ≤ 77) token ids; causal attention makes the padding beyond the longest irrelevant here."""
    padding = "longest" if longest else "max_length"
    return tokenizer(captions, padding=padding, truncation=True, max_length=77, return_tensors="pt").input_ids


def photographed(rng: np.random.Generator, x: Tensor) -> Tensor:
    """Noise, brightness or a light blur on a third of the pictures: the judge must bear what a decoder does."""
    for i in range(x.shape[0]):
        kind = rng.random()
        if kind < 0.15:
            x[i] = F.avg_pool2d(F.pad(x[i : i + 1], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0]
        elif kind < 0.35:
            grain = torch.from_numpy(rng.normal(0, rng.uniform(0.02, 0.12), x[i].shape).astype(np.float32))
            x[i] = (x[i] * float(rng.uniform(0.8, 1.1)) + grain).clamp(-1, 1)
    return x


def loss_of(towers: Towers, x: Tensor, ids: Tensor, objects: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    features = towers.image.features(x)
    images = F.normalize(towers.image.image_projection(features), dim=-1)
    texts = towers.image.embed_texts(towers.text(ids).pooler_output)
    logits = towers.log_scale.exp().clamp(max=100) * images.float() @ texts.float().T  # (B, B)
    same = torch.arange(len(x))
    contrast = (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2
    heads = F.cross_entropy(towers.image.object_head(features).float(), objects, ignore_index=-1)
    return contrast, heads + F.cross_entropy(towers.image.style_head(features).float(), styles)


def train(sprites: Sprites, tokenizer: Any, folder: Path, steps: int, seed: int = 2, batch: int = 96) -> Towers:
    """Train or continue. State: folder/towers.pt."""
    torch.manual_seed(seed)
    towers = Towers()
    plain = [p for n, p in towers.named_parameters() if p.ndim < 2 or "embedding" in n]
    decayed = [p for n, p in towers.named_parameters() if p.ndim >= 2 and "embedding" not in n]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.02}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), fused=True)
    run = Run(folder / "towers.pt", steps, {"towers": towers, "optimizer": optimizer})
    towers.train()
    for step in run.steps():
        rng = np.random.default_rng((seed, step))
        scenes = batch_of(rng, sprites, batch, others=0.3)
        x = photographed(rng, to_tensor([s.pixels for s in scenes]))
        captions = [f"{s.caption}, {s.caption}" if step % LONG_EVERY == 0 else s.caption for s in scenes]
        objects = torch.tensor([s.object if s.single else -1 for s in scenes])
        styles = torch.tensor([s.style for s in scenes])
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * warm_stable_decay(step, steps, decay=0.6)
        with torch.autocast("cpu", torch.bfloat16):
            contrast, heads = loss_of(towers, x, tokens_of(tokenizer, captions), objects, styles)
        (contrast + heads).backward()
        torch.nn.utils.clip_grad_norm_(towers.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(
                f"towers {step}/{steps} contrast {contrast.item():.3f} heads {heads.item():.3f} {run.seconds:.0f} s",
                flush=True,
            )
    return towers.eval()


@torch.no_grad()
def accuracy(tower: ImageTower, sprites: Sprites, count: int = 960, seed: int = 777) -> tuple[float, float]:
    """Shares of fresh single-object scenes whose object and whose style the heads name."""
    scenes = batch_of(np.random.default_rng(seed), sprites, count, plain=True)
    features = torch.cat(
        [tower.features(to_tensor([s.pixels for s in scenes[i : i + 96]])) for i in range(0, count, 96)]
    )
    objects = tower.object_head(features).argmax(1) == torch.tensor([s.object for s in scenes])
    styles = tower.style_head(features).argmax(1) == torch.tensor([s.style for s in scenes])
    return objects.float().mean().item(), styles.float().mean().item()
