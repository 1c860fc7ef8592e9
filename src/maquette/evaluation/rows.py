"""Noisy latents and what is asked of each: the questions that a base and its checkpoints answer alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.denoiser import Conditioning
from ..core.noise import NoiseSchedule
from ..families.base import BaseModel

CELLS_AT_ONCE = {"cpu": 64 * 256, "cuda": 64 * 4096}  # 64 latents of pocket; 64 of 512 x 512 pixels


@dataclass(frozen=True)
class Rows:
    """x_t: (R, C, h, w). t: (R,) int64. prompts: R texts."""

    x_t: Tensor
    t: Tensor
    prompts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    def asking(self, prompts: Sequence[str]) -> Rows:
        """The same latents, other texts."""
        return Rows(self.x_t, self.t, tuple(prompts))

    @staticmethod
    def cat(parts: Sequence[Rows]) -> Rows:
        prompts = tuple(prompt for part in parts for prompt in part.prompts)
        return Rows(torch.cat([p.x_t for p in parts]), torch.cat([p.t for p in parts]), prompts)


def cells_at_once(device: torch.device) -> int:
    """How many latent cells a batch holds."""
    return CELLS_AT_ONCE["cuda" if device.type == "cuda" else "cpu"]


def batch_of(latents: Tensor) -> int:
    """How many latents (…, h, w) are computed at once."""
    return max(1, cells_at_once(latents.device) // (latents.shape[-2] * latents.shape[-1]))


@torch.no_grad()
def answers(base: BaseModel, rows: Rows, clip_skip: int = 1) -> Tensor:
    """The denoiser's output for each row, (R, C, h, w) float32. Every text is encoded once."""
    texts = list(dict.fromkeys(rows.prompts))
    conditioning = base.encode_text(texts, clip_skip)
    index = torch.tensor([texts.index(prompt) for prompt in rows.prompts], device=rows.x_t.device)
    size = batch_of(rows.x_t)
    parts = [
        base.predict(x_t, t, _picked(conditioning, which)).float()
        for x_t, t, which in zip(rows.x_t.split(size), rows.t.split(size), index.split(size), strict=True)
    ]
    return torch.cat(parts)


def _picked(conditioning: Conditioning, which: Tensor) -> Conditioning:
    return conditioning[which]


def answers_of(base: BaseModel, parts: dict[str, Rows], clip_skip: int = 1) -> dict[str, Tensor]:
    """`answers` of several rows by name, computed together."""
    made = answers(base, Rows.cat(list(parts.values())), clip_skip)
    return dict(zip(parts, made.split([len(rows) for rows in parts.values()]), strict=True))


def stratified(schedule: NoiseSchedule, count: int) -> Tensor:
    """(count,) timesteps, the middles of as many equal parts of the log-SNR between 2 % and 95 % of the schedule, the
    noisiest first (VDM, arXiv 2107.00630: losses are integrals over log-SNR).
    """
    steps = len(schedule)
    every = torch.arange(steps, device=schedule.alphas_cumprod.device)
    log_snr = schedule.snr(every).clamp(min=1e-8).log()
    high, low = log_snr[int(0.02 * steps)], log_snr[int(0.95 * steps)]
    middles = low + (high - low) * (torch.arange(count, device=every.device) + 0.5) / count
    return (log_snr[None] - middles[:, None]).abs().argmin(1)
