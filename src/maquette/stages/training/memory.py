"""How much memory a training step takes, found by walking through it with tensors that have shapes but no contents."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ... import methods
from ...core.denoiser import Conditioning
from .defaults import DTYPES

if TYPE_CHECKING:
    from .job import Job

PER_NUMBER = 12  # bytes of a number that learns: itself and AdamW's two moments; its gradient is counted in the pass
GIGA = 1e9
LATENT_CHANNELS, EXTRA = 4, 5  # what is denoised, and what inpainting bases are shown besides


def exhausted(error: Exception) -> bool:
    """Whether memory ran out, on CUDA or where a system refuses it to the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class Peak(TorchDispatchMode):
    """Counts the bytes of tensors that come into being within the block: `now` those still alive, `most` at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor):
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
class Need:
    """Bytes: of the networks, of what learns with its optimizer, and of one pass forward and back."""

    networks: int
    learning: int
    step: int

    @property
    def total(self) -> int:
        return self.networks + self.learning + self.step


def need(job: Job, photos: int, checkpointing: bool, shrink: float = 1.0) -> Need:
    """For `photos` of the largest shape of the run at once, their sides times `shrink`. A text encoder that learns is
    counted among the networks, but not its pass.
    """
    height, width = max((row[0].shape[1:] for row in job.instance.latents), key=lambda shape: shape[0] * shape[1])
    multiple = 8  # a UNet halves its latents three times
    h, w = (max(multiple, round(side * shrink / multiple) * multiple) for side in (height, width))
    networks = {job.base.unet, job.base.vae, *job.base.text_encoders, job.computing.unet, *job.computing.text_encoders}
    learning = sum(p.numel() for p in job.parameters)
    frozen = _bytes(tensor for network in networks for tensor in network.parameters() if not tensor.requires_grad)
    return Need(frozen, learning * PER_NUMBER, pass_bytes(job, photos, h, w, checkpointing))


def pass_bytes(job: Job, photos: int, height: int, width: int, checkpointing: bool) -> int:
    """Most bytes alive at once, besides the weights, in one pass over latents of height x width."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    told = job.texts.original([""])
    with FakeTensorMode():
        learned = _pretended(job, checkpointing)
        inpainting = job.base.unet.config.in_channels == LATENT_CHANNELS + EXTRA  # type: ignore[union-attr]
        x = torch.empty(photos, LATENT_CHANNELS, height, width)
        tokens = torch.empty(photos, *told.tokens.shape[1:], requires_grad=True)
        pooled = None if told.pooled is None else torch.empty(photos, *told.pooled.shape[1:])
        sizes = None if pooled is None else torch.empty(photos, 6)
        concat = torch.empty(photos, EXTRA, height, width) if inpainting else None
        conditioning = Conditioning(tokens, pooled, sizes, concat)
        half = DTYPES[job.config.dtype]
        casts = half != torch.float32 and next(learned.unet.parameters()).dtype == torch.float32
        with Peak() as peak:
            with torch.autocast("cpu", half if casts else torch.bfloat16, enabled=casts):
                output = learned.predict(x, torch.zeros(photos, dtype=torch.int64), conditioning)
            output.float().square().mean().backward()
    return peak.most


def _pretended(job: Job, checkpointing: bool) -> Any:
    """The run's base with a UNet of the same kind and the same adapters, none of which has contents."""
    from .job import unet_slots

    config, method = job.config, methods.METHODS[job.config.method]
    whole = method.product == "model"
    usual = torch.get_default_dtype()
    torch.set_default_dtype(
        usual if whole else DTYPES[config.dtype]
    )  # tensors without contents cannot be cast in place
    try:
        unet: nn.Module = type(job.base.unet).from_config(job.base.unet.config)  # type: ignore[attr-defined]
    finally:
        torch.set_default_dtype(usual)
    unet.requires_grad_(whole)
    if checkpointing:
        unet.enable_gradient_checkpointing()  # type: ignore[operator]
    base = replace(job.computing, unet=unet)
    if method.product == "adapter":
        spec = methods.base.MethodSpec(rank=config.rank, conv_rank=config.conv_rank, factor=config.factor)
        name = "lora" if method.embedding else config.method
        methods.attach(name, unet_slots(config, base), spec)
    return base


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of all storages, each counted once."""
    found = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(found.values())


def advice(job: Job, share: int = 1) -> str:
    """A sentence for a run that does not fit: what it needs, and which settings would need how much instead.

    share: processes among which a step's photos are divided.
    """
    config = job.config
    each = -(-(config.batch_size or 1) // share)
    at_once = -(-each // config.gradient_accumulation)
    now = need(job, at_once, config.gradient_checkpointing)
    side = config.resolution or job.base.spec.native_size
    options = []
    if at_once > 1:
        parts = min(each, 2 * config.gradient_accumulation)
        smaller = need(job, -(-each // parts), config.gradient_checkpointing)
        options.append(f"gradient_accumulation={parts} ({_size(smaller)}, the same result)")
        less = max(1, (config.batch_size or 1) // 2)
        options.append(f"batch_size={less} ({_size(smaller)})")
    if not config.gradient_checkpointing:
        options.append(f"gradient_checkpointing=true ({_size(need(job, at_once, True))}, the same result, slower)")
    lower = side * 3 // 4 // 64 * 64 or side // 2
    options.append(f"resolution={lower} ({_size(need(job, at_once, config.gradient_checkpointing, lower / side))})")
    if config.dtype == "fp32" and job.base.device.type == "cuda":
        options.append("dtype=bf16")
    return (
        f"The memory does not suffice: {at_once} photos at once need {_size(now)} (networks {now.networks / GIGA:.2g}, "
        f"what learns {now.learning / GIGA:.2g}, a step {now.step / GIGA:.2g}). Use --set {', or '.join(options)}."
    )


def _size(need: Need) -> str:
    return f"about {need.total / GIGA:.2g} GB"
