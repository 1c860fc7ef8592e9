"""Sample pictures of a run, made from the saved files and never from the weights in training."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..data.images import open_photo
from ..errors import MaquetteError
from ..events import Event, Listener
from ..fast import compiled, memory
from ..files import atomic_writer, read_bytes, write_json
from ..formats.png import format_infotext, number_text, write_png
from ..limits import PHOTO_BYTES
from ..prompts import parse_networks
from ..report.samples import drawn
from ..report.sheet import sheet
from ..run_folder import RunFolder
from ..sampling.finite import NotFiniteError
from ..sampling.images import to_image
from ..sampling.loop import check_size
from ..sampling.prompt_pictures import draw_prompts
from ..sampling.samplers import schedule_of, suited
from ..sampling.schedules import AUTOMATIC

if TYPE_CHECKING:
    from .checkpoint_writer import CheckpointWriter
    from .job import Job

SAMPLER = "DDIM"


class PreviewWriter:
    """Draws sample pictures: the same prompts and seeds at every checkpoint, so that only the training differs."""

    def __init__(self, job: Job, writer: CheckpointWriter, folder: RunFolder, on_event: Listener) -> None:
        self.job, self.writer, self.folder, self.on_event = job, writer, folder, on_event
        self.prompts = job.config.sample_prompts or []
        self.seeds = [job.config.sample_seed + i for i in range(len(self.prompts))]
        self.size = job.base.spec.native_size
        for prompt in self.prompts:
            if parse_networks(prompt)[1]:
                raise MaquetteError(
                    f"The sample prompt {prompt!r} names a LoRA; sample pictures are drawn with the checkpoint alone. "
                    "Leave the tag out."
                )
        if self.prompts:
            check_size(job.base, self.size, self.size)

    def base(self) -> None:
        """What the base draws without any file, as step 0, where that is not there yet."""
        if not self.has(0):
            self._draw(0, None)
            memory.release()

    def checkpoint(self, step: int, file: Path) -> None:
        """Pictures of a saved file; before the first, those of the base."""
        self.base()
        self._draw(step, file)
        memory.release()

    def has(self, step: int) -> bool:
        """Whether the pictures of a step are there, or none are wanted."""
        return not self.prompts or drawn(self.folder.samples(step)) == self.prompts

    def preview(self, step: int, target: Path) -> None:
        """The first picture of a step, as the preview that A1111 shows for a file."""
        if self.prompts and self.has(step):
            with atomic_writer(target) as file:
                file.write(read_bytes(self.folder.samples(step) / "0.png", PHOTO_BYTES, "sample picture"))

    def sheet(self) -> None:
        """samples/grid.png: prompts down, checkpoints across."""
        if not self.prompts:
            return
        pictures = {}
        for step, folder in self.folder.sample_folders().items():
            if drawn(folder) == self.prompts:  # they may have been changed on resuming
                pictures[step] = [open_photo(folder / f"{i}.png") for i in range(len(self.prompts))]
        if not pictures:
            return
        heads = ["base" if step == 0 else f"step {step}" for step in pictures]
        rows = [row[i] for i in range(len(self.prompts)) for row in pictures.values()]
        made = sheet(rows, len(pictures), heads, self.prompts, self.folder.name, self._zoom())
        write_png(made, self.folder.path / "samples" / "grid.png")

    def _zoom(self) -> int:
        return max(1, 192 // self.size)

    def _draw(self, step: int, file: Path | None) -> None:
        if not self.prompts:
            return
        try:
            images = self._images(file)
        except NotFiniteError as error:  # never a black picture; the training itself may be sound
            what = "of the base" if file is None else f"of step {step}"
            self.on_event(Event("warning", {"message": f"No sample pictures {what} were drawn: {error}"}))
            return
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
            base = stack.enter_context(self.writer.preview_model(file))
            drawn = draw_prompts(
                base,
                self.prompts,
                seeds=self.seeds,
                sampler=SAMPLER,
                steps=config.sample_steps,
                cfg_scale=config.sample_cfg_scale or 1.0,
                width=self.size,
                height=self.size,
                clip_skip=config.clip_skip,
            )
            return [to_image(pixels) for pixels in drawn]

    def _infotext(self, index: int, file: Path | None) -> str:
        """What makes the picture again with `maquette generate` or A1111."""
        config = self.job.config
        values = {
            "Steps": config.sample_steps,
            "Sampler": schedule_of(suited(SAMPLER, self.job.base.scheduler_config))[0],
            "Schedule type": AUTOMATIC,
            "CFG scale": number_text(config.sample_cfg_scale or 1.0),
            "Seed": self.seeds[index],
            "Size": f"{self.size}x{self.size}",
            "Model hash": self.job.base.content_hash[:10],
            "Model": Path(self.job.base.source).absolute().stem,
            "VAE hash": self.job.base.vae_hash[:10] or None,
            "VAE": Path(self.job.base.vae_source).name or None,
            "Prediction type": self.job.base.told_prediction or None,
            "Clip skip": config.clip_skip if config.clip_skip > 1 else None,
            "RNG": "CPU",
        }
        return format_infotext(self.writer.prompt(self.prompts[index], file), "", values)
