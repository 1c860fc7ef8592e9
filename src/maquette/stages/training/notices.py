"""What a run does otherwise than its configuration says, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from ...config import TrainConfig
from ...families.base import BaseModel
from .learning import schedules


def notices(asked: TrainConfig, base: BaseModel) -> Iterator[str]:
    """asked: the configuration before the defaults were filled in."""
    yield from base.notices
    if (sentence := base.spec.skips(asked.clip_skip)) is not None:
        yield sentence
    if not schedules(asked):
        given = ["scheduler"] if "scheduler" in asked.model_fields_set and asked.scheduler != "constant" else []
        given += ["warmup_steps"] if asked.warmup_steps else []
        if given:
            yield (
                f"{asked.optimizer} needs no schedule: {' and '.join(given)} {'have' if len(given) > 1 else 'has'} no "
                'effect; its own warm-up is --set optimizer_args="{warmup_steps = 100}".'
            )
    v = base.scheduler_config.get("prediction_type") == "v_prediction"
    if asked.scale_v_pred_loss_like_noise_pred and not v:
        yield "scale_v_pred_loss_like_noise_pred has no effect: the base predicts noise, not v."
    if asked.v_pred_like_loss and v:
        yield "v_pred_like_loss has no effect: the base predicts v already."
    if asked.noise_offset_random and not asked.noise_offset:
        yield "noise_offset_random has no effect without noise_offset."
    if asked.input_perturbation_random and not asked.input_perturbation:
        yield "input_perturbation_random has no effect without input_perturbation."
    if asked.zero_terminal_snr and not v:
        yield "zero_terminal_snr with a base that predicts noise: in pure noise there is nothing for it to tell."
