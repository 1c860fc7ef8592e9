"""What a run does otherwise than its configuration says, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import TrainConfig
from ..families.base import BaseModel
from .optim import schedules

# Which programs read what is trained (docs/lora-files.md).
_DORA = {
    "input": (
        "DoRA with a magnitude per input: A1111 1.9, Forge and ComfyUI read it exactly; LyCORIS (also through "
        "sd-scripts) and diffusers do not: for them train with --set dora_axis=output."
    ),
    "output": (
        "DoRA with a magnitude per output: LyCORIS reads it exactly, diffusers and PEFT after `maquette convert`, "
        "ComfyUI nearly, A1111 and Forge wrongly: for them leave out dora_axis."
    ),
}


def notices(config: TrainConfig, base: BaseModel) -> Iterator[str]:
    """asked: the configuration before the defaults were filled in."""
    yield from base.notices
    yield from config.old_names()
    if (sentence := base.spec.skips(config.clip_skip)) is not None:
        yield sentence
    yield from _rates(config)
    if config.method == "dora":
        yield _DORA[config.dora_axis]
    v = base.scheduler_config.get("prediction_type") == "v_prediction"
    if config.scale_v_pred_loss_like_noise_pred and not v:
        yield "scale_v_pred_loss_like_noise_pred has no effect: the base predicts noise, not v."
    if config.v_pred_like_loss and v:
        yield "v_pred_like_loss has no effect: the base predicts v already."
    if config.noise_offset_random and not config.noise_offset:
        yield "noise_offset_random has no effect without noise_offset."
    if config.input_perturbation_random and not config.input_perturbation:
        yield "input_perturbation_random has no effect without input_perturbation."
    if config.zero_terminal_snr and not v:
        yield (
            "zero_terminal_snr with a base that predicts noise: at the last timestep, pure noise, it learns nothing; "
            "use it with bases that predict v."
        )


OWN_WARM_UP = {
    "adafactor": "relative_step = true, warmup_init = true",
    "schedule-free-adamw": "warmup_steps = 100",
    "schedule-free-sgd": "warmup_steps = 100",
}


def _rates(config: TrainConfig) -> Iterator[str]:
    """What an optimizer makes of learning rates and their schedule."""
    given = config.model_fields_set
    if not schedules(config):
        useless = ["lr_scheduler"] if "lr_scheduler" in given and config.lr_scheduler != "constant" else []
        useless += ["warmup_steps"] if config.warmup_steps else []
        if useless:
            own = OWN_WARM_UP.get(config.optimizer)
            more = f'; its own warm-up is --set optimizer_args="{{{own}}}"' if own else ""
            yield f"{config.optimizer} needs no schedule: {_have_no_effect(useless)}{more}."
    rates = ("learning_rate", "text_encoder_learning_rate", "embedding_learning_rate", "lora_plus_ratio")
    if config.optimizer_args.get("relative_step"):
        useless = [key for key in rates if key in given]
        if useless:
            yield f"adafactor with relative_step chooses its own steps: {_have_no_effect(useless)}."
    elif config.optimizer == "prodigy":
        useless = [key for key in rates[1:] if key in given and getattr(config, key) != config.learning_rate]
        if useless:
            yield f"prodigy has one learning rate for all that learns: {_have_no_effect(useless)}."
        if config.learning_rate is not None and config.learning_rate <= 0.1:
            yield (
                f"prodigy finds the size of its steps itself and multiplies it by learning_rate = "
                f"{config.learning_rate:g}: next to nothing would be learned; 1 is usual."
            )


def _have_no_effect(keys: list[str]) -> str:
    return f"{', '.join(keys)} {'have' if len(keys) > 1 else 'has'} no effect"
