"""A run as the command of diffusers' example scripts: one prompt for all photos, square cuts, attention layers only."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from .. import methods
from ..data.captions import caption_for_class, class_of
from ..data.images import is_photo
from .photos import Place, named_caption, places
from .text import CommandResult, Writer

OPTIONS = {  # of examples/dreambooth
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
SCHEDULERS = {"restarts": "cosine_with_restarts"}


class Diffusers(Writer):
    """Its example scripts read every file of a folder as a picture, so that folders of pictures alone are made."""

    program = "diffusers"

    def result(self) -> CommandResult:
        config = self.config
        scripts = {"dreambooth": "train_dreambooth.py", "textual-inversion": "textual_inversion.py"}
        kind = "_sdxl" if self.xl else ""
        script = scripts.get(config.method, f"train_dreambooth_lora{kind}.py")
        self.add("output_dir", self.out)
        found = places(config)
        photos = self._folder([place for place in found if not place.reg], "photos")
        if config.method == "textual-inversion":
            self.add("train_data_dir", photos)
            self.add("placeholder_token", config.subject or "")
            self.add("num_vectors", config.num_vectors)
            self.add("initializer_token", config.init_word or (config.subject or "object").split()[-1])
            self.covered |= {"num_vectors", "init_word", "embedding_learning_rate"}
        else:
            self.add("instance_data_dir", photos)
            self.add("instance_prompt", named_caption(config) or found[0].words)
        options = dict(OPTIONS)
        if config.method == "textual-inversion":
            options.pop("max_grad_norm")
            self.lose("max_grad_norm", "that script does not shorten gradients")
        for ours, theirs in options.items():
            self.covered.add(ours)
            value = getattr(config, ours)
            if ours == "warmup_steps" and value < 1:
                value = int(value * (config.steps or 0))  # a share
            if ours == "max_grad_norm" and any(place.reg for place in found):
                value *= 2  # the loss is the sum of the photos and the regularization images there, the mean here
            if value is not None and value is not False:
                self.add(theirs, value)
        self.add("train_batch_size", max(1, (config.batch_size or 1) // config.gradient_accumulation))
        if not config.random_crop:
            self.add("center_crop")
        self.covered.add("random_crop")
        self._rest([place for place in found if place.reg])
        return self.finish(script)

    def _folder(self, found: Sequence[Place], what: str) -> Path:
        """A folder of pictures alone: the user's own, or one of links that the script makes."""
        folder = found[0].folder
        alone = all(entry.is_file() and is_photo(entry) for entry in folder.iterdir()) if folder.is_dir() else True
        if len(found) == 1 and alone:
            return folder
        made = Path(f"{self.out.name}-{what}")
        self.before.append(f"mkdir {shlex.quote(str(made))}")
        for place in found:
            words = " ".join(shlex.quote(str(photo.resolve())) for photo in place.photos)
            self.before.append(f"ln -s --backup=numbered -t {shlex.quote(str(made))} {words}")
        if len({place.repeats for place in found}) > 1:
            self.no_equal.append("repeats: every photo counts alike there")
        return made

    def _rest(self, class_pictures: list[Place]) -> None:
        config = self.config
        self.covered |= {"rank", "lr_scheduler", "lr_scheduler_cycles", "dtype", "reg", "prior_loss_weight",
                      "weight_decay", "max_token_length", "prior_share"}  # fmt: skip
        self.covered |= {"embedding_learning_rate", "caption_extension"}
        self.covered |= set() if config.buckets else {"buckets"}
        self._text_rate()
        if methods.METHODS[config.method].product == "adapter":
            self.add("rank", config.rank)
            if config.alpha in (None, config.rank):
                self.covered.add("alpha")
            if config.method == "dora" and self.xl:
                self.add("use_dora")
                if config.dora_axis == "output":
                    self.covered.add("dora_axis")
                else:
                    self.no_equal.append("dora_axis = input: PEFT's magnitude is one number per output")
            elif config.method == "dora":
                self.no_equal.append("method = dora: only the SDXL script has --use_dora")
            self.no_equal.append("layers: attention only there; feed-forward layers are not trained")
        if config.optimizer == "adamw8bit":
            self.covered.add("optimizer")
            self.add("use_8bit_adam")
        if config.lr_scheduler in ("inverse-sqrt", "stable-decay"):
            self.lose("lr_scheduler", "has no equal there")
        else:
            self._scheduler()
        self.add("adam_weight_decay", config.weight_decay)
        self.add("mixed_precision", {"fp32": "no", "fp16": "fp16"}.get(config.dtype, "bf16"))
        if config.text_encoder:
            self.add("train_text_encoder")
        if class_pictures:
            self._class_pictures(class_pictures)
        if config.method == "dreambooth" and config.min_snr_gamma:
            self.add("snr_gamma", config.min_snr_gamma)
            self.covered.add("min_snr_gamma")
        elif config.min_snr_gamma:
            self.lose("min_snr_gamma", "the LoRA script weighs every timestep alike")
        self.covered |= {"min_snr_gamma", "sample_prompts"}
        if config.sample_prompts:
            self.add("validation_prompt", config.sample_prompts[0])
        self.no_equal.append("captions: one prompt for all photos there; your caption files are not read")

    def _text_rate(self) -> None:
        """The script for SDXL has a rate for the text encoders; the others have one for all."""
        config = self.config
        rate = config.text_encoder_learning_rate
        if not config.text_encoder or rate in (None, config.learning_rate):
            self.covered.add("text_encoder_learning_rate")
        elif self.xl and methods.METHODS[config.method].product == "adapter":
            self.covered.add("text_encoder_learning_rate")
            self.add("text_encoder_lr", rate)
        else:
            self.lose("text_encoder_learning_rate", "one rate for all there")

    def _scheduler(self) -> None:
        config = self.config
        warm = config.lr_scheduler == "constant" and config.warmup_steps
        self.add(
            "lr_scheduler", "constant_with_warmup" if warm else SCHEDULERS.get(config.lr_scheduler, config.lr_scheduler)
        )
        if config.lr_scheduler == "restarts":
            self.add("lr_num_cycles", config.lr_scheduler_cycles)
        if config.lr_scheduler == "polynomial":
            self.covered.add("lr_scheduler_power")
            self.add("lr_power", config.lr_scheduler_power)

    def _class_pictures(self, found: list[Place]) -> None:
        """As many as there are: fewer than it expects, and the script draws more into the folder."""
        config = self.config
        self.add("with_prior_preservation")
        self.add("class_data_dir", self._folder(found, "class"))
        self.add("class_prompt", found[0].words or caption_for_class(class_of(config.subject or "object")))
        self.add("prior_loss_weight", config.prior_loss_weight)
        if count := sum(len(place.photos) for place in found):
            self.add("num_class_images", count)
        else:
            self.no_equal.append(f"reg = {config.reg}: not at hand; give --num_class_images its number of pictures")
        if config.prior_share != 1:
            self.lose("prior_share", "there is a regularization image with each photo there")
