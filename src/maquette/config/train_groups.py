"""The keys of `maquette train` in groups: one class each, whose `group` is its heading in --help and --keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .base import Count, DenoisingSteps, Fraction, Kind, Positive, Precision, Prediction, StageConfig


class PhotoKeys(StageConfig):
    """What is trained on what."""

    group: ClassVar[str] = "Photos and base"

    photos: Path
    """Folder of photos: plain, or with Kohya's `40_ohwx man` folders."""
    subject: str | None = None
    """The rare word and the class, "ohwx man": makes the captions of photos that have no text file."""
    kind: Kind | None = None
    """What the subject is: person, animal, object or style. Gives a rare word without class its class word, captions
    of a style ("a picture, zkw style") where photos have none, and sample prompts that suit it."""
    base: str = "pocket"
    """Base model: "pocket", a .safetensors file or a diffusers folder."""
    prediction_type: Prediction = "auto"
    """What the base predicts: noise (epsilon), v_prediction or flow (rectified flow); auto believes what its file says
    or what is usual for its family."""
    probe_prediction: bool = True
    """Refuse a prediction_type that the base's own loss on the photos contradicts; say so where none is given. false
    turns a base into another kind, with method dreambooth."""
    vae: str | None = None
    """A VAE-only file or folder to use instead of the base's own."""
    out: Path | None = None
    """Run folder; otherwise runs/ and the subject. Its name becomes the name of the file."""
    reg: Path | None = None
    """Folder of regularization images, which keep the class from drifting. They come on top of the photos: a step of
    batch_size photos sees as many of them besides (prior_share), and its loss is the mean of the photos' and, times
    prior_loss_weight, theirs."""
    method: Literal["lora", "locon", "dora", "loha", "lokr", "dreambooth", "textual-inversion", "pivotal"] = "lora"
    """What is trained: lora, locon (also convolutions), dora (magnitude apart from direction), loha, lokr,
    dreambooth (the whole UNet; makes a model, not a LoRA), textual-inversion (only a word of a few vectors), or pivotal
    (LoRA and word together)."""


class StepKeys(StageConfig):
    """How long, and how photos become pictures of a size."""

    group: ClassVar[str] = "Steps and pictures"

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Same seed, photos and settings: the same file, byte for byte, on the same machine."""
    steps: Count | None = None
    """Optimizer steps; otherwise by the number of photos."""
    epochs: Count | None = None
    """Instead of steps: how often all photos times repeats are seen."""
    repeats: Count | None = None
    """How often each photo counts in an epoch; otherwise 1 or what a Kohya folder's name says."""
    batch_size: Count | None = None
    """Photos per step, over all processes; otherwise 8 on pocket, 4 on CUDA, 1 on a CPU."""
    gradient_accumulation: Count = 1
    """Parts in which a step's photos are computed, to save memory; the result is the same."""
    gradient_checkpointing: bool = False
    """Compute each block twice instead of remembering its inner values: much less memory, the same result, slower."""
    resolution: int | None = Field(default=None, ge=16, multiple_of=8)
    """Pixels of a side of the square whose area every photo is scaled to; otherwise the base's native size."""
    buckets: bool | None = None
    """Keep each photo's shape, cut to the nearest bucket; else cut squares. Default: no on pocket, yes elsewhere."""
    no_upscale: bool = False
    """With buckets: never enlarge a photo; one too small for its bucket is trained in a smaller one."""
    flip_aug: bool = False
    """Also learn from mirrored photos. Wrong for faces, text and anything with a left and a right."""
    random_crop: bool = False
    """Cut each photo at up to eight places, not in the middle alone; for cutting squares, as buckets leave little."""


class AdapterKeys(StageConfig):
    """What learns: layers, ranks, regularization of the adapter."""

    group: ClassVar[str] = "Adapter"

    layers: list[Literal["attention", "self_attention", "cross_attention", "feed_forward", "conv"]] | None = None
    """Groups of UNet layers to adapt; otherwise what the method usually adapts."""
    text_encoder: bool = False
    """Adapt the text encoder too."""
    rank: Count = 16
    """Rank of the adapter: its capacity and file size."""
    from_lora: Path | None = None
    """Begin from this LoRA file, made by the same method with the same rank and alpha."""
    block_ranks: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Ranks of blocks, by a part of their layers' names: {down_blocks_1 = 8, mid_block = 32}; 0 leaves a block out."""
    block_alphas: dict[str, Positive] = Field(default_factory=dict)
    """Alphas of blocks, likewise; otherwise a block's strength alpha / rank is everyone's."""
    scale_weight_norms: float = Field(default=0.0, ge=0)
    """Longest weight change of a layer; longer ones are scaled down after each step (1 is usual). 0 is off."""
    alpha: Positive | None = None
    """Strength alpha / rank; otherwise alpha = rank."""
    conv_rank: Count | None = None
    """Rank on 3 x 3 convolutions; otherwise `rank`."""
    conv_alpha: Positive | None = None
    """Alpha on 3 x 3 convolutions; otherwise conv_rank."""
    num_vectors: int = Field(default=8, ge=1, le=75)
    """Textual inversion and pivotal: how many vectors the word has, each as long as a token of the prompt."""
    init_word: str | None = None
    """Textual inversion and pivotal: the word that the vectors begin as; otherwise the class."""
    embedding_format: Literal["a1111", "diffusers"] = "a1111"
    """Textual inversion: keys of the file, emb_params (clip_l, clip_g) as A1111 and Kohya, or the word as diffusers."""
    lokr_factor: int = Field(default=8, ge=-1)
    """LoKr: size of the first, small factor of the Kronecker product; -1: both as equal as they can be."""
    dora_axis: Literal["input", "output"] = "input"
    """DoRA: a magnitude per input, which A1111 and ComfyUI read exactly, or per output, which diffusers (after convert)
    and LyCORIS read exactly."""
    rank_stabilized: bool = False
    """Strength alpha / sqrt(rank) instead of alpha / rank."""
    dropout: Fraction = 0.0
    """Share of the adapter's inner values dropped at each step."""
    rank_dropout: Fraction = 0.0
    """Share of the rank's components dropped at each step."""
    module_dropout: Fraction = 0.0
    """Share of layers whose adapter is skipped at each step."""


class OptimizerKeys(StageConfig):
    """Optimizer, learning rate and its schedule."""

    group: ClassVar[str] = "Optimizer"

    learning_rate: Positive | None = None
    """Of the UNet's adapter; otherwise 2e-3 on pocket, 1e-4 times the root of the batch size elsewhere."""
    text_encoder_learning_rate: Positive | None = None
    """Of the text encoder's adapter; otherwise half the UNet's."""
    embedding_learning_rate: Positive | None = None
    """Of the vectors of textual-inversion and pivotal; otherwise 1e-2 on pocket, 2e-3 elsewhere."""
    lora_plus_ratio: Positive = 1.0
    """Up matrices learn this many times faster (LoRA+); 1 is off, 4 to 16 is usual."""
    optimizer: Literal[
        "adamw", "adamw8bit", "sgd", "adafactor", "lion", "prodigy", "schedule-free-adamw", "schedule-free-radam",
        "schedule-free-sgd",
    ] = "adamw"  # fmt: skip
    """adamw, adamw8bit (its moments take a quarter), sgd (with Nesterov's momentum), adafactor, lion, prodigy (finds
    its own rate, times learning_rate, which is 1 then) or schedule-free-adamw, -radam, -sgd (take neither lr_scheduler
    nor warm-up)."""
    optimizer_args: dict[str, bool | float | list[float]] = Field(default_factory=dict)
    """Further arguments of the optimizer, as its library names them: {betas = [0.9, 0.99], eps = 1e-7}."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Pull of the weights toward zero."""
    lr_scheduler: Literal["constant", "linear", "cosine", "restarts", "polynomial", "inverse-sqrt", "stable-decay"] = (
        "cosine"
    )
    """How the learning rate falls: constant, linear, cosine, cosine with restarts, polynomial, inverse-sqrt (as one
    over the root of the step) or stable-decay (constant, and a cosine over the last decay_steps)."""
    warmup_steps: int | float = Field(default=0, ge=0)
    """Steps over which the learning rate rises from zero; below 1: a share of all steps."""
    decay_steps: int | float = Field(default=0, ge=0)
    """Last steps over which the lr_scheduler "stable-decay" falls; below 1: a share of all steps."""
    lr_scheduler_cycles: Count = 3
    """Number of cosines of the lr_scheduler "restarts"."""
    lr_scheduler_power: Positive = 1.0
    """Power of the lr_scheduler "polynomial"; 1 is a straight line, 2 falls faster at first."""
    lr_scheduler_timescale: Count | None = None
    """Steps after which "inverse-sqrt" begins to fall; otherwise the warm-up's, without one 10,000."""
    lr_scheduler_min_ratio: Fraction = 0.0
    """Share of the learning rate at which the schedulers "cosine" and "stable-decay" end."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Longer gradients are shortened to this; 0 is off."""
    ema_decay: Fraction = 0.0
    """Average the weights over steps with this decay (0.99, 0.999) and save the average; 0 is off."""


class CaptionKeys(StageConfig):
    """What is read of captions, and how it is varied."""

    group: ClassVar[str] = "Captions"

    caption_prefix: str = ""
    """Text in front of every caption."""
    caption_suffix: str = ""
    """Text behind every caption."""
    caption_extension: str | None = None
    """Ending of the caption files that are read, such as .caption; otherwise .txt, where there is none .caption."""
    max_token_length: Literal[75, 150, 225] = 225
    """So many tokens of a caption are learned, in windows of 75 as prompts have them; what follows is cut off."""
    caption_wildcards: bool = False
    """Understand {a|b|c} in captions: one of them each time."""
    weighted_captions: bool = False
    """Understand (word:1.2) and [word] in captions as in prompts: this part counts more or less."""
    shuffle_captions: bool = False
    """Shuffle the tags of captions (parts between commas)."""
    keep_tokens: int = Field(default=0, ge=0)
    """So many tags at the beginning are neither shuffled nor dropped."""
    tag_dropout: Fraction = 0.0
    """Chance of each tag of being left out."""
    caption_dropout: Fraction = 0.0
    """Share of captions replaced by nothing, so that guidance keeps its meaning."""


class LossKeys(StageConfig):
    """Timesteps, noise, loss and its weights, prior preservation."""

    group: ClassVar[str] = "Loss and noise"

    alpha_mask: bool = False
    """The loss counts only where photos are not transparent."""
    min_snr_gamma: float | None = Field(default=None, ge=0)
    """Weigh down the easy, nearly clean timesteps (min-SNR); 0 is off. Otherwise 5, for textual-inversion 0."""
    debiased_estimation: bool = False
    """Weigh timesteps by the debiased estimation loss."""
    scale_v_pred_loss_like_noise_pred: bool = False
    """For bases that predict v: weigh timesteps as a base that predicts noise does."""
    v_pred_like_loss: float = Field(default=0.0, ge=0)
    """For bases that predict noise: add the loss, weighed as one that predicts v does, this many times; 0 is off."""
    noise_offset: float = Field(default=0.0, ge=0)
    """Constant added to each channel's noise, so that very dark and bright pictures can be learned; 0.05 is usual."""
    noise_offset_random: bool = False
    """Draw the strength of the noise offset between 0 and noise_offset."""
    noise_offset_adaptive: float = 0.0
    """Add this times the size of each channel's mean to the noise offset's strength."""
    pyramid_noise_levels: int = Field(default=0, ge=0, le=100)
    """Add noise of so many grids, the first as fine as the photo and each coarser than the last (6 to 10 are usual);
    0 is off."""
    pyramid_noise_discount: Fraction = 0.3
    """How much weaker each level is than the one before."""
    input_perturbation: float = Field(default=0.0, ge=0)
    """Extra noise on the input only (0.1 is usual); 0 is off."""
    input_perturbation_random: bool = False
    """Draw the strength of that noise between 0 and input_perturbation."""
    zero_terminal_snr: bool = False
    """Correct the schedule to end in pure noise; only for bases trained so."""
    loss_type: Literal["l2", "l1", "huber", "smooth_l1"] = "l2"
    """How errors count: l2, l1, huber or smooth_l1."""
    huber_delta: Positive = 0.1
    """Error size from which huber and smooth_l1 stop squaring."""
    huber_schedule: Literal["constant", "exponential", "snr"] = "snr"
    """How that size depends on the timestep."""
    timestep_sampling: Literal["uniform", "logit-normal"] = "uniform"
    """Which timesteps are drawn."""
    timestep_shift: float | None = Field(default=None, gt=0, le=100)
    """With a base that predicts flow: how much more often noisy timesteps are drawn; otherwise what the base says, 3 on
    SDXL, 1 elsewhere."""
    min_timestep: int = Field(default=0, ge=0)
    """Lowest timestep drawn."""
    max_timestep: Count = 1000
    """Timesteps are drawn below this."""
    prior_loss_weight: float = Field(default=1.0, ge=0)
    """Weight of the regularization images' loss, or of the prediction that replaces them."""
    prior_preservation: bool = False
    """Without pictures in `reg`: hold the class to what the base itself predicts for the class word."""
    prior_prompts: list[str] = Field(default_factory=list)
    """Further prompts that prior_preservation holds to what the base draws."""
    prior_share: float = Field(default=1.0, gt=0, le=1)
    """Regularization images (or those that prior_preservation holds) per photo of a step; 0.25 costs little time."""


class HardwareKeys(StageConfig):
    """Precision, device and speed."""

    group: ClassVar[str] = "Hardware"

    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the base; what learns stays fp32. auto: bf16 on CUDA and on CPUs that are fast with it.
    fp16 (with a scaled loss) is for older GPUs. CPUs without instructions for a type compute in fp32 instead."""
    save_dtype: Precision = "fp16"
    """Precision of the saved files."""
    deterministic: bool = False
    """On CUDA: only operations that give the same bits each time, so that resumed runs end in the same bytes; slower.
    On a CPU they always do."""
    cuda_graphs: bool = True
    """On CUDA: record a pass forward and back once for each shape and replay it (adapters without dropout and
    gradient_checkpointing, not in fp16). Each recording is compared with the pass itself before it is used."""
    compile: bool = False
    """Compile the UNet's blocks before the first step (a minute or two on CUDA, more with every bucket), which pays in
    long runs; needs Triton on CUDA, g++ on a CPU."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    clip_skip: Count = 1
    """Which text encoder layer is used, counted from the end: 2 for bases trained so. SDXL uses the layer before the
    last whatever this says."""


class ChoiceKeys(StageConfig):
    """Which checkpoint is kept, and what is held out to find it."""

    group: ClassVar[str] = "Checkpoint to keep"

    held_out: int = Field(default=0, ge=0)
    """So many photos, drawn by the seed, are not trained on, so that the verdict can tell what is understood from what
    is learned by heart; the report names them. 0, which trains on all, is right for few photos."""
    fold: int | None = Field(default=None, ge=0)
    """Of a run that only finds the step: which of the disjoint groups of held_out photos is held out (set by
    two_pass)."""
    two_pass: bool = False
    """Train twice: first on part of the photos, to find step and weight (on 6 photos or fewer three times, each without
    another photo), then on all of them for as many steps more as there are more photos."""
    stop: Literal["never", "auto"] = "never"
    """auto: hold out some photos, measure each checkpoint as it is saved, and end the training where held-out photos
    have been predicted worse for several checkpoints and the file is clearly overtrained."""
    schedule_steps: Count | None = None
    """Steps over which the scheduler runs, where training ends before; otherwise the steps."""
    preferred_weight: Positive | None = None
    """Weight that the side-car says where the end of the training chooses none; otherwise 0.8."""
    choose: bool = True
    """At the end, choose among the checkpoints and their weights by what they draw and change (`maquette evaluate`),
    where that takes no more than about a third of the training; else, and with false, the last one is taken."""


class OutputKeys(StageConfig):
    """Checkpoints, sample pictures, logs."""

    group: ClassVar[str] = "Output"

    save_every_steps: Count | None = None
    """Steps between checkpoints; otherwise a quarter of the run."""
    save_every_epochs: Count | None = None
    """Instead: a checkpoint each time that all photos times repeats have been seen so often."""
    keep_last: int = Field(default=0, ge=0)
    """Keep only so many checkpoints, the newest; 0 keeps all."""
    keep_steps: list[Count] = Field(default_factory=list)
    """Checkpoints of these steps are kept whatever keep_last says."""
    keep_state: bool = False
    """Keep what resuming needs after the run has finished. Otherwise it goes, and longer training begins from the
    finished file; methods whose file is no LoRA keep it in any case."""
    sample_prompts: list[str] | None = None
    """Prompts of the sample pictures; otherwise the subject on several backgrounds and the class alone. [] is none."""
    sample_seed: int = Field(default=1, ge=0)
    """Seed of the first sample picture, of the next plus one and so on; the same at every checkpoint."""
    sample_steps: DenoisingSteps = 20
    """Denoising steps of the sample pictures."""
    sample_cfg_scale: float | None = Field(default=None, ge=1)
    """Guidance of the sample pictures; otherwise 4 on pocket, 7 elsewhere."""
    trackers: list[Literal["tensorboard", "wandb"]] = Field(default_factory=list)
    """Also log to these: tensorboard writes into the run folder, wandb as its own settings say."""
    timestamps: bool = False
    """Write the time of training into the files, which then differ from run to run."""
