"""The configuration of `maquette train`: its groups of keys together, and what contradicts itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import model_validator

from ..shown import is_unicode, visible
from .train_groups import (
    AdapterKeys,
    CaptionKeys,
    ChoiceKeys,
    HardwareKeys,
    LossKeys,
    OptimizerKeys,
    OutputKeys,
    PhotoKeys,
    StepKeys,
)

# Further arguments of each optimizer, as its library names them, with what maquette gives them (None: the library's).
OPTIMIZER_ARGS: dict[str, dict[str, Any]] = {
    "adamw": {"betas": (0.9, 0.999), "eps": 1e-8},
    "adamw8bit": {"betas": (0.9, 0.999), "eps": 1e-8},
    "sgd": {"momentum": 0.9, "nesterov": True, "dampening": 0.0},
    "adafactor": {
        "scale_parameter": False, "relative_step": False, "warmup_init": False, "eps": (1e-30, 1e-3),
        "clip_threshold": 1.0, "decay_rate": -0.8, "beta1": None,
    },
    "lion": {"betas": (0.9, 0.99)},
    "prodigy": {
        "betas": (0.9, 0.999), "beta3": None, "eps": 1e-8, "d0": 1e-6, "d_coef": 1.0, "growth_rate": math.inf,
        "use_bias_correction": True, "safeguard_warmup": True,
    },
    "schedule-free-adamw": {
        "betas": (0.9, 0.999), "eps": 1e-8, "warmup_steps": 0, "r": 0.0, "weight_lr_power": 2.0,
    },
    "schedule-free-radam": {
        "betas": (0.9, 0.999), "eps": 1e-8, "r": 0.0, "weight_lr_power": 2.0, "silent_sgd_phase": True,
    },
    "schedule-free-sgd": {"momentum": 0.9, "warmup_steps": 0, "r": 0.0, "weight_lr_power": 2.0},
}  # fmt: skip


class TrainConfig(
    OutputKeys, ChoiceKeys, HardwareKeys, LossKeys, CaptionKeys, OptimizerKeys, AdapterKeys, StepKeys, PhotoKeys
):
    """What `maquette train` does. None stands for a default that follows from the base, the method and the photos."""

    renamed: ClassVar[Mapping[str, str]] = {
        "debiased": "debiased_estimation", "factor": "lokr_factor", "flip": "flip_aug", "loss": "loss_type",
        "max_norm": "scale_weight_norms", "vectors": "num_vectors",
        "scheduler": "lr_scheduler", "scheduler_cycles": "lr_scheduler_cycles",
        "scheduler_min_ratio": "lr_scheduler_min_ratio", "scheduler_power": "lr_scheduler_power",
        "scheduler_timescale": "lr_scheduler_timescale",
    }  # fmt: skip

    @model_validator(mode="after")
    def _can_be_written(self) -> Self:
        for key in sorted(self.model_fields_set):
            value = getattr(self, key)
            for text in map(str, value if isinstance(value, list) else [value]):
                if not is_unicode(text):
                    raise ValueError(f"{key} = '{visible(text)}' is no UTF-8, as run.toml must be: rename it")
        return self

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.subject is not None and not self.subject.strip():
            self.subject = None  # spaces name nothing
        if self.kind is not None and self.subject is not None and len(self.subject.split()) == 1:
            self.subject = f"{self.subject} {self.kind}"  # a rare word alone has no class
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        if self.save_every_steps is not None and self.save_every_epochs is not None:
            raise ValueError("give save_every_steps or save_every_epochs, not both")
        if self.two_pass and self.fold is not None:
            raise ValueError("fold is of a first pass: leave it out with two_pass")
        if self.fold is not None and not self.held_out:
            raise ValueError("fold says which photos are held out: give held_out, how many")
        if self.lokr_factor == 0:
            raise ValueError("lokr_factor must be 1 or more, or -1 for factors as equal as they can be")
        if self.min_timestep >= self.max_timestep:
            raise ValueError(f"min_timestep {self.min_timestep} must be below max_timestep {self.max_timestep}")
        if self.reg is not None and self.prior_preservation:
            raise ValueError("prior_preservation works without regularization images: give reg or it, not both")
        if self.method == "textual-inversion" and (self.reg is not None or self.prior_preservation):
            raise ValueError("a word changes nothing but its own pictures: leave out reg and prior_preservation")
        for key in ("warmup_steps", "decay_steps"):
            if (value := getattr(self, key)) >= 1 and value != int(value):
                raise ValueError(f"{key} = {value:g} is neither a whole number nor a share below 1")
        if self.scale_v_pred_loss_like_noise_pred and self.v_pred_like_loss:
            raise ValueError("a base predicts noise or v: give scale_v_pred_loss_like_noise_pred or v_pred_like_loss")
        self._refuse_unknown_arguments()
        self._refuse_without_effect()
        if self.prior_prompts and not self.prior_preservation:
            raise ValueError("prior_prompts need prior_preservation = true")
        return self

    def _refuse_unknown_arguments(self) -> None:
        """What the optimizer's library would refuse only when the photos are encoded, or take in another sense."""
        known = OPTIMIZER_ARGS[self.optimizer]
        for key, value in self.optimizer_args.items():
            if key == "weight_decay":
                raise ValueError("weight_decay has a key of its own: take it out of optimizer_args")
            if key not in known:
                raise ValueError(f"{self.optimizer} has no argument {key!r}; it knows {', '.join(known)}")
            kind = _kind(list(usual) if isinstance(usual := known[key], tuple) else usual)
            if _kind(value) != kind:
                raise ValueError(f"the argument {key} of {self.optimizer} is {kind}")
        if self.optimizer_args.get("warmup_init") and not self.optimizer_args.get("relative_step"):
            raise ValueError("the argument warmup_init of adafactor needs relative_step = true")

    def _refuse_without_effect(self) -> None:
        """Options that the method has no use for would be silently without effect."""
        rankless = (
            "from_lora",
            "block_ranks",
            "block_alphas",
            "scale_weight_norms",
            "dropout",
            "rank_dropout",
            "module_dropout",
        )
        useless = {
            "dreambooth": (*rankless, "layers", "conv_rank", "rank_stabilized"),
            "textual-inversion": (*rankless, "layers", "conv_rank", "rank_stabilized", "text_encoder"),
            "loha": ("dropout",),  # its product has no inner values
            "pivotal": ("from_lora",),
        }
        if self.dora_axis != "input" and self.method != "dora":
            raise ValueError(f"dora_axis has no effect on the method {self.method}: leave it out")
        for key in useless.get(self.method, ()):
            if getattr(self, key):
                raise ValueError(f"{key} has no effect on the method {self.method}: leave it out")


def _kind(value: Any) -> str:
    """What an optimizer's argument is; None stands for a number that the library chooses."""
    if isinstance(value, list):
        return {2: "two numbers"}.get(len(value), f"{len(value)} numbers")
    return "true or false" if isinstance(value, bool) else "a number"
