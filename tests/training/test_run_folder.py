"""A run folder from a broken disk or a stranger: every file of it absent, empty, cut, garbled, forged, linked.

One tiny run is made and copied. What must be refused changes nothing in the folder; what may go on says what it found.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.events import Event
from maquette.formats import safetensors
from maquette.parsing import read_object
from maquette.report.samples import drawn
from maquette.run_folder import RunFolder
from maquette.stages import train
from maquette.training import resuming, state
from maquette.training.environment import began_on
from maquette.training.job import Job
from maquette.training.preparing import prepare
from tests.training.interrupted import SETTINGS, make_photos

VALUES = {
    **SETTINGS, "steps": 4, "save_every_steps": 2, "keep_last": 0, "keep_steps": [], "keep_state": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with both of its states."""
    folder = tmp_path_factory.mktemp("whole")
    make_photos(folder / "photos")
    train.run(TrainConfig.parse({**VALUES, "photos": folder / "photos", "out": folder / "disc"}))
    return folder / "disc"


@pytest.fixture(scope="module")
def job(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The same run made ready again."""
    return prepare(TrainConfig.read(whole / "run.toml"), tmp_path_factory.mktemp("cache"), lambda *_: None)


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "disc"))


def absent(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbled(path: Path) -> None:
    path.write_bytes(b"\x93\xff{[\x00" * 40)


def zeros(path: Path) -> None:
    """What some file systems leave after a power cut."""
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES = [absent, empty, cut, garbled, zeros]


def holding(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text)

    write.__name__ = text[:20]
    return write


STRANGE = [
    holding(text)
    for text in ("[]", "null", '{"version": 1}', "[" * 100_000, '{"version":1,"step":4,"files":[],"loss_scale":{}}',
                 '{"version":1,"step":"x","files":{},"loss_scale":{}}', '{"version":true,"step":4,"files":{}}',
                 '{"version":1,"step":4,"files":{"../../../disc.safetensors":"0"}}')
]  # fmt: skip


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def refusal(run: Path, changes: dict[str, Any] | None = None) -> str:
    """The sentence with which a resume is refused, nothing having changed."""
    before = contents(run)
    with pytest.raises(MaquetteError) as error:
        train.resume(run, changes)
    assert contents(run) == before
    return str(error.value)


def resumed(run: Path, **changes: Any) -> tuple[train.TrainResult, list[str]]:
    """The result of going on, and the warnings."""
    events: list[Event] = []
    result = train.resume(run, changes, events.append)
    return result, [event.data["message"] for event in events if event.kind == "warning"]


@pytest.mark.parametrize("damage", [*DAMAGES, *STRANGE], ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", ["manifest.json", "adapter.safetensors", "optimizer.json", "average.safetensors"])
def test_a_damaged_state_is_named_and_the_one_before_is_used(
    name: str, damage: Callable[[Path], None], run: Path
) -> None:
    damage(run / "state/000004" / name)
    start = resuming.find_start(RunFolder(run), resuming.read_config(RunFolder(run)), 4)
    assert start.step == 2 and start.state == run / "state/000002"
    assert len(start.notes) == 1 and f"state/000004/{name}" in start.notes[0]
    assert start.notes[0].endswith("goes on from the state of step 2.")


@pytest.mark.parametrize("damage", [shutil.rmtree, *DAMAGES], ids=lambda d: d.__name__)
def test_without_a_whole_state_nothing_starts_again(damage: Callable[[Path], None], run: Path) -> None:
    if damage is shutil.rmtree:
        shutil.rmtree(run / "state")
    else:
        for file in run.glob("state/*/adapter.safetensors"):
            damage(file)
    for changes in ({}, {"steps": 9}):
        told = refusal(run, changes)
        assert told.startswith(f"No whole state is left in {run}") and "Nothing was changed" in told
        assert f"--config {run / 'run.toml'} --set from_lora={run / 'disc.safetensors'} --out" in told
    (run / "disc.safetensors").unlink()
    assert f"from_lora={run / 'checkpoints/disc-000004.safetensors'}" in refusal(run)
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "samples")
    if damage is shutil.rmtree:  # metrics alone tell that there had been states
        assert "No whole state is left" in refusal(run)


def test_the_remedy_works(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "state")
    config = TrainConfig.read(
        run / "run.toml", from_lora=run / "disc.safetensors", out=tmp_path / "again", steps=1, sample_prompts=[]
    )
    assert train.run(config).status == "finished"


def test_a_run_killed_before_its_first_save_starts_again_and_says_so(run: Path, whole: Path) -> None:
    for name in ("state", "checkpoints", "samples"):
        shutil.rmtree(run / name)
    for file in run.glob("disc.*"):
        file.unlink()
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().split("\n")[0] + "\n")
    half = run / "state/000002"  # the kill came while the first state was written
    half.mkdir(parents=True)
    (half / "adapter.safetensors").write_bytes(b"half")
    result, warnings = resumed(run)
    assert warnings == ["No step had been saved yet: the run starts again at step 1."] and result.start == 0
    assert (run / "disc.safetensors").read_bytes() == (whole / "disc.safetensors").read_bytes()


def edited(key: str, value: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        lines = path.read_text().splitlines()
        assert any(line.startswith(f"{key} = ") for line in lines)
        path.write_text(
            "".join(f"{key} = {value}\n" if line.startswith(f"{key} = ") else line + "\n" for line in lines)
        )

    write.__name__ = key
    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (absent, r"has no run\.toml, which says what is trained"),
        (empty, r"run\.toml is empty"),
        (zeros, r"run\.toml is empty"),
        (garbled, r"its run\.toml is damaged: .*run\.toml"),
        (cut, r"run\.toml (has been cut short|is damaged)"),
        (holding('subject = "zkw"\n'), r"its run\.toml is damaged: .*lacks 'photos'"),
        (holding('photos = "p"\nsteps = 4\nbatch_size = 2\nlearning_rate = 1.0\n'), r"run\.toml has been cut short"),
        (holding("photos = 1\n"), r"its run\.toml is damaged: .*photos"),
        (edited("rank", "4"), r"000004 was not written under the settings of .*run\.toml \(other: rank\)"),
        (edited("seed", "4"), r"\(other: seed\)"),
    ],
)
def test_a_damaged_configuration_is_refused(damage: Callable[[Path], None], message: str, run: Path) -> None:
    import re

    damage(run / "run.toml")
    assert re.search(message, refusal(run))


def test_a_configuration_cut_anywhere_is_refused(run: Path) -> None:
    text = (run / "run.toml").read_bytes()
    for line in range(text.count(b"\n")):
        kept = b"".join(text.splitlines(keepends=True)[:line])
        (run / "run.toml").write_bytes(kept)
        with pytest.raises(MaquetteError, match=r"run\.toml"):
            resuming.read_config(RunFolder(run))


@pytest.mark.parametrize(
    "entry",
    ["run.toml", "dataset.json", "computer.json", "metrics.jsonl", "events.jsonl", "stop", ".lock", "report.html",
     "disc.safetensors",
     "disc.json", "disc.png", "state", "state/000004", "state/000004/manifest.json", "state/000000", "checkpoints",
     "samples", "checkpoints/disc-000002.safetensors", "samples/000002", "samples/000002/0.png", "tensorboard",
     "wandb.id"],
)  # fmt: skip
def test_nothing_is_read_or_written_through_a_link(entry: str, run: Path, tmp_path: Path) -> None:
    place, outside = run / entry, tmp_path / "outside"
    if place.exists():
        place.rename(outside)
    else:
        outside.mkdir()
    place.symlink_to(outside)
    kept = contents(outside) if outside.is_dir() else outside.read_bytes()
    with pytest.raises(MaquetteError, match=rf"{place} is a link.*Nothing was changed"):
        train.resume(run)
    assert (contents(outside) if outside.is_dir() else outside.read_bytes()) == kept


@pytest.mark.parametrize("entry", ["metrics.jsonl", "state/000004/optimizer.json", "samples/000002/prompts.json"])
def test_a_pipe_is_refused_unread(entry: str, run: Path) -> None:
    (run / entry).unlink()
    os.mkfifo(run / entry)
    with pytest.raises(MaquetteError, match=f"{entry} is no plain file"):
        train.resume(run)


@pytest.mark.parametrize("name", ["9abc", "12", "000004 (copy)", "٠٠٠٠٠٤", "9" * 30])
def test_what_is_no_state_among_the_states_is_refused(name: str, run: Path) -> None:
    (run / "state" / name).mkdir()
    assert f"{run / 'state' / name} is no state that a run writes" in refusal(run, {"steps": 9})


@pytest.mark.parametrize(("entry", "message"), [("metrics.jsonl", "is a folder, not a file"), ("state", "is a file")])
def test_files_and_folders_are_not_mixed_up(entry: str, message: str, run: Path) -> None:
    place = run / entry
    if place.is_dir():
        shutil.rmtree(place)
        place.write_text("")
    else:
        place.unlink()
        place.mkdir()
    assert f"{place} {message}" in refusal(run)


def test_a_new_run_takes_no_folder_with_a_linked_lock(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    (tmp_path / "disc").mkdir()
    (tmp_path / "disc/.lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(MaquetteError, match="is not empty"):
        RunFolder.create(tmp_path / "disc")
    with pytest.raises(MaquetteError, match=r"cannot be locked: .*\.lock"), RunFolder(tmp_path / "disc").locked():
        pass
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_read_only_run_is_in_use_only_where_somebody_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, whom no permission stops: so opening it for writing is what fails here."""
    folder = RunFolder(tmp_path / "disc")
    opened = Path.open

    def refuse_writing(self: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        if "+" in mode and self.name == ".lock":
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(self, mode, *args, **more)

    with folder.locked():
        monkeypatch.setattr(Path, "open", refuse_writing)
        assert folder.in_use()
    assert not folder.in_use()


def forge(run: Path, name: str, change: Callable[[Path], None]) -> Path:
    """Change a file of the last state, and its manifest so that it agrees."""
    folder = run / "state/000004"
    change(folder / name)
    told = read_object(folder / "manifest.json")
    told["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(told))
    found, faults = state.survey(RunFolder(run))
    assert found == (4, folder) and not faults
    return folder


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        values = {name: tensor.clone() for name, tensor in safetensors.load(path).items()}
        metadata = safetensors.read_metadata(path)
        change(values)
        safetensors.save(values, path, metadata)

    return rewrite


def numbers(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return rewrite


def first(values: dict[str, torch.Tensor], part: str) -> str:
    return next(name for name in values if part in name)


FORGED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a layer less": ("adapter.safetensors", tensors(lambda v: v.pop(first(v, "lora_up")))),
    "another shape": ("adapter.safetensors", tensors(lambda v: v.update({first(v, "lora_up"): torch.zeros(3)}))),
    "another type": ("adapter.safetensors", tensors(lambda v: v.update({k: t.half() for k, t in v.items()}))),
    "not finite": ("adapter.safetensors", tensors(lambda v: v[first(v, "lora_up")].fill_(float("nan")))),
    "an average less": ("average.safetensors", tensors(lambda v: v.pop("00000"))),
    "a short moment": (
        "optimizer.safetensors",
        tensors(lambda v: v.update({first(v, "exp_avg_sq"): torch.zeros(2)})),
    ),
    "an infinite moment": ("optimizer.safetensors", tensors(lambda v: v[first(v, "exp_avg")].fill_(float("inf")))),
    "a moment less": ("optimizer.safetensors", tensors(lambda v: v.pop(first(v, "exp_avg")))),
    "no groups": ("optimizer.json", numbers(lambda v: v.pop("param_groups"))),
    "a list": ("optimizer.json", holding("[]")),
    "a group more": ("optimizer.json", numbers(lambda v: v["param_groups"].append({"params": []}))),
    "a parameter less": ("optimizer.json", numbers(lambda v: v["param_groups"][0]["params"].pop())),
    "a rate in words": ("optimizer.json", numbers(lambda v: v["param_groups"][0].update(lr="fast"))),
    "an infinite decay": ("optimizer.json", numbers(lambda v: v["param_groups"][0].update(weight_decay=float("inf")))),
    "one beta": ("optimizer.json", numbers(lambda v: v["param_groups"][0].update(betas=[0.9]))),
    "a state for nobody": ("optimizer.json", numbers(lambda v: v["state"].update({"-1": {}}))),
    "a state in words": ("optimizer.json", numbers(lambda v: v["state"]["0"].update(step="x"))),
    "a state that is a list": ("optimizer.json", numbers(lambda v: v.update(state=[]))),
}


@pytest.mark.parametrize("fault", FORGED)
def test_a_forged_state_that_is_whole_is_refused_before_anything_is_changed(fault: str, run: Path, job: Job) -> None:
    name, change = FORGED[fault]
    folder = forge(run, name, change)
    before = {key: tensor.clone() for key, tensor in job.attached.state().items()}
    with pytest.raises(MaquetteError, match=rf"{folder}/.* (does not fit this run|cannot|is )"):
        state.load(folder, job.attached, job.optimizer, job.ema, job.scaler)
    assert all(torch.equal(before[key], tensor) for key, tensor in job.attached.state().items())
    assert not job.optimizer.state


def test_a_forged_loss_scale_and_count_are_refused(run: Path, job: Job) -> None:
    folder = run / "state/000004"
    told = read_object(folder / "manifest.json")
    (folder / "manifest.json").write_text(json.dumps(told | {"loss_scale": {"scale": "big", "good": 0}}))
    with pytest.raises(MaquetteError, match=r"manifest\.json does not fit this run"):
        state.load(folder, job.attached, job.optimizer, job.ema, job.scaler)
    safetensors.save(safetensors.load(folder / "average.safetensors"), folder / "copy.safetensors", {"count": "9e9"})
    os.replace(folder / "copy.safetensors", folder / "average.safetensors")
    with pytest.raises(MaquetteError, match=r"average\.safetensors does not fit this run"):
        state.load(folder, job.attached, job.optimizer, job.ema, job.scaler)


def contents_notes(run: Path, job: Job) -> list[str]:
    start = resuming.find_start(RunFolder(run), resuming.read_config(RunFolder(run)), 4)
    return list(resuming.refuse_other_contents(RunFolder(run), start, job))


@pytest.mark.parametrize(
    "damage", [*DAMAGES, holding("[]"), holding('{"photos": {}}'), holding('{"photos": [1]}')], ids=lambda d: d.__name__
)
def test_a_damaged_list_of_photos_is_written_anew_where_the_state_proves_them(
    damage: Callable[[Path], None], run: Path, job: Job
) -> None:
    damage(run / "dataset.json")
    notes = contents_notes(run, job)
    assert len(notes) == 1 and "dataset.json is" in notes[0] and notes[0].endswith("it is written anew.")
    for place in run.glob("state/*/manifest.json"):  # of a version that did not tell
        place.write_text(json.dumps({k: v for k, v in read_object(place).items() if k != "run"}))
    with pytest.raises(MaquetteError, match="Whether the photos are those of the run cannot be told"):
        contents_notes(run, job)


def test_photos_and_base_must_be_those_of_the_state(run: Path, job: Job) -> None:
    assert contents_notes(run, job) == []
    place = run / "state/000004/manifest.json"
    told = read_object(place)
    for key, message in [("photos", "The photos have changed since"), ("base", r"The base is not the one .*pocket")]:
        place.write_text(json.dumps(told | {"run": told["run"] | {key: "0" * 64}}))
        with pytest.raises(MaquetteError, match=message):
            contents_notes(run, job)
    place.write_text(json.dumps(told | {"run": told["run"] | {"settings": {"rank": 3}}}))
    with pytest.raises(MaquetteError, match=r"was not written under the settings .*other: .*rank"):
        contents_notes(run, job)


@pytest.mark.parametrize("damage", [empty, cut, garbled, zeros, holding("[]"), holding('{"threads": "2"}')])
def test_a_damaged_note_on_the_computer_is_told(damage: Callable[[Path], None], run: Path) -> None:
    damage(run / "computer.json")
    known, notes = began_on(run / "computer.json")
    assert known == {} and len(notes) == 1 and "computer.json is" in notes[0] and "cannot be told" in notes[0]


def test_only_whole_lines_of_metrics_are_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    numbers = ['{"step": "1"}', '{"step": -1}', '{"loss": 1}', '{"step": 1e3}', '{"step": 1, "loss": "<b>"}']
    broken = ["[]", '"x"', "[" * 100_000, '{"step": 9, "lo', "\x00\x00", "", '{"step": 1, "loss": ' + "9" * 400 + "}"]
    strange = [*numbers, *broken]
    good = ['{"step": 1, "loss": 0.5}', '{"step": 2, "loss": NaN}', '{"step": 3, "loss": 0.25}']
    folder.metrics.write_text("\n".join([good[0], *strange, *good[1:]]))
    assert [line["step"] for line in folder.read_metrics()] == [1, 2, 3]


@pytest.mark.parametrize("damage", [*DAMAGES, holding("[1]"), holding('{"a": 1}'), holding("[" * 100_000)])
@pytest.mark.parametrize("name", ["prompts.json", "0.png"])
def test_damaged_sample_pictures_count_as_not_drawn(name: str, damage: Callable[[Path], None], run: Path) -> None:
    assert drawn(run / "samples/000002") == ["a photo of zkw disc"]
    damage(run / "samples/000002" / name)
    assert drawn(run / "samples/000002") == []


def test_what_can_be_made_again_is_and_the_file_is_the_same(run: Path, whole: Path) -> None:
    """One resume with every mendable fault at once."""
    cut(run / "state/000004/optimizer.safetensors")
    garbled(run / "checkpoints/disc-000002.safetensors")
    empty(run / "samples/000000/prompts.json")
    cut(run / "samples/000002/0.png")
    empty(run / "computer.json")
    absent(run / "dataset.json")
    (run / "metrics.jsonl").write_text("")
    for name in ("state/abc", "samples/9abc", "samples/12", "checkpoints/x-0099999999999999999999.safetensors"):
        (run / name).mkdir()
        (run / name / "mine.txt").write_text("precious")
    result, warnings = resumed(run)
    assert result.start == 2 and len(warnings) == 4
    assert "state/000004/optimizer.safetensors is damaged" in warnings[0] or "damaged" in warnings[1]
    assert any("metrics.jsonl lacks 2 of the first 2 steps" in message for message in warnings)
    kept = ("disc.safetensors", "disc.json", "disc.png", "dataset.json", "checkpoints/disc-000002.safetensors")
    for name in (*kept, "samples/000002/0.png", "samples/000000/prompts.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert len(list(run.rglob("mine.txt"))) == 4


def test_a_hostile_list_of_photos_does_not_reach_the_report(run: Path) -> None:
    script = "<script>document.title='X'</script>"
    told = json.loads((run / "dataset.json").read_text())
    for photo in told["photos"]:
        photo["size"] = [script, 1]
    (run / "dataset.json").write_text(json.dumps(told))
    resumed(run)
    assert script not in (run / "report.html").read_text() and script not in (run / "dataset.json").read_text()


def test_a_state_that_lacks_a_moment_is_named_at_the_first_step(run: Path) -> None:
    folder = forge(run, "optimizer.json", numbers(lambda v: [entry.pop("exp_avg") for entry in v["state"].values()]))
    with pytest.raises(
        MaquetteError, match=rf"The first step from {folder} failed \(.*exp_avg.*\): that state does not"
    ):
        train.resume(run, {"steps": 5})


def test_a_place_where_no_folder_can_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the cache beside it, whose remedy would be another one."""
    (file := tmp_path / "notes.txt").write_text("")
    with pytest.raises(MaquetteError) as told:
        RunFolder.refuse_taken(file / "runs" / "disc")
    remedy = f"so {file / 'runs' / 'disc'} cannot be made; give the run another folder with --out."
    assert str(told.value) == f"{file} is a file, {remedy}"
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(MaquetteError) as told:
        RunFolder.refuse_taken(tmp_path / "disc")
    assert str(told.value).startswith(f"{tmp_path} cannot be written, so ")
