"""`maquette generate`: pictures from a prompt, with LoRAs named in it, each with the text that makes it again."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import torch
from pydantic import Field, model_validator

from .. import __version__, families
from ..adapters.embeddings import Embedding
from ..config import Count, DenoisingSteps, Fraction
from ..errors import MaquetteError
from ..events import Event, Listener, ignore
from ..families.base import BaseModel
from ..fast import processor
from ..formats.png import format_infotext, write_png
from ..prompts.encode import Counting, Emphasis, Prompt
from ..sampling.apply_embeddings import apply_embeddings, find_embeddings
from ..sampling.apply_loras import apply_loras
from ..sampling.finite import NotFiniteError, fault, require_finite_picture
from ..sampling.images import to_image
from ..sampling.loop import sample
from ..sampling.lora_folder import lora_hash
from ..sampling.samplers import find_sampler, kind_of, schedule_notice, schedule_of
from ..sampling.schedules import AUTOMATIC
from ..sampling.settings import SamplerSettings
from ..sampling.words import Words

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["GenerateConfig", "GenerateResult", "run", "sample"]

MAX_SEED = 2**32 - 2  # A1111's range of random seeds
DEFAULT_CFG = {"pocket": 4.0}


class GenerateConfig(SamplerSettings):
    """What to draw, and how."""

    prompt: str
    """What to draw, in A1111's prompt language; <lora:NAME:0.8> applies a LoRA."""
    negative_prompt: str = ""
    """What to keep away from."""
    base: str = "pocket"
    """Base model: "pocket", a .safetensors file or a diffusers folder."""
    vae: str | None = None
    """A VAE-only file or folder to use instead of the base's own."""
    lora_dir: Path | None = None
    """Folder whose .safetensors files can be named in the prompt, with all its subfolders; otherwise runs."""
    embedding_dir: Path | None = None
    """Folder of textual inversion files, each called in the prompt by its name; otherwise `embeddings`, if there."""
    prompt_comments: bool = True
    """Leave out what stands behind # in a line of a prompt, as A1111 does; false keeps it as words."""
    prompt_editing: Counting = "A1111"
    """When [from:to:when] switches: "A1111" draws its pictures (one call of the denoiser late; image to image and
    samplers of two calls count their own calls), "exact" switches after that step of all."""
    steps: DenoisingSteps = 20
    """Denoising steps."""
    cfg_scale: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    """How strongly the prompt is followed; otherwise 4 on pocket, 7 elsewhere."""
    sampler: str = "DDIM"
    """Sampler by A1111's name, such as "DPM++ 2M"; the older "DPM++ 2M Karras" names its schedule as well."""
    schedule_type: str = AUTOMATIC
    """Noise levels of the steps, by A1111's name: Automatic (what suits the sampler), Karras, Exponential, Beta …"""
    seed: int = Field(default=-1, ge=-1, lt=2**63)
    """Seed of the first picture, of the next plus one and so on; -1 draws one."""
    width: int | None = Field(default=None, ge=16, multiple_of=8)
    """Pixels; otherwise the base's native size."""
    height: int | None = Field(default=None, ge=16, multiple_of=8)
    """Pixels; otherwise the base's native size."""
    batch_size: Count = 1
    """Pictures drawn at once."""
    batch_count: Count = 1
    """Batches."""
    clip_skip: Count = 1
    """Which text encoder layer is used, counted from the end: 2 for bases trained so."""
    emphasis: Emphasis = "Original"
    """What weights in brackets do: "Original", "No norm", "Ignore" or "None" (brackets are plain text)."""
    init_image: Path | None = None
    """Begin from this picture instead of from noise; it is cut and scaled to the size."""
    denoising_strength: Fraction = 0.75
    """With init_image: share of the steps that are done, 0 leaves the picture, 1 leaves nothing of it."""
    out: Path = Path("out")
    """Folder of the pictures."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic; auto is fp32 on a CPU and fp16 on CUDA."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        self.sampler = find_sampler(self.sampler, self.schedule_type)
        return self


@dataclass
class GenerateResult(Sequence["Image"]):
    """The pictures, in order: a sequence of Pillow images, with their files, seeds and texts beside it."""

    paths: list[str]
    seeds: list[int]
    infotexts: list[str]
    seconds: float
    warnings: list[str] = field(default_factory=list)
    images: list[Image] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image]: ...
    def __getitem__(self, index: int | slice) -> Image | list[Image]:
        return self.images[index]

    def to_json(self) -> dict[str, Any]:
        """Everything but the pixels."""
        keys = ("paths", "seeds", "infotexts", "seconds", "warnings")
        return {key: getattr(self, key) for key in keys}


def run(config: GenerateConfig, on_event: Listener = ignore, base: BaseModel | None = None) -> GenerateResult:
    """Draw batch_size x batch_count pictures and write them as PNG files. `base`: one that is loaded already.

    Raises MaquetteError for an unknown LoRA, a LoRA that does not fit, an unreadable init_image.
    """
    began = time.perf_counter()
    words = Words.read(config.prompt, config.negative_prompt, config.prompt_comments, config.lora_dir)
    result = GenerateResult([], [], [], 0.0)

    def warn(message: str) -> None:
        result.warnings.append(message)
        on_event(Event("warning", {"message": message}))

    notices = words.warnings
    if base is None:
        dtype, device = _place(config)
        base = families.load(config.base, dtype, device, vae=config.vae)
        notices = [*notices, *processor.notices(config.dtype, dtype), *base.notices]
    unused = base.spec.skips(config.clip_skip), schedule_notice(config.sampler)
    for notice in [*notices, *filter(None, unused)]:
        warn(notice)
    found: list[Embedding] = []
    try:
        with ExitStack() as stack:
            for application in stack.enter_context(apply_loras(base, words.loras)):
                if application.warning:
                    warn(application.warning)
            found += find_embeddings(base, [words.plain, words.negative], config.embedding_dir)
            stack.enter_context(apply_embeddings(base, found))
            _draw_all(_Drawing(config, base, words), result, on_event)
    except NotFiniteError as error:  # the base is as it was, so that its numbers and the LoRAs' can be told apart
        raise NotFiniteError(fault(base, words.adapters, found)) from error
    result.seconds = time.perf_counter() - began
    on_event(Event("done", result.to_json()))
    return result


def _draw_all(drawing: _Drawing, result: GenerateResult, on_event: Listener) -> None:
    config = drawing.config
    first = secrets.randbelow(MAX_SEED) if config.seed == -1 else config.seed
    for batch in range(config.batch_count):
        seeds = [first + batch * config.batch_size + i for i in range(config.batch_size)]
        drawing.draw(seeds, batch, result, on_event)


class _Drawing:
    """All that stays the same from batch to batch."""

    def __init__(self, config: GenerateConfig, base: BaseModel, words: Words) -> None:
        self.config, self.base, self.words = config, base, words
        self.values = _values(config, base, words)
        self.width = config.width or base.spec.native_size
        self.height = config.height or base.spec.native_size
        self.cfg_scale = cfg_scale(config, base)
        with torch.no_grad():
            told: dict[str, Any] = {
                "clip_skip": config.clip_skip,
                "emphasis": config.emphasis,
                "batch": config.batch_size,
                "counting": config.prompt_editing,
                "calls_per_step": kind_of(config.sampler).calls,
            }
            self.cond = Prompt(base, words.plain, config.steps, **told)  # type: ignore[arg-type]
            self.uncond = Prompt(base, words.negative, config.steps, composable=False, **told)  # type: ignore[arg-type]
            self.start = None if config.init_image is None else self._encoded(config.init_image)
        self.number = _next_number(config.out)

    def _encoded(self, path: Path) -> torch.Tensor:
        """The picture to begin from, (1, 4, h, w)."""
        from PIL import ImageOps

        from ..data.images import open_photo

        photo = ImageOps.fit(open_photo(path), (self.width, self.height))
        pixels = torch.frombuffer(bytearray(photo.tobytes()), dtype=torch.uint8)
        pixels = pixels.reshape(1, self.height, self.width, 3).permute(0, 3, 1, 2)  # (1, 3, H, W)
        mean, _ = self.base.encode_images(pixels.float() / 127.5 - 1)
        require_finite_picture(mean, self.base)
        return mean

    @torch.no_grad()
    def draw(self, seeds: Sequence[int], batch: int, result: GenerateResult, on_event: Listener) -> None:
        """Draw one batch, write it, and add it to the result."""
        total = self.config.batch_count * self.config.steps

        def progress(done: int, of: int) -> None:
            share = batch * self.config.steps + done * self.config.steps // of
            on_event(Event("progress", {"what": "drawing", "done": share, "of": total}))

        latents = sample(
            self.base,
            self.cond,
            self.uncond,
            sampler=self.config.sampler,
            steps=self.config.steps,
            cfg_scale=self.cfg_scale,
            seeds=seeds,
            width=self.width,
            height=self.height,
            init_latents=None if self.start is None else self.start.expand(len(seeds), -1, -1, -1),
            denoising_strength=self.config.denoising_strength,
            options=self.config.sampling_options(),
            callback=progress,
        )
        decoded = self.base.decode(latents)
        require_finite_picture(decoded, self.base, self.words.adapters)
        for pixels, seed in zip(decoded, seeds, strict=True):
            image = to_image(pixels)
            values = {key: seed if key == "Seed" else value for key, value in self.values.items()}
            infotext = format_infotext(self.words.prompt, self.words.negative, values)
            path = self.config.out / f"{self.number:05d}-{seed}.png"
            write_png(image, path, infotext)
            self.number += 1
            result.paths.append(str(path))
            result.seeds.append(seed)
            result.infotexts.append(infotext)
            result.images.append(image)
            on_event(Event("saved", {"path": str(path)}))


def cfg_scale(config: GenerateConfig, base: BaseModel) -> float:
    """The scale asked for, or what suits the base."""
    return config.cfg_scale if config.cfg_scale is not None else DEFAULT_CFG.get(base.spec.name, 7.0)


def _values(config: GenerateConfig, base: BaseModel, words: Words) -> dict[str, Any]:
    """The last line of A1111's infotext, in its order."""
    sampler, schedule = schedule_of(config.sampler)
    bracketed = any(c in words.plain + words.negative for c in "([")
    hashes = {name: lora_hash(file)[:12] for name, file in words.files.items()}
    size = (config.width or base.spec.native_size, config.height or base.spec.native_size)
    return {
        "Steps": config.steps,
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": f"{cfg_scale(config, base):g}",
        "Seed": None,
        "Size": f"{size[0]}x{size[1]}",
        "Model hash": base.content_hash[:10],
        "Model": Path(base.source).stem if base.source != "pocket" else "pocket",
        "VAE hash": base.vae_hash[:10] or None,
        "VAE": Path(base.vae_source).name or None,
        "Denoising strength": f"{config.denoising_strength:g}" if config.init_image else None,
        "Clip skip": config.clip_skip if config.clip_skip > 1 else None,
        **config.noise_values(sampler),
        **config.sampler_values(sampler),
        "Lora hashes": ", ".join(f"{name}: {short}" for name, short in hashes.items()) or None,
        "Emphasis": config.emphasis if bracketed and config.emphasis != "Original" else None,
        "Prompt editing": "exact" if config.prompt_editing == "exact" else None,
        "Version": f"maquette-{__version__}",
    }


def _place(config: GenerateConfig) -> tuple[torch.dtype, str]:
    """dtype and device to load the base with."""
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        on_cuda = torch.device(device).type == "cuda"
    except RuntimeError as error:
        raise MaquetteError(f"There is no device {device!r}; give auto, cpu or cuda.") from error
    if on_cuda and not torch.cuda.is_available():
        raise MaquetteError("This machine has no CUDA device that PyTorch can use; leave out the device or give cpu.")
    name = config.dtype if config.dtype != "auto" else ("fp16" if on_cuda else "fp32")
    asked = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    return processor.computing(asked, torch.device(device)), device


def _next_number(folder: Path) -> int:
    """One more than the highest number that a file in the folder begins with."""
    numbers = [int(name[:5]) for name in (path.name for path in folder.glob("*-*.png")) if name[:5].isdecimal()]
    return max(numbers, default=0) + 1
