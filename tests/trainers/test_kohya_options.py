"""The table of Kohya's options is what import does, and what the docs say."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from maquette.config import TrainConfig
from maquette.interop.kohya import read as import_kohya
from maquette.interop.kohya.read import ImportResult
from maquette.trainers.kohya import NEAR_WORDS, OPTIONS, SAME, WORDS
from maquette.trainers.kohya_gui import FIELDS

ROOT = Path(__file__).parent.parent.parent
PLAIN = {
    "train_data_dir": "img", "pretrained_model_name_or_path": "sd15.safetensors", "resolution": "512",
    "network_module": "networks.lora", "learning_rate": "1e-4", "max_train_steps": "400", "caption_extension": ".txt",
    "output_dir": "out",
}  # fmt: skip
# A value that asks for something, and what else it needs to mean anything. Others get 3, 0.3 or "x".
VALUES: dict[str, Any] = {
    "network_module": "lycoris.kohya", "network_args": ["conv_dim=4"], "optimizer_type": "Lion",
    "optimizer_args": ["weight_decay=0.5"], "lr_scheduler": "cosine", "mixed_precision": "fp16",
    "save_precision": "fp16", "resolution": "768", "max_token_length": "150", "log_with": "wandb", "loss_type": "l1",
    "huber_schedule": "constant", "caption_extension": ".tags", "caption_extention": ".tags",
    "dataset_config": "data.toml", "in_json": "img/meta.json", "text_encoder_lr": ["5e-5"], "max_timestep": "900",
    "network_alpha": "8", "token_string": "zkw", "stop_text_encoder_training": "-1", "sample_prompts": "a robot",
    "config_file": "other",
}  # fmt: skip
WITH: dict[str, dict[str, Any]] = {
    "noise_offset_random_strength": {"noise_offset": "0.1"},
    "adaptive_noise_scale": {"noise_offset": "0.1"},
    "multires_noise_discount": {"multires_noise_iterations": "6"},
    "ip_noise_gamma_random_strength": {"ip_noise_gamma": "0.1"},
    "bucket_no_upscale": {"enable_bucket": True},
    "dataset_repeats": {"in_json": "img/meta.json"},
    "save_n_epoch_ratio": {"max_train_epochs": "9"},
    "save_last_n_epochs": {"save_every_n_epochs": "1"},
    "save_last_n_steps": {"save_every_n_steps": "1"},
    "lr_scheduler_timescale": {"lr_scheduler": "inverse_sqrt"},
    "lr_scheduler_min_lr_ratio": {"lr_scheduler": "cosine_with_min_lr"},
    "lr_scheduler_power": {"lr_scheduler": "polynomial"},
    "lr_decay_steps": {"lr_scheduler": "warmup_stable_decay"},
    "lr_warmup_steps": {"lr_scheduler": "cosine"},
    "min_bucket_reso": {"enable_bucket": True},
    "max_bucket_reso": {"enable_bucket": True, "resolution": "1024"},
    "bucket_reso_steps": {"enable_bucket": True},
}
SCRIPTS = {
    "learning_rate_te": "train_db.py", "stop_text_encoder_training": "train_db.py",
    "train_text_encoder": "fine_tune.py", "token_string": "train_textual_inversion.py",
    "init_word": "train_textual_inversion.py", "num_vectors_per_token": "train_textual_inversion.py",
}  # fmt: skip
SDXL = ("learning_rate_te1", "learning_rate_te2")


def command(folder: Path, options: dict[str, Any], script: str = "train_network.py") -> ImportResult:
    words = []
    for name, value in options.items():
        given = value if isinstance(value, list) else [] if value is True else [value]
        words.append(" ".join([f"--{name}", *(f"'{word}'" for word in given)]))
    (folder / "a.sh").write_text(f"accelerate launch {script} {' '.join(words)}\n")
    return import_kohya.run(folder / "a.sh")


def value_of(name: str) -> Any:
    kind = OPTIONS[name].kind
    usual: dict[str, Any] = {"flag": True, "int": "3", "float": "0.3", "list": ["3"], "text": "x"}
    return VALUES.get(name, usual[kind])


def with_and_without(folder: Path, name: str) -> tuple[ImportResult, ImportResult]:
    script = "sdxl_train.py" if name in SDXL else SCRIPTS.get(name, "train_network.py")
    plain = PLAIN | WITH.get(name, {}) | ({"train_text_encoder": True} if name in SDXL else {})
    if script != "train_network.py":
        plain = {key: value for key, value in plain.items() if key != "network_module"}
    without = command(folder, {key: value for key, value in plain.items() if key != name}
                      if name not in ("train_data_dir",) else plain | {name: "y"}, script)  # fmt: skip
    return command(folder, plain | {name: value_of(name)}, script), without


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.fate == "mapped"])
def test_mapped_options_change_the_configuration_or_say_why_not(name: str, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("flip_aug = true\n")
    found, without = with_and_without(tmp_path, name)
    assert name not in " ".join(found.needless)
    if name == "v_parameterization":
        assert any(line.startswith("v_parameterization = True: taken from the base") for line in found.no_equal)
    elif name == "learning_rate_te2":  # the first one's, here the common rate, is kept
        assert found.no_equal == ["learning_rate_te2 = 0.3: both text encoders learn at 0.0001"]
    else:
        assert found.config != without.config


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.fate == "no effect"])
def test_options_without_effect_change_nothing(name: str, tmp_path: Path) -> None:
    found, without = command(tmp_path, PLAIN | {name: "7"}), command(tmp_path, PLAIN)
    assert found.config == without.config and found.no_equal == without.no_equal
    assert found.needless == [*without.needless, name]


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.fate == "no equal"])
def test_options_without_equal_are_listed_with_the_reason(name: str, tmp_path: Path) -> None:
    if name == "network_train_text_encoder_only":
        with pytest.raises(import_kohya.MaquetteError, match="trains the text encoder alone; here the UNet always"):
            command(tmp_path, PLAIN | {name: True})
        return
    plain = PLAIN | WITH.get(name, {})
    value = True if name in ("masked_loss", "use_object_template") else "96" if "bucket" in name else "7"
    found, without = command(tmp_path, plain | {name: value}), command(tmp_path, plain)
    assert found.config == without.config
    new = [line for line in found.no_equal if line not in without.no_equal]
    assert new and any(line.startswith(f"{name} = ") for line in new)
    for nothing in (*OPTIONS[name].nothing, "0"):
        if "bucket" not in name:
            assert command(tmp_path, plain | {name: nothing}).no_equal == without.no_equal


def test_the_table_names_keys_that_exist() -> None:
    for option in OPTIONS.values():
        if option.same:
            assert option.key in TrainConfig.model_fields, option.name
        assert option.fate == "mapped" or option.why, option.name
    assert set(WORDS) <= set(TrainConfig.model_fields) and set(SAME) <= set(TrainConfig.model_fields)
    for option, words in NEAR_WORDS.items():
        key = next(key for key, (name, _) in WORDS.items() if name == option)
        for ours, _ in words.values():
            TrainConfig.parse({"photos": "x", key: ours})
    assert not set(OPTIONS) & set(FIELDS) and len(OPTIONS) > 215 and len(FIELDS) > 180


FORM = {
    "LoRA_type": "Standard", "train_data_dir": "img", "pretrained_model_name_or_path": "a.safetensors",
    "network_dim": 8, "network_alpha": 4, "learning_rate": 1e-4, "caption_extension": ".txt", "enable_bucket": False,
}  # fmt: skip
LYCORIS = {"LoRA_type": "LyCORIS/LoKr"}
WHOLE = {"LoRA_type": ..., "network_dim": ...}  # the other tabs' forms
FOUR, FIVE = (",".join([number] * 25) for number in "45")
FIELD_VALUES: dict[str, tuple[Any, dict[str, Any]]] = {  # a value, and what else it needs
    "max_resolution": ("768", {}), "optimizer": ("Lion", {}),
    "image_folder": ("other", WHOLE),
    "lora_network_weights": ("x", {}), "LoRA_type": ("LyCORIS/LoHa", {}), "epoch": (7, {}), "lr_warmup": (10, {}),
    "noise_offset_type": ("Multires", {"noise_offset": 0.1}), "sdxl": (True, {"clip_skip": 2}),
    "sdxl_checkbox": (True, {"clip_skip": 2}), "additional_parameters": ("--flip_aug", {}), "num_processes": (2, {}),
    "t5xxl_lr": (1e-5, {"text_encoder_lr": 5e-5}), "use_wandb": ("True", {}),
    "stop_text_encoder_training_pct": (-1, WHOLE),
    "block_dims": (FOUR, {}), "block_alphas": (FIVE, {"block_dims": FOUR}),
    "conv_block_dims": (FOUR, {"block_dims": FIVE}),
    "conv_block_alphas": (FIVE, {"block_dims": FIVE, "conv_block_dims": FOUR}),
    "rank_dropout": (0.1, {}), "module_dropout": (0.1, {}), "loraplus_lr_ratio": (4, {}),
    "loraplus_unet_lr_ratio": (4, {}), "loraplus_text_encoder_lr_ratio": (4, {}), "conv_dim": (4, LYCORIS),
    "conv_alpha": (2, LYCORIS), "LyCORIS_preset": ("attn-mlp", LYCORIS),
    "dora_wd": (True, {"LoRA_type": "LyCORIS/LoCon"}), "factor": (4, LYCORIS), **{name: (True, LYCORIS) for name in (
        "use_tucker", "use_scalar", "rank_dropout_scale", "train_norm", "bypass_mode", "decompose_both", "use_cp")},
    "template": ("object template", {**WHOLE, "token_string": "a"}),
    **{name: ("x.json", {**WHOLE, "train_dir": "img", "use_latent_files": "Yes"})
       for name in ("caption_metadata_filename", "latent_metadata_filename")},
    "train_dir": ("img", {**WHOLE, "caption_metadata_filename": "x.json"}),
    "use_latent_files": ("Yes", {**WHOLE, "train_dir": "img", "caption_metadata_filename": "x.json",
                                 "latent_metadata_filename": "y.json"}),
}  # fmt: skip


def form(folder: Path, **changes: Any) -> ImportResult:
    values = {key: value for key, value in (FORM | changes).items() if value is not ...}
    (folder / "a.json").write_text(json.dumps(values))
    return import_kohya.run(folder / "a.json")


@pytest.mark.parametrize("name", list(FIELDS))
def test_fields_of_the_form_do_what_the_table_says(name: str, tmp_path: Path) -> None:
    if FIELDS[name].fate == "no equal":
        with pytest.raises(import_kohya.MaquetteError, match=name):
            form(tmp_path, **{name: True})
        return
    value, more = FIELD_VALUES.get(name, (7, {}))
    found = form(tmp_path, **{**more, name: value})
    without = form(tmp_path, **{name: ..., "LoRA_type": "Standard", **more})
    same = found.config == without.config and found.no_equal == without.no_equal
    same = same and [n for n in found.needless if n != name] == without.needless
    assert same is (FIELDS[name].fate == "no effect")


def test_the_page_in_the_docs_is_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "tools/kohya_options.py"), run_name="__main__")
    assert (ROOT / "docs/kohya-options.md").read_text(encoding="utf-8") == capsys.readouterr().out, (
        "python tools/kohya_options.py > docs/kohya-options.md"
    )
