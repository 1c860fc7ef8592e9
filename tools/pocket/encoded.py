"""Scenes encoded once, in shards that are files, so that a killed run goes on at the next one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maquette.families.base import BaseModel


def shards_of(folder: Path, name: str, count: int, make: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
    """`make(k)` for each of `count` shards, or what it gave in an earlier run: folder/NAME-pool-KKK.pt."""
    parts = []
    for k in range(count):
        path = folder / f"{name}-pool-{k:03d}.pt"
        if not path.exists():
            torch.save(make(k), path.with_suffix(".tmp"))
            os.replace(path.with_suffix(".tmp"), path)
            print(f"pool {k + 1}/{count}", flush=True)
        parts.append(torch.load(path, weights_only=True))
    return parts


def pixels_of(pictures: Sequence[np.ndarray]) -> Tensor:
    """(h, w, 3) uint8 each -> (N, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def posteriors(base: BaseModel, x: Tensor) -> dict[str, Tensor]:
    """mean and std of the latents of (N, 3, h, w) pictures, each (N, 4, h / f, w / f) fp16."""
    found = [base.encode_images(part) for part in x.split(64)]
    return {
        "mean": torch.cat([mean for mean, _ in found]).half(),
        "std": torch.cat([std for _, std in found]).half(),
    }


def texts_of(base: BaseModel, parts: Sequence[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """The shards' captions: (N,) int64 rows into features (M, 77, D) fp16, of which row 0 is the empty caption."""
    captions = [caption for part in parts for caption in part["captions"]]
    unique = ["", *sorted(set(captions) - {""})]
    row = {caption: i for i, caption in enumerate(unique)}
    texts = [base.encode_text(unique[i : i + 128]).tokens.half() for i in range(0, len(unique), 128)]
    return torch.tensor([row[caption] for caption in captions]), torch.cat(texts)
