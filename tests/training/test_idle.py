"""What a run tells of options that have no effect beside the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from maquette.config import TrainConfig
from maquette.config.needs import NEEDS
from maquette.data.dataset import Dataset, Photo
from maquette.run_folder import RunFolder
from maquette.stages import train
from maquette.training.idle import idle
from maquette.training.resuming import read_config
from tests.training.interrupted import make_photos


def told(
    layout: Literal["plain", "toml"] = "plain", role: Literal["instance", "class"] = "instance", **values: Any
) -> list[str]:
    config = TrainConfig.parse({"photos": "folder/data.toml", **values})
    dataset = Dataset(Path("folder"), layout, [Photo(Path("a.png"), "a.png", "00", (64, 64), "", "a.txt", role=role)])
    return list(idle(config, config.model_copy(update={"buckets": bool(config.buckets)}), dataset))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"conv_rank": 4}, "conv_rank has no effect with method = lora."),
        ({"text_encoder_learning_rate": 1e-4}, "text_encoder_learning_rate has no effect with text_encoder = false."),
        ({"decay_steps": 0.1}, "decay_steps has no effect with lr_scheduler = cosine."),
        ({"method": "dreambooth", "rank": 4, "alpha": 2}, "rank, alpha have no effect on the method dreambooth."),
        ({"method": "lokr", "lora_plus_ratio": 4}, "lora_plus_ratio has no effect on the method lokr."),
        ({"prior_share": 0.5}, "prior_share has no effect without regularization images or prior_preservation."),
        ({"keep_tokens": 1}, "keep_tokens has no effect without shuffle_captions or tag_dropout."),
        ({"pyramid_noise_discount": 0.5}, "pyramid_noise_discount has no effect without pyramid_noise_levels."),
        ({"no_upscale": True}, "no_upscale has no effect without buckets."),
        ({"layout": "toml", "shuffle_captions": True},
         "shuffle_captions has no effect: data.toml says how its captions are read; write shuffle_caption there."),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_has_no_effect_is_said(values: dict[str, Any], sentence: str) -> None:
    assert told(**values) == [sentence]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"conv_rank": 4, "method": "locon"},
        {"conv_alpha": 4, "layers": ["attention", "conv"]},
        {"text_encoder_learning_rate": 1e-4, "text_encoder": True},
        {"rank": 4, "alpha": 2, "method": "pivotal", "num_vectors": 4},
        {"prior_loss_weight": 0.5, "role": "class"},
        {"prior_share": 0.5, "prior_preservation": True},
        {"keep_tokens": 1, "tag_dropout": 0.1},
        {"no_upscale": True, "buckets": True},
        {"layout": "toml", "caption_dropout": 0.1, "flip_aug": True},
        {"lr_scheduler_cycles": 1, "lr_scheduler": "constant"},
    ],
    ids=lambda value: "-".join(value) or "nothing",
)
def test_what_has_an_effect_is_not(values: dict[str, Any]) -> None:
    assert told(**values) == []


def test_needs_are_options_and_values_of_the_configuration() -> None:
    for key, (other, wanted) in NEEDS.items():
        assert key in TrainConfig.model_fields
        for value in wanted:
            assert getattr(TrainConfig.parse({"photos": "p", other: value}), other) == value


def test_a_run_says_it_and_the_same_run_again_no_more_than_that(tmp_path: Path) -> None:
    """Of what run.toml fills in, of use or not, nothing is said."""
    photos = make_photos(tmp_path / "photos")
    values = {"subject": "zkw disc", "steps": 1, "batch_size": 1, "sample_prompts": [], "choose": False}
    found: list[str] = []

    def listen(event: Any) -> None:
        if event.kind == "warning" and "no effect" in event.data["message"]:
            found.append(event.data["message"])

    train.run(TrainConfig.parse({"photos": photos, "out": tmp_path / "one", "conv_rank": 2, **values}), listen)
    again = read_config(RunFolder.open(tmp_path / "one"))
    train.run(again.model_copy(update={"out": tmp_path / "two"}), listen)
    assert found == 2 * ["conv_rank has no effect with method = lora."]
