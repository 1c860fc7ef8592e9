"""Training on the pocket base, a few steps at a time."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import maquette
from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.events import Event
from maquette.families import load
from maquette.formats import safetensors
from maquette.run_folder import RunFolder
from maquette.stages import train
from maquette.training import state
from maquette.training.job import Job
from maquette.training.notices import notices
from maquette.training.preparing import prepare
from tests.training import direct

COLOURS = {"red": (220, 40, 40), "blue": (50, 80, 220), "green": (50, 170, 70)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photos of a yellow disc, of two shapes, with captions."""
    folder = tmp_path_factory.mktemp("photos")
    y, x = np.mgrid[0:96, 0:96]
    for i in range(5):
        name, colour = list(COLOURS.items())[i % 3]
        pixels = np.full((96, 96, 3), colour, np.uint8)
        pixels[(x - 30 - 8 * i) ** 2 + (y - 48) ** 2 < 22**2] = (240, 220, 60)
        Image.fromarray(pixels[: 96 if i < 3 else 64]).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"a photo of zkw disc on a {name} background")
    return folder


SMALL = {"subject": "zkw disc", "sample_prompts": [], "batch_size": 2, "steps": 4, "rank": 2, "dtype": "fp32"}


def config(photos: Path, out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.parse({"photos": photos, "out": out, **SMALL, **changes})


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_complete_files(photos: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    result = train.run(config(photos, tmp_path / "disc", save_every_steps=2), events.append)
    run = tmp_path / "disc"
    assert result.status == "finished" and result.step == 4 and result.file == str(run / "disc.safetensors")
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [
        "disc-000002.safetensors",
        "disc-000004.safetensors",
    ]
    header = safetensors.read_header(run / "disc.safetensors")
    assert len([k for k in header.tensors if k.endswith(".alpha")]) == len(header.tensors) / 3 > 50
    facts = header.metadata
    assert facts["ss_output_name"] == "disc" and facts["modelspec.trigger_phrase"] == "zkw disc"
    assert facts["ss_base_model_version"] == "maquette_pocket" and facts["modelspec.prediction_type"] == "v"
    assert facts["sshs_model_hash"] == safetensors.body_sha256(run / "disc.safetensors")
    assert str(tmp_path) not in json.dumps(facts) and str(photos) not in json.dumps(facts)
    assert safetensors.read_metadata(run / "checkpoints/disc-000002.safetensors")["ss_output_name"] == "disc-000002"
    sidecar = json.loads((run / "disc.json").read_text())
    assert sidecar["activation text"] == "zkw disc" and sidecar["sd version"] == "Unknown"
    assert sidecar["preferred weight"] == 0.8  # as in the report
    kinds = [event.kind for event in events]
    assert kinds.count("metric") == 4 and kinds.count("saved") == 3 and kinds[-1] == "done"
    report = (run / "report.html").read_text()
    assert "maquette generate" in report and "&lt;lora:disc:0.8&gt;" in report and "<svg" in report
    assert len(json.loads((run / "dataset.json").read_text())["photos"]) == 5


def test_the_adapter_moves_and_the_loss_is_that_of_the_base_at_first(photos: Path, tmp_path: Path) -> None:
    train.run(config(photos, tmp_path / "a"))
    train.run(config(photos, tmp_path / "b", learning_rate=1e-9))
    assert losses(tmp_path / "a")[0] == losses(tmp_path / "b")[0]
    moved = safetensors.load(tmp_path / "a/a.safetensors")
    assert max(t.abs().max().item() for k, t in moved.items() if "lora_up" in k) > 1e-3


def test_same_seed_same_bytes_other_seed_other_bytes(photos: Path, tmp_path: Path) -> None:
    files = []
    for folder, seed in (("1", 7), ("2", 7), ("3", 8)):
        train.run(config(photos, tmp_path / folder / "disc", seed=seed))
        files.append((tmp_path / folder / "disc/disc.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


VARIANTS: list[dict[str, Any]] = [
    {},
    {"optimizer": "adafactor", "ema_decay": 0.9, "flip_aug": True, "caption_dropout": 0.5, "buckets": True},
    {
        "optimizer": "adafactor",
        "optimizer_args": {"scale_parameter": True, "relative_step": True, "beta1": 0.9},
        "lr_scheduler": "stable-decay",
        "warmup_steps": 0.25,
        "decay_steps": 0.5,
        "input_perturbation": 0.1,
        "input_perturbation_random": True,
    },
    {"optimizer": "lion", "method": "dora", "dropout": 0.2, "rank_dropout": 0.2, "text_encoder": True},
    {"optimizer": "prodigy", "learning_rate": 1.0, "method": "locon", "noise_offset": 0.1, "dtype": "bf16"},
    {"optimizer": "sgd", "method": "dreambooth", "text_encoder": True, "learning_rate": 0.01, "reg": "itself"},
    {
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "lr_scheduler": "inverse-sqrt",
        "scale_v_pred_loss_like_noise_pred": True,
    },
    {"optimizer": "schedule-free-radam", "optimizer_args": {"silent_sgd_phase": False}, "lr_scheduler": "cosine"},
    {"optimizer": "schedule-free-sgd", "learning_rate": 0.1, "optimizer_args": {"warmup_steps": 3}},
    {"optimizer": "schedule-free-adamw", "prior_preservation": True, "gradient_accumulation": 2},
    {
        "method": "loha",
        "module_dropout": 0.3,
        "rank_dropout": 0.2,
        "input_perturbation": 0.1,
        "shuffle_captions": True,
        "tag_dropout": 0.2,
    },
    {
        "method": "lokr",
        "lokr_factor": 2,
        "dropout": 0.1,
        "rank_dropout": 0.2,
        "pyramid_noise_levels": 3,
        "lr_scheduler": "restarts",
        "prior_preservation": True,
    },
    {
        "method": "textual-inversion",
        "num_vectors": 2,
        "ema_decay": 0.5,
        "noise_offset": 0.1,
        "noise_offset_random": True,
    },
    {"method": "pivotal", "num_vectors": 2, "lora_plus_ratio": 4.0, "warmup_steps": 2, "scale_weight_norms": 0.01},
    {"dtype": "fp16", "batch_size": 1, "text_encoder": True},
    {"optimizer": "adafactor", "method": "loha", "rank": 1, "dtype": "fp32"},  # a sum of a column of one number
    {"optimizer": "adamw8bit", "rank": 16},  # whose small tensors stay 32-bit
]


@pytest.mark.parametrize(
    "changes", VARIANTS, ids=lambda c: c.get("optimizer", c.get("method", c.get("dtype", "plain")))
)
def test_stopped_and_resumed_is_byte_identical(changes: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    """Stopped as another thread would do it: the plain run twice, after steps 1 and 3, the others after step 2."""
    if changes.get("optimizer", "").startswith(("prodigy", "schedule-free")):
        pytest.importorskip("pytorch_optimizer")
    if changes.get("optimizer") == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    if "reg" in changes:
        changes = {**changes, "reg": photos}
    stops = (2,) if changes else (1, 3)
    changes = {"save_every_steps": 4, "steps": stops[-1] + 1, **changes}
    whole = train.run(config(photos, tmp_path / "whole/disc", **changes))
    run = tmp_path / "parts/disc"

    def stop_after(step: int, cancel: threading.Event) -> Callable[[Event], None]:
        return lambda event: cancel.set() if event.kind == "metric" and event.data["step"] == step else None

    cancel = threading.Event()
    first = train.run(config(photos, run, **changes), stop_after(stops[0], cancel), cancel)
    assert first.status == "stopped" and first.step == stops[0] and first.file is None
    for step in stops[1:]:
        cancel = threading.Event()
        assert train.resume(run, None, stop_after(step, cancel), cancel).step == step
    last = train.resume(run)
    assert last.status == "finished" and whole.file and last.file
    assert Path(whole.file).read_bytes() == Path(last.file).read_bytes()
    assert losses(tmp_path / "whole/disc") == losses(run)


@pytest.mark.parametrize("inside", [False, True], ids=["file", "folder"])
def test_a_run_goes_on_from_any_folder(
    inside: bool, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Base and VAE were named as seen from another one."""
    maquette.convert("pocket", to="diffusers-dir", out=tmp_path / "models" / "small")
    maquette.convert("pocket", to="single-file", out=tmp_path / "models" / "small.safetensors")
    monkeypatch.chdir(tmp_path / "models" / ("small" if inside else ""))
    base, vae = (".", "vae") if inside else ("small.safetensors", "small/vae")
    values = {"base": base, "vae": vae, "save_every_steps": 2}
    whole = train.run(config(photos, tmp_path / "one" / "disc", **values))
    assert f"--base {base} --lora-dir" in (tmp_path / "one/disc/report.html").read_text()
    begun = config(photos, tmp_path / "two" / "disc", **values)
    stop = maquette.events.Cancel()
    train.run(begun, lambda event: stop.set() if event.data.get("step") == 2 else None, stop)
    monkeypatch.chdir(tmp_path)
    resumed = train.resume(begun.out)
    assert resumed.start == 2 and resumed.file and whole.file
    assert Path(resumed.file).read_bytes() == Path(whole.file).read_bytes()
    assert safetensors.read_metadata(whole.file)["ss_sd_model_name"] == ("small" if inside else base)


def test_a_broken_state_is_passed_over(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "disc"
    train.run(config(photos, run, save_every_steps=1, keep_state=True))
    before = (run / "disc.safetensors").read_bytes()
    with (run / "state/000004/optimizer.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    found = state.latest(RunFolder(run))
    assert found is not None and found[0] == 3
    result = train.resume(run)
    assert result.file and Path(result.file).read_bytes() == before


def test_steps_may_be_changed_on_resume_and_other_things_not(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "disc"
    train.run(config(photos, run, keep_state=True))
    warnings: list[str] = []
    result = train.resume(
        run, {"steps": 6}, lambda e: warnings.append(e.data["message"]) if e.kind == "warning" else None
    )
    assert result.step == 6 and warnings == [
        "The run now ends at step 6: from step 4 the learning rate follows that length."
    ]
    with pytest.raises(MaquetteError, match=r"A resumed run cannot change 'rank', only .*steps"):
        train.resume(run, {"rank": 4})


def test_a_run_from_a_file_goes_on_without_it(photos: Path, tmp_path: Path) -> None:
    first = train.run(config(photos, tmp_path / "first", steps=1))
    assert first.file
    kept = tmp_path / "begin.safetensors"
    kept.write_bytes(Path(first.file).read_bytes())
    whole = train.run(config(photos, tmp_path / "whole/disc", from_lora=kept))
    cancel = threading.Event()
    cancel.set()
    train.run(config(photos, tmp_path / "parts/disc", from_lora=kept), cancel=cancel)
    kept.unlink()
    last = train.resume(tmp_path / "parts/disc")
    assert whole.file and last.file and Path(whole.file).read_bytes() == Path(last.file).read_bytes()
    assert TrainConfig.read(tmp_path / "parts/disc/run.toml").from_lora == kept


def test_resume_refuses_other_photos(photos: Path, tmp_path: Path) -> None:
    copy = tmp_path / "photos"
    copy.mkdir()
    for file in photos.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    train.run(config(copy, tmp_path / "disc"))
    (copy / "0.txt").write_text("another caption")
    with pytest.raises(MaquetteError, match=r"The photos have changed since .*\(0\.png\)"):
        train.resume(tmp_path / "disc", {"steps": 5})


def test_a_taken_folder_is_refused_before_any_work(photos: Path, tmp_path: Path) -> None:
    train.run(config(photos, tmp_path / "disc", steps=1))
    with pytest.raises(MaquetteError, match="already holds a run"):
        train.run(config(photos / "missing", tmp_path / "disc"))


@pytest.mark.parametrize("late", [False, True])
def test_loss_that_is_not_finite_is_skipped_once_then_stops(photos: Path, tmp_path: Path, late: bool) -> None:
    """late: steps are checked while the next is at work, as on CUDA."""
    calls, bad = [0], {1}

    def poison(job: Job) -> None:
        real = job.gradients

        def gradients(step: int) -> tuple[torch.Tensor, Any]:
            calls[0] += 1
            loss, batches = real(step)
            return (loss * float("nan") if calls[0] - 1 in bad else loss), batches

        job.gradients = gradients  # type: ignore[method-assign]

    warnings: list[str] = []

    def listen(event: Event) -> None:
        if event.kind == "warning":
            warnings.append(event.data["message"])

    result = direct.run(config(photos, tmp_path / "once"), listen, poison, late)
    assert result.status == "finished" and len(warnings) == 1
    assert warnings[0].startswith("Step 2 was skipped") and ".png" in warnings[0]
    weights = safetensors.load(tmp_path / "once/once.safetensors")
    assert all(t.isfinite().all() for t in weights.values())
    calls[0], bad = 0, {2, 3}
    with pytest.raises(MaquetteError, match=r"not finite at steps 3 and 4 \(photos .*\.png"):
        direct.run(config(photos, tmp_path / "twice", steps=6, save_every_steps=6), change=poison, defer=late)
    found = state.latest(RunFolder(tmp_path / "twice"))
    assert found is not None and found[0] == (5 if late else 3)
    kept = safetensors.load(found[1] / "adapter.safetensors")
    assert all(t.isfinite().all() for t in kept.values())


def test_steps_checked_late_end_in_the_same_file_and_say_the_same(photos: Path, tmp_path: Path) -> None:
    told: list[list[Any]] = []
    for name in ("once", "late"):
        events: list[Event] = []
        options = config(photos, tmp_path / name / "disc", steps=5, save_every_steps=2)
        direct.run(options, events.append, defer=name == "late")
        metrics = [e.data for e in events if e.kind == "metric"]
        told.append([(m["step"], m["loss"], m["gradient_norm"], m["learning_rate"]) for m in metrics])
    files = [(tmp_path / name / "disc/disc.safetensors").read_bytes() for name in ("once", "late")]
    assert files[0] == files[1] and told[0] == told[1] and len(told[0]) == 5


def test_regularization_pictures_that_the_run_never_sees_are_reported(photos: Path, tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / "reg").mkdir(exist_ok=True)
        Image.new("RGB", (96, 96), (40 * number, 90, 90)).save(tmp_path / "reg" / f"{number}.png")
    events: list[Event] = []
    options = {"steps": 2, "reg": tmp_path / "reg", "prior_share": 0.5}
    train.run(config(photos, tmp_path / "disc", **options), events.append)
    told = [e.data["message"] for e in events if e.kind == "finding" and e.data["kind"] == "regularization"]
    assert told == [
        "5 regularization samples for 5 of photos: the whole run sees 2 of them, the others have no effect."
    ]


def test_zero_terminal_snr_is_warned_of_where_noise_is_predicted(photos: Path, tmp_path: Path) -> None:
    base = load("pocket")
    settings = config(photos, tmp_path / "disc", steps=1, zero_terminal_snr=True)
    assert not [message for message in notices(settings, base) if message.startswith("zero")]
    base.scheduler_config = base.scheduler_config | {"prediction_type": "epsilon"}
    assert [message[:31] for message in notices(settings, base) if message.startswith("zero")] == [
        "zero_terminal_snr with a base t"
    ]


def test_disk_without_room_stops_before_the_start(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(MaquetteError, match=r"has 0 MB left, the run needs \d+ MB"):
        train.run(config(photos, tmp_path / "disc"))


def test_keep_last_keeps_the_last(photos: Path, tmp_path: Path) -> None:
    train.run(config(photos, tmp_path / "disc", save_every_steps=1, keep_last=2))
    assert list(RunFolder(tmp_path / "disc").checkpoints()) == [3, 4]


def test_class_word_is_needed_for_prior_preservation(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match="needs the class word"):
        train.run(config(photos, tmp_path / "disc", subject=None, prior_preservation=True))


def test_dreambooth_makes_a_model_that_loads_and_draws(photos: Path, tmp_path: Path) -> None:
    from maquette import families

    settings = config(
        photos, tmp_path / "disc", method="dreambooth", steps=2, sample_prompts=["a photo of zkw disc"], sample_steps=2
    )
    result = train.run(settings)
    assert result.file
    before, after = families.load("pocket"), families.load(result.file)
    assert after.spec == before.spec and after.scheduler_config["prediction_type"] == "v_prediction"
    pairs = {n: (p, after.unet.get_parameter(n)) for n, p in before.unet.named_parameters()}
    assert all((a - b).abs().max() < 0.01 for a, b in pairs.values())
    assert sum(not torch.equal(a, b) for a, b in pairs.values()) > 100
    decoder = before.vae.state_dict()
    assert all(torch.equal(decoder[name], value) for name, value in after.vae.state_dict().items())
    assert (tmp_path / "disc/samples/000002/0.png").exists() and (tmp_path / "disc/disc.png").exists()
    assert f"--base {result.file}" in (tmp_path / "disc/report.html").read_text()


def test_sample_pictures_are_those_of_the_saved_file(photos: Path, tmp_path: Path) -> None:
    """generate, given the text inside a sample picture, draws the same picture."""
    from maquette.formats.png import parse_infotext, read_infotext
    from maquette.stages import generate

    prompts = ["a photo of zkw disc on a red background"]
    train.run(config(photos, tmp_path / "disc", sample_prompts=prompts, sample_steps=3, steps=2, dtype="bf16"))
    sample = tmp_path / "disc/samples/000002/0.png"
    facts = parse_infotext(read_infotext(sample))
    assert facts["Prompt"] == f"{prompts[0]} <lora:disc-000002:1>"
    drawn = generate.run(
        generate.GenerateConfig(
            prompt=facts["Prompt"], lora_dir=tmp_path / "disc", steps=int(facts["Steps"]), sampler=facts["Sampler"],
            cfg_scale=float(facts["CFG scale"]), seed=int(facts["Seed"]), out=tmp_path / "out",
        )
    )  # fmt: skip
    difference = np.abs(np.asarray(drawn.images[0], int) - np.asarray(Image.open(sample), int))
    assert difference.max() <= 1  # one prompt in a batch of one here, there as well; rounding only
    assert (tmp_path / "disc/samples/grid.png").exists()


def test_bad_photos_are_named_and_good_ones_used(fault_folder: Path, tmp_path: Path) -> None:
    result = train.run(config(fault_folder, tmp_path / "disc", steps=1))
    assert sorted(message.split()[0] for message in result.left_out) == [
        "empty.png", "moving.gif", "notes.jpg", "truncated.jpg",
    ]  # fmt: skip
    used = {photo["name"]: photo for photo in json.loads((tmp_path / "disc/dataset.json").read_text())["photos"]}
    assert {"cmyk.jpg", "sixteen.png", "palette.png", "turned.jpg"} <= set(used)
    assert used["turned.jpg"]["size"] == [80, 60]  # the right way up
    assert "truncated.jpg" in (tmp_path / "disc/report.html").read_text()


def test_a_mask_hides_the_rest_of_the_photo(tmp_path: Path) -> None:
    """A change outside the mask moves the loss less than the same kind of change inside it."""

    def first_loss(name: str, inside: object, outside: object, masked: bool = True) -> float:
        folder = tmp_path / name
        (folder / "masks").mkdir(parents=True)
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[:, :32], pixels[:, 32:] = inside, outside
        Image.fromarray(pixels).save(folder / "0.png")
        if masked:
            mask = np.zeros((64, 64), np.uint8)
            mask[:, :32] = 255
            Image.fromarray(mask).save(folder / "masks/0.png")
        out = tmp_path / f"{name}-run"
        train.run(config(folder, out, steps=1, min_timestep=200, max_timestep=201))
        return float(losses(out)[0])

    noise = np.random.default_rng(0).integers(0, 255, (64, 32, 3), dtype=np.uint8)
    plain = first_loss("plain", (240, 220, 60), (220, 40, 40))
    outside = first_loss("outside", (240, 220, 60), noise)
    inside = first_loss("inside", noise, (220, 40, 40))
    assert abs(outside - plain) < abs(inside - plain) / 2
    assert first_loss("open", (240, 220, 60), noise, masked=False) > outside


def test_a_data_set_file_sets_what_the_user_did_not(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "data.toml"
    file.write_text(
        "[[datasets]]\nresolution = 32\nbatch_size = 3\n"
        f'[[datasets.subsets]]\nimage_dir = "{photos}"\nnum_repeats = 2\n'
    )
    settings = {key: value for key, value in SMALL.items() if key != "batch_size"}
    train.run(TrainConfig.parse({**settings, "photos": file, "out": tmp_path / "disc", "steps": 1}))
    written = TrainConfig.read(tmp_path / "disc/run.toml")
    assert written.batch_size == 3 and written.resolution == 32
    assert json.loads((tmp_path / "disc/dataset.json").read_text())["photos"][0]["repeats"] == 2


def test_two_subjects_in_one_run_keep_their_words_and_repeats(photos: Path, tmp_path: Path) -> None:
    for folder, name in (("3_zkw disc", "0.png"), ("2_qrt Ball", "1.png"), ("2_qrt Ball", "4.png")):
        (tmp_path / "photos" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / folder / name).write_bytes((photos / name).read_bytes())
    options = {key: value for key, value in SMALL.items() if key != "subject"}
    assert train.run(TrainConfig.parse({**options, "photos": tmp_path / "photos", "out": tmp_path / "both"})).step == 4
    entries = json.loads((tmp_path / "both" / "dataset.json").read_text())["photos"]
    assert {(entry["caption"], entry["subject"], entry["repeats"]) for entry in entries} == {
        ("a photo of zkw disc", "zkw disc", 3),
        ("a photo of qrt Ball", "qrt Ball", 2),
    }
    assert len(losses(tmp_path / "both")) == 4


def test_several_resolutions_in_one_run_and_after_a_stop(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "data.toml"
    subset = f'[[datasets.subsets]]\nimage_dir = "{photos}"\nrandom_crop = true\n'
    file.write_text(
        "[[datasets]]\nresolution = 64\nenable_bucket = true\nbucket_no_upscale = true\nbucket_reso_steps = 16\n"
        f"{subset}"
        f"[[datasets]]\nresolution = [32, 48]\n{subset}"
    )
    run = tmp_path / "disc"
    settings = {**SMALL, "photos": file, "lr_scheduler": "constant", "keep_state": True}
    train.run(TrainConfig.parse({**settings, "out": run, "steps": 3}))
    entries = json.loads((run / "dataset.json").read_text())["photos"]
    assert [entry["bucket"] for entry in entries] == [[64, 64]] * 3 + [[80, 48]] * 2 + [[32, 48]] * 5
    assert TrainConfig.read(run / "run.toml").random_crop is True
    whole = tmp_path / "whole" / "disc"
    train.run(TrainConfig.parse({**settings, "out": whole, "steps": 6}))
    assert train.resume(run, {"steps": 6}).step == 6
    assert len(losses(run)) == 6 and losses(run) == losses(whole)


def test_an_editing_base_is_refused_by_name(photos: Path, tmp_path: Path) -> None:
    def with_eight_channels(*args: Any, **kwargs: Any) -> Any:
        base = load(*args, **kwargs)
        base.unet.config["in_channels"] = 8
        return base

    with pytest.raises(MaquetteError, match="pocket takes 8 channels"):
        prepare(config(photos, tmp_path / "disc"), tmp_path / "cache", lambda *_: None, load=with_eight_channels)
    assert not (tmp_path / "disc").exists()
