"""Kohya's configurations as they come: from Windows, from the GUI's tabs, with data set files, and hostile ones."""

import codecs
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.interop.kohya import read as import_kohya
from maquette.interop.kohya.read import ImportResult
from maquette.trainers.kohya import OPTIONS
from maquette.trainers.kohya_gui import FIELDS

LINE = ("accelerate launch {} --pretrained_model_name_or_path=base.safetensors --train_data_dir=img --output_dir=out "
        "--output_name=n --caption_extension=.txt ")  # fmt: skip
NETWORK = LINE.format("train_network.py") + "--network_module=networks.lora --learning_rate=1e-4 "
FORM: dict[str, Any] = {
    "LoRA_type": "Standard", "pretrained_model_name_or_path": "base.safetensors", "train_data_dir": "photos",
    "network_dim": 16, "network_alpha": 8, "max_resolution": "512,512", "epoch": 10, "max_train_steps": 0,
    "max_train_epochs": 0, "learning_rate": 0.0001, "unet_lr": 0.0001, "text_encoder_lr": 5e-05, "lr_warmup": 0,
    "optimizer": "AdamW8bit", "lr_scheduler": "cosine", "train_batch_size": 2, "caption_extension": ".txt",
}  # fmt: skip
TOML = """pretrained_model_name_or_path = "base.safetensors"
train_data_dir = "photos"
network_module = "networks.lora"
network_dim = 16
network_alpha = 8
resolution = "512,512"
max_train_steps = 400
unet_lr = 1e-4
caption_extension = ".txt"
"""


def read(folder: Path, text: str | bytes, name: str = "a.sh") -> ImportResult:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return import_kohya.run(folder / name)


def form(folder: Path, **changes: Any) -> ImportResult:
    values = {key: value for key, value in (FORM | changes).items() if value is not ...}
    return read(folder, json.dumps(values), "a.json")


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", "{}"), ("a.json", '{"a": 1}'), ("a.toml", ""), ("a.toml", "[general]\nfoo = 1\n")]
)
def test_a_file_without_any_option_of_theirs_is_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(MaquetteError, match=rf"{name} has no option of Kohya's trainer; give the file"):
        read(tmp_path, text, name)


def test_a_rate_of_zero_leaves_its_part_untrained(tmp_path: Path) -> None:
    found = form(tmp_path, text_encoder_lr=0).config
    assert found["text_encoder"] is False and "text_encoder_learning_rate" not in found
    found = read(tmp_path, NETWORK + "--unet_lr=1e-4 --text_encoder_lr=0").config
    assert found["text_encoder"] is False and found["learning_rate"] == 1e-4
    found = form(tmp_path, unet_lr=0, text_encoder_lr=0).config  # the form's learning_rate stands for both
    assert found["text_encoder"] is True and found["learning_rate"] == found["text_encoder_learning_rate"] == 1e-4
    for alone in (lambda: form(tmp_path, unet_lr=0), lambda: read(tmp_path, NETWORK + "--unet_lr=0")):
        with pytest.raises(MaquetteError, match=r"the text encoder (learns )?alone; here the UNet always learns"):
            alone()
    found = read(tmp_path, LINE.format("train_db.py") + "--learning_rate=1e-6 --learning_rate_te=0").config
    assert found["text_encoder"] is False and found["method"] == "dreambooth"


def test_what_the_gui_writes_into_toml(tmp_path: Path) -> None:
    def config(more: str) -> dict[str, Any]:
        return read(tmp_path, TOML + more, "a.toml").config

    assert config('lr_scheduler = "cosine"\nlr_warmup_steps = 0.1\n')["warmup_steps"] == 40
    assert config("text_encoder_lr = [5e-05, 5e-05]\n")["text_encoder_learning_rate"] == 5e-5
    assert config("text_encoder_lr = []\n")["text_encoder_learning_rate"] == 2e-6  # Kohya's learning_rate
    warm = config('lr_scheduler = "constant_with_warmup"\nlr_warmup_steps = 40\n')
    assert warm["lr_scheduler"] == "constant" and warm["warmup_steps"] == 40
    assert read(tmp_path, TOML.replace("alpha = 8", "alpha = 0"), "a.toml").config["alpha"] == 16.0
    found = read(tmp_path, TOML + "text_encoder_lr = [5e-05, 1e-05]\n", "a.toml")
    assert found.no_equal == ["text_encoder_lr = [5e-05, 1e-05]: both text encoders learn at 5e-05"]
    kept = read(tmp_path, TOML + "lr_warmup_steps = 40\n", "a.toml")
    assert kept.config["warmup_steps"] == 40
    assert kept.no_equal == ["lr_warmup_steps = 40: kept; there it needs an lr_scheduler that has one"]
    cold = read(tmp_path, TOML + 'lr_scheduler = "constant"\nlr_warmup_steps = 40\n', "a.toml")
    assert "warmup_steps" not in cold.config
    assert cold.no_equal == ["lr_warmup_steps = 40: a constant rate has no warm-up there; for one set warmup_steps"]


@pytest.mark.parametrize(
    ("given", "steps", "expected"),
    [("0.1", 1000, 100), ("0.05", 1234, 61), ("0.033", 300, 9), ("10%", 1000, 100), ("100", 1000, 100), ("0", 9, None)],
)
def test_a_warm_up_may_be_a_share(given: str, steps: int, expected: int | None, tmp_path: Path) -> None:
    line = NETWORK + f"--lr_scheduler=cosine --lr_warmup_steps={given} --max_train_steps={steps}"
    assert read(tmp_path, line).config.get("warmup_steps") == expected
    assert form(tmp_path, lr_warmup=10).config["warmup_steps"] == 0.1  # percent, of as many steps as ten epochs take
    assert form(tmp_path, lr_warmup=10, max_train_steps=500).config["warmup_steps"] == 50
    assert form(tmp_path, lr_warmup=10, lr_warmup_steps=7, max_train_steps=500).config["warmup_steps"] == 7


def test_epochs_win_over_steps_as_there(tmp_path: Path) -> None:
    found = read(tmp_path, NETWORK + "--max_train_steps=100 --max_train_epochs=3").config
    assert found["epochs"] == 3 and "steps" not in found
    found = form(tmp_path, max_train_steps=100, max_train_epochs=4).config
    assert found["epochs"] == 4 and "steps" not in found
    assert form(tmp_path, max_train_steps=100).config["steps"] == 100


def test_only_the_chosen_noise_of_the_form_is_used(tmp_path: Path) -> None:
    noises = {"noise_offset": 0.05, "adaptive_noise_scale": 0.01, "multires_noise_iterations": 6,
              "multires_noise_discount": 0.2}  # fmt: skip
    plain = form(tmp_path, noise_offset_type="Original", **noises).config
    assert plain["noise_offset"] == 0.05 and "pyramid_noise_levels" not in plain
    pyramid = form(tmp_path, noise_offset_type="Multires", **noises).config
    assert pyramid["pyramid_noise_levels"] == 6 and "noise_offset" not in pyramid
    assert (
        "noise_offset_adaptive" not in pyramid
        and "noise_offset_adaptive" not in form(tmp_path, adaptive_noise_scale=0.01).config
    )  # which needs an offset


def test_the_tab_of_the_form_says_the_method(tmp_path: Path) -> None:
    other = {"LoRA_type": ..., "network_dim": ..., "network_alpha": ..., "unet_lr": ..., "text_encoder_lr": ...}
    found = form(tmp_path, **other, learning_rate=1e-6, learning_rate_te=5e-7, no_token_padding=False,
                 stop_text_encoder_training=0).config  # fmt: skip
    assert found["method"] == "dreambooth" and "rank" not in found and found["text_encoder"] is True
    assert found["learning_rate"] == 1e-6 and found["text_encoder_learning_rate"] == 5e-7
    never = form(tmp_path, **other, stop_text_encoder_training=-1).config
    assert never["method"] == "dreambooth" and never["text_encoder"] is False
    part = form(tmp_path, **other, stop_text_encoder_training=30)
    assert part.no_equal == ["stop_text_encoder_training = 30 %: the text encoder learns to the end here"]
    tuned = form(tmp_path, **other, train_dir="./out", image_folder="./img", train_data_dir=...,
                 dataset_config="d.toml", caption_metadata_filename="meta_cap.json",
                 train_text_encoder=True).config  # fmt: skip
    assert tuned["method"] == "dreambooth" and tuned["photos"] == "d.toml" and tuned["text_encoder"] is True
    assert "batch_size" not in tuned and "resolution" not in tuned  # which the data set file says
    found = form(tmp_path, **other, train_dir="img", image_folder="img", train_data_dir=...,
                 caption_metadata_filename="meta_cap.json").config  # fmt: skip
    assert found["photos"] == "img/meta_cap.json" and found["text_encoder"] is False
    word = form(tmp_path, **other, token_string="zkw", init_word="robot", num_vectors_per_token=4).config
    assert (word["method"], word["subject"], word["num_vectors"]) == ("textual-inversion", "zkw", 4)
    assert word["embedding_learning_rate"] == 1e-4 and "rank" not in word
    for box, name in (("flux1_checkbox", "Flux"), ("sd3_checkbox", "Stable Diffusion 3")):
        with pytest.raises(MaquetteError, match=f"is for {name} "):
            form(tmp_path, **{box: True})


OTHER_TABS = {"LoRA_type": ..., "network_dim": ..., "network_alpha": ..., "unet_lr": ..., "text_encoder_lr": ...}


def test_the_rates_decide_of_text_encoders_in_the_tab_dreambooth_of_sdxl(tmp_path: Path) -> None:
    tab = OTHER_TABS | {"sdxl": True, "learning_rate": 1e-6}
    found = form(tmp_path, **tab, learning_rate_te1=3e-7, learning_rate_te2=3e-7)
    assert found.config["text_encoder"] is True and found.config["text_encoder_learning_rate"] == 3e-7
    assert found.no_equal == []
    found = form(tmp_path, **tab, learning_rate_te1=0, learning_rate_te2=0)
    assert found.config["text_encoder"] is False and found.no_equal == []
    second = form(tmp_path, **tab, learning_rate_te1=3e-7, learning_rate_te2=0)
    assert second.config["text_encoder"] is True
    assert second.no_equal == [
        "learning_rate_te2 = 0: kohya_ss passes no 0 on, so that it becomes learning_rate",
        "learning_rate_te2 = 1e-06: both text encoders learn at 3e-07",
    ]
    tuning = OTHER_TABS | {"sdxl_checkbox": True, "train_dir": "img", "learning_rate_te1": 3e-7}
    assert form(tmp_path, **tuning, train_text_encoder=False).config["text_encoder"] is False  # which has a box


def test_the_second_text_encoder_learns_at_the_common_rate_where_it_has_none(tmp_path: Path) -> None:
    line = LINE.format("sdxl_train.py") + "--train_text_encoder --learning_rate=1e-6 --learning_rate_te1=3e-7"
    found = read(tmp_path, line)
    assert found.config["text_encoder_learning_rate"] == 3e-7
    assert found.no_equal == ["learning_rate_te2 = 1e-06: both text encoders learn at 3e-07"]


def test_the_form_passes_on_no_zero(tmp_path: Path) -> None:
    assert read(tmp_path, NETWORK + "--max_grad_norm=0").config["max_grad_norm"] == 0
    found = form(tmp_path, max_grad_norm=0, network_alpha=0, prior_loss_weight=0, min_timestep=False)
    assert "max_grad_norm" not in found.config and found.config["alpha"] == 1.0
    assert TrainConfig.parse({"photos": ".", **found.config}, "x", {}).max_grad_norm == 1.0
    assert set(found.no_equal) == {
        "max_grad_norm = 0: kohya_ss passes no 0 on, so that it becomes 1.0",
        "network_alpha = 0: kohya_ss passes no 0 on, so that it becomes 1.0",
    }
    text = form(tmp_path, **OTHER_TABS, learning_rate_te=0)  # train_db.py learns both parts at one rate then
    assert text.config["text_encoder"] is True and text.config["text_encoder_learning_rate"] == 1e-4
    assert text.no_equal == ["learning_rate_te = 0: kohya_ss passes no 0 on, so that it becomes learning_rate"]
    assert form(tmp_path, **OTHER_TABS, learning_rate_te=0, stop_text_encoder_training=-1).no_equal == []


def test_mirrored_photos_are_half_as_many_steps_in_the_tab_finetuning(tmp_path: Path) -> None:
    tab = OTHER_TABS | {"train_dir": "img", "train_data_dir": ..., "flip_aug": True}
    assert form(tmp_path, **tab, max_train_steps=101).config["steps"] == 51
    assert form(tmp_path, **tab, max_train_epochs=6).config["epochs"] == 6
    assert form(tmp_path, **tab).config["epochs"] == 5
    odd = form(tmp_path, **tab, epoch=5)
    assert odd.config["epochs"] == 3 and odd.no_equal == ["epoch = 5: half of it there, for flip_aug is set"]
    assert form(tmp_path, **tab, max_train_steps=101, dataset_config="d.toml").config["steps"] == 101
    assert form(tmp_path, max_train_steps=101, flip_aug=True).config["steps"] == 101


def test_what_a_tab_or_script_does_not_know_is_not_taken_over(tmp_path: Path) -> None:
    word = form(tmp_path, **OTHER_TABS, token_string="zkw", caption_dropout_rate=0.1)
    assert "caption_dropout" not in word.config
    line = LINE.format("sdxl_train.py") + "--reg_data_dir=reg --train_batch_size=2 --prior_loss_weight=0.5"
    whole = read(tmp_path, line)
    assert "prior_loss_weight" not in whole.config
    assert whole.needless == ["prior_loss_weight (sdxl_train.py passes over it)"]


def test_a_data_set_file_is_no_configuration(tmp_path: Path) -> None:
    text = "[general]\nshuffle_caption = true\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'photos'\n"
    with pytest.raises(MaquetteError, match=r"d\.toml is a data set file, .*name it as the photos: maquette train"):
        read(tmp_path, text, "d.toml")


def test_a_preset_without_photos_or_base_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from maquette.cli.main import main

    found = form(tmp_path, train_data_dir="", pretrained_model_name_or_path="")
    assert found.to_name == ["photos", "base"] and "photos" not in found.config
    assert (found.config["rank"], found.config["alpha"], found.config["epochs"]) == (16, 8.0, 10)
    for arguments in (["--out", str(tmp_path / "my.toml")], []):
        with pytest.raises(SystemExit) as end:
            main(["import", "kohya", str(tmp_path / "a.json"), *arguments])
        assert not end.value.code
    told = capsys.readouterr()
    assert f"maquette train PHOTOS --base MODEL --config {tmp_path / 'my.toml'}" in told.out
    assert "Still to name: photos and base, as in maquette train PHOTOS --base MODEL" in told.err
    assert TrainConfig.read(tmp_path / "my.toml", photos=tmp_path).rank == 16
    with pytest.raises(MaquetteError, match="names no photos"):
        read(tmp_path, "python train_network.py --network_module=networks.lora")


def test_further_parameters_of_the_form_win(tmp_path: Path) -> None:
    more = '--max_grad_norm=0 --lr_scheduler_type "CosineAnnealingLR" --network_train_unet_only --log_prefix=x'
    found = form(tmp_path, additional_parameters=more, max_grad_norm=1)
    assert found.config["max_grad_norm"] == 0.0 and found.config["text_encoder"] is False
    assert found.no_equal == ["lr_scheduler_type = CosineAnnealingLR: that scheduler does not exist here"]


def test_several_processes_make_a_larger_batch(tmp_path: Path) -> None:
    found = form(tmp_path, num_processes=2)
    assert found.config["batch_size"] == 4 and found.no_equal[0].startswith("num_processes = 2: batch_size is of all")
    line = NETWORK.replace("launch", "launch --multi_gpu --num_processes 3") + "--train_batch_size=2"
    assert read(tmp_path, line).config["batch_size"] == 6


@pytest.mark.parametrize(
    ("name", "encode"),
    [("a.toml", codecs.BOM_UTF8), ("A.TOML", b""), ("a.toml", codecs.BOM_UTF16_LE), ("a.toml", codecs.BOM_UTF16_BE)],
)
def test_encodings_and_suffixes_of_windows(name: str, encode: bytes, tmp_path: Path) -> None:
    coding = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}.get(encode, "utf-8")
    plain = read(tmp_path, TOML, "plain.toml").config
    assert read(tmp_path, encode + TOML.replace("\n", "\r\n").encode(coding), name).config == plain
    script = NETWORK.replace(" --train", " `\n --train")
    found = read(tmp_path, encode + script.replace("\n", "\r\n").encode(coding), "a.ps1").config
    assert found == read(tmp_path, NETWORK).config
    as_json = encode + json.dumps(FORM).encode(coding)
    assert read(tmp_path, as_json, "A.JSON").config == form(tmp_path).config
    with pytest.raises(MaquetteError, match=r"is not UTF-8 text \(byte 2\); save it as UTF-8"):
        read(tmp_path, b"a\xfcb", "b.toml")


def test_paths_of_a_batch_file_keep_their_backslashes(tmp_path: Path) -> None:
    text = ("set DATA=D:\\photos\naccelerate launch train_network.py ^\n --train_data_dir=%DATA%\\train ^\n"
            " --pretrained_model_name_or_path=D:\\models\\new\\sd15.safetensors --output_dir=D:\\out ^\n"
            " --output_name=zkw --network_module=networks.lora\n")  # fmt: skip
    found = read(tmp_path, text, "train.bat").config
    assert found["photos"] == r"D:\photos\train" and found["base"] == r"D:\models\new\sd15.safetensors"
    assert found["out"] == r"D:\out\zkw"
    with pytest.raises(MaquetteError, match="--train_data_dir depends on %DATA%, whose value only running"):
        read(tmp_path, text.replace("set DATA", "set /p DATA"), "train.bat")


def test_the_captions_are_those_that_their_trainer_reads(tmp_path: Path) -> None:
    photos = tmp_path / "img/10_zkw robot"
    photos.mkdir(parents=True)
    line = NETWORK.replace("=img", f"='{tmp_path / 'img'}'")
    none = line.replace("--caption_extension=.txt ", "")
    (photos / "1.txt").write_text("from txt")
    assert "caption_extension" not in read(tmp_path, line).config
    found = read(tmp_path, none)
    assert found.config["caption_extension"] == ".caption"
    assert found.no_equal == [
        "caption_extension = .caption: theirs where none is given: the .txt files are passed over; take the key out to "
        "learn them"
    ]
    (photos / "1.caption").write_text("from caption")
    assert read(tmp_path, line).config["caption_extension"] == ".txt"
    assert read(tmp_path, line.replace(".txt", "tags")).config["caption_extension"] == ".tags"


def test_an_ending_without_its_point_is_said(tmp_path: Path) -> None:
    found = read(tmp_path, NETWORK + "--max_train_steps=4 --caption_extension=tags")
    assert found.config["caption_extension"] == ".tags"
    assert found.no_equal == ["caption_extension = tags: read as .tags; there, without its point, no caption is found"]


def test_photos_are_read_with_the_captions_of_that_ending(tmp_path: Path) -> None:
    from PIL import Image

    from maquette.data.layouts import read_folder

    folder = tmp_path / "10_zkw robot"
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "1.png")
    for ending in (".txt", ".caption", ".tags"):
        (folder / f"1{ending}").write_text(f"from {ending[1:]}")
    wanted = {None: "from txt", ".caption": "from caption", "tags": "from tags", ".no": "zkw robot"}
    for given, caption in wanted.items():
        found = read_folder(tmp_path, extension=given).photos[0].caption
        assert found.endswith(caption)


def test_what_a_data_set_file_says_wins(tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text(
        "[general]\nshuffle_caption = true\n[[datasets]]\nresolution = 768\nbatch_size = 3\nenable_bucket = true\n"
        "[[datasets.subsets]]\nimage_dir = 'x'\n"
    )
    base = "python train_network.py --network_module=networks.lora --dataset_config=data.toml --max_train_steps=100 "
    found = read(tmp_path, base)
    assert found.config["photos"] == "data.toml" and found.config["batch_size"] == 3
    assert not {"resolution", "buckets", "shuffle_captions"} & found.config.keys() and found.no_equal == []
    more = "--resolution=512 --train_batch_size=1 --shuffle_caption --keep_tokens=2 --gradient_accumulation_steps=2"
    found = read(tmp_path, base + more + " --train_data_dir=img")
    assert found.config["batch_size"] == 6 and "resolution" not in found.config
    assert found.no_equal == ["keep_tokens = 2: data.toml does not say it; write it under its [general]"]
    assert "resolution (the data set file says it)" in found.needless
    assert "train_data_dir (the data set file wins)" in found.needless
    found = read(tmp_path, base.replace("data.toml", "away.toml") + "--resolution=768 --train_batch_size=2")
    assert "batch_size" not in found.config and found.no_equal == [
        "resolution, train_batch_size: away.toml, which is not there to be read, decides; where it is silent, write "
        "them under its [general]"
    ]


def test_a_configuration_file_named_by_the_command_is_read(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('[a]\nflip_aug = true\n[b]\nnetwork_dim = 12\ntrain_data_dir = "x"\n')
    line = "python train_network.py --network_module=networks.lora --config_file=settings --network_dim=24"
    found = read(tmp_path, line).config
    assert found["flip_aug"] is True and found["rank"] == 24 and found["photos"] == "x"
    with pytest.raises(MaquetteError, match=r"its config_file other\.toml is not there"):
        read(tmp_path, line.replace("settings", "other"))


def test_clip_skip_is_of_stable_diffusion_1_and_2(tmp_path: Path) -> None:
    for script in ("sdxl_train_network.py", "sdxl_train.py", "sdxl_train_textual_inversion.py"):
        found = read(tmp_path, LINE.format(script) + "--clip_skip=2")
        assert "clip_skip" not in found.config
        assert found.needless == ["clip_skip (Kohya's trainer ignores it on SDXL)"]
    assert read(tmp_path, NETWORK + "--clip_skip=2").config["clip_skip"] == 2
    assert "clip_skip" not in form(tmp_path, sdxl=True, clip_skip=2).config
    found = read(tmp_path, TOML + "clip_skip = 2\n", "a.toml")
    assert found.config["clip_skip"] == 2 and found.no_equal[0].startswith("clip_skip = 2: kept; leave it out on SDXL")


@pytest.mark.parametrize(
    ("batch", "parts", "views"), [(1, 1, 500), (2, 1, 1000), (2, 2, 2000), (4, 1, 2000), (3, 1, 1500)]
)
def test_regularization_pictures_are_half_of_a_batch_there(batch: int, parts: int, views: int, tmp_path: Path) -> None:
    line = f"--reg_data_dir=reg --train_batch_size={batch} --gradient_accumulation_steps={parts} "
    found = read(tmp_path, NETWORK + line + "--max_train_steps=1000 --save_every_n_steps=100")
    config = found.config
    assert config["steps"] * config["batch_size"] == views and config["reg"] == "reg"
    if batch * parts % 2:
        assert config["steps"] == 500 and config["save_every_steps"] == 50
        assert found.no_equal[0].startswith(f"reg_data_dir: each step learns {batch} of the photos and as many")
    else:
        assert config["steps"] == 1000 and found.no_equal == []  # the same steps, of the same pictures
    found = read(tmp_path, NETWORK + line + "--max_train_epochs=10")
    assert found.config["epochs"] == 10  # of which each shows every photo once, here and there


def test_arguments_that_are_the_optimizers_own_are_not_listed(tmp_path: Path) -> None:
    cases = {
        "AdamW": ('"betas=(0.9,0.999)" eps=1e-08 amsgrad=False', {}),
        "Adafactor": ("relative_step=False scale_parameter=True warmup_init=False", {"scale_parameter": True}),
        "Prodigy": ("decouple=True use_bias_correction=True safeguard_warmup=True d_coef=2", {"d_coef": 2.0}),
        "Lion": ("betas=0.9,0.95", {"betas": [0.9, 0.95]}),
    }
    for optimizer, (arguments, expected) in cases.items():
        found = read(tmp_path, NETWORK + f"--optimizer_type={optimizer} --optimizer_args {arguments}")
        assert found.no_equal == [] and found.config.get("optimizer_args", {}) == expected, optimizer
    found = read(tmp_path, NETWORK + "--optimizer_type=AdamW --optimizer_args amsgrad=True odd")
    assert found.no_equal == ["optimizer_args amsgrad=True", "optimizer_args odd"]


def test_what_is_kept_as_here_is_said(tmp_path: Path) -> None:
    said = read(tmp_path, NETWORK + "--masked_loss --weighted_captions --enable_bucket --bucket_no_upscale").no_equal
    assert [line.split(" = ")[0] for line in said] == ["bucket_no_upscale", "weighted_captions", "masked_loss"] or {
        line.split(" = ")[0] for line in said
    } == {"bucket_no_upscale", "weighted_captions", "masked_loss"}
    assert any("divided by the mask's area" in line for line in said)
    assert any("keep the caption's mean" in line for line in said)
    assert read(tmp_path, NETWORK + "--alpha_mask").no_equal[0].startswith("alpha_mask = True: the loss is divided by")


def test_secrets_are_not_repeated(tmp_path: Path) -> None:
    found = read(tmp_path, NETWORK + "--wandb_api_key=s3cret --huggingface_token=s3cret")
    assert "s3cret" not in json.dumps(found.to_json()) and found.needless == ["huggingface_token", "wandb_api_key"]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ('{"LoRA_type": [1], "train_data_dir": "x"}', "a.json", r"LoRA_type '\[1\]' has no equal here"),
        ('{"LoRA_type": "Standard", "train_data_dir": "x", "max_train_steps": 1e999}', "a.json", "is too large"),
        ('{"LoRA_type": "Standard", "train_data_dir": "x", "lr_warmup": "much"}', "a.json", "lr_warmup = much is not"),
        ('{"LoRA_type": "Standard", "train_data_dir": {"a": 1}}', "a.json", "train_data_dir = .* is not one text"),
        ("[" * 5000, "a.json", "is nested too deep"),
        (TOML + "network_dropout = 'x'", "a.toml", "network_dropout = x is not a number"),
        (TOML + "keep_tokens = 1.5", "a.toml", "keep_tokens = 1.5 is not a whole number"),
        (TOML + "shuffle_caption = 'maybe'", "a.toml", "shuffle_caption = maybe is not true or false"),
        (TOML + "caption_dropout_rate = 3", "a.toml", "caption_dropout_rate = 3.0 is not possible"),
        (TOML.replace('"512,512"', '"big"'), "a.toml", "resolution = big is not a size such as 512"),
        ("python flux_train_network.py --train_data_dir x", "a.sh", r"flux_train_network\.py trains what maquette"),
        ("python train_network.py --train_data_dir $A", "a.sh", r"--train_data_dir depends on \$A"),
        ("python train_network.py img", "a.sh", "'img' belongs to no option"),
        ("python train_network.py a\npython train_network.py b", "a.sh", r"has 2 command lines .*\. Leave one"),
    ],
)  # fmt: skip
def test_faults_are_told_in_the_words_of_the_file(text: str, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=message):
        read(tmp_path, text, name)


def test_shortened_options_and_old_names_are_known(tmp_path: Path) -> None:
    found = read(tmp_path, NETWORK + "--max_train_ep=3 --use_8bit_adam --network_dim=4 --network_dim=8")
    assert (found.config["epochs"], found.config["optimizer"], found.config["rank"]) == (3, "adamw8bit", 8)
    old = form(tmp_path, LoRA_type="LoCon", lora_network_weights="old.safetensors", optimizer="", use_8bit_adam=True)
    assert old.config["from_lora"] == "old.safetensors" and old.config["optimizer"] == "adamw8bit"


def test_prompts_of_samples_in_toml_and_json(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('[prompt]\nsample_steps = 25\n[[prompt.subset]]\nprompt = "a"\nseed = 5\n')
    (tmp_path / "p.json").write_text('[{"prompt": "a", "seed": 5, "sample_steps": 25}, {"prompt": "b"}]')
    for name, prompts in (("p.toml", ["a"]), ("p.json", ["a", "b"])):
        found = read(tmp_path, NETWORK + f"--sample_prompts={name}").config
        assert (found["sample_prompts"], found["sample_seed"], found["sample_steps"]) == (prompts, 5, 25)


def test_optimizers_without_a_twin_are_said(tmp_path: Path) -> None:
    found = read(tmp_path, NETWORK + "--optimizer_type=DAdaptAdam")
    assert found.config["optimizer"] == "prodigy"
    said = ["optimizer_type = DAdaptAdam: prodigy here, which finds its learning rate in the same way"]
    assert found.no_equal == said
    found = read(tmp_path, NETWORK + "--optimizer_type=PagedAdamW8bit")
    assert found.config["optimizer"] == "adamw8bit" and found.no_equal == []


def test_waves_of_schedulers_that_fall_once_here(tmp_path: Path) -> None:
    for name, listed in (("cosine_with_min_lr", True), ("warmup_stable_decay", True), ("cosine_with_restarts", False)):
        found = read(tmp_path, NETWORK + f"--lr_scheduler={name} --lr_scheduler_num_cycles=2")
        said = ["lr_scheduler_num_cycles = 2: it falls once here"] if listed else []
        assert found.no_equal == said and found.config["lr_scheduler_cycles"] == (1 if listed else 2)


ODD: list[Any] = [
    "", "0", "-1", "1e999", "nan", "x", "True", "None", "512,512", "a=b", "9" * 60, "\u00bd", "\x1b[0m", "10%", "[1,2]",
    "(1,", "betas=(0.9,0.9)", "block_dims=1,2", "algo=loha", "data.toml", "Adafactor", "lycoris.kohya",
    "a" * 3000, None, True, 0, 1e308, 10**30, [1], {"a": 1},
]  # fmt: skip


@pytest.mark.parametrize("kind", ["a.sh", "a.bat", "a.ps1", "a.json", "a.toml"])
def test_no_odd_value_is_a_fault_of_the_program(kind: str, tmp_path: Path) -> None:
    names, random = [*OPTIONS, *FIELDS], Random(kind)
    (tmp_path / "data.toml").write_text('[[datasets]]\nbatch_size = "a"\n[[datasets.subsets]]\nis_reg = 3\n')
    for _ in range(60):
        chosen = {name: random.choice(ODD) for name in random.sample(names, random.randint(0, 20))}
        if kind == "a.json":
            text = json.dumps({"LoRA_type": "LyCORIS/LoKr", **chosen})
        elif kind == "a.toml":
            plain = {name: value for name, value in chosen.items() if not isinstance(value, dict | None)}
            text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in plain.items())
        else:
            text = f"{NETWORK} " + " ".join(f"--{name}={value}" for name, value in chosen.items())
            place = random.randrange(len(text))
            text = text[:place] + random.choice("\"'`$%^&|(){}<>\n\\@#;=") + text[place:]
        try:
            assert read(tmp_path, text, kind).toml
        except MaquetteError as error:
            assert "\n" not in str(error)
