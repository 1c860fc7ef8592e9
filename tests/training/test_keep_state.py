"""What a finished run leaves of its state, and how longer training goes on with or without it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from maquette.cli.main import main
from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.events import Event
from maquette.formats.safetensors import file_sha256
from maquette.parsing import read_object
from maquette.run_folder import RunFolder
from maquette.stages import train
from maquette.training import resuming
from tests.training.interrupted import SETTINGS, make_photos

VALUES: dict[str, Any] = {
    **SETTINGS, "steps": 2, "sample_prompts": [], "keep_last": 0, "keep_steps": [], "ema_decay": 0.0,
    "lr_scheduler": "constant",
}  # fmt: skip


LAST = "checkpoints/disc-000002.safetensors"  # the run's own file may be an earlier one


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, as it is left by default."""
    folder = tmp_path_factory.mktemp("finished")
    make_photos(folder / "photos")
    train.run(TrainConfig.parse({**VALUES, "photos": folder / "photos", "out": folder / "disc"}))
    return folder / "disc"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "disc"))


def longer(run: Path, steps: int = 4) -> tuple[train.TrainResult, list[str]]:
    events: list[Event] = []
    result = train.resume(run, {"steps": steps}, events.append)
    told = [event.data["message"] for event in events if event.kind == "warning" and "finding" not in event.data]
    return result, told


def test_the_state_goes_and_longer_training_begins_from_the_file(run: Path, tmp_path: Path) -> None:
    assert [path.name for path in (run / "state").rglob("*")] == ["finished.json"]
    again = Path(shutil.copytree(run, tmp_path / "again/disc"))
    result, told = longer(run)
    assert result.status == "finished" and (result.start, result.step) == (2, 4)
    assert told == [
        f"The run had finished and kept no state: from step 2 on it is trained from {run / LAST}, "
        "whose weights are rounded, with a fresh optimizer. keep_state = true would have kept what is needed to go on "
        "exactly.",
        "The run now ends at step 4: from step 2 the learning rate follows that length.",
    ]
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").open()] == [1, 2, 3, 4]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "disc-000002.safetensors",
        "disc-000004.safetensors",
    ]
    assert TrainConfig.read(run / "run.toml").from_lora is None
    longer(again)
    assert (again / "disc.safetensors").read_bytes() == (run / "disc.safetensors").read_bytes()


def test_a_kept_state_goes_on_to_the_bytes_of_a_longer_run(finished: Path, tmp_path: Path) -> None:
    values = {**VALUES, "photos": finished.parent / "photos"}
    train.run(TrainConfig.parse({**values, "out": tmp_path / "long/disc", "steps": 4}))
    train.run(TrainConfig.parse({**values, "out": tmp_path / "disc", "keep_state": True}))
    assert sorted(path.name for path in (tmp_path / "disc/state").iterdir()) == ["000002"]
    _, told = longer(tmp_path / "disc")
    assert told == ["The run now ends at step 4: from step 2 the learning rate follows that length."]
    assert (tmp_path / "disc/disc.safetensors").read_bytes() == (tmp_path / "long/disc/disc.safetensors").read_bytes()
    assert sorted(path.name for path in (tmp_path / "disc/state").iterdir()) == ["000002", "000004"]


def start(run: Path, steps: int = 4) -> resuming.Start:
    return resuming.find_start(RunFolder(run), resuming.read_config(RunFolder(run)), steps)


def test_a_run_folder_may_have_been_renamed(run: Path) -> None:
    moved = run.rename(run.parent / "other")
    assert start(moved).file == moved / LAST
    assert longer(moved)[0].file == str(moved / "other.safetensors")


@pytest.mark.parametrize("name", ["../disc.safetensors", "/etc/passwd", "", 1, None, ["x"]])
def test_the_proof_names_a_file_of_the_folder(name: Any, run: Path) -> None:
    proof = run / "state/finished.json"
    proof.write_text(json.dumps(read_object(proof) | {"file": name}))
    with pytest.raises(MaquetteError, match=r"finished\.json is damaged"):
        start(run)


def test_a_finished_run_has_nothing_to_go_on_with(run: Path) -> None:
    with pytest.raises(MaquetteError, match=rf"has finished \(2 steps\), .*no whole state .*--resume {run} --steps 4"):
        train.resume(run)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"step": "2"}', b"\0\0\0", b'{"version": 1, "step": true, "run": {}}']
)
def test_a_damaged_proof_is_refused(content: bytes, run: Path) -> None:
    (run / "state/finished.json").write_bytes(content)
    with pytest.raises(MaquetteError, match=r"finished\.json (is damaged|is empty|is not)"):
        train.resume(run, {"steps": 4})


def test_the_file_must_be_the_one_that_the_run_wrote(run: Path, tmp_path: Path) -> None:
    final = run / LAST
    data = final.read_bytes()
    final.write_bytes(data[:-1] + b"\x55")
    with pytest.raises(MaquetteError, match=r"disc-000002\.safetensors is not as the run wrote it"):
        start(run)
    final.unlink()
    with pytest.raises(MaquetteError, match=r"disc-000002\.safetensors is missing"):
        start(run)
    final.write_bytes(data)
    shutil.rmtree(run / "state")  # then nobody says that the run had finished
    with pytest.raises(MaquetteError, match="No whole state is left"):
        start(run)


def test_settings_and_photos_must_be_those_of_the_finished_run(run: Path) -> None:
    proof = run / "state/finished.json"
    told = read_object(proof)
    proof.write_text(json.dumps(told | {"run": told["run"] | {"settings": told["run"]["settings"] | {"rank": 3}}}))
    with pytest.raises(MaquetteError, match=r"not written under the settings of .*\(other: rank\)"):
        start(run)
    proof.write_text(json.dumps(told | {"run": told["run"] | {"photos": "0"}}))
    with pytest.raises(MaquetteError, match="The photos have changed since"):
        train.resume(run, {"steps": 4})


def test_a_kill_while_the_states_are_dropped_leaves_a_finished_run(run: Path) -> None:
    half = run / "state/000002"  # its manifest was removed first, its tensors not yet
    half.mkdir()
    (half / "adapter.safetensors").write_bytes(b"half")
    assert start(run).file == run / LAST


def test_a_run_from_before_checkpoints_were_chosen_goes_on_from_its_own_file(run: Path) -> None:
    proof, own = run / "state/finished.json", run / "disc.safetensors"
    told = read_object(proof) | {"file": own.name, "sha256": file_sha256(own)}
    proof.write_text(json.dumps(told))
    assert start(run).file == own


def test_a_word_keeps_its_state_since_no_run_can_begin_from_it(finished: Path, tmp_path: Path) -> None:
    values = {**VALUES, "photos": finished.parent / "photos", "out": tmp_path / "disc", "dropout": 0.0}
    train.run(TrainConfig.parse({**values, "method": "textual-inversion", "num_vectors": 2, "steps": 1}))
    assert (tmp_path / "disc/state/000001/manifest.json").exists()


def test_the_command_keeps_the_state_and_says_which_steps_took_how_long(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "disc"
    for arguments in (
        [finished.parent / "photos", "--subject", "zkw disc", "--out", out, "--steps", 1, "--rank", 2, "--keep-state",
         "--set", "sample_prompts=[]"],
        ["--resume", out, "--steps", 3],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main(["train", *map(str, arguments)])
        assert not ended.value.code
    told = capsys.readouterr().out.splitlines()
    assert [line.split(" in ")[0] for line in told if " images/s." in line] == ["1 step", "Steps 2 to 3"]
    assert (out / "state/000003/manifest.json").exists()
