"""A run as the command of Kohya's sd-scripts."""

from __future__ import annotations

from typing import Any

from ... import methods
from ...config import OPTIMIZER_ARGS
from ...data.buckets import rules_for
from ...data.layouts import groups_in
from ...trainers.kohya import BUCKET_LIMITS, SAME, THEIR_ARGUMENTS, THEIR_DEFAULTS, UNKNOWN, WORDS
from ..photos import caption_extension, data_set, kohya_parent, passed_over, places
from ..text import CommandResult, Writer
from . import network as kohya_network

FULL_NAMES = {"unet_lr": ["learning_rate"], "text_encoder_lr": ["learning_rate_te"]}  # of scripts for whole models
FULL_NAMES_XL = FULL_NAMES | {"text_encoder_lr": ["learning_rate_te1", "learning_rate_te2"]}
HANDLED = {"buckets", "keep_last", "sample_prompts", "weight_decay", "num_vectors", "init_word", "reg",
           "optimizer_args", "embedding_learning_rate", "layers", "conv_rank", "conv_alpha", "lokr_factor",
           "block_ranks", "block_alphas", "caption_extension", "clip_skip", "lr_scheduler_cycles", "dora_axis",
           *kohya_network.SAME}  # fmt: skip


class Kohya(Writer):
    """sd-scripts."""

    program = "kohya"
    script = ""
    reg = False  # whether there are regularization images

    def result(self) -> CommandResult:
        config = self.config
        self.covered |= HANDLED
        self.script = self._script()
        if config.base == "pocket":
            self.add("pretrained_model_name_or_path", config.base)  # to be replaced
        self._photos()
        self._same()
        self._network()
        self.add("sdpa")
        if not config.random_crop:
            self.add("cache_latents")
        self._batch()
        self._optimizer()
        self.add("output_dir", self.out)
        self.add("output_name", self._name())
        self.add("save_model_as", "safetensors")
        if config.keep_last and config.save_every_steps:
            self.add("save_last_n_steps", (config.keep_last - 1) * config.save_every_steps)  # a window of steps there
        elif config.keep_last and config.save_every_epochs:
            self.add("save_last_n_epochs", config.keep_last)  # but a number of files here
        self._samples()
        if config.trackers:
            self.add("log_with", "all" if len(config.trackers) == 2 else config.trackers[0])
            if "tensorboard" in config.trackers:
                self.add("logging_dir", self.out / "logs")  # without it that program does not start
        return self.finish(self.script)

    def _script(self) -> str:
        names = {"dreambooth": ("train_db.py", "sdxl_train.py"),
                 "textual-inversion": ("train_textual_inversion.py", "sdxl_train_textual_inversion.py")}  # fmt: skip
        pair = names.get(self.config.method, ("train_network.py", "sdxl_train_network.py"))
        version = self.facts.get("ss_base_model_version", "")
        if version.startswith("sd_v2"):
            self.add("v2")
        named = self.config.prediction_type
        if named != "flow":
            self.covered.add("prediction_type")
        predicts_v = named == "v_prediction" or self.facts.get("modelspec.prediction_type") == "v"
        if predicts_v and self.config.base != "pocket":
            self.add("v_parameterization")
        return pair[self.xl]

    def _name(self) -> str:
        """The run's name, unless that would write over the file that the run made."""
        name = self.out.name
        return f"{name}-kohya" if (self.out / f"{name}.safetensors").exists() else name

    def _photos(self) -> None:
        config = self.config
        if config.photos.suffix.lower() == ".toml":
            return self._users_file()
        found = places(config)
        ending = config.caption_extension or caption_extension(found, config.photos)
        self.no_equal += passed_over(found, ending, config.caption_wildcards)
        parents = [kohya_parent([p for p in found if p.reg is reg], ending) for reg in (False, True)]
        self.reg = any(place.reg for place in found)
        if parents[0] is not None and (parents[1] is not None or not self.reg):
            self.add("train_data_dir", parents[0])
            self.add("caption_extension", ending)
            if self.reg:
                self.add("reg_data_dir", parents[1])
        else:
            name = f"{self.out.name}-dataset.toml"
            self.files.append((name, data_set(found, ending)))
            self.add("dataset_config", name)
        if config.resolution:
            self.add("resolution", f"{config.resolution},{config.resolution}")
        if config.buckets:
            self._buckets()

    def _users_file(self) -> None:
        """A data set file that the run was trained with, which says the rest itself."""
        config = self.config
        self.add("dataset_config", config.photos)
        if config.photos.is_file():
            self.reg = any(group.role == "class" for group in groups_in(config.photos, config.subject))
        if config.reg is not None:
            self.lose("reg", "write it into the data set file, is_reg = true")

    def _buckets(self) -> None:
        """sd-scripts starts with steps of 64 pixels only, of 32 for SDXL."""
        resolution, least = self.config.resolution or 512, 32 if self.xl else 64
        rules = rules_for(resolution)
        if resolution < least:
            return self.lose("buckets", f"there are none below {least} pixels there")
        self.add("enable_bucket")
        found = {ours: getattr(rules, ours) for ours in BUCKET_LIMITS}
        if rules.step % least:
            found["step"] = least
            found["min_size"] = max(least, rules.min_size // least * least)
            found["max_size"] = -(-rules.max_size // least) * least
            self.lose("buckets", f"in steps of {rules.step} pixels here, of {least} there, which starts with no less")
        for ours, (theirs, usual) in BUCKET_LIMITS.items():
            if found[ours] != usual:
                self.add(theirs, found[ours])

    def _same(self) -> None:
        config, defaults = self.config, type(self.config).model_fields
        adapter = methods.METHODS[config.method].product == "adapter"
        for ours, theirs in SAME.items():
            value = getattr(config, ours)
            default = THEIR_DEFAULTS.get(ours, defaults[ours].default)
            if ours in self.covered and ours != "steps":
                continue
            self.covered.add(ours)
            if not adapter and ours in ("rank", "alpha", "dropout", "scale_weight_norms", "from_lora"):
                continue
            if ours == "rank" or (ours == "alpha" and value is None):
                value = config.rank
            if value is None or (value == default and ours != "seed") or (ours == "epochs" and config.steps):
                continue
            if ours == "text_encoder_learning_rate" and not config.text_encoder:
                continue
            if ours == "learning_rate" and config.method == "textual-inversion":
                continue
            if theirs in UNKNOWN.get(self.script, ()):
                self.lose(ours, f"{self.script} has no such option")
                continue
            names = FULL_NAMES_XL if self.xl else FULL_NAMES
            for name in names.get(theirs, [theirs]) if config.method == "dreambooth" else [theirs]:
                self.add(name, value)
        for ours, (theirs, words) in WORDS.items():
            self.covered.add(ours)
            if (value := getattr(config, ours)) in words:
                self.add(theirs, self._scheduler() if ours == "lr_scheduler" else words[value])
            else:
                self.lose(ours, "depends on the device; --mixed_precision bf16 on a recent GPU")
        if self.xl and config.clip_skip != 1:
            self.lose("clip_skip", "has no equal there: SDXL always takes the layer before the last")
        elif config.clip_skip != 1:
            self.add("clip_skip", config.clip_skip)

    def _scheduler(self) -> str:
        """Its name there, which may depend on more than ours."""
        config = self.config
        if config.lr_scheduler == "constant" and config.warmup_steps:
            return "constant_with_warmup"
        if config.lr_scheduler == "cosine" and config.lr_scheduler_min_ratio:
            return "cosine_with_min_lr"
        if config.lr_scheduler != "stable-decay" and config.lr_scheduler_cycles != 1:  # these two count waves otherwise
            self.add("lr_scheduler_num_cycles", config.lr_scheduler_cycles)
        return WORDS["lr_scheduler"][1][config.lr_scheduler]

    def _batch(self) -> None:
        """Regularization images are half of a batch there, and come on top of it here."""
        config = self.config
        parts, size = config.gradient_accumulation, config.batch_size or 1
        if config.photos.suffix.lower() == ".toml":
            parts = 1  # its batch_size wins over the command's
        if size % parts:
            self.no_equal.append(f"batch_size = {size}: cannot be cut into {parts} equal parts")
        self.add("train_batch_size", max(1, size // parts))
        if self.reg:
            parts *= 2
            if config.prior_share != 1:
                self.lose("prior_share", "there are as many regularization images as photos there")
        if parts != 1:
            self.add("gradient_accumulation_steps", parts)

    def _optimizer(self) -> None:
        config = self.config
        ours = OPTIMIZER_ARGS[config.optimizer] | config.optimizer_args
        theirs = OPTIMIZER_ARGS[config.optimizer] | THEIR_ARGUMENTS.get(config.optimizer, {})
        changed = {key: value for key, value in ours.items() if value != theirs[key] and value is not None}
        changed["weight_decay"] = config.weight_decay
        self.add("optimizer_args", [f"{key}={_argument(value)}" for key, value in changed.items()])

    def _network(self) -> None:
        config = self.config
        if config.method == "textual-inversion":
            self.add("token_string", config.subject or "")
            self.add("num_vectors_per_token", config.num_vectors)
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
        prompts = [" ".join(prompt.split()) for prompt in config.sample_prompts]  # one a line
        lines = [f"{p} --d {config.sample_seed + i} {tail}" for i, p in enumerate(prompts)]
        name = f"{self.out.name}-prompts.txt"
        self.files.append((name, "\n".join(lines)))
        self.add("sample_prompts", name)
        self.add("sample_sampler", "ddim")
        if config.save_every_epochs:
            return self.add("sample_every_n_epochs", config.save_every_epochs)
        self.add("sample_every_n_steps", config.save_every_steps or config.steps or 100)


def _argument(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
