"""Configurations to other programs' commands and back."""

import json
from pathlib import Path
from typing import Any

import pytest

from maquette.cli.main import main
from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.files import write_text
from maquette.interop.kohya import read as import_kohya
from maquette.run_folder import RunFolder
from maquette.stages import command
from tests.stages.run_values import ROUNDS, RUN


@pytest.mark.parametrize("changes", ROUNDS, ids=lambda c: "-".join(c) or "plain")
def test_command_and_import_give_the_same_configuration(changes: dict[str, Any], tmp_path: Path) -> None:
    config = TrainConfig.parse({**RUN, **changes})
    made = command.command_for(config, "kohya")
    assert made.no_equal == []
    (tmp_path / "train.sh").write_text(made.command)
    found = import_kohya.run(tmp_path / "train.sh")
    assert [line for line in found.no_equal if not line.startswith("alpha_mask = True: the loss is divided")] == []
    (tmp_path / "run.toml").write_text(found.toml)
    again = TrainConfig.read(tmp_path / "run.toml").model_dump()
    for key, value in config.model_dump().items():
        if key in ("sample_steps", "sample_cfg_scale") and not config.sample_prompts:
            continue
        assert again[key] == value, key


def test_what_kohya_cannot_do_is_listed() -> None:
    config = TrainConfig.parse(
        {
            **RUN,
            "base": "pocket",
            "ema_decay": 0.99,
            "prior_preservation": True,
            "layers": ["cross_attention"],
            "dtype": "auto",
        }
    )
    lost = command.command_for(config, "kohya").no_equal
    keys = ["base", "learning_rate", "ema_decay", "layers", "dtype", "prior_preservation"]
    assert sorted(line.split(" =")[0] for line in lost) == sorted(keys)
    assert lost[1].startswith("learning_rate = 0.0001, resolution = 512, batch_size = 4: made for pocket")
    with pytest.raises(MaquetteError, match="kohya has no training script for the method pivotal"):
        command.command_for(TrainConfig.parse({**RUN, "method": "pivotal"}), "kohya")


def test_the_family_chooses_the_script() -> None:
    config = TrainConfig.parse(RUN)
    told = command.command_for(config, "kohya", {"ss_base_model_version": "sdxl_base_v1-0"}).command
    assert "accelerate launch sdxl_train_network.py" in told
    told = command.command_for(
        config, "kohya", {"ss_base_model_version": "sd_v2_v", "modelspec.prediction_type": "v"}
    ).command
    assert "--v2 " in told and "--v_parameterization " in told and "launch train_network.py" in told


def test_what_goes_without_saying_here_is_said_there(tmp_path: Path) -> None:
    """Kohya's trainer draws another seed each time, looks for .caption files, and has buckets for 512 pixels only."""
    told = command.command_for(TrainConfig.parse({**RUN, "resolution": 1024}), "kohya").command
    for part in ("--seed 0 ", "--min_bucket_reso 512 ", "--max_bucket_reso 2048 ", "--sdpa ", "--cache_latents "):
        assert part in told
    assert "bucket_reso" not in command.command_for(TrainConfig.parse(RUN), "kohya").command
    assert (
        "--cache_latents" not in command.command_for(TrainConfig.parse({**RUN, "random_crop": True}), "kohya").command
    )
    (tmp_path / "a.sh").write_text(told)
    found = import_kohya.run(tmp_path / "a.sh")
    assert found.no_equal == [] and found.config["seed"] == 0
    (tmp_path / "40_zkw robot").mkdir()
    config = TrainConfig.parse({**RUN, "photos": tmp_path})
    assert "--caption_extension .txt " in command.command_for(config, "kohya").command
    (tmp_path / "40_zkw robot/1.caption").write_text("zkw robot, red")
    assert "--caption_extension .caption " in command.command_for(config, "kohya").command


def test_checkpoints_kept_are_a_window_of_steps_there_and_a_number_of_epochs() -> None:
    """sd-scripts keeps what is at most save_last_n_steps old, and save_last_n_epochs files."""
    steps = command.command_for(TrainConfig.parse({**RUN, "save_every_steps": 10, "keep_last": 4}), "kohya").command
    assert "--save_every_n_steps 10 " in steps and "--save_last_n_steps 30 " in steps
    epochs = {**RUN, "save_every_steps": None, "save_every_epochs": 2, "keep_last": 4}
    assert "--save_last_n_epochs 4 " in command.command_for(TrainConfig.parse(epochs), "kohya").command


def test_sdxls_script_for_whole_models_has_a_rate_for_each_text_encoder(tmp_path: Path) -> None:
    config = TrainConfig.parse(
        {**RUN, "method": "dreambooth", "text_encoder": True, "text_encoder_learning_rate": 2e-6, "alpha": None}
    )
    told = command.command_for(config, "kohya", {"ss_base_model_version": "sdxl_base_v1-0"}).command
    assert (
        "launch sdxl_train.py" in told and "--learning_rate_te1 2e-06 " in told and "--learning_rate_te2 2e-06 " in told
    )
    (tmp_path / "a.sh").write_text(told)
    assert import_kohya.run(tmp_path / "a.sh").config["text_encoder_learning_rate"] == 2e-6
    (tmp_path / "b.sh").write_text(told.replace("te2 2e-06", "te2 1e-06"))
    found = import_kohya.run(tmp_path / "b.sh")
    assert found.no_equal == ["learning_rate_te2 = 1e-06: both text encoders learn at 2e-06"]


def test_diffusers_words_are_learned_without_what_their_script_lacks() -> None:
    made = command.command_for(
        TrainConfig.parse({**RUN, "method": "textual-inversion", "rank": 16, "alpha": None}), "diffusers"
    )
    assert "textual_inversion.py" in made.command and "--max_grad_norm" not in made.command
    assert "--max_train_steps 1400" in made.command and "--resolution 512" in made.command
    assert "max_grad_norm = 1.0: that script does not shorten gradients" in made.no_equal


def test_gradients_of_a_sum_of_losses_are_shortened_at_twice_the_length() -> None:
    """diffusers adds the regularization images' loss to the photos', maquette takes the mean: half the gradients."""
    for reg, expected in ((None, "--max_grad_norm 1.0"), ("reg", "--max_grad_norm 2.0")):
        made = command.command_for(TrainConfig.parse({**RUN, "reg": reg}), "diffusers")
        assert expected in made.command
        assert "max_grad_norm" not in str(made.no_equal)


def test_diffusers_gets_its_own_options_and_says_what_is_lost() -> None:
    made = command.command_for(
        TrainConfig.parse({**RUN, "alpha": 16.0, "reg": "reg", "noise_offset": 0.1}), "diffusers"
    )
    for part in (
        "accelerate launch train_dreambooth_lora.py", "--instance_prompt 'a photo of zkw robot'", "--rank 16",
        "--class_prompt 'a photo of a robot'", "--train_batch_size 4", "--max_train_steps 1400",
        "--lr_scheduler cosine",
    ):  # fmt: skip
        assert part in made.command
    lost = {line.split(" =")[0].split(":")[0] for line in made.no_equal}
    assert {"noise_offset", "min_snr_gamma", "buckets", "layers", "captions"} <= lost and "alpha" not in lost
    assert "alpha" in {
        line.split(" =")[0] for line in command.command_for(TrainConfig.parse(RUN), "diffusers").no_equal
    }
    with pytest.raises(MaquetteError, match="diffusers has no training script for the method lokr"):
        command.command_for(TrainConfig.parse({**RUN, "method": "lokr"}), "diffusers")


WINDOWS = r"""
rem my run
accelerate launch --num_cpu_threads_per_process=2 "sdxl_train_network.py" ^
  --pretrained_model_name_or_path="sd_xl_base_1.0.safetensors" --train_data_dir="img" --resolution="1024,1024" ^
  --output_dir="out" --output_name="me" --network_module=networks.lora --network_dim=32 --network_alpha=16 ^
  --unet_lr=0.0001 --text_encoder_lr=0.00005 --max_train_epochs=10 --train_batch_size=2 --optimizer_type="AdamW8bit" ^
  --mixed_precision="fp16" --save_precision="fp16" --seed=42 --lr_scheduler="cosine" --enable_bucket --xformers ^
  --cache_latents --save_every_n_epochs=1 --network_args "conv_dim=8" "down_lr_weight=1,0" --fancy_option 3
"""


def test_a_command_of_the_wild_is_read_and_what_is_lost_named(tmp_path: Path) -> None:
    (tmp_path / "train.bat").write_text(WINDOWS)
    found = import_kohya.run(tmp_path / "train.bat")
    expected = {
        "photos": "img", "base": "sd_xl_base_1.0.safetensors", "resolution": 1024, "out": "out/me", "method": "locon",
        "rank": 32, "alpha": 16.0, "conv_rank": 8, "conv_alpha": 1.0, "weight_decay": 0.01,
        "learning_rate": 1e-4, "text_encoder_learning_rate": 5e-5,
        "epochs": 10, "batch_size": 2, "optimizer": "adamw8bit", "dtype": "fp16", "save_dtype": "fp16", "seed": 42,
        "lr_scheduler": "cosine", "buckets": True, "text_encoder": True, "min_snr_gamma": 0.0, "sample_prompts": [],
        "lr_scheduler_cycles": 1, "save_every_epochs": 1, "caption_extension": ".caption", "max_token_length": 75,
    }  # fmt: skip
    assert found.config == expected
    assert found.needless == ["cache_latents", "xformers"]
    assert found.no_equal == [
        "min_bucket_reso = 256: 512 here; a data set file can say it",
        "max_bucket_reso = 1024: 2048 here; a data set file can say it",
        "network_args down_lr_weight=1,0", "fancy_option = 3"
    ]  # fmt: skip


def test_kohyas_toml_has_kohyas_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        '[model]\npretrained_model_name_or_path = "a.safetensors"\n[data]\ntrain_data_dir = "img"\n'
        "flip_aug = true\n[network]\nnetwork_train_unet_only = true\nsave_every_n_steps = 100\nmin_snr_gamma = 5\n"
    )
    config = import_kohya.run(tmp_path / "config.toml").config
    assert (
        config["rank"] == 4 and config["alpha"] == 1.0 and config["steps"] == 1600 and config["learning_rate"] == 2e-6
    )
    assert config["flip_aug"] is True and config["text_encoder"] is False and config["min_snr_gamma"] == 5.0
    assert config["lr_scheduler"] == "constant" and config["dtype"] == "fp32"


def test_the_guis_json_is_read(tmp_path: Path) -> None:
    values = {
        "LoRA_type": "LyCORIS/LoKr", "factor": 8, "pretrained_model_name_or_path": "sd15.safetensors",
        "train_data_dir": "img", "output_dir": "out", "output_name": "me", "max_resolution": "512,768", "epoch": 4,
        "max_train_steps": 0, "train_batch_size": 1, "learning_rate": 0.0003, "unet_lr": 0.0002, "optimizer": "AdamW",
        "optimizer_args": "weight_decay=0.1 betas=.9,.99", "network_dim": 8, "network_alpha": 4, "conv_dim": 1,
        "noise_offset": 0.0357, "xformers": "xformers", "sample_prompts": "me on a beach --d 5 --s 25\n# no",
        "seed": 0,
        "lr_scheduler": "cosine", "color_aug": True, "mixed_precision": "bf16", "save_precision": "fp16",
        "reg_data_dir": "",
    }  # fmt: skip
    (tmp_path / "gui.json").write_text(json.dumps(values))
    found = import_kohya.run(tmp_path / "gui.json")
    config = found.config
    assert (config["method"], config["lokr_factor"], config["conv_rank"], config["conv_alpha"]) == ("lokr", 8, 1, 4.0)
    assert config["layers"] == ["attention", "conv", "feed_forward"]  # LyCORIS' preset where none is named
    assert config["epochs"] == 4 and "steps" not in config and "seed" not in config and "reg" not in config
    assert config["learning_rate"] == 2e-4 and config["text_encoder_learning_rate"] == 3e-4
    assert config["weight_decay"] == 0.1 and config["noise_offset"] == 0.0357
    assert config["resolution"] == 624  # 512 x 768 pixels, as a square
    assert config["sample_prompts"] == ["me on a beach"] and config["sample_seed"] == 5 and config["sample_steps"] == 25
    assert config["optimizer_args"] == {"betas": [0.9, 0.99]} and config["buckets"] is True
    assert found.no_equal == [
        "resolution = 512,768: a square of the same area instead, 624",
        "max_bucket_reso = 2048: 1280 here; a data set file can say it",
        "network_args preset=full: there it also trains conv_in, conv_out and the time embedding",
        "color_aug = True: photos are learned as they are",
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.sh", "echo hello", "0 command lines with one of Kohya's training scripts"),
        ("a.sh", "python train_network.py --seed 1", "names no photos"),
        (
            "a.sh",
            "python train_network.py --train_data_dir x --network_module=networks.oft",
            r"networks\.oft .*has no equal",
        ),
        (
            "a.sh",
            "python train_network.py --train_data_dir x --optimizer_type Adagrad",
            "optimizer_type = Adagrad has no equal here",
        ),
        ("a.sh", "python train_network.py --train_data_dir x --sample_prompts p.txt", r"p\.txt is not there"),
        ("a.json", '{"LoRA_type": "Flux1"}', "LoRA_type 'Flux1' has no equal here"),
        ("a.json", "[1]", "holds no keys"),
        ("a.toml", "a = [", "is not valid TOML"),
    ],
)
def test_faults_are_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MaquetteError, match=message):
        import_kohya.run(tmp_path / name)


def test_the_command_line_prints_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path / "zkw")
    write_text(run.config, TrainConfig.parse({**RUN, "ema_decay": 0.9}).to_toml())

    def call(*arguments: object) -> tuple[str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        assert not end.value.code
        told = capsys.readouterr()
        return told.out, told.err

    out, lost = call("command", run.path, "--for", "kohya")
    assert "train_network.py" in out and "ema_decay = 0.9" in lost
    (tmp_path / "train.sh").write_text(out)
    call("import", "kohya", tmp_path / "train.sh", "--out", tmp_path / "my.toml")
    assert TrainConfig.read(tmp_path / "my.toml").rank == 16
    assert json.loads(call("import", "kohya", tmp_path / "train.sh", "--json")[0])["config"]["rank"] == 16
