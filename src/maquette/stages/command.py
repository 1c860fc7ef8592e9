"""`maquette command`: the training command of other programs that equals a run, and what has no equal there."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .. import methods
from ..config import TrainConfig, toml_text
from ..data.buckets import rules_for
from ..data.captions import CAPTION_EXTENSIONS
from ..errors import MaquetteError
from ..formats import safetensors
from ..run import RunFolder
from . import kohya_network
from .kohya_keys import BUCKET_LIMITS, OPTIMIZER_ARGS, SAME, THEIR_DEFAULTS, WORDS

Program = Literal["kohya", "diffusers"]
# Written by both, or without influence on the weights.
SILENT = {"photos", "subject", "out", "method", "steps", "device", "timestamps", "keep_steps", "sample_seed",
          "sample_steps", "sample_cfg_scale", "embedding_format", "text_encoder", "batch_size", "gradient_accumulation",
          "repeats", "resolution", "trackers", "save_dtype", "deterministic"}  # fmt: skip
FULL_NAMES = {"unet_lr": ["learning_rate"], "text_encoder_lr": ["learning_rate_te"]}  # of scripts for whole models
FULL_NAMES_XL = FULL_NAMES | {"text_encoder_lr": ["learning_rate_te1", "learning_rate_te2"]}
KOHYA_HANDLED = {"buckets", "keep_last", "sample_prompts", "weight_decay", "vectors", "init_word",
                 "embedding_learning_rate", "layers", "conv_rank", "conv_alpha", "factor", "block_ranks",
                 "block_alphas", *kohya_network.SAME}  # fmt: skip
DIFFUSERS = {  # the options of examples/dreambooth
    "base": "pretrained_model_name_or_path",
    "seed": "seed",
    "resolution": "resolution",
    "steps": "max_train_steps",
    "gradient_accumulation": "gradient_accumulation_steps",
    "gradient_checkpointing": "gradient_checkpointing",
    "learning_rate": "learning_rate",
    "warmup_steps": "lr_warmup_steps",
    "max_grad_norm": "max_grad_norm",
    "save_every_steps": "checkpointing_steps",
}


@dataclass
class CommandResult:
    """A shell text to run where the other program is installed."""

    program: str
    command: str
    no_equal: list[str] = field(default_factory=list)  # "key = value: why"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(folder: str | Path, program: Program) -> CommandResult:
    """The command for the run in `folder`. Raises MaquetteError where there is none or the program cannot do it."""
    opened = RunFolder.open(folder)
    config = TrainConfig.read(opened.config)
    return command_for(config, program, _facts(opened))


def command_for(config: TrainConfig, program: Program, facts: dict[str, str] | None = None) -> CommandResult:
    """The command for a configuration with its numbers filled in. facts: a checkpoint's metadata, for the family."""
    if program not in ("kohya", "diffusers"):
        raise MaquetteError(f"There is no command for {program!r}; known are kohya and diffusers.")
    if config.method == "pivotal" or (program == "diffusers" and config.method in ("locon", "loha", "lokr")):
        raise MaquetteError(f"{program} has no training script for the method {config.method}.")
    writer = _Kohya if program == "kohya" else _Diffusers
    return writer(config, facts or {}).result()


def _facts(run: RunFolder) -> dict[str, str]:
    """What the newest checkpoint says of its base."""
    files = list(run.checkpoints().values())
    return safetensors.read_metadata(files[-1]) if files else {}


class _Writer:
    def __init__(self, config: TrainConfig, facts: dict[str, str]) -> None:
        self.config, self.facts = config, facts
        self.xl = "sdxl" in facts.get("ss_base_model_version", "") or "xl" in facts.get("modelspec.architecture", "")
        self.options: list[tuple[str, Any]] = []
        self.files: list[tuple[str, str]] = []
        self.no_equal: list[str] = []
        self.told = set(SILENT)

    def add(self, option: str, value: Any = True) -> None:
        self.options.append((option, value))

    def lose(self, key: str, why: str) -> None:
        self.told.add(key)
        self.no_equal.append(f"{key} = {getattr(self.config, key)}: {why}")

    def changed(self) -> list[str]:
        """Keys that are not at maquette's own default."""
        fields = type(self.config).model_fields
        return [
            key for key, field in fields.items()
            if getattr(self.config, key) != field.get_default(call_default_factory=True)
        ]  # fmt: skip

    def finish(self, program: str, script: str) -> CommandResult:
        for key in self.changed():
            if key not in self.told:
                self.lose(key, "has no equal there")
        if self.config.base == "pocket":
            self.no_equal.insert(0, "base = pocket: exists only here; name a Stable Diffusion model in its place")
        lines = [f"accelerate launch {script}"]
        for option, value in self.options:
            words = [str(word) for word in (value if isinstance(value, list) else [] if value is True else [value])]
            lines.append(" ".join([f"  --{option}", *map(shlex.quote, words)]))
        files = "".join(f"cat > {name} <<'END'\n{text.rstrip()}\nEND\n" for name, text in self.files)
        return CommandResult(program, files + " \\\n".join(lines) + "\n", self.no_equal)


class _Kohya(_Writer):
    """sd-scripts."""

    def result(self) -> CommandResult:
        config = self.config
        self.told |= KOHYA_HANDLED
        script = self._script()
        self._photos()
        self._same()
        self._network()
        self.add("sdpa")
        if not config.random_crop:
            self.add("cache_latents")
        parts = config.gradient_accumulation
        size = config.batch_size or 1
        if size % parts:
            self.no_equal.append(f"batch_size = {size}: cannot be cut into {parts} equal parts")
        self.add("train_batch_size", max(1, size // parts))
        settings = {key: ours for key, (ours, _) in OPTIMIZER_ARGS.get(config.optimizer, {}).items()}
        settings["weight_decay"] = str(config.weight_decay)
        self.add("optimizer_args", [f"{key}={value}" for key, value in settings.items()])
        if config.optimizer == "sgd":
            self.no_equal.append("optimizer = sgd: SGDNesterov there, whose momentum looks ahead")
        folder = config.out or Path("runs/lora")
        self.add("output_dir", folder)
        self.add("output_name", folder.name)
        self.add("save_model_as", "safetensors")
        if config.keep_last and config.save_every_steps:
            self.add("save_last_n_steps", (config.keep_last - 1) * config.save_every_steps)  # a window of steps there
        elif config.keep_last and config.save_every_epochs:
            self.add("save_last_n_epochs", config.keep_last)  # but a number of files here
        self._samples()
        if config.trackers:
            self.add("log_with", "all" if len(config.trackers) == 2 else config.trackers[0])
        return self.finish("kohya", script)

    def _script(self) -> str:
        names = {"dreambooth": ("train_db.py", "sdxl_train.py"),
                 "textual-inversion": ("train_textual_inversion.py", "sdxl_train_textual_inversion.py")}  # fmt: skip
        pair = names.get(self.config.method, ("train_network.py", "sdxl_train_network.py"))
        version = self.facts.get("ss_base_model_version", "")
        if version.startswith("sd_v2"):
            self.add("v2")
        if self.facts.get("modelspec.prediction_type") == "v":
            self.add("v_parameterization")
        return pair[self.xl]

    def _photos(self) -> None:
        config = self.config
        if config.photos.suffix == ".toml":
            return self.add("dataset_config", config.photos)
        if _has_repeat_folders(config.photos):
            self.add("train_data_dir", config.photos)
            self.add("caption_extension", _caption_extension(config.photos))
        else:
            subset: dict[str, Any] = {"image_dir": str(config.photos), "num_repeats": config.repeats or 1}
            subset["caption_extension"] = _caption_extension(config.photos)
            if config.subject:
                subset["class_tokens"] = config.subject
            text = "[[datasets]]\n\n[[datasets.subsets]]\n" + toml_text(subset)
            self.files.append(("dataset.toml", text))
            self.add("dataset_config", "dataset.toml")
            if config.reg is not None:
                self.lose("reg", "a data set file has its own [[datasets.subsets]] with is_reg = true")
        if config.resolution:
            self.add("resolution", f"{config.resolution},{config.resolution}")
        if config.buckets:
            self.add("enable_bucket")
            rules = rules_for(config.resolution or 512)
            for ours, (theirs, usual) in BUCKET_LIMITS.items():
                if getattr(rules, ours) != usual:
                    self.add(theirs, getattr(rules, ours))

    def _same(self) -> None:
        config, defaults = self.config, type(self.config).model_fields
        adapter = methods.METHODS[config.method].product == "adapter"
        for ours, theirs in SAME.items():
            value = getattr(config, ours)
            default = THEIR_DEFAULTS.get(ours, defaults[ours].default)
            if ours in self.told and ours not in ("gradient_accumulation", "steps"):
                continue
            self.told.add(ours)
            if not adapter and ours in ("rank", "alpha", "dropout", "max_norm", "from_lora"):
                continue
            if ours == "rank" or (ours == "alpha" and value is None):
                value = config.rank
            if value is None or (value == default and ours != "seed") or (ours == "epochs" and config.steps):
                continue
            if ours == "text_encoder_learning_rate" and not config.text_encoder:
                continue
            if ours == "learning_rate" and config.method == "textual-inversion":
                continue
            names = FULL_NAMES_XL if self.xl else FULL_NAMES
            for name in names.get(theirs, [theirs]) if config.method == "dreambooth" else [theirs]:
                self.add(name, value)
        for ours, (theirs, words) in WORDS.items():
            self.told.add(ours)
            value = getattr(config, ours)
            if value in words:
                self.add(theirs, words[value])
            else:
                self.lose(ours, "depends on the device; --mixed_precision bf16 on a recent GPU")

    def _network(self) -> None:
        config = self.config
        if config.method == "textual-inversion":
            self.add("token_string", config.subject or "")
            self.add("num_vectors_per_token", config.vectors)
            if config.init_word:
                self.add("init_word", config.init_word)
            if config.embedding_learning_rate:
                self.add("learning_rate", config.embedding_learning_rate)
            return
        if config.method == "dreambooth":
            if self.xl and config.text_encoder:
                self.add("train_text_encoder")
            elif not self.xl and not config.text_encoder:
                self.add("stop_text_encoder_training", -1)
            return
        if not config.text_encoder:
            self.add("network_train_unet_only")
        arguments, lost = kohya_network.write(config, self.xl)
        self.no_equal += lost
        self.add("network_module", kohya_network.module(config))
        if arguments:
            self.add("network_args", [f"{key}={value}" for key, value in arguments.items()])

    def _samples(self) -> None:
        config = self.config
        if not config.sample_prompts:
            return
        tail = f"--s {config.sample_steps} --l {config.sample_cfg_scale or 7:g}"
        lines = [f"{p} --d {config.sample_seed + i} {tail}" for i, p in enumerate(config.sample_prompts)]
        self.files.append(("prompts.txt", "\n".join(lines)))
        self.add("sample_prompts", "prompts.txt")
        self.add("sample_sampler", "ddim")
        if config.save_every_epochs:
            return self.add("sample_every_n_epochs", config.save_every_epochs)
        self.add("sample_every_n_steps", config.save_every_steps or config.steps or 100)


class _Diffusers(_Writer):
    """The example scripts of diffusers: one prompt for all photos, square cuts, attention layers only."""

    def result(self) -> CommandResult:
        config = self.config
        scripts = {"dreambooth": "train_dreambooth.py", "textual-inversion": "textual_inversion.py"}
        kind = "_sdxl" if self.xl else ""
        script = scripts.get(config.method, f"train_dreambooth_lora{kind}.py")
        self.add("output_dir", config.out or "runs/lora")
        if config.method == "textual-inversion":
            self.add("train_data_dir", config.photos)
            self.add("caption_extension", _caption_extension(config.photos))
            self.add("placeholder_token", config.subject or "")
            self.add("num_vectors", config.vectors)
            self.add("initializer_token", config.init_word or (config.subject or "object").split()[-1])
            self.told |= {"vectors", "init_word"}
        else:
            self.add("instance_data_dir", config.photos)
            self.add("instance_prompt", f"a photo of {config.subject}")
        options = dict(DIFFUSERS)
        if config.method == "textual-inversion":
            options.pop("max_grad_norm")
            self.lose("max_grad_norm", "that script does not shorten gradients")
        for ours, theirs in options.items():
            self.told.add(ours)
            value = getattr(config, ours)
            if value is not None and value is not False:
                self.add(theirs, value)
        self.add("train_batch_size", max(1, (config.batch_size or 1) // config.gradient_accumulation))
        self._rest()
        return self.finish("diffusers", script)

    def _rest(self) -> None:
        config = self.config
        self.told |= {"rank", "scheduler", "scheduler_cycles", "dtype", "reg", "prior_loss_weight", "weight_decay"}
        if methods.METHODS[config.method].product == "adapter":
            self.add("rank", config.rank)
            if config.alpha in (None, config.rank):
                self.told.add("alpha")
            if config.method == "dora" and self.xl:
                self.add("use_dora")
            elif config.method == "dora":
                self.no_equal.append("method = dora: only the SDXL script has --use_dora")
            self.no_equal.append("layers: attention only there; feed-forward layers are not trained")
        names = {"restarts": "cosine_with_restarts"}
        self.add("lr_scheduler", names.get(config.scheduler, config.scheduler))
        if config.scheduler == "restarts":
            self.add("lr_num_cycles", config.scheduler_cycles)
        self.add("adam_weight_decay", config.weight_decay)
        self.add("mixed_precision", {"fp32": "no", "fp16": "fp16"}.get(config.dtype, "bf16"))
        if config.text_encoder:
            self.add("train_text_encoder")
        if config.reg is not None:
            self.add("with_prior_preservation")
            self.add("class_data_dir", config.reg)
            self.add("class_prompt", f"a photo of {(config.subject or 'object').split()[-1]}")
            self.add("prior_loss_weight", config.prior_loss_weight)
        if config.method == "dreambooth" and config.min_snr_gamma:
            self.add("snr_gamma", config.min_snr_gamma)
            self.told.add("min_snr_gamma")
        elif config.min_snr_gamma:
            self.lose("min_snr_gamma", "the LoRA script weighs every timestep alike")
        if config.sample_prompts:
            self.told.add("sample_prompts")
            self.add("validation_prompt", config.sample_prompts[0])
        self.no_equal.append("captions: one prompt for all photos there; your caption files are not read")


def _caption_extension(photos: Path) -> str:
    """Of the caption files, of which that program reads one kind only; it means another where none is named."""
    found = (ending for ending in CAPTION_EXTENSIONS if next(photos.rglob(f"*{ending}"), None))
    return next(found, CAPTION_EXTENSIONS[0])


def _has_repeat_folders(photos: Path) -> bool:
    if not photos.is_dir():
        return False
    return any(p.is_dir() and p.name.partition("_")[0].isdigit() for p in photos.iterdir())
