"""The same picture drawn by diffusers' own pipelines and here: one prompt, seed and method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from maquette.sampling.pipeline import Pipeline

STEPS, CFG, SEED, SIDE = 8, 3.0, 5, 64
PROMPT, NEGATIVE = "a photo of a cat", "a dog"


def theirs(kind: str, folder: Path, **parts: Any) -> Any:
    """A pipeline of diffusers with Euler's method on A1111's levels."""
    import diffusers

    unsafe = {} if "XL" in kind else {"safety_checker": None, "requires_safety_checker": False}
    if "Inpaint" in kind:  # its own from_pretrained wants to know which version wrote the folder
        made = theirs("StableDiffusionPipeline", folder)
        made = getattr(diffusers, kind)(**made.components, requires_safety_checker=False)
    else:
        made = getattr(diffusers, kind).from_pretrained(str(folder), **parts, **unsafe)
    made.scheduler = diffusers.EulerDiscreteScheduler.from_config(
        made.scheduler.config, timestep_spacing="linspace", steps_offset=0
    )
    made.set_progress_bar_config(disable=True)
    return made


def asked(**options: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(SEED)
    how = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "guidance_scale": CFG, "num_inference_steps": STEPS}
    return {**how, "generator": generator, "output_type": "np", **options}


def ours(pipeline: Pipeline, prompt: str = PROMPT, **options: Any) -> np.ndarray:
    how = {"negative_prompt": NEGATIVE, "cfg_scale": CFG, "steps": STEPS, "sampler": "Euler", "seed": SEED}
    drawn = pipeline.generate(prompt, **{**how, "width": SIDE, "height": SIDE, **options})
    return np.asarray(drawn[0].image).astype(float) / 255


def agree(a: np.ndarray, b: np.ndarray) -> None:
    assert a.shape == b.shape and a.std() > 0.01
    assert np.abs(a - b).mean() < 1 / 255
