"""What a run will cost, from the header of the base's weight file alone: layers to train, file size, native size."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..data.dataset import Dataset
from ..formats.headers import header_of
from ..limits import CONFIGURATION_BYTES
from ..parsing import read_json
from .effort import Effort, estimate_effort, has_card
from .recipes import POCKET, STABLE_DIFFUSION, Recipe, default_steps, require_channels

# Attention and feed-forward of the UNet's transformer blocks, in diffusers' and in the original naming.
_TRANSFORMER = re.compile(r"(attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)|proj_in|proj_out)\.weight$")
_PER_MODULE_OVERHEAD = 330  # bytes of header per module: three entries with names, dtypes, shapes and offsets
_FILES_PER_RUN = 17  # 4 checkpoints and the chosen one in fp16; 2 states of weights and both moments in fp32 (6 each)
_BYTES_PER_CELL = 2 * 4 * 4  # mean and deviation of 4 channels in fp32
_PICTURES = 20_000_000  # samples and the report
_METADATA = 2_500  # bytes of training metadata in a LoRA file, about
_POCKET = Path(__file__).parents[1] / "families" / "pocket" / "weights"


@dataclass(frozen=True)
class BaseFacts:
    """Facts of a base for planning. `shapes`: the UNet's weights."""

    name: str
    native_size: int  # pixels
    latent_factor: int
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def layers(self) -> list[tuple[int, int, int]]:
        """(inputs, outputs, kernel area) of each layer that a LoRA adapts."""
        return [
            (shape[1], shape[0], math.prod(shape[2:]))
            for name, shape in self.shapes.items()
            if len(shape) >= 2 and _TRANSFORMER.search(name)
        ]

    @property
    def recipe(self) -> Recipe:
        """The defaults of training on it."""
        return POCKET if self.name == "pocket" else STABLE_DIFFUSION


@dataclass(frozen=True)
class Costs:
    """What a training run takes."""

    batch_size: int
    steps: int
    steps_per_epoch: int  # rounded up: a step may span two epochs
    epochs: float
    file_bytes: int  # of one LoRA file, about
    disk_bytes: int  # of the whole run folder and the latents, about
    regularization_needed: int  # pictures for one per sample: images x repeats
    regularization_present: int
    effort: Effort | None  # time and memory, about


def estimate(
    facts: BaseFacts, dataset: Dataset, rank: int, batch_size: int | None, steps: int | None, epochs: int | None
) -> Costs:
    """Count what follows from photos and settings; None stands for what `maquette train` would take."""
    samples = dataset.samples("instance")
    batch_size = batch_size or (facts.recipe.batch_size_cuda if has_card() else facts.recipe.batch_size)
    if steps is None and epochs is not None:
        steps = math.ceil(epochs * samples / batch_size)
    steps = steps or default_steps(facts.recipe, len(dataset.of("instance")), batch_size)
    layers = facts.layers
    file_bytes = lora_bytes(layers, rank)
    pictures = steps * batch_size * (2 if dataset.of("class") else 1)
    numbers = sum(rank * (inputs * area + outputs) for inputs, outputs, area in layers)
    cells = sum(photo.bucket[0] * photo.bucket[1] for photo in dataset.photos) / facts.latent_factor**2
    return Costs(
        batch_size=batch_size,
        steps=steps,
        steps_per_epoch=math.ceil(samples / batch_size),
        epochs=steps * batch_size / samples if samples else 0.0,
        file_bytes=file_bytes,
        disk_bytes=int(_FILES_PER_RUN * file_bytes + cells * _BYTES_PER_CELL + _PICTURES),
        regularization_needed=samples,
        regularization_present=dataset.samples("class"),
        effort=estimate_effort(facts.shapes, cells / max(1, len(dataset.photos)), pictures, batch_size, numbers),
    )


def base_facts(base: str | Path, vae: str | None = None, prediction_type: str = "auto") -> BaseFacts:
    """Facts about a base as `maquette train` takes it. Only names and shapes of weights are read.

    Raises MaquetteError as training on it would, in the same words.
    """
    if (str(base), vae, prediction_type) == ("pocket", None, "auto"):
        return _pocket_facts()
    from ..families.loading import find

    checkpoint = find(base, vae, prediction_type)
    require_channels(str(base), checkpoint.configs["unet"]["in_channels"])
    spec = checkpoint.spec
    name = "pocket" if spec.name == "pocket" else Path(checkpoint.source).name
    shapes = {key: tuple(tensor.shape) for key, tensor in checkpoint.parts["unet"].items()}
    return BaseFacts(name, spec.native_size, spec.latent_factor, shapes)


def _pocket_facts() -> BaseFacts:
    """From the files of the package, which need no judging, and so without torch."""
    parts = {part: _POCKET / part for part in ("unet", "vae")}
    sides = {
        part: read_json(folder / "config.json", CONFIGURATION_BYTES, "configuration")["sample_size"]
        for part, folder in parts.items()
    }
    header = header_of(str(parts["unet"] / "diffusion_pytorch_model.safetensors"))
    shapes = {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    return BaseFacts("pocket", sides["vae"], sides["vae"] // sides["unet"], shapes)


def lora_bytes(layers: Iterable[tuple[int, int, int]], rank: int, bytes_per_number: int = 2) -> int:
    """Expected size of a LoRA file: both factors of each layer, its alpha, and the header. Within a few per cent."""
    total = _METADATA
    for inputs, outputs, area in layers:
        total += (rank * (inputs * area + outputs) + 1) * bytes_per_number + _PER_MODULE_OVERHEAD
    return total
