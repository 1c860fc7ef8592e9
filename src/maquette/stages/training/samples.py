"""Sample pictures of a run, made from the saved files and never from the weights in training."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...data.images import open_photo
from ...fast import compiled, memory
from ...formats.png import format_infotext, write_png
from ...run import Event, Listener, RunFolder, write_json
from ..generate import to_image
from ..grid import sheet
from ..sampling import check_size, sample

if TYPE_CHECKING:
    from .checkpoint import Author
    from .job import Job

SAMPLER = "DDIM"


class Sampler:
    """The same prompts and seeds at every checkpoint, so that only the training differs."""

    def __init__(self, job: Job, author: Author, folder: RunFolder, on_event: Listener) -> None:
        self.job, self.author, self.folder, self.on_event = job, author, folder, on_event
        self.prompts = job.config.sample_prompts or []
        self.seeds = [job.config.sample_seed + i for i in range(len(self.prompts))]
        self.size = job.base.spec.native_size
        if self.prompts:
            check_size(job.base, self.size, self.size)

    def checkpoint(self, step: int, file: Path) -> None:
        """Pictures of a saved file; before the first, what the base draws without it, as step 0."""
        if _prompts(self.folder.samples(0)) != self.prompts:
            self._draw(0, None)
        self._draw(step, file)
        memory.release()

    def preview(self, step: int, target: Path) -> None:
        """The first picture of a step, as the preview that A1111 shows for a file."""
        picture = self.folder.samples(step) / "0.png"
        if picture.exists():
            shutil.copyfile(picture, target)

    def sheet(self) -> None:
        """samples/grid.png: prompts down, checkpoints across."""
        folders = sorted(self.folder.path.glob("samples/[0-9]*"))
        folders = [f for f in folders if _prompts(f) == self.prompts]  # prompts may have been changed on resuming
        if not self.prompts or not folders:
            return
        images = [open_photo(f / f"{i}.png") for i in range(len(self.prompts)) for f in folders]
        heads = ["base" if int(f.name) == 0 else f"step {int(f.name)}" for f in folders]
        made = sheet(images, len(folders), heads, self.prompts, self.folder.name, self._zoom())
        write_png(made, self.folder.path / "samples" / "grid.png")

    def _zoom(self) -> int:
        return max(1, 192 // self.size)

    def _draw(self, step: int, file: Path | None) -> None:
        if not self.prompts:
            return
        images = self._images(file)
        folder = self.folder.samples(step)
        for i, image in enumerate(images):
            write_png(image, folder / f"{i}.png", self._infotext(i, file))
        write_png(sheet(images, len(images), self.prompts, zoom=self._zoom()), folder / "grid.png")
        write_json(folder / "prompts.json", self.prompts)
        self.on_event(Event("sample", {"step": step, "folder": str(folder), "prompts": self.prompts}))

    @torch.no_grad()
    def _images(self, file: Path | None) -> list[Any]:
        """One Pillow image per prompt."""
        config = self.job.config
        with ExitStack() as stack:
            stack.enter_context(self.job.attached.suspended())
            if config.compile:
                stack.enter_context(compiled.off())
            base = stack.enter_context(self.author.opened(file))
            latents = sample(
                base,
                base.encode_text(self.prompts, config.clip_skip),
                base.encode_text([""] * len(self.prompts), config.clip_skip),
                sampler=SAMPLER,
                steps=config.sample_steps,
                cfg_scale=config.sample_cfg_scale or 1.0,
                seeds=self.seeds,
                width=self.size,
                height=self.size,
            )
            return [to_image(pixels) for pixels in base.decode(latents)]

    def _infotext(self, index: int, file: Path | None) -> str:
        """What makes the picture again with `maquette generate` or A1111."""
        config = self.job.config
        values = {
            "Steps": config.sample_steps,
            "Sampler": SAMPLER,
            "CFG scale": f"{config.sample_cfg_scale:g}",
            "Seed": self.seeds[index],
            "Size": f"{self.size}x{self.size}",
            "Model hash": self.job.base.content_hash[:10],
            "Model": Path(self.job.base.source).stem,
            "VAE hash": self.job.base.vae_hash[:10] or None,
            "VAE": Path(self.job.base.vae_source).name or None,
            "RNG": "CPU",
        }
        return format_infotext(self.author.prompt(self.prompts[index], file), "", values)


def _prompts(folder: Path) -> list[str]:
    file = folder / "prompts.json"
    return list(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else []
