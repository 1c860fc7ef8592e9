"""A run made ready: the base with its adapters, the photos as latents, the captions as conditioning, the optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import methods
from ..config import TrainConfig
from ..core.channels import INPAINTING_CHANNELS
from ..data import findings
from ..data.cache import LatentCache
from ..data.dataset import Dataset, Problem
from ..data.doctor import Look
from ..errors import MaquetteError
from ..families import load
from ..families.base import BaseModel
from ..fast import attention, compiled, packed
from ..fast.graphs import Graphs
from ..fast.memory import keep
from ..methods.base import AdaptedLayer, Attached
from ..sampling.apply_embeddings import with_names
from . import defaults, holding_out, inpainting, memory, optim
from .attaching import attach, load_initial_lora, must_reencode, placeholder_of
from .batches import LatentDataset
from .distributed import ALONE, ProcessGroup, require_enough
from .ema import EMA
from .grad_scaler import GradScaler
from .job import Job
from .latents import EncodedPhoto, encode_photos
from .objective import Objective
from .photos import read_photos
from .prior import Prior
from .prompt_cache import PromptCache
from .recipes import require_channels

_DRAWS = 32  # of a caption that varies, in which the word to learn is looked for
_NO_MEMORY = "The memory does not suffice to open the base and to encode the largest photo; lower resolution."


def prepare(
    config: TrainConfig,
    cache: Path,
    on_progress: Callable[[str, int, int], None],
    load: Callable[..., BaseModel] = load,
    computes: bool = True,
    processes: ProcessGroup = ALONE,
) -> Job:
    """Open the base, read the photos, encode both once, attach the adapters. Of several processes the first goes before
    the others, which then find the photos encoded.

    cache: folder of latents that earlier runs encoded. on_progress: called with (what, done, all). load: opens the
    base, as `families.load` does. computes: whether the steps are computed by the job's own base; if not (`slots`),
    its network is not laid out for them.
    Raises MaquetteError for everything that is the user's to mend.
    """
    with processes.main_first(), memory.explained(_NO_MEMORY):
        base, dtype = opened(config, load)
        dataset, config, looks = read_photos(config, base, on_progress)
        config = defaults.resolve(config, base, dataset, dtype).model_copy(update={"held_out": len(dataset.of("held"))})
        require_enough(config.batch_size or 1, processes.size)
        latents = encode_photos(
            base, dataset.photos, LatentCache(cache), on_progress, config.flip_aug, config.random_crop
        )
        masked = None
        if base.input_channels == INPAINTING_CHANNELS:
            masked = inpainting.masks_of(base, dataset.photos, latents, config.seed, on_progress)
        sets = _by_role(config, dataset, latents, masked)
        computing, prior, texts, attached = _adapted(config, base, dataset)
        optimizer = optim.make_optimizer(config, attached.parameter_groups())
        if config.scale_weight_norms:
            optimizer.register_step_post_hook(lambda *_: attached.scale_weight_norms(config.scale_weight_norms))
        optim.schedule_free_eval(optimizer, False)
        parameters = [p for group in attached.parameter_groups().values() for p in group]
        ema = EMA(parameters, config.ema_decay) if config.ema_decay else None
        job = Job(
            config, base, computing, dataset, attached, optimizer, ema, Objective(config, computing), texts,
            sets["instance"], sets.get("class"), prior, GradScaler(config.dtype == "fp16"),
        )  # fmt: skip
        job.findings = [*_findings(job, looks), *_probed(job)]
        _only_for_training(job, computes)
        if base.device.type == "cuda" and computes and _recordable(config):
            job.graphs = Graphs(parameters)
        job.objective.rank_rows = processes.rank_rows()
        if _whole(config):
            job.optimizer = processes.shard(optimizer)
    return job


def _whole(config: TrainConfig) -> bool:
    """Whether whole networks learn: in float32, while they compute in less by autocast."""
    return methods.METHODS[config.method].product == "model"


def opened(config: TrainConfig, load: Callable[..., BaseModel]) -> tuple[BaseModel, torch.dtype]:
    """The base, and the type in which it computes."""
    device = defaults.pick_device(config.device)
    dtype = defaults.pick_dtype(config.dtype, device, config.method)
    lacking = compiled.lacking(device) if config.compile else None
    if lacking is not None:
        raise MaquetteError(f"compile = true needs {lacking}; install it, or train without: the result is the same.")
    base = load(
        config.base, device=device, vae=config.vae, prediction_type=config.prediction_type,
        unet_dtype=torch.float32 if _whole(config) else dtype,
    )  # fmt: skip
    require_channels(config.base, base.input_channels, base.spec.latent_channels)
    if dtype != torch.float32 and base.device.type == "cpu" and not _whole(config) and not config.compile:
        attention.install(base.network)
    return base, dtype


def _by_role(
    config: TrainConfig,
    dataset: Dataset,
    latents: Sequence[Sequence[EncodedPhoto]],
    masked: Sequence[Sequence[Tensor]] | None,
) -> dict[str, LatentDataset]:
    """The photos of the subject, and the regularization images where there are some."""
    sets: dict[str, LatentDataset] = {}
    for role in ("instance", "class"):
        chosen = [i for i, photo in enumerate(dataset.photos) if photo.role == role]
        if chosen:
            kept = [dataset.photos[i] for i in chosen], [latents[i] for i in chosen]
            extra = None if masked is None else [masked[i] for i in chosen]
            sets[role] = LatentDataset(*kept, config.seed, role, config.caption_dropout, extra)
    return sets


def _adapted(
    config: TrainConfig, base: BaseModel, dataset: Dataset
) -> tuple[BaseModel, Prior | None, PromptCache, Attached]:
    """The base that computes, with the method attached, after its prompts were encoded without."""
    own_words = methods.METHODS[config.method].embedding
    computing = copy.copy(base) if own_words else base  # its tokenizers will know the word
    captions = [caption for photo in dataset.photos for caption in photo.some_captions(_DRAWS)]
    fixed = [photo.caption_at(0) for photo in dataset.photos if not photo.options.varies]
    prior = Prior.of(config, defaults.subject_of(config, dataset), fixed)
    prompts = [*fixed, *(prior.prompts if prior else [])]
    word = placeholder_of(config, dataset, captions) if own_words else ""
    trainable = must_reencode(config, computing)
    texts = PromptCache(  # before adapters are attached
        computing, prompts, config.clip_skip, trainable, config.weighted_captions, config.max_token_length,
        vary=any(photo.options.varies for photo in dataset.photos),
    )  # fmt: skip
    tokenizers = with_names(computing, {word: config.num_vectors}) if own_words else computing.tokenizers
    attached = attach(config, computing, word)
    if trainable is not None:
        texts.untrained = attached.suspended
    if config.gradient_checkpointing:
        computing.enable_gradient_checkpointing()
    computing.tokenizers = tokenizers
    if config.from_lora is not None:
        load_initial_lora(config.from_lora, attached)
    return computing, prior, texts, attached


def _probed(job: Job) -> list[Problem]:
    """What the base's own loss says of its prediction. Raises MaquetteError where the user's own word is contradicted;
    pocket is what it is.
    """
    config = job.config
    if not config.probe_prediction or (config.prediction_type == "auto" and job.base.spec.name == "pocket"):
        return []
    found = job.contradiction()
    if found is not None and config.prediction_type != "auto":
        raise MaquetteError(found)
    return [] if found is None else [Problem("prediction", "", found)]


def _recordable(config: TrainConfig) -> bool:
    """Whether every pass of a shape does the same, but for what it is given."""
    drops = config.dropout or config.rank_dropout or config.module_dropout
    method = methods.METHODS[config.method]
    plain = method.product == "adapter" and not method.embedding and not config.text_encoder
    fixed = not drops and not config.gradient_checkpointing and config.dtype != "fp16"  # whose loss scale changes
    return config.cuda_graphs and plain and fixed


def _findings(job: Job, looks: Mapping[Path, Look]) -> list[Problem]:
    """What `maquette check` says of the base and the photos."""
    config, base = job.config, job.base
    toy = [Problem("toy", "", findings.TOY)] if base.spec.name == "pocket" else []
    notices = [Problem("base", "", notice) for notice in base.notices]
    seen = int((config.steps or 0) * (config.batch_size or 1) * config.prior_share)
    tokens = base.tokenizers[0].encode
    return [
        *toy,
        *notices,
        *holding_out.findings(config, job.dataset),
        *findings.of_photos(job.dataset, config.subject, looks, tokens, config.max_token_length, seen),
    ]


def _only_for_training(job: Job, computes: bool) -> None:
    """Let go of what has been used up: on a CPU altogether, since pictures are made with the base opened anew; else to
    the computer's memory. On a CPU frozen weights are also laid out for speed, good for nothing but training then,
    unless the blocks are to be compiled.
    """
    base, config = job.computing, job.config
    on_cpu = base.device.type == "cpu"
    for network in (base.vae, *([] if job.texts.encoder_needed else base.text_encoders)):
        network.to("meta" if on_cpu else "cpu")
    if config.compile:
        compiled.install(base.network)
    elif on_cpu and computes and methods.METHODS[config.method].product != "model":
        adapted = [module for module in base.network.modules() if isinstance(module, AdaptedLayer)]
        readable = {module.layer for module in adapted if module.adapter.reads_weight}
        if packed.install(base.network, readable):
            job.warm_up()
    keep()
