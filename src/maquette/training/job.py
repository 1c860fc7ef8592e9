"""A run made ready: the base with its adapters, the photos as latents, the captions as conditioning, the optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import methods
from ..config import TrainConfig
from ..core.channels import INPAINTING_CHANNELS
from ..core.denoiser import Conditioning
from ..core.seeds import seeded
from ..data import findings
from ..data.cache import LatentCache
from ..data.dataset import Dataset, Problem
from ..data.doctor import Look
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
from .photos import read_photos, with_settings
from .prior import Prior
from .probe import middle
from .prompt_cache import PromptCache
from .recipes import require_channels

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
        """Compute a step's gradients, times the loss scale. Returns its mean loss () and the photos seen."""
        total = torch.zeros((), device=self.base.device)
        batches, terms = self.terms(step)
        for term, factor in terms:
            total += self._learn(term, factor)
        return total, batches

    def terms(self, step: int) -> tuple[list[Batch], Iterator[tuple[LossTerm, float]]]:
        """A step's photos, and what is to be learned from them: terms and the factors of their summed losses. Each is
        made when it is asked for.

        With regularization images the loss is the mean of the photos' and theirs, as in sd-scripts, where they are
        half of a batch.
        """
        config = self.config
        random = seeded(config.seed, "step", step)
        torch.manual_seed(int(torch.randint(2**62, (), generator=random)))  # the adapters' dropouts draw from this
        self.objective.rank_rows.start_step()
        batches = self.instance.batches(step, config.batch_size or 1, config.gradient_accumulation, random)
        return batches, self._terms(step, batches, random)

    def _terms(self, step: int, batches: list[Batch], random: torch.Generator) -> Iterator[tuple[LossTerm, float]]:
        config = self.config
        size, parts = config.batch_size or 1, config.gradient_accumulation
        half = 1.0 if self.regularization is None else 0.5
        for batch in batches:
            for part, captions in self._alike(batch, batch.captions):
                conditioning = _sized(self.texts(captions), part)
                yield self.objective.denoising(part, conditioning, random), half / size
            if self.prior is not None:
                held, asked = self.prior.part(batch, random)
                factor = len(batch) / len(held) / size * config.prior_loss_weight
                for part, prompts in self._alike(held, asked):
                    now, original = _sized(self.texts(prompts), part), _sized(self.texts.original(prompts), part)
                    yield self.objective.prior_loss(part, now, original, self.attached, random), factor
        if self.regularization is not None:
            share = config.prior_share
            for batch in self.regularization.batches(step, size, parts, random, share):
                for part, captions in self._alike(batch, batch.captions):
                    question = self.objective.denoising(part, _sized(self.texts(captions), part), random)
                    yield question, half * config.prior_loss_weight / (size * share)

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
        self.attached.set_multiplier(0.0)
        self.objective.warm_up(*self.first_batch())
        self.attached.set_multiplier(1.0)

    def first_batch(self) -> tuple[Batch, Conditioning]:
        """Of step 0, with what the base is told."""
        config = self.config
        random = seeded(config.seed, "step", 0)
        batch = self.instance.batches(0, config.batch_size or 1, config.gradient_accumulation, random)[0]
        part, captions = self._alike(batch, batch.captions)[0]
        return part, _sized(self.texts(captions), part)

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
    computes: bool = True,
) -> Job:
    """Open the base, read the photos, encode both once, attach the adapters.

    cache: folder of latents that earlier runs encoded. on_progress: called with (what, done, all). load: opens the
    base, as `families.load` does. computes: whether the steps are computed by the job's own base; if not (`slots`),
    its network is not laid out for them.
    Raises MaquetteError for everything that is the user's to mend.
    """
    base, dtype = opened(config, load)
    dataset, looks = read_photos(config, base, on_progress)
    config = with_settings(config, dataset)
    config = defaults.resolve(config, base, dataset, dtype).model_copy(update={"held_out": len(dataset.of("held"))})
    sets = encoded(config, base, dataset, LatentCache(cache), on_progress)
    computing, prior, texts, attached = _adapted(config, base, dataset)
    optimizer = optim.make_optimizer(config, attached.parameter_groups())
    if config.scale_weight_norms:
        optimizer.register_step_post_hook(lambda *_: attached.scale_weight_norms(config.scale_weight_norms))
    optim.schedule_free_eval(optimizer, False)
    parameters = [p for group in attached.parameter_groups().values() for p in group]
    ema = EMA(parameters, config.ema_decay) if config.ema_decay else None
    objective = Objective(config, computing)
    job = Job(
        config, base, computing, dataset, attached, optimizer, ema, objective, texts, sets["instance"],
        sets.get("class"), prior, GradScaler(config.dtype == "fp16"),
    )  # fmt: skip
    job.findings = [*_findings(job, looks), *_probed(job)]
    _only_for_training(job, computes)
    if base.device.type == "cuda" and computes and _recordable(config):
        job.graphs = Graphs(parameters)
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


def encoded(
    config: TrainConfig,
    base: BaseModel,
    dataset: Dataset,
    cache: LatentCache,
    on_progress: Callable[[str, int, int], None],
) -> dict[str, LatentDataset]:
    """The latents of the photos and of the regularization images, and of an inpainting base the masked photos."""
    photos = dataset.photos
    shown = views_of(base, photos, config.flip_aug, config.random_crop)
    latents = encode_photos(base, photos, shown, cache, lambda n, of: on_progress("encoding photos", n, of))
    extra = None
    if base.input_channels == INPAINTING_CHANNELS:
        extra = inpainting.masks_of(
            base, photos, shown, config.seed, lambda n, of: on_progress("encoding masked photos", n, of)
        )
    sets: dict[str, LatentDataset] = {}
    for role in ("instance", "class"):
        chosen = [i for i, photo in enumerate(photos) if photo.role == role]
        if chosen:
            masks = None if extra is None else [extra[i] for i in chosen]
            kept = [photos[i] for i in chosen], [latents[i] for i in chosen]
            sets[role] = LatentDataset(*kept, config.seed, role, config.caption_dropout, masks)
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
    memory.keep()


def photo_names(job: Job, batches: list[Batch]) -> list[str]:
    """The files that a step saw."""
    seen = dict.fromkeys(index for batch in batches for index in batch.photos)
    return [str(Path(job.instance.photos[index].name)) for index in seen]
