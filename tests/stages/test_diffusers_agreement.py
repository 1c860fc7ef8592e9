"""A file that maquette trained, in diffusers' own pipeline: every key is used, and the picture is maquette's."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image, ImageDraw

import maquette
from maquette import adapters
from maquette.families.pocket.spec import WEIGHTS

PROMPT = "a photo of zkw robot on a red background"
STEPS, CFG, SEED = 12, 4.0, 5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training run, UNet and text encoder, with a high rate so that the change is plain to see."""
    folder = tmp_path_factory.mktemp("agreement")
    (folder / "photos").mkdir()
    for i, colour in enumerate(("red", "blue", "green", "white")):
        picture = Image.new("RGB", (96, 96), colour)
        ImageDraw.Draw(picture).ellipse((20 + 4 * i, 20, 76, 70), fill="orange", outline="black", width=5)
        picture.save(folder / "photos" / f"{i}.png")
    result = maquette.train(
        folder / "photos", subject="zkw robot", out=folder / "robot", steps=12, rank=4, alpha=2, batch_size=4,
        learning_rate=5e-3, text_encoder=True, text_encoder_learning_rate=2e-3, save_every_steps=12, sample_prompts=[],
    )  # fmt: skip
    return Path(result.run)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    pipeline = StableDiffusionPipeline.from_pretrained(
        str(WEIGHTS), torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def by_diffusers(pipeline: Any, sampler: str) -> np.ndarray:
    config = json.loads((WEIGHTS / "scheduler" / "scheduler_config.json").read_text())
    pipeline.scheduler = (
        DDIMScheduler.from_config(config)
        if sampler == "DDIM"
        else DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True)
    )
    noise = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(SEED))
    how: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": CFG, "width": 64, "height": 64}
    image = pipeline(PROMPT, latents=noise, output_type="np", **how).images[0]
    return np.floor(255 * image).astype(int)  # diffusers would round; here as in A1111 numbers are cut


def by_maquette(run: Path, out: Path, sampler: str, weight: float) -> np.ndarray:
    made = maquette.generate(
        f"{PROMPT}<lora:{run.name}:{weight}>", lora_dir=run, out=out, steps=STEPS, cfg_scale=CFG, seed=SEED,
        sampler=sampler,
    )  # fmt: skip
    return np.asarray(made.images[0]).astype(int)


@pytest.mark.parametrize("sampler", ["DDIM", "DPM++ 2M Karras"])
def test_without_a_lora(run: Path, pipeline: Any, tmp_path: Path, sampler: str) -> None:
    assert np.abs(by_diffusers(pipeline, sampler) - by_maquette(run, tmp_path, sampler, 0.0)).mean() < 0.5


@pytest.mark.parametrize("sampler", ["DDIM", "DPM++ 2M Karras"])
def test_with_the_trained_lora(
    run: Path, pipeline: Any, tmp_path: Path, sampler: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = by_diffusers(pipeline, sampler)
    file = run / f"{run.name}.safetensors"
    with caplog.at_level(logging.WARNING):
        pipeline.load_lora_weights(file, adapter_name="robot")
    try:
        assert not [record for record in caplog.records if "key" in record.getMessage()]
        loaded = [
            name
            for part in (pipeline.unet, pipeline.text_encoder)
            for name, module in part.named_modules()
            if "robot" in getattr(module, "lora_A", {})
        ]
        assert len(loaded) == len(adapters.load(file).modules)
        theirs = by_diffusers(pipeline, sampler)
    finally:
        pipeline.unload_lora_weights()
    assert np.abs(theirs - plain).mean() > 10  # the LoRA does something
    assert np.abs(theirs - by_maquette(run, tmp_path, sampler, 1.0)).mean() < 2
