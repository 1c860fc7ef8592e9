"""What a run does where the user gave no number: from the base, the device and the number of photos."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from ..config import TrainConfig
from ..core.dtypes import DTYPES
from ..data.captions import class_of
from ..data.dataset import Dataset
from ..errors import MaquetteError
from ..families.base import BaseModel, FamilySpec
from ..families.hub import is_hub_id
from ..fast import processor
from ..files import at_home
from ..methods import METHODS
from . import kinds
from .optim import schedules, steps_of
from .recipes import POCKET, STABLE_DIFFUSION, Recipe, default_steps

MAX_REPLAYED = 4  # sample prompts made from the subject


def recipe(spec: FamilySpec) -> Recipe:
    return POCKET if spec.name == "pocket" else STABLE_DIFFUSION


def pick_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one. Raises MaquetteError for a device that this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise MaquetteError(f"There is no device {name!r}; give auto, cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MaquetteError("This machine has no CUDA device that PyTorch can use; leave out device or give cpu.")
    return device


def pick_dtype(name: str, device: torch.device, method: str) -> torch.dtype:
    """ "auto" is bf16 on CUDA and on CPUs with instructions for it, where it is several times faster; else fp32.

    A type that a CPU has no instructions for is computed in fp32 too.
    """
    if name != "auto":
        return processor.computing(DTYPES[name], device)
    if device.type == "cuda":
        return torch.bfloat16
    frozen = METHODS[method].product != "model"  # learning weights would be cast anew at every step
    return torch.bfloat16 if frozen and processor.prefers_bf16() else torch.float32


def resolve(config: TrainConfig, base: BaseModel, dataset: Dataset, dtype: torch.dtype) -> TrainConfig:
    """The configuration with every default filled in, as run.toml records it."""
    family = recipe(base.spec)
    flow = base.scheduler_config.get("prediction_type") == "flow"
    if flow:
        refuse_without_flow(config)
    on_cuda = base.device.type == "cuda"
    batch_size = config.batch_size or (family.batch_size_cuda if on_cuda else family.batch_size)
    method = METHODS[config.method]
    usual = family.model_learning_rate if method.product == "model" else family.learning_rate * method.rate
    learning_rate = config.learning_rate or usual * math.sqrt(batch_size / family.batch_size)
    embedding_rate = config.embedding_learning_rate or family.embedding_learning_rate
    if method.product == "embedding":
        learning_rate = embedding_rate = config.learning_rate or embedding_rate  # there is nothing else that learns
    text_encoder_rate = config.text_encoder_learning_rate or learning_rate / 2
    if config.optimizer == "prodigy":  # which finds the rate, the same for all that learns
        learning_rate = embedding_rate = text_encoder_rate = config.learning_rate or 1.0
    steps = config.steps or _steps(config, family, dataset, batch_size)
    return config.model_copy(
        update={
            "batch_size": batch_size,
            "resolution": config.resolution or base.spec.native_size,
            "buckets": family.buckets if config.buckets is None else config.buckets,
            "learning_rate": learning_rate,
            "embedding_learning_rate": embedding_rate,
            "text_encoder_learning_rate": text_encoder_rate,
            "min_snr_gamma": 0.0 if flow else min_snr_gamma(config),
            "timestep_shift": timestep_shift(config, base),
            "steps": steps,
            "epochs": None,
            **_schedule(config, steps),
            "alpha": float(config.rank if config.alpha is None else config.alpha),
            "save_every_steps": None
            if config.save_every_epochs
            else config.save_every_steps or _between(config, steps),
            "sample_cfg_scale": config.sample_cfg_scale or family.cfg_scale,
            "sample_prompts": sample_prompts(config, base.spec, dataset),
            "dtype": next(name for name, kind in DTYPES.items() if kind == dtype),
            "base": placed(config.base),  # this and what follows: so that the run can be resumed from any folder
            "vae": config.vae and placed(config.vae),
            "photos": at_home(config.photos).resolve(),
            "reg": config.reg and at_home(config.reg).resolve(),
            "from_lora": config.from_lora and at_home(config.from_lora).resolve(),
        }
    )


def placed(model: str) -> str:
    """A model's path from the root, under the name that it was given by; "pocket" and hf:owner/name as they are."""
    named = model == "pocket" or is_hub_id(model) or not Path(model).exists()
    return model if named else str(Path(model).absolute())


def _schedule(config: TrainConfig, steps: int) -> dict[str, Any]:
    """Shares of the steps as numbers of steps; where nothing is scheduled (`learning.schedules`), no steps."""
    if not schedules(config):
        return {"lr_scheduler": "constant", "warmup_steps": 0, "decay_steps": 0}
    return {key: steps_of(getattr(config, key), steps) for key in ("warmup_steps", "decay_steps")}


def _between(config: TrainConfig, steps: int) -> int:
    """Steps between checkpoints: a quarter, or a twelfth of a run that looks for the step at which to end."""
    return math.ceil(steps / (12 if config.stop == "auto" or config.fold is not None else 4))


WEIGHTS_OF_OTHERS = (
    "min_snr_gamma", "debiased_estimation", "scale_v_pred_loss_like_noise_pred", "v_pred_like_loss",
    "zero_terminal_snr",
)  # fmt: skip


def refuse_without_flow(config: TrainConfig) -> None:
    """Options for noise and v predictions, which a flow has no use for."""
    for key in WEIGHTS_OF_OTHERS:
        if getattr(config, key):
            raise MaquetteError(f"{key} has no effect on a base that predicts flow: leave it out.")


def timestep_shift(config: TrainConfig, base: BaseModel) -> float | None:
    """The shift of a flow's timesteps (`core.flow.shifted`); None for other bases."""
    if base.scheduler_config.get("prediction_type") == "flow":
        return config.timestep_shift or float(base.scheduler_config.get("shift", 1.0))
    if config.timestep_shift is not None:
        raise MaquetteError("timestep_shift is for bases that predict flow (prediction_type = flow): leave it out.")
    return None


def min_snr_gamma(config: TrainConfig) -> float:
    """A word is learned from the noisy timesteps, whose loss min-SNR would take away where the base predicts v."""
    if config.min_snr_gamma is not None:
        return config.min_snr_gamma
    return 0.0 if METHODS[config.method].product == "embedding" else 5.0


def _steps(config: TrainConfig, family: Recipe, dataset: Dataset, batch_size: int) -> int:
    if config.epochs is not None:
        return math.ceil(config.epochs * dataset.samples("instance") / batch_size)
    return default_steps(family, len(dataset.of("instance")), batch_size)


def subject_of(config: TrainConfig, dataset: Dataset) -> str | None:
    """The subject that the user named, else the one in the first Kohya folder's name."""
    named = (photo.subject for photo in dataset.of("instance") if photo.subject)
    return config.subject or next(named, None)


def sample_prompts(config: TrainConfig, spec: FamilySpec, dataset: Dataset) -> list[str]:
    """The user's prompts; else the subject, in places that show whether prompts are still obeyed, and its class."""
    if config.sample_prompts is not None:
        return config.sample_prompts
    subject = subject_of(config, dataset)
    if subject is None:
        return list(dict.fromkeys(photo.caption for photo in dataset.of("instance")))[:MAX_REPLAYED]
    if config.kind == "style":
        return kinds.style_prompts(subject, spec.name == "pocket")
    places = kinds.endings(config.kind, spec.name == "pocket")
    return [
        f"a photo of {subject}",
        *(f"a photo of {subject} {place}" for place in places),
        f"a photo of a {class_of(subject)}",
    ]
