"""Sample pictures of a run, made from the saved files and never from the weights in training."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...core.denoiser import Conditioning
from ...formats import adapters
from ...run import Event, Listener, RunFolder, write_json

if TYPE_CHECKING:
    from .job import Job

SAMPLER = "DDIM"


class Sampler:
    """The same prompts and seeds at every checkpoint, so that only the training differs."""

    def __init__(self, job: Job, folder: RunFolder, on_event: Listener) -> None:
        self.job, self.folder, self.on_event = job, folder, on_event
        self.prompts = job.config.sample_prompts or []
        self.seeds = [job.config.sample_seed + i for i in range(len(self.prompts))]

    def base(self) -> None:
        """What the base draws before any training, as step 0."""
        self._draw(0, None)

    def checkpoint(self, step: int, file: Path) -> None:
        """Pictures of a saved file."""
        self._draw(step, file)

    def preview(self, step: int, target: Path) -> None:
        """The first picture of a step, as the preview that A1111 shows for a file."""
        picture = self.folder.samples(step) / "0.png"
        if picture.exists():
            shutil.copyfile(picture, target)

    def _draw(self, step: int, file: Path | None) -> None:
        if not self.prompts:
            return
        images = self._images(file)
        folder = self.folder.samples(step)
        folder.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images):
            self._write(image, folder / f"{i}.png", i, file)
        write_json(folder / "prompts.json", self.prompts)
        self.on_event(Event("sample", {"step": step, "folder": str(folder), "prompts": self.prompts}))

    @torch.no_grad()
    def _images(self, file: Path | None) -> list[Any]:
        """One Pillow image per prompt."""
        from ..apply import apply_loras
        from ..generate import sample

        job = self.job
        base, config = job.base, job.config
        size = config.resolution or base.spec.native_size
        with ExitStack() as stack:
            if job.computing is base:
                stack.enter_context(job.attached.suspended())
            if file is not None:
                stack.enter_context(apply_loras(base, [(adapters.load(file), 1.0, 1.0)]))
            told = base.encode_text(self.prompts, config.clip_skip)
            latents = sample(
                base,
                told,
                _repeated(base.encode_text([""], config.clip_skip), len(self.prompts)),
                sampler=SAMPLER,
                steps=config.sample_steps,
                cfg_scale=config.sample_cfg_scale or 7.0,
                seeds=self.seeds,
                width=size,
                height=size,
            )
            pixels = base.decode(latents)
        return [_image(x) for x in pixels]

    def _write(self, image: Any, path: Path, index: int, file: Path | None) -> None:
        from ...formats.png import write_png

        config = self.job.config
        tag = f" <lora:{file.stem}:1>" if file else ""
        size = f"{image.width}x{image.height}"
        infotext = (
            f"{self.prompts[index]}{tag}\nSteps: {config.sample_steps}, Sampler: {SAMPLER}, "
            f"CFG scale: {config.sample_cfg_scale}, Seed: {self.seeds[index]}, Size: {size}"
        )
        write_png(image, path, infotext)


def _repeated(conditioning: Conditioning, count: int) -> Conditioning:
    return conditioning[[0] * count]


def _image(pixels: torch.Tensor) -> Any:
    """(3, H, W) in [0, 1] -> Pillow image."""
    from PIL import Image

    values = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(values)
