"""Training from a program: events, cancellation, trackers, and what the files tell other programs."""

import json
import os
import threading
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import maquette
from maquette.config import TrainConfig
from maquette.events import Event
from maquette.formats import safetensors
from maquette.run_folder import RunFolder
from maquette.training.trackers import following
from tests.training.interrupted import make_photos

VALUES: dict[str, Any] = {
    "subject": "zkw disc", "batch_size": 2, "rank": 2, "dtype": "fp32", "steps": 4, "sample_prompts": [],
}  # fmt: skip

# Written by Kohya's trainer for every LoRA (times, and the commit of its own program, aside).
KOHYA = [
    "session_id",
    "huber_scale",
    "validation_seed",
    "validation_split",
    "max_validation_steps",
    "validate_every_n_epochs",
    "validate_every_n_steps",
    "resize_interpolation",
    "output_name",
    "learning_rate",
    "text_encoder_lr",
    "unet_lr",
    "num_train_images",
    "num_validation_images",
    "num_reg_images",
    "num_batches_per_epoch",
    "num_epochs",
    "gradient_checkpointing",
    "gradient_accumulation_steps",
    "max_train_steps",
    "lr_warmup_steps",
    "lr_scheduler",
    "network_module",
    "network_dim",
    "network_alpha",
    "network_dropout",
    "network_args",
    "mixed_precision",
    "full_fp16",
    "v2",
    "base_model_version",
    "clip_skip",
    "max_token_length",
    "cache_latents",
    "seed",
    "lowram",
    "noise_offset",
    "multires_noise_iterations",
    "multires_noise_discount",
    "adaptive_noise_scale",
    "zero_terminal_snr",
    "training_comment",
    "optimizer",
    "max_grad_norm",
    "caption_dropout_rate",
    "caption_dropout_every_n_epochs",
    "caption_tag_dropout_rate",
    "face_crop_aug_range",
    "prior_loss_weight",
    "min_snr_gamma",
    "scale_weight_norms",
    "ip_noise_gamma",
    "debiased_estimation",
    "noise_offset_random_strength",
    "ip_noise_gamma_random_strength",
    "loss_type",
    "huber_schedule",
    "huber_c",
    "fp8_base",
    "fp8_base_unet",
    "steps",
    "epoch",
    "sd_model_name",
    "sd_model_hash",
    "new_sd_model_hash",
    "dataset_dirs",
    "reg_dataset_dirs",
    "tag_frequency",
    "bucket_info",
    "batch_size_per_device",
    "total_batch_size",
    "resolution",
    "color_aug",
    "flip_aug",
    "random_crop",
    "shuffle_caption",
    "enable_bucket",
    "bucket_no_upscale",
    "min_bucket_reso",
    "max_bucket_reso",
    "keep_tokens",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("program") / "secret-folder")


def test_events_tell_the_numbers_and_another_thread_can_stop(photos: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    cancel, second = threading.Event(), threading.Event()

    def listen(event: Event) -> None:
        events.append(event)
        if event.kind == "metric" and event.data["step"] == 2:
            second.set()

    def stop() -> None:
        second.wait()
        cancel.set()

    other = threading.Thread(target=stop)
    other.start()
    config = TrainConfig.parse({**VALUES, "photos": photos, "out": tmp_path / "disc", "steps": 5000})
    result = maquette.train(config, listen, cancel)
    other.join()
    assert result.status == "stopped" and 2 <= result.step < 5000 and result.file is None
    told = [event.data for event in events if event.kind == "metric"]
    assert [data["step"] for data in told] == list(range(1, result.step + 1))
    assert {"loss", "learning_rate", "images_per_second", "remaining_seconds", "steps"} <= told[-1].keys()
    last = told[-1]
    assert last["remaining_seconds"] == pytest.approx((5000 - last["step"]) * 2 / last["images_per_second"])
    saved = [event.data["path"] for event in events if event.kind == "saved"]
    assert saved == result.checkpoints and Path(saved[0]).exists()
    json.dumps([event.data for event in events])  # for programs that pass them on
    done = maquette.resume(result.run, steps=result.step + 1)
    assert done.status == "finished" and done.file and Path(done.file).exists()


def test_kept_checkpoints(photos: Path, tmp_path: Path) -> None:
    result = maquette.train(
        photos, out=tmp_path / "disc", **VALUES, save_every_steps=1, keep_last=1, keep_steps=[2], timestamps=True
    )
    assert [Path(file).stem for file in result.checkpoints] == ["disc-000002", "disc-000004"]
    assert "ss_training_finished_at" in safetensors.read_metadata(result.checkpoints[0])


def test_checkpoints_by_epochs(photos: Path, tmp_path: Path) -> None:
    """Three photos, two a step: epochs end in steps 2, 3, 5 and 6; every second one is saved, and the last step."""
    values = {**VALUES, "steps": 7, "save_every_epochs": 2}
    result = maquette.train(photos, out=tmp_path / "disc", **values)
    assert [Path(file).stem for file in result.checkpoints] == ["disc-000003", "disc-000006", "disc-000007"]
    again = maquette.resume(tmp_path / "disc", steps=9, save_every_steps=1)
    assert [Path(file).stem[-2:] for file in again.checkpoints] == ["03", "06", "07", "08", "09"]
    with pytest.raises(maquette.MaquetteError, match="give save_every_steps or save_every_epochs"):
        TrainConfig.parse({"photos": photos, "save_every_epochs": 1, "save_every_steps": 1})


def test_the_file_tells_what_kohyas_would_and_no_folder(photos: Path, tmp_path: Path) -> None:
    result = maquette.train(
        photos, out=tmp_path / "disc", **{**VALUES, "sample_prompts": ["zkw disc"], "sample_steps": 1, "steps": 1}
    )
    assert result.file
    facts = safetensors.read_metadata(result.file)
    assert [key for key in KOHYA if f"ss_{key}" not in facts] == []
    assert facts["sshs_model_hash"] == safetensors.body_sha256(result.file)
    assert facts["ss_batch_size_per_device"] == "2" and facts["ss_min_bucket_reso"].isdigit()
    everything = json.dumps(facts)
    assert "secret-folder" not in everything and str(tmp_path) not in everything
    card = json.loads(Path(result.file).with_suffix(".json").read_text())
    assert card["activation text"] == "zkw disc" and card["preferred weight"] == 0.8 and card["sd version"] == "Unknown"
    with Image.open(Path(result.file).with_suffix(".png")) as preview:
        assert preview.size == (64, 64)


def test_the_file_tells_of_repeats_tags_and_the_network(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    make_photos(photos / "5_zkw disc", 2)
    make_photos(photos / "1_zkw disc", 1)
    for file in photos.glob("*/*.txt"):
        file.write_text("zkw disc, yellow")
    make_photos(tmp_path / "reg", 2)
    values = {**VALUES, "steps": 1, "method": "dora", "reg": tmp_path / "reg", "timestamps": True, "batch_size": 4}
    result = maquette.train(photos, out=tmp_path / "disc", **values, gradient_accumulation=2)
    assert result.file
    facts = {key: value for key, value in safetensors.read_metadata(result.file).items() if key.startswith("ss_")}
    one, five = {"n_repeats": 1, "img_count": 1}, {"n_repeats": 5, "img_count": 2}
    assert json.loads(facts["ss_dataset_dirs"]) == {"1_zkw disc": one, "5_zkw disc": five}
    tags = {"yellow": 2, "zkw disc": 2}
    assert json.loads(facts["ss_tag_frequency"]) == {"1_zkw disc": {t: 1 for t in tags}, "5_zkw disc": tags}
    assert json.loads(facts["ss_reg_dataset_dirs"]) == {"class": {"n_repeats": 1, "img_count": 2}}
    assert (facts["ss_num_train_images"], facts["ss_num_reg_images"]) == ("11", "2")
    assert (facts["ss_total_batch_size"], facts["ss_batch_size_per_device"]) == ("4", "2")
    expected = {"algo": "lora", "preset": "attn-mlp", "dora_wd": "True", "wd_on_output": "False"}
    assert json.loads(facts["ss_network_args"]) == expected
    assert facts["ss_network_module"] == "lycoris.kohya"
    assert 0 <= float(facts["ss_training_finished_at"]) - float(facts["ss_training_started_at"]) < 600


class Tracked:
    """Stands for wandb and its run, and remembers."""

    __spec__ = ModuleSpec("wandb", None)  # other libraries ask whether wandb is there

    def __init__(self) -> None:
        self.begun: dict[str, Any] = {}
        self.logged: list[tuple[dict[str, Any], int]] = []
        self.finished = 0

    def init(self, **how: Any) -> "Tracked":
        self.begun = how
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished += 1

    @staticmethod
    def Image(path: str, caption: str) -> tuple[str, str]:
        return Path(path).name, caption


def test_deterministic_mode_lasts_as_long_as_the_run(photos: Path, tmp_path: Path) -> None:
    seen: list[tuple[bool, str | None]] = []

    def listen(event: Event) -> None:
        if event.kind == "metric":
            seen.append((torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))

    files = []
    for name, wanted in (("a", True), ("b", False)):
        result = maquette.train(photos, listen, out=tmp_path / name / "disc", **VALUES, deterministic=wanted)
        assert result.file
        files.append(safetensors.load(result.file))
    assert seen[0] == seen[3] == (True, ":4096:8") and seen[-1][0] is False
    assert not torch.are_deterministic_algorithms_enabled() and "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert all(torch.allclose(value, files[1][key]) for key, value in files[0].items())


def test_wandb_gets_numbers_pictures_and_no_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    tracked = Tracked()
    monkeypatch.setitem(sys.modules, "wandb", tracked)
    values = {**VALUES, "steps": 2, "sample_prompts": ["zkw disc"], "sample_steps": 1, "save_every_steps": 2}
    maquette.train(photos, out=tmp_path / "disc", **values, trackers=["wandb"])
    assert tracked.begun["name"] == "disc" and tracked.begun["config"]["rank"] == 2 and tracked.finished == 1
    assert "secret-folder" not in json.dumps(tracked.begun["config"])
    identity = tracked.begun["id"]
    lines = [json.loads(line) for line in (tmp_path / "disc/metrics.jsonl").open()]
    numbers = [(values["train/loss"], step) for values, step in tracked.logged if "train/loss" in values]
    assert numbers == [(line["loss"], line["step"]) for line in lines]
    assert [(values["samples"], step) for values, step in tracked.logged if "samples" in values][-1] == (
        [("0.png", "zkw disc")], 2,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="broken"):
        maquette.resume(tmp_path / "disc", _break, steps=3)
    assert tracked.finished == 2  # whatever happens
    assert tracked.begun["id"] == identity and tracked.begun["resume"] == "allow"


def test_wandb_is_not_told_where_models_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    tracked = Tracked()
    monkeypatch.setitem(sys.modules, "wandb", tracked)
    named = {"base": "b.ckpt", "vae": "v.ckpt", "from_lora": "l.safetensors", "reg": "reg", "out": "run"}
    values = {key: str(tmp_path / "secret-folder" / name) for key, name in named.items()}
    config = TrainConfig.parse({"photos": tmp_path / "secret-folder", **values, "trackers": ["wandb"]})
    with following(config, RunFolder.create(tmp_path / "run"), lambda event: None):
        pass
    assert tracked.begun["config"]["trackers"] == ["wandb"] and "secret-folder" not in json.dumps(tracked.begun)


def _break(event: Event) -> None:
    if event.kind == "metric":
        raise RuntimeError("broken")


def test_tensorboard_shows_what_the_metrics_file_has(photos: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    values = {**VALUES, "sample_prompts": ["zkw disc"], "sample_steps": 1, "trackers": ["tensorboard"]}
    maquette.train(photos, out=tmp_path / "disc", **values)
    maquette.resume(tmp_path / "disc", steps=6)
    found = accumulator.EventAccumulator(str(tmp_path / "disc/tensorboard"))
    found.Reload()
    lines = [json.loads(line) for line in (tmp_path / "disc/metrics.jsonl").open()]
    shown = found.Scalars("train/loss")
    assert [scalar.step for scalar in shown] == [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [scalar.value for scalar in shown] == pytest.approx([line["loss"] for line in lines])
    assert found.Tags()["images"] == ["zkw disc"]


def test_an_absent_tracker_is_named(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        maquette.MaquetteError, match=r"tracker wandb needs its package: pip install 'maquette-lora\[wandb\]'"
    ):
        maquette.train(photos, out=tmp_path / "disc", **VALUES, trackers=["wandb"])


def test_a_second_run_into_the_folder_is_refused_while_the_first_works(photos: Path, tmp_path: Path) -> None:
    refusals: list[str] = []

    def listen(event: Event) -> None:
        if event.kind == "metric" and not refusals:
            for attempt in (
                lambda: maquette.train(photos, out=tmp_path / "disc", **VALUES),
                lambda: maquette.resume(tmp_path / "disc"),
            ):
                with pytest.raises(maquette.MaquetteError) as fault:
                    attempt()
                refusals.append(str(fault.value))

    result = maquette.train(photos, listen, out=tmp_path / "disc", **VALUES)
    assert result.status == "finished"
    assert "already holds a run" in refusals[0] and "Another run is writing" in refusals[1]
