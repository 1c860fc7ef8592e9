from pathlib import Path

import pytest

from maquette.config import TrainConfig, parse_setting
from maquette.errors import MaquetteError


def test_toml_round_trip_with_awkward_values() -> None:
    config = TrainConfig(
        photos=Path('a "b"\\c é'),
        subject="zkw\trobot",
        caption_prefix="\x00\x1b\x7f\x85",
        learning_rate=1e-4,
        sample_prompts=["x, y", 'say "z"'],
        flip_aug=True,
    )
    import tomllib

    assert TrainConfig.parse(tomllib.loads(config.to_toml())) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"photos": "p", "learning_rat": 1}, "'learning_rat'; did you mean 'learning_rate'?"),
        ({"photos": "p", "noiseoffset": 1}, "did you mean 'noise_offset'?"),
        ({"photos": "p", "qqq": 1}, "has the unknown key 'qqq'."),
        ({}, "lacks 'photos': Folder of photos"),
        ({"photos": "p", "rank": 0}, "rank = 0 is not possible: input should be greater than or equal to 1"),
        ({"photos": "p", "rank": "many"}, "rank = 'many' is not possible"),
        ({"photos": "p", "steps": 3, "epochs": 4}, "give steps or epochs, not both"),
        ({"photos": "p", "min_timestep": 500, "max_timestep": 400}, "min_timestep 500 must be below max_timestep 400"),
        ({"photos": "p", "method": "lorra"}, "method = 'lorra' is not possible"),
        ({"photos": "caf\udce9"}, r"photos = 'caf\udce9' is no UTF-8, as run.toml must be: rename it"),
        ({"photos": "p", "sample_prompts": ["\ud800"]}, r"sample_prompts = '\ud800' is no UTF-8"),
    ],
)
def test_faults_are_one_sentence_with_the_remedy(values: dict[str, object], message: str) -> None:
    with pytest.raises(MaquetteError) as error:
        TrainConfig.parse(values, "my.toml")
    assert message in str(error.value) and str(error.value).startswith("my.toml")
    assert "\n" not in str(error.value)


def test_read_names_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('photos = "x"\nrank = = 3\n')
    with pytest.raises(MaquetteError, match=r"bad\.toml is not valid TOML: .*line 2"):
        TrainConfig.read(file)
    file.write_text('photos = "x"\nrank = 3\n')
    assert TrainConfig.read(file, rank=5).rank == 5
    with pytest.raises(MaquetteError, match="cannot be read"):
        TrainConfig.read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rank=8", ("rank", 8)),
        ("learning-rate=1e-4", ("learning_rate", 1e-4)),
        ("flip_aug=true", ("flip_aug", True)),
        ("subject=zkw robot", ("subject", "zkw robot")),
        ('sample_prompts=["a", "b"]', ("sample_prompts", ["a", "b"])),
        ("subject=a=b", ("subject", "a=b")),
    ],
)
def test_settings_of_the_command_line(text: str, expected: tuple[str, object]) -> None:
    assert parse_setting(text) == expected


def test_setting_without_value() -> None:
    with pytest.raises(MaquetteError, match="--set rank has no value"):
        parse_setting("rank")


def test_every_key_is_documented() -> None:
    assert [key for key in TrainConfig.model_fields if len(TrainConfig.describe(key)) < 10] == []


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("network_dim", "did you mean 'rank', which is network_dim in Kohya's trainer?"),
        ("unet_lr", "did you mean 'learning_rate', which is unet_lr in Kohya's trainer?"),
        ("max-train-steps", "did you mean 'steps', which is max_train_steps in Kohya's trainer?"),
        ("max_resolution", "did you mean 'resolution', which is max_resolution in Kohya's trainer?"),
        ("LoRA_type", "did you mean 'method'"),
        ("snr_gamma", "did you mean 'min_snr_gamma', which is snr_gamma in diffusers?"),
        ("instance_data_dir", "did you mean 'photos', which is instance_data_dir in diffusers?"),
        ("offset_noise_weight", "did you mean 'noise_offset', which is offset_noise_weight in OneTrainer?"),
        ("lora_rank", "did you mean 'rank', which is lora_rank in OneTrainer?"),
        ("lr", "did you mean 'learning_rate'?"),
        ("xformers", "it is an option of Kohya's trainer that has no effect here: how it is computed, not what."),
        ("color_aug", "it is an option of Kohya's trainer that has no equal here: photos are learned as they are."),
        ("config_file", "in Kohya's trainer it stands for the file is read"),
    ],
)
def test_words_of_other_trainers_are_answered_with_ours(word: str, answer: str) -> None:
    with pytest.raises(MaquetteError) as error:
        TrainConfig.parse({"photos": "p", word: 1}, "my.toml")
    assert f"the unknown key {word!r}; {answer}" in str(error.value)


def test_every_word_of_other_trainers_names_a_key() -> None:
    from maquette.trainers.words import COMMON, DIFFUSERS, ONETRAINER

    for words in (DIFFUSERS, ONETRAINER, COMMON):
        assert set(words.values()) <= set(TrainConfig.model_fields)
        assert not {word for word, ours in words.items() if word in TrainConfig.model_fields and word != ours}


def test_old_names_of_keys_are_read_with_a_notice() -> None:
    named = TrainConfig.parse({"photos": "p", "flip": True, "vectors": 3, "factor": 4})
    assert (named.flip_aug, named.num_vectors, named.lokr_factor) == (True, 3, 4) and len(named.old_names()) == 3
    config = TrainConfig.parse({"photos": "p", "debiased": True, "max_norm": 0.5})
    assert config.debiased_estimation and config.scale_weight_norms == 0.5
    assert config.old_names() == [
        "debiased is called debiased_estimation now; the old name is still read.",
        "max_norm is called scale_weight_norms now; the old name is still read.",
    ]
    assert "scale_weight_norms = 0.5" in config.to_toml() and "max_norm" not in config.to_toml()
    assert TrainConfig.parse({"photos": "p", "scale_weight_norms": 0.5}).old_names() == []
    with pytest.raises(MaquetteError, match="max_norm is the old name of scale_weight_norms: give one of them"):
        TrainConfig.parse({"photos": "p", "max_norm": 1.0, "scale_weight_norms": 0.5})


def test_every_key_has_a_heading() -> None:
    groups = [TrainConfig.group_of(key) for key in TrainConfig.model_fields]
    assert "" not in groups
    assert len(list(dict.fromkeys(groups))) == sum(a != b for a, b in zip(groups, ["", *groups], strict=False))


def test_paths_may_be_path_objects() -> None:
    """Keys that are text because they may also be "pocket" or hf:owner/name."""
    made = TrainConfig.parse({"photos": Path("photos"), "base": Path("a") / "base", "vae": Path("b.safetensors")})
    assert (made.base, made.vae) == (str(Path("a") / "base"), "b.safetensors")


def test_spaces_are_no_subject() -> None:
    """They would become the caption "a photo of" of every photo."""
    assert TrainConfig.parse({"photos": "p", "subject": "  "}).subject is None
    assert TrainConfig.parse({"photos": "p", "subject": "  ", "kind": "person"}).subject is None
