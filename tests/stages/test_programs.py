"""Configurations to other programs' commands and back."""

import itertools
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maquette.cli.main import main
from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.files import write_text
from maquette.formats.shells import read_script
from maquette.interop.kohya import read as import_kohya
from maquette.run_folder import RunFolder
from maquette.stages import command
from maquette.trainers.kohya import OPTIONS, UNKNOWN

# A run's configuration as it lies in run.toml: every number filled in.
RUN: dict[str, Any] = {
    "photos": "photos", "subject": "zkw robot", "base": "sd15.safetensors", "out": "runs/zkw", "steps": 1400,
    "repeats": 2, "batch_size": 4, "resolution": 512, "buckets": True, "rank": 16, "alpha": 8.0,
    "learning_rate": 1e-4, "save_every_steps": 350, "sample_prompts": ["zkw robot, on a beach", "a robot"],
    "sample_cfg_scale": 7.0, "dtype": "bf16", "min_snr_gamma": 5.0,
}  # fmt: skip

ROUNDS: list[dict[str, Any]] = [
    {},
    {"text_encoder": True, "text_encoder_learning_rate": 5e-5, "min_snr_gamma": 0.0, "seed": 7, "flip": True},
    {"method": "locon", "conv_rank": 8, "conv_alpha": 4.0, "rank_dropout": 0.1, "module_dropout": 0.2, "dropout": 0.3},
    {"method": "dora", "dora_axis": "output", "seed": 3},
    {"method": "dora", "lora_plus_ratio": 4.0, "max_norm": 1.0, "gradient_accumulation": 2},
    {"method": "loha", "optimizer": "prodigy", "learning_rate": 1.0, "weight_decay": 0.1, "scheduler": "constant"},
    {"dtype": "fp16", "gradient_checkpointing": True},
    {"method": "locon", "text_encoder": True, "text_encoder_learning_rate": 5e-5},
    {"method": "loha", "layers": ["cross_attention", "self_attention"]},
    {"method": "lokr", "factor": -1, "optimizer": "adafactor"},
    {"save_every_steps": None, "save_every_epochs": 2, "keep_last": 3},
    {"method": "lokr", "factor": 4, "optimizer": "lion", "scheduler": "restarts", "scheduler_cycles": 5},
    {"scheduler": "linear", "warmup_steps": 100, "max_grad_norm": 0.5, "save_dtype": "fp32", "dtype": "fp32"},
    {"caption_prefix": "art, ", "caption_suffix": ", best", "caption_wildcards": True, "shuffle_captions": True,
     "keep_tokens": 2, "tag_dropout": 0.1, "caption_dropout": 0.05, "alpha_mask": True},
    {"noise_offset": 0.05, "noise_offset_random": True, "noise_offset_adaptive": 0.01, "pyramid_noise_levels": 6,
     "pyramid_noise_discount": 0.2, "input_perturbation": 0.1, "debiased": True, "zero_terminal_snr": True},
    {"loss": "huber", "huber_delta": 0.2, "huber_schedule": "constant", "min_timestep": 20, "max_timestep": 900},
    {"keep_last": 3, "clip_skip": 2, "vae": "vae.safetensors", "from_lora": "old.safetensors",
     "trackers": ["tensorboard"]},
    {"method": "dreambooth", "text_encoder": True, "text_encoder_learning_rate": 2e-6, "rank": 16, "alpha": None},
    {"method": "dreambooth", "optimizer": "adafactor", "save_dtype": "bf16", "rank": 16, "alpha": None},
    {"rank_stabilized": True, "optimizer": "schedule-free-adamw", "sample_prompts": [], "subject": "zkw's \"robot\""},
]  # fmt: skip


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
        "scheduler": "cosine", "buckets": True, "text_encoder": True, "min_snr_gamma": 0.0, "sample_prompts": [],
        "scheduler_cycles": 1, "save_every_epochs": 1, "caption_extension": ".caption", "max_token_length": 75,
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
    assert config["flip"] is True and config["text_encoder"] is False and config["min_snr_gamma"] == 5.0
    assert config["scheduler"] == "constant" and config["dtype"] == "fp32"


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
    assert (config["method"], config["factor"], config["conv_rank"], config["conv_alpha"]) == ("lokr", 8, 1, 4.0)
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


def photo(path: Path, caption: str | None = None, ending: str = ".txt") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64)).save(path)
    if caption is not None:
        path.with_suffix(ending).write_text(caption)
    return path


def subsets(text: str) -> list[dict[str, Any]]:
    body = text.split("<<'END'\n")[1].split("\nEND\n")[0]
    found: list[dict[str, Any]] = tomllib.loads(body)["datasets"][0]["subsets"]
    return found


def test_a_command_with_losses_stops_before_it_trains(tmp_path: Path) -> None:
    """Run unread it trains nothing; the reason stands at its head, and its exit code tells."""
    lossy = command.command_for(TrainConfig.parse({**RUN, "ema_decay": 0.9}), "kohya")
    head, _, rest = lossy.command.partition("exit 1\n")
    assert "No equal in kohya:\n#   ema_decay = 0.9: has no equal there\n" in head and "accelerate launch" in rest
    (tmp_path / "a.sh").write_text(lossy.command)
    ran = subprocess.run(["sh", "a.sh"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and "it would train something else" in ran.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.sh"]
    assert "exit 1" not in command.command_for(TrainConfig.parse(RUN), "kohya").command


def test_pockets_own_numbers_are_listed() -> None:
    config = TrainConfig.parse({**RUN, "base": "pocket", "resolution": 64, "learning_rate": 2e-3})
    for program in ("kohya", "diffusers"):
        told = command.command_for(config, program, {"modelspec.prediction_type": "v"})
        assert told.no_equal[0].startswith("base = pocket: exists only here")
        assert (
            "learning_rate = 0.002, resolution = 64, batch_size = 4: made for pocket, which predicts v"
            in (told.no_equal[1])
        )
        assert "embedding" not in told.no_equal[1] and "text_encoder" not in told.no_equal[1]
        assert "--v_parameterization" not in told.command and "--pretrained_model_name_or_path pocket " in told.command


@pytest.mark.parametrize(
    ("resolution", "xl", "step"), [(256, False, 64), (64, False, 64), (256, True, None), (512, False, None)]
)
def test_buckets_of_small_pictures_start_in_sd_scripts(resolution: int, xl: bool, step: int | None) -> None:
    """It starts only where the step is a multiple of 64, of 32 for SDXL, and no limit excludes the resolution."""
    facts = {"ss_base_model_version": "sdxl_base_v1-0"} if xl else {}
    made = command.command_for(TrainConfig.parse({**RUN, "resolution": resolution}), "kohya", facts)
    words = made.command.replace("\\\n", " ").split()
    given = {w[2:]: int(v) for w, v in itertools.pairwise(words) if "bucket_reso" in w}
    used = given.get("bucket_reso_steps", 64)
    assert used % (32 if xl else 64) == 0
    assert given.get("min_bucket_reso", 256) <= resolution <= given.get("max_bucket_reso", 1024)
    assert any(line.startswith("buckets = True: in steps of") for line in made.no_equal) is (step is not None)
    none = command.command_for(TrainConfig.parse({**RUN, "resolution": 48}), "kohya")
    assert "--enable_bucket" not in none.command
    assert "buckets = True: there are none below 64 pixels there" in none.no_equal


def test_regularization_pictures_go_along(tmp_path: Path) -> None:
    photo(tmp_path / "photos/1.png", "zkw robot, red")
    photo(tmp_path / "class/c.png")
    folders = {"photos": tmp_path / "photos", "reg": tmp_path / "class"}
    config = TrainConfig.parse({**RUN, **folders, "gradient_accumulation": 2})
    made = command.command_for(config, "kohya")
    assert made.no_equal == []
    photos, reg = subsets(made.command)
    assert photos["class_tokens"] == "a photo of zkw robot" and photos["image_dir"] == str(tmp_path / "photos")
    assert reg == {"is_reg": True, "image_dir": str(tmp_path / "class"), "num_repeats": 1, "caption_extension": ".txt",
                   "class_tokens": "a photo of a robot"}  # fmt: skip
    # half of its batch are regularization images: the same number of photos in a step, in as many steps
    assert "--train_batch_size 2 " in made.command and "--gradient_accumulation_steps 4 " in made.command
    assert "--max_train_steps 1400 " in made.command
    (tmp_path / "a.sh").write_text(made.command)
    again = import_kohya.run(tmp_path / "a.sh").config
    assert (again["batch_size"], again["gradient_accumulation"], again["steps"]) == (4, 2, 1400)
    assert again["reg"] == str(tmp_path / "class") and again["subject"] == "zkw robot"


def test_project_folders_are_named_as_kohya_reads_them(tmp_path: Path) -> None:
    photo(tmp_path / "img/10_zkw robot/1.png", "zkw robot, red")
    photo(tmp_path / "reg/1_robot/c.png", "a robot")
    made = command.command_for(TrainConfig.parse({**RUN, "photos": tmp_path, "repeats": None}), "kohya")
    assert f"--train_data_dir {tmp_path / 'img'} " in made.command
    assert f"--reg_data_dir {tmp_path / 'reg'} " in made.command and made.no_equal == []
    repeated = command.command_for(TrainConfig.parse({**RUN, "photos": tmp_path, "repeats": 3}), "kohya").command
    assert [s["num_repeats"] for s in subsets(repeated)] == [3, 1]  # which the folders' names do not say


def test_photos_without_a_caption_keep_their_name(tmp_path: Path) -> None:
    """That program calls them by the folder's words, maquette by a sentence: a data set file says it."""
    photo(tmp_path / "10_zkw robot/1.png")
    made = command.command_for(TrainConfig.parse({**RUN, "photos": tmp_path, "repeats": None}), "kohya")
    (subset,) = subsets(made.command)
    assert subset["image_dir"] == str(tmp_path / "10_zkw robot") and subset["num_repeats"] == 10
    assert subset["class_tokens"] == "a photo of zkw robot"
    line = f"python train_network.py --train_data_dir='{tmp_path}' --caption_extension=.txt"
    (tmp_path / "a.sh").write_text(line)
    assert import_kohya.run(tmp_path / "a.sh").no_equal == [
        "1.png: without a caption it is called 'zkw robot' there, 'a photo of zkw robot' here"
    ]


def test_what_kohyas_trainer_would_not_read_is_listed(tmp_path: Path) -> None:
    photo(tmp_path / "1.png", "one\ntwo")
    photo(tmp_path / "2.png", "other", ".caption")
    photo(tmp_path / "below/3.png", "deep")
    photo(tmp_path / "masks/1.png")
    (tmp_path / "4.heic").write_bytes(b"")
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (64, 64)).save(tmp_path / "5.jpg", exif=exif)
    made = command.command_for(TrainConfig.parse({**RUN, "photos": tmp_path}), "kohya")
    assert [s["image_dir"] for s in subsets(made.command)] == [str(tmp_path), str(tmp_path / "below")]
    assert [line for line in made.no_equal if line.startswith(("photos", "captions"))] == [
        "photos: 4.heic would not be read; save them as JPEG or PNG",
        "photos: 5.jpg would lie on their side: EXIF orientation is not read; turn them",
        "photos: masks would not be read",
        "captions: that of 2.png is no .txt file and would not be read",
        "captions: of 1.png only the first line would be read",
    ]


def test_nothing_that_a_run_made_is_written_over(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "zkw")
    values = {key: value for key, value in RUN.items() if key != "out"}
    write_text(run.config, TrainConfig.parse(values).to_toml())
    told = command.run(run.path, "kohya").command
    assert f"--output_dir {run.path} " in told and "--output_name zkw " in told
    (run.path / "zkw.safetensors").write_bytes(b"")
    assert "--output_name zkw-kohya " in command.run(run.path, "kohya").command
    assert f"--output_dir {run.path} " in command.run(run.path, "diffusers").command


def test_diffusers_is_given_folders_of_pictures_alone(tmp_path: Path) -> None:
    """Its scripts open every file of a folder as a picture, and draw regularization images where they find too few."""
    photo(tmp_path / "photos/it's 1.png", "zkw robot")
    photo(tmp_path / "photos/below/1.png")
    photo(tmp_path / "class/c.png", "a robot")
    photo(tmp_path / "class/d.png")
    config = TrainConfig.parse({**RUN, "photos": tmp_path / "photos", "reg": tmp_path / "class"})
    made = command.command_for(config, "diffusers").command
    assert "--instance_data_dir zkw-photos " in made and "--class_data_dir zkw-class " in made
    assert "--num_class_images 2 " in made and "--center_crop " in made
    lines = [line for line in made.splitlines() if line.startswith(("mkdir", "ln "))]
    subprocess.run(["sh", "-ec", "\n".join(lines)], cwd=tmp_path, check=True)
    for name, count in (("zkw-photos", 2), ("zkw-class", 2)):
        entries = list((tmp_path / name).iterdir())
        assert len(entries) == count and all(Image.open(entry).size == (64, 64) for entry in entries)
    changes = {"photos": tmp_path / "photos", "method": "textual-inversion", "alpha": None}
    word = command.command_for(TrainConfig.parse({**RUN, **changes}), "diffusers")
    assert "--caption_extension" not in word.command  # which that script does not know


def test_schedules_have_their_names_there() -> None:
    for changes, name in (
        ({"scheduler": "constant", "warmup_steps": 10}, "constant_with_warmup"),
        ({"scheduler": "cosine", "scheduler_min_ratio": 0.1}, "cosine_with_min_lr"),
        ({"scheduler": "polynomial", "scheduler_power": 2.0}, "polynomial"),
    ):
        told = command.command_for(TrainConfig.parse({**RUN, **changes}), "kohya").command
        assert f"--lr_scheduler {name} " in told


def test_sdxl_has_no_clip_skip_there() -> None:
    config = TrainConfig.parse({**RUN, "clip_skip": 2})
    told = command.command_for(config, "kohya", {"ss_base_model_version": "sdxl_base_v1-0"})
    assert "--clip_skip" not in told.command
    assert told.no_equal == ["clip_skip = 2: has no equal there: SDXL always takes the layer before the last"]
    assert "--clip_skip 2 " in command.command_for(config, "kohya").command


def test_a_prompt_cannot_end_the_file_that_holds_it(tmp_path: Path) -> None:
    prompts = ["a\nEND\ntouch stolen", "END"]
    config = TrainConfig.parse({**RUN, "sample_prompts": prompts, "subject": "zkw\nEND\ntouch stolen"})
    made = command.command_for(config, "kohya")
    lines = made.command.partition("accelerate")[0]
    subprocess.run(["sh", "-ec", lines], cwd=tmp_path, check=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["zkw-dataset.toml", "zkw-prompts.txt"]
    assert (tmp_path / "zkw-prompts.txt").read_text().splitlines()[0].startswith("a END touch stolen --d 1")
    (tmp_path / "a.sh").write_text(made.command)
    assert import_kohya.run(tmp_path / "a.sh").config["sample_prompts"] == ["a END touch stolen", "END"]


@pytest.mark.parametrize("changes", ROUNDS, ids=lambda c: "-".join(c) or "plain")
def test_every_option_of_a_command_is_one_of_theirs(changes: dict[str, Any]) -> None:
    for facts in ({}, {"ss_base_model_version": "sdxl_base_v1-0"}):
        made = command.command_for(TrainConfig.parse({**RUN, **changes}), "kohya", facts)
        words = read_script(made.command, "a.sh").commands[-1]
        names = {word[2:] for word in words if word.startswith("--")}
        assert words[:2] == ["accelerate", "launch"] and names <= OPTIONS.keys()
        assert not names & UNKNOWN.get(words[2], set())


def test_options_that_a_script_does_not_know_are_listed() -> None:
    word = {"method": "textual-inversion", "alpha": None, "caption_dropout": 0.1, "weighted_captions": True}
    made = command.command_for(TrainConfig.parse({**RUN, **word}), "kohya")
    assert "--caption_dropout_rate" not in made.command and "--weighted_captions" not in made.command
    assert "caption_dropout = 0.1: train_textual_inversion.py has no such option" in made.no_equal
    whole = TrainConfig.parse({**RUN, "method": "dreambooth", "alpha": None, "prior_loss_weight": 0.5})
    told = command.command_for(whole, "kohya", {"ss_base_model_version": "sdxl_base_v1-0"})
    assert "prior_loss_weight = 0.5: sdxl_train.py has no such option" in told.no_equal
    assert "--prior_loss_weight 0.5 " in command.command_for(whole, "kohya").command


def test_diffusers_is_told_no_more_lost_than_is(tmp_path: Path) -> None:
    photo(tmp_path / "10_zkw robot/1.png")
    plain = {"photos": tmp_path, "subject": None, "alpha": 16.0, "buckets": False, "min_snr_gamma": 0.0,
             "sample_prompts": [], "embedding_learning_rate": 1e-2, "caption_extension": ".txt"}  # fmt: skip
    config = TrainConfig.parse({**RUN, **plain, "text_encoder": True, "text_encoder_learning_rate": 5e-5})
    made = command.command_for(config, "diffusers")
    assert "--instance_prompt 'a photo of zkw robot' " in made.command  # as the folder says
    assert {line.split(" ")[0] for line in made.no_equal} == {"layers:", "captions:", "text_encoder_learning_rate"}
    xl = command.command_for(config, "diffusers", {"ss_base_model_version": "sdxl_base_v1-0"})
    assert "--text_encoder_lr 5e-05 " in xl.command and len(xl.no_equal) == 2
