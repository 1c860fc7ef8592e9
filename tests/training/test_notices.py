"""What a run tells of settings that change nothing."""

from types import SimpleNamespace
from typing import Any

import pytest

from maquette.config import TrainConfig
from maquette.families.sd.spec import SD1
from maquette.families.sdxl.spec import SDXL
from maquette.training.notices import notices


def told(spec: Any = SD1, prediction: str = "epsilon", **values: Any) -> list[str]:
    base = SimpleNamespace(spec=spec, notices=[], scheduler_config={"prediction_type": prediction})
    return list(notices(TrainConfig.parse({"photos": "p", **values}), base))  # type: ignore[arg-type]


def test_a_plain_run_tells_nothing() -> None:
    assert told() == told(SDXL) == told(prediction="v_prediction") == []
    assert told(clip_skip=2, noise_offset=0.1, noise_offset_random=True, lr_scheduler="linear", warmup_steps=9) == []


def test_clip_skip_on_sdxl() -> None:
    assert told(SDXL, clip_skip=2) == [
        "clip_skip = 2 has no effect on SDXL: it always uses the text encoders' layer before the last, which other "
        "programs and model cards call clip skip 2."
    ]


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"lr_scheduler": "cosine"}, "lr_scheduler has no effect"),
        ({"warmup_steps": 10}, "warmup_steps has no effect"),
        ({"lr_scheduler": "linear", "warmup_steps": 0.1}, "lr_scheduler, warmup_steps have no effect"),
    ],
)
def test_schedules_of_schedule_free_optimizers(values: dict[str, Any], what: str) -> None:
    (sentence,) = told(optimizer="schedule-free-adamw", **values)
    assert sentence == (
        f"schedule-free-adamw needs no schedule: {what}; its own warm-up is "
        '--set optimizer_args="{warmup_steps = 100}".'
    )
    (sentence,) = told(optimizer="schedule-free-radam", **values)
    assert sentence == f"schedule-free-radam needs no schedule: {what}."
    assert told(optimizer="schedule-free-adamw") == told(optimizer="schedule-free-adamw", lr_scheduler="constant") == []


@pytest.mark.parametrize(
    ("values", "sentences"),
    [
        ({"optimizer": "adafactor", "learning_rate": 1e-3, "lr_scheduler": "linear"}, []),
        (
            {"optimizer": "adafactor", "optimizer_args": {"relative_step": True}, "warmup_steps": 5,
             "learning_rate": 1e-3, "text_encoder_learning_rate": 1e-4},
            ['adafactor needs no schedule: warmup_steps has no effect; its own warm-up is --set '
             'optimizer_args="{relative_step = true, warmup_init = true}".',
             "adafactor with relative_step chooses its own steps: learning_rate, text_encoder_learning_rate have no "
             "effect."],
        ),
        ({"optimizer": "prodigy"}, []),
        ({"optimizer": "prodigy", "learning_rate": 1.0, "text_encoder_learning_rate": 1.0}, []),
        (
            {"optimizer": "prodigy", "learning_rate": 1e-4, "lora_plus_ratio": 4.0},
            ["prodigy has one learning rate for all that learns: lora_plus_ratio has no effect.",
             "prodigy finds the size of its steps itself and multiplies it by learning_rate = 0.0001: next to nothing "
             "would be learned; 1 is usual."],
        ),
    ],
)  # fmt: skip
def test_rates_of_optimizers_that_choose_their_own(values: dict[str, Any], sentences: list[str]) -> None:
    assert told(**values) == sentences


@pytest.mark.parametrize(
    ("prediction", "values", "sentence"),
    [
        ("epsilon", {"scale_v_pred_loss_like_noise_pred": True}, "has no effect: the base predicts noise, not v."),
        ("v_prediction", {"v_pred_like_loss": 0.5}, "v_pred_like_loss has no effect: the base predicts v already."),
        ("epsilon", {"noise_offset_random": True}, "noise_offset_random has no effect without noise_offset."),
        ("epsilon", {"input_perturbation_random": True}, "has no effect without input_perturbation."),
        ("epsilon", {"zero_terminal_snr": True}, "it learns nothing; use it with bases that predict v."),
    ],
)
def test_what_fits_the_base_or_another_setting_only(prediction: str, values: dict[str, Any], sentence: str) -> None:
    (found,) = told(prediction=prediction, **values)
    assert sentence in found
