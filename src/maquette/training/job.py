"""A run made ready: the base with its adapters, the photos as latents, the captions as conditioning, the optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import methods
from ..config import TrainConfig
from ..core.denoiser import Conditioning
from ..core.seeds import seeded
from ..data import findings
from ..data.cache import LatentCache
from ..data.caption_options import CaptionOptions
from ..data.dataset import Dataset, Problem, hold_out, plan
from ..data.doctor import Look, examine_captions, look_at
from ..data.images import OpenedPhoto
from ..data.layouts import read_folder, require_trainable
from ..errors import MaquetteError
from ..families import load
from ..families.base import BaseModel
from ..fast import attention, compiled, memory, packed
from ..fast.graphs import Graphs
from ..methods.base import AdaptedLayer, Attached
from ..sampling.apply_embeddings import with_names
from . import defaults, holding_out, inpainting, optim, probe
from .attaching import attach, load_initial_lora, must_reencode, placeholder_of
from .batches import Batch, LatentDataset, encode_photos, views_of
from .ema import EMA
from .grad_scaler import GradScaler
from .objective import LossTerm, Objective
from .prior import Prior
from .probe import middle
from .prompt_cache import PromptCache
from .recipes import INPAINTING_CHANNELS, require_channels

_ASKED = 4  # photos on which the base is asked what it predicts
_DRAWS = 32  # of a caption that varies, in which the word to learn is looked for


@dataclass
class Job:
    """Everything the loop needs. `base` is what the user named; `computing`, the same networks, is trained on and may
    know a word more.
    """

    config: TrainConfig  # with every default filled in
    base: BaseModel
    computing: BaseModel
    dataset: Dataset
    attached: Attached
    optimizer: torch.optim.Optimizer
    ema: EMA | None
    objective: Objective
    texts: PromptCache
    instance: LatentDataset
    regularization: LatentDataset | None
    prior: Prior | None
    scaler: GradScaler
    graphs: Graphs | None = None  # passes recorded on a graphics card
    findings: list[Problem] = field(default_factory=list)  # what `maquette check` would say

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for group in self.attached.parameter_groups().values() for p in group]

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint is due after so many steps."""
        config = self.config
        if config.save_every_epochs is None:
            return step % (config.save_every_steps or step) == 0
        seen, epochs = (config.batch_size or 1), config.save_every_epochs * self.dataset.samples("instance")
        return step * seen // epochs > (step - 1) * seen // epochs

    def gradients(self, step: int) -> tuple[Tensor, list[Batch]]:
        """Compute a step's gradients, times the loss scale. Returns its mean loss () and the photos seen.

        With regularization images the loss is the mean of the photos' and theirs, as in sd-scripts, where they are
        half of a batch.
        """
        config = self.config
        random = seeded(config.seed, "step", step)
        torch.manual_seed(int(torch.randint(2**62, (), generator=random)))  # the adapters' dropouts draw from this
        size, parts = config.batch_size or 1, config.gradient_accumulation
        total = torch.zeros((), device=self.base.device)
        self.objective.rank_rows.start_step()
        batches = self.instance.batches(step, size, parts, random)
        half = 1.0 if self.regularization is None else 0.5
        for batch in batches:
            for part, captions in self._alike(batch, batch.captions):
                conditioning = _sized(self.texts(captions), part)
                total += self._learn(self.objective.denoising(part, conditioning, random), half / size)
            if self.prior is not None:
                held, asked = self.prior.part(batch, random)
                factor = len(batch) / len(held) / size * config.prior_loss_weight
                for part, prompts in self._alike(held, asked):
                    now, original = _sized(self.texts(prompts), part), _sized(self.texts.original(prompts), part)
                    total += self._learn(self.objective.prior_loss(part, now, original, self.attached, random), factor)
        if self.regularization is not None:
            share = config.prior_share
            for batch in self.regularization.batches(step, size, parts, random, share):
                for part, captions in self._alike(batch, batch.captions):
                    question = self.objective.denoising(part, _sized(self.texts(captions), part), random)
                    total += self._learn(question, half * config.prior_loss_weight / (size * share))
        return total, batches

    def _alike(self, batch: Batch, prompts: list[str]) -> list[tuple[Batch, list[str]]]:
        """The batch in parts whose prompts take equally many windows: none is filled up for the sake of another."""
        groups = self.texts.alike(prompts)
        if len(groups) == 1:
            return [(batch, prompts)]
        return [(batch.rows(group), [prompts[i] for i in group]) for group in groups]

    def _learn(self, question: LossTerm, factor: float) -> Tensor:
        """Add the gradients of factor x the question's losses. Returns that sum, ()."""
        if self.graphs is not None and not question.empty:
            return self.graphs.learn(question.name, question.compute, question.inputs, factor)
        loss = question.losses().sum() * factor
        if loss.requires_grad:  # not where all of a batch's photos are another process's
            (loss * self.scaler.scale if self.scaler.active else loss).backward()
        return loss.detach()

    @torch.no_grad()
    def warm_up(self) -> None:
        """One pass forward over the first batch of step 0, so that whatever a layer decides at its first use does not
        depend on the step at which a run goes on.
        """
        config = self.config
        random = seeded(config.seed, "step", 0)
        batch = self.instance.batches(0, config.batch_size or 1, config.gradient_accumulation, random)[0]
        self.attached.set_multiplier(0.0)
        part, captions = self._alike(batch, batch.captions)[0]
        self.objective.warm_up(part, _sized(self.texts(captions), part))
        self.attached.set_multiplier(1.0)

    @torch.no_grad()
    def contradiction(self) -> str | None:
        """A sentence where the base's own loss on a few photos says that it predicts something else (`probe`)."""
        random = seeded(self.config.seed, "probe", 0)
        batch = self.instance.batches(0, _ASKED, 1, random)[0]
        part, captions = self._alike(batch, batch.captions)[0]
        conditioning = _sized(self.texts(captions), part)
        masked = None if conditioning.concat is None else middle(conditioning.concat)
        conditioning = replace(conditioning, concat=masked)
        self.attached.set_multiplier(0.0)
        found = probe.contradiction(
            lambda x, t: self.objective.predict(x, t, conditioning),
            self.base.scheduler_config, middle(part.x0), self.config.base,
        )  # fmt: skip
        self.attached.set_multiplier(1.0)
        return found

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds: the averaged weights where there is an average, float32."""
        with optim.evaluation_weights(self.optimizer):
            if self.ema is not None:
                self.ema.swap()
            state = {key: value.clone() for key, value in self.attached.state().items()}
            if self.ema is not None:
                self.ema.swap()
        return state


def _sized(conditioning: Conditioning, batch: Batch) -> Conditioning:
    """Add what the photos decide: SDXL's time ids (of families with a pooled vector), and inpainting channels."""
    sizes = None if conditioning.pooled is None else batch.time_ids
    return replace(conditioning, time_ids=sizes, concat=batch.concat)


def prepare(
    config: TrainConfig,
    cache: Path,
    on_progress: Callable[[str, int, int], None],
    load: Callable[..., BaseModel] = load,
) -> Job:
    """Open the base, read the photos, encode both once, attach the adapters.

    cache: folder of latents that earlier runs encoded. on_progress: called with (what, done, all). load: opens the
    base, as `families.load` does.
    Raises MaquetteError for everything that is the user's to mend.
    """
    device = defaults.pick_device(config.device)
    dtype = defaults.pick_dtype(config.dtype, device, config.method)
    lacking = compiled.lacking(device) if config.compile else None
    if lacking is not None:
        raise MaquetteError(f"compile = true needs {lacking}; install it, or train without: the result is the same.")
    whole = methods.METHODS[config.method].product == "model"  # learns in float32, computes in less by autocast
    base = load(
        config.base, device=device, vae=config.vae, prediction_type=config.prediction_type,
        unet_dtype=torch.float32 if whole else dtype,
    )  # fmt: skip
    channels = base.input_channels
    require_channels(config.base, channels, base.spec.latent_channels)
    dataset, looks = read_photos(config, base, on_progress)
    config = _with_settings(config, dataset)
    config = defaults.resolve(config, base, dataset, dtype).model_copy(update={"held_out": len(dataset.of("held"))})
    shown = views_of(base, dataset.photos, config.flip, config.random_crop)
    latents = encode_photos(
        base, dataset.photos, shown, LatentCache(cache), lambda n, of: on_progress("encoding photos", n, of)
    )
    extra = None
    if channels == INPAINTING_CHANNELS:
        extra = inpainting.masks_of(
            base, dataset.photos, shown, config.seed, lambda n, of: on_progress("encoding masked photos", n, of)
        )
    sets: dict[str, LatentDataset] = {}
    for role in ("instance", "class"):
        chosen = [i for i, photo in enumerate(dataset.photos) if photo.role == role]
        if chosen:
            photos, kept = [dataset.photos[i] for i in chosen], [latents[i] for i in chosen]
            masks = None if extra is None else [extra[i] for i in chosen]
            sets[role] = LatentDataset(photos, kept, config.seed, role, config.caption_dropout, masks)
    own_words = methods.METHODS[config.method].embedding
    if dtype != torch.float32 and device.type == "cpu" and not whole and not config.compile:
        attention.install(base.network)
    computing = copy.copy(base) if own_words else base  # its tokenizers will know the word
    captions = [caption for photo in dataset.photos for caption in photo.some_captions(_DRAWS)]
    fixed = [photo.caption_at(0) for photo in dataset.photos if not photo.options.varies]
    prior = Prior.of(config, defaults.subject_of(config, dataset), fixed)
    prompts = [*fixed, *(prior.prompts if prior else [])]
    word = placeholder_of(config, dataset, captions) if own_words else ""
    live = must_reencode(config, computing)
    texts = PromptCache(  # before adapters are attached
        computing, prompts, config.clip_skip, live, config.weighted_captions, config.max_token_length,
        vary=any(photo.options.varies for photo in dataset.photos),
    )  # fmt: skip
    tokenizers = with_names(computing, {word: config.vectors}) if own_words else computing.tokenizers
    attached = attach(config, computing, word)
    if live is not None:
        texts.untrained = attached.suspended
    if config.gradient_checkpointing:
        computing.enable_gradient_checkpointing()
    computing.tokenizers = tokenizers
    if config.from_lora is not None:
        load_initial_lora(config.from_lora, attached)
    optimizer = optim.make_optimizer(config, attached.parameter_groups())
    if config.max_norm:
        optimizer.register_step_post_hook(lambda *_: attached.scale_weight_norms(config.max_norm))
    optim.schedule_free_eval(optimizer, False)
    parameters = [p for group in attached.parameter_groups().values() for p in group]
    ema = EMA(parameters, config.ema_decay) if config.ema_decay else None
    objective = Objective(config, computing)
    job = Job(
        config, base, computing, dataset, attached, optimizer, ema, objective, texts, sets["instance"],
        sets.get("class"), prior, GradScaler(config.dtype == "fp16"),
    )  # fmt: skip
    job.findings = [*_findings(job, looks), *_probed(job)]
    _only_for_training(job)
    if base.device.type == "cuda" and _recordable(config):
        job.graphs = Graphs(parameters)
    return job


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


def read_photos(
    config: TrainConfig, base: BaseModel, on_progress: Callable[[str, int, int], None]
) -> tuple[Dataset, dict[Path, Look]]:
    """The photos with captions and buckets, as `maquette check` sees them, and what is measured on each."""
    looks: dict[Path, Look] = {}

    def look(path: Path, opened: OpenedPhoto) -> None:
        looks[path] = look_at(opened)

    dataset = read_folder(
        config.photos,
        config.subject,
        reg=config.reg,
        repeats=config.repeats,
        options=CaptionOptions(
            prefix=config.caption_prefix,
            suffix=config.caption_suffix,
            wildcards=config.caption_wildcards,
            keep_tokens=config.keep_tokens,
            shuffle=config.shuffle_captions,
            tag_dropout=config.tag_dropout,
        ),
        alpha_mask=config.alpha_mask,
        extension=config.caption_extension,
        look=look,
        progress=lambda done, of: on_progress("reading photos", done, of),
    )
    config = _with_settings(config, dataset)
    resolution = config.resolution or base.spec.native_size
    buckets = defaults.recipe(base.spec).buckets if config.buckets is None else config.buckets
    dataset = plan(dataset, resolution, base.spec.size_multiple, aspect_buckets=buckets, no_upscale=config.no_upscale)
    blocking = [problem for problem in examine_captions(dataset, config.subject) if problem.blocking]
    require_trainable(replace(dataset, problems=[*dataset.problems, *blocking]))  # what `maquette check` refuses
    if count := holding_out.count_for(config, dataset):
        dataset = hold_out(dataset, count, config.seed, config.fold or 0)
    _refuse_idle_images(config, dataset)
    return dataset, looks


def _refuse_idle_images(config: TrainConfig, dataset: Dataset) -> None:
    """Regularization images that lie with the photos and that the run has no use for; `reg` is refused before."""
    images = dataset.of("class")
    if not images or not (config.prior_preservation or methods.METHODS[config.method].product == "embedding"):
        return
    what = "prior_preservation works without" if config.prior_preservation else f"{config.method} has no use for"
    raise MaquetteError(
        f"{what} regularization images, and {images[0].path.parent} holds some beside the photos: move that folder "
        "elsewhere."
    )


def _with_settings(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """What a data set file asks for, where the user said nothing."""
    wishes = {key: value for key, value in dataset.settings.items() if key not in config.model_fields_set}
    if not wishes:
        return config
    return TrainConfig.parse(config.model_dump(exclude_unset=True) | wishes, str(config.photos))


def _only_for_training(job: Job) -> None:
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
    elif on_cpu and methods.METHODS[config.method].product != "model":
        adapted = [module for module in base.network.modules() if isinstance(module, AdaptedLayer)]
        readable = {module.layer for module in adapted if module.adapter.reads_weight}
        if packed.install(base.network, readable):
            job.warm_up()
    memory.keep()


def photo_names(job: Job, batches: list[Batch]) -> list[str]:
    """The files that a step saw."""
    seen = dict.fromkeys(index for batch in batches for index in batch.photos)
    return [str(Path(job.instance.photos[index].name)) for index in seen]
