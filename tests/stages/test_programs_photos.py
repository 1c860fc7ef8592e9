"""What the commands of other programs say of photos, prompts and schedules, and what they lose."""

import itertools
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maquette.config import TrainConfig
from maquette.config.runs import CommandConfig
from maquette.files import write_text
from maquette.formats.shells import read_script
from maquette.interop.kohya import read as import_kohya
from maquette.run_folder import RunFolder
from maquette.stages import command
from maquette.trainers.kohya import OPTIONS, UNKNOWN
from tests.stages.run_values import ROUNDS, RUN


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
    told = command.run(CommandConfig(run=run.path)).command
    assert f"--output_dir {run.path} " in told and "--output_name zkw " in told
    (run.path / "zkw.safetensors").write_bytes(b"")
    assert "--output_name zkw-kohya " in command.run(CommandConfig(run=run.path)).command
    assert f"--output_dir {run.path} " in command.run(CommandConfig(run=run.path, program="diffusers")).command


def test_photos_that_a_file_names_are_its_folders(tmp_path: Path) -> None:
    """A metadata file and a data set file are no folders of pictures; what is taken from them is that of the run."""
    folder = tmp_path / "photos"
    photo(folder / "a.png")
    photo(folder / "reg/r.png")
    (metadata := folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "zkw robot"}\n')
    made = command.command_for(TrainConfig.parse({**RUN, "photos": metadata}), "kohya")
    assert [(s["image_dir"], s.get("is_reg", False)) for s in subsets(made.command)] == [
        (str(folder), False), (str(folder / "reg"), True),
    ]  # fmt: skip
    assert made.no_equal == ["photos: the captions in metadata.jsonl would not be read"]
    (file := tmp_path / "data.toml").write_text(
        f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '{folder}'\nclass_tokens = 'zkw robot'\n"
    )
    told = command.command_for(TrainConfig.parse({**RUN, "photos": file}), "diffusers").command
    assert f"ln -s --backup=numbered -t zkw-photos {folder / 'a.png'}\n" in told
    assert "--instance_data_dir zkw-photos " in told and "data.toml" not in told


def test_regularization_images_that_are_gone_are_not_forgotten(tmp_path: Path) -> None:
    photo(tmp_path / "photos/a.png", "zkw robot")
    config = TrainConfig.parse({**RUN, "photos": tmp_path / "photos", "reg": tmp_path / "gone"})
    kohya, diffusers = (command.command_for(config, program) for program in ("kohya", "diffusers"))
    assert [s["image_dir"] for s in subsets(kohya.command) if s.get("is_reg")] == [str(tmp_path / "gone")]
    assert "--gradient_accumulation_steps 2" in kohya.command
    assert f"--class_data_dir {tmp_path / 'gone'} " in diffusers.command


def test_photos_of_a_style_are_called_as_they_were(tmp_path: Path) -> None:
    photo(tmp_path / "photos/a.png")
    config = TrainConfig.parse({**RUN, "photos": tmp_path / "photos", "subject": "zkw style", "kind": "style"})
    assert subsets(command.command_for(config, "kohya").command)[0]["class_tokens"] == "a picture, zkw style"
    assert "--instance_prompt 'a picture, zkw style' " in command.command_for(config, "diffusers").command


@pytest.mark.parametrize(
    "changes",
    [{"choose": False}, {"preferred_weight": 0.7}, {"keep_state": True}, {"probe_prediction": False}],
    ids="-".join,
)
def test_what_changes_no_weight_stops_no_command(changes: dict[str, Any]) -> None:
    for program in ("kohya", "diffusers"):
        usual, made = (command.command_for(TrainConfig.parse(c), program) for c in (RUN, {**RUN, **changes}))
        assert made == usual


def test_a_prediction_of_v_is_said_where_a_file_did_not(tmp_path: Path) -> None:
    config = TrainConfig.parse({**RUN, "prediction_type": "v_prediction"})
    made = command.command_for(config, "kohya")
    assert "--v_parameterization " in made.command and made.no_equal == []
    flow = command.command_for(TrainConfig.parse({**RUN, "prediction_type": "flow"}), "kohya")
    assert flow.no_equal == ["prediction_type = flow: has no equal there"]


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
        ({"lr_scheduler": "constant", "warmup_steps": 10}, "constant_with_warmup"),
        ({"lr_scheduler": "cosine", "lr_scheduler_min_ratio": 0.1}, "cosine_with_min_lr"),
        ({"lr_scheduler": "polynomial", "lr_scheduler_power": 2.0}, "polynomial"),
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
