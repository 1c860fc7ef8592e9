"""Estimate the memory of a training step by running it on fake tensors, which have shapes but no contents."""

from __future__ import annotations

import copy
import sys
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .. import methods
from ..core.denoiser import Conditioning
from ..core.dtypes import DTYPES
from ..errors import OutOfMemory
from ..fast import attention, packed
from ..methods.spec import spec_of

if TYPE_CHECKING:
    from ..config import TrainConfig
    from ..families.base import BaseModel
    from .job import Job

PER_NUMBER = 12  # bytes of a number that learns: itself and AdamW's two moments; its gradient is counted in the pass
GIGA = 1e9
EXTRA = 5  # channels that inpainting bases are shown besides the latent


def exhausted(error: Exception) -> bool:
    """Whether memory ran out, on CUDA or where a system refuses it to the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def explained(sentence: str) -> Iterator[None]:
    """Turn memory that runs out within the block into an OutOfMemory with this sentence."""
    try:
        yield
    except RuntimeError as error:
        if not exhausted(error):
            raise
        raise OutOfMemory(sentence) from error


class PeakMemory(TorchDispatchMode):
    """Counts bytes of tensors made within the block. now: those alive; most: the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor) and not tensor.is_mkldnn:  # a packed weight has no storage to ask
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self._seen:
            return
        size = storage.nbytes()

        def gone(_: Any) -> None:
            del self._seen[key]
            self.now -= size

        self._seen[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes: of the networks, of what learns with its optimizer, and of one pass forward and back."""

    networks: int
    learning: int
    step: int

    @property
    def total(self) -> int:
        return self.networks + self.learning + self.step


def estimate(job: Job, photos: int, checkpointing: bool, shrink: float = 1.0) -> MemoryEstimate:
    """Estimate a step of `photos` photos of the run's largest shape, their sides times `shrink`.

    A text encoder that learns is counted among the networks, but not its pass. A pass over layouts of frozen weights
    (`fast.packed`) takes less than estimated, because the layers' inputs are not kept.
    """
    height, width = max((row[0].shape[1:] for row in job.instance.latents), key=lambda shape: shape[0] * shape[1])
    multiple = 8  # a UNet halves its latents three times
    h, w = (max(multiple, round(side * shrink / multiple) * multiple) for side in (height, width))
    networks = {
        job.base.network,
        job.base.vae,
        *job.base.text_encoders,
        job.computing.network,
        *job.computing.text_encoders,
    }
    learning = sum(p.numel() for p in job.parameters)
    there = [tensor for network in networks for tensor in network.parameters() if tensor.device == job.base.device]
    frozen = _bytes(tensor for tensor in there if not tensor.requires_grad)
    frozen += packed.size(job.computing.network)
    step = pass_bytes(job.computing, job.config, job.texts.original([""]), (photos, h, w), checkpointing)
    return MemoryEstimate(frozen, learning * PER_NUMBER, step)


def pass_bytes(
    base: BaseModel, config: TrainConfig, conditioning: Conditioning, size: tuple[int, int, int], checkpointing: bool
) -> int:
    """Most bytes alive at once, besides the weights, in one pass of the base's UNet with the configuration's adapters.

    Only the configuration of the UNet and the shapes of `conditioning`, of one prompt, count; dtype must be chosen.
    size: photos, and height and width of their latents.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    photos, height, width = size
    half = DTYPES[config.dtype]
    with FakeTensorMode():
        base = _fake_model(base, config, checkpointing)
        channels = base.spec.latent_channels
        inpainting = base.input_channels == channels + EXTRA
        x = torch.empty(photos, channels, height, width)
        conditioning = Conditioning(
            torch.empty(photos, *conditioning.tokens.shape[1:], requires_grad=True),
            None if conditioning.pooled is None else torch.empty(photos, *conditioning.pooled.shape[1:]),
            None if conditioning.pooled is None else torch.empty(photos, 6),
            torch.empty(photos, EXTRA, height, width) if inpainting else None,
        )
        casts = half != torch.float32 and next(base.network.parameters()).dtype == torch.float32
        with PeakMemory() as peak:
            with torch.autocast("cpu", half if casts else torch.bfloat16, enabled=casts):
                output = base.predict(x, torch.zeros(photos, dtype=torch.int64), conditioning)
            output.float().square().mean().backward()
    result: int = peak.most
    return result


def _fake_model(base: BaseModel, config: TrainConfig, checkpointing: bool) -> BaseModel:
    """The base with a UNet of the same kind and the configuration's adapters, none of which has contents."""
    from .attaching import unet_slots

    method = methods.METHODS[config.method]
    whole = method.product == "model"
    usual = torch.get_default_dtype()
    torch.set_default_dtype(
        usual if whole else DTYPES[config.dtype]
    )  # tensors without contents cannot be cast in place
    try:
        unet: nn.Module = type(base.unet)(base.unet.config)
    finally:
        torch.set_default_dtype(usual)
    unet.requires_grad_(whole)
    if base.device.type == "cpu" and not whole and not config.compile:
        attention.install(unet)  # whose tables are kept
    base = copy.copy(base)
    base.network = unet
    if checkpointing:
        base.enable_gradient_checkpointing()
    if method.product == "adapter":
        name = "lora" if method.embedding else config.method
        methods.attach(name, unet_slots(config, base), spec_of(config, base.spec.name))
    return base


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of all storages that exist, each counted once; layers laid out for speed have left only their shape."""
    found = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if not t.is_meta}
    return sum(found.values())


def advice(job: Job, share: int = 1) -> str:
    """A sentence for a run that does not fit: what it needs, and which settings would need how much instead.

    share: processes among which a step's photos are divided.
    """
    config = job.config
    each = -(-(config.batch_size or 1) // share)
    at_once = -(-each // config.gradient_accumulation)
    now = estimate(job, at_once, config.gradient_checkpointing)
    side = config.resolution or job.base.spec.native_size
    options = []
    if at_once > 1:
        parts = min(each, 2 * config.gradient_accumulation)
        smaller = estimate(job, -(-each // parts), config.gradient_checkpointing)
        options.append(f"gradient_accumulation={parts} ({_size(smaller)}, the same result)")
        less = max(1, (config.batch_size or 1) // 2)
        options.append(f"batch_size={less} ({_size(smaller)})")
    if not config.gradient_checkpointing:
        options.append(f"gradient_checkpointing=true ({_size(estimate(job, at_once, True))}, the same result, slower)")
    lower = side * 3 // 4 // 64 * 64 or side // 2
    options.append(f"resolution={lower} ({_size(estimate(job, at_once, config.gradient_checkpointing, lower / side))})")
    if config.dtype == "fp32" and job.base.device.type == "cuda":
        options.append("dtype=bf16")
    return (
        f"The memory does not suffice: {at_once} photos at once need {_size(now)} (networks {now.networks / GIGA:.2g}, "
        f"what learns {now.learning / GIGA:.2g}, a step {now.step / GIGA:.2g}). Use --set {', or '.join(options)}."
    )


def _size(need: MemoryEstimate) -> str:
    return f"about {need.total / GIGA:.2g} GB"


def peak(device: torch.device) -> int | None:
    """The most bytes that were in use at once: of a card by tensors, else of this process; None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
