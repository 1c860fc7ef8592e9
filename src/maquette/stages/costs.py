"""What a run will cost, from the header of the base's weight file alone: layers to train, file size, native size."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..data.dataset import Dataset
from ..errors import MaquetteError
from ..families.detect import identify
from ..formats import safetensors, tensor_files
from .effort import Effort, estimate_effort
from .training.defaults import POCKET, STABLE_DIFFUSION, Recipe, default_steps

# Attention and feed-forward of the UNet's transformer blocks, in diffusers' and in the original naming.
_TRANSFORMER = re.compile(r"(attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)|proj_in|proj_out)\.weight$")
_NATIVE_SIZES = {"sd1": 512, "sd2": 768, "sdxl": 1024}
_PER_MODULE_OVERHEAD = 330  # bytes of header per module: three entries with names, dtypes, shapes and offsets
_FILES_PER_RUN = 17  # 4 checkpoints and the chosen one in fp16; 2 states of weights and both moments in fp32 (6 each)
_BYTES_PER_CELL = 2 * 4 * 4  # mean and deviation of 4 channels in fp32
_PICTURES = 20_000_000  # samples and the report
_METADATA = 2_500  # bytes of training metadata in a LoRA file, about


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
    batch_size = batch_size or (facts.recipe.batch_size_cuda if _cuda() else facts.recipe.batch_size)
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


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def base_facts(base: str | Path) -> BaseFacts:
    """Facts about "pocket", a diffusers folder or a single model file. Only names and shapes of weights are read.

    Raises MaquetteError when there is no such base or it has no UNet.
    """
    path = Path(base)
    if str(base) == "pocket":
        from ..families.pocket.spec import POCKET, WEIGHTS

        return BaseFacts("pocket", POCKET.native_size, POCKET.latent_factor, _folder_shapes(WEIGHTS))
    if path.is_dir():
        return _folder_facts(path)
    if not path.is_file():
        raise MaquetteError(f'There is no base model {base}; name "pocket", a model file or a diffusers folder.')
    shapes = {name: tuple(tensor.shape) for name, tensor in tensor_files.read(path).tensors.items()}
    identity = identify(shapes)
    if identity.kind not in ("model", "unet") or identity.family not in _NATIVE_SIZES:
        raise MaquetteError(f"{path} is not a Stable Diffusion model that can be trained.")
    prefix = dict(identity.prefixes).get("unet", "")
    unet = {name[len(prefix) :]: shape for name, shape in shapes.items() if name.startswith(prefix)}
    return BaseFacts(path.name, _NATIVE_SIZES[identity.family], 8, unet)


def _folder_facts(folder: Path) -> BaseFacts:
    try:
        unet = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
        vae = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        sample = unet["sample_size"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MaquetteError(
            f"{folder} is not a diffusers model folder: its unet or vae config.json is unfit."
        ) from error
    side = sample if isinstance(sample, int) else min(sample)
    return BaseFacts(folder.name, side * factor, factor, _folder_shapes(folder))


def _folder_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    files = sorted((folder / "unet").glob("*.safetensors"))
    if not files:
        raise MaquetteError(f"{folder / 'unet'} holds no .safetensors weights.")
    whole = [file for file in files if ".fp16" not in file.name] or files  # the fp16 variant repeats every tensor
    return {name: info.shape for file in whole for name, info in safetensors.read_header(file).tensors.items()}


def lora_bytes(layers: Iterable[tuple[int, int, int]], rank: int, bytes_per_number: int = 2) -> int:
    """Expected size of a LoRA file: both factors of each layer, its alpha, and the header. Within a few per cent."""
    total = _METADATA
    for inputs, outputs, area in layers:
        total += (rank * (inputs * area + outputs) + 1) * bytes_per_number + _PER_MODULE_OVERHEAD
    return total
