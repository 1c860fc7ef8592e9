"""Pictures a second, against diffusers' pipeline on the same weights in the same process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import maquette
from maquette import families
from maquette.families.base import BaseModel

from .machine import wait
from .rows import Rows

STEPS = 20
TURNS = 4


def compare(device: str, out: Path) -> None:
    """Draw in turns: ours, and the pipeline built from the very weights that ours holds."""
    rows, narrow = Rows("drawing", out), device == "cpu"
    for family, px, batches in (("sd1", 512, (1, 4)), ("sdxl", 1024, (1,))):
        base = families.load(_file(out / "step-models", family, narrow), _dtype(device), device)
        pipeline, ours = _pipeline(base), maquette.Pipeline(base)
        for batch in batches[: 1 if narrow else None]:
            side = 64 if narrow else px
            found = [
                (_timed(device, _ours, ours, batch, side), _timed(device, _theirs, pipeline, batch, side))
                for _ in range(2 if narrow else TURNS + 1)
            ]
            ours, theirs = (statistics.median(row) for row in zip(*found[1:], strict=True))  # the first warms up
            rows.add(base=family, pixels=side, batch=batch, seconds=ours, diffusers=theirs, times_faster=theirs / ours)
    rows.end()


def _file(folder: Path, family: str, narrow: bool) -> Path:
    """Random weights, written where the part before has not left them."""
    from benchmarks.load import write_model
    from benchmarks.train_step import make_narrow, model_file

    folder.mkdir(parents=True, exist_ok=True)
    if narrow:
        make_narrow(folder, family)
    elif not model_file(folder, family).exists():
        write_model(model_file(folder, family), family)
    return model_file(folder, family)


def _dtype(device: str) -> torch.dtype:
    return torch.float16 if device == "cuda" else torch.float32


def _pipeline(base: BaseModel) -> Any:
    """diffusers' own pipeline around the networks of a base."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    from benchmarks import theirs

    scheduler, unet, vae = (
        DDIMScheduler.from_config(base.scheduler_config),
        theirs.unet(base.unet),
        theirs.vae(base.vae),
    )
    texts = [theirs.text_encoder(encoder) for encoder in base.text_encoders]
    if len(texts) == 2:
        pipeline = StableDiffusionXLPipeline(vae, *texts, None, None, unet, scheduler)
    else:
        pipeline = StableDiffusionPipeline(vae, *texts, None, unet, scheduler, None, None, None, False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _ours(ours: maquette.Pipeline, batch: int, px: int) -> None:
    ours.generate(
        "a photo of a robot", steps=STEPS, sampler="DDIM", cfg_scale=7.0, batch_size=batch, width=px,
        height=px, seed=1,
    )  # fmt: skip


def _theirs(pipeline: Any, batch: int, px: int) -> None:
    """With text features ready, which favours it: ours includes tokens and text encoder. Neither writes files."""
    width = pipeline.unet.config.cross_attention_dim
    like = {"device": pipeline.unet.device, "dtype": pipeline.unet.dtype}
    features = torch.zeros(batch, 77, width, **like)
    extra = {}
    if hasattr(pipeline, "text_encoder_2"):
        pooled = torch.zeros(batch, pipeline.text_encoder_2.config.projection_dim, **like)
        extra = {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": pooled}
    pipeline(
        prompt_embeds=features, negative_prompt_embeds=features, num_inference_steps=STEPS, guidance_scale=7.0,
        width=px, height=px, **extra,
    )  # fmt: skip


def _timed(device: str, work: Callable[..., None], *arguments: Any) -> float:
    """Seconds of a call."""
    wait(device)
    began = time.perf_counter()
    work(*arguments)
    wait(device)
    return time.perf_counter() - began
