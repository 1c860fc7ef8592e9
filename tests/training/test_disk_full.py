"""The disk fills up at several moments of a run: all that was complete stays, and the run goes on afterwards."""

import errno
import gc
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.formats import safetensors
from maquette.run_folder import RunFolder
from maquette.stages import train
from maquette.training import keeping, state
from tests.training.interrupted import SETTINGS, make_photos, start

VALUES = {**SETTINGS, "sample_prompts": [], "steps": 4, "save_every_steps": 1, "keep_last": 0, "keep_state": True}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and the run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("disk")
    make_photos(folder / "photos")
    train.run(TrainConfig.parse({**VALUES, "photos": folder / "photos", "out": folder / "disc"}))
    return folder


def failing(real: Callable[..., Any], at: Callable[[str], bool], fault: list[str]) -> Callable[..., Any]:
    """The function, but without room where `at` says so of its arguments' text."""

    def call(*arguments: Any) -> Any:
        told = " ".join(map(str, arguments))
        if at(told):
            fault.append(told)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    return call


@pytest.mark.parametrize(
    ("where", "name", "kept"),
    [
        ("rename", "disc-000003.safetensors", 3),  # the checkpoint itself, whose state is there
        ("rename", "000003/optimizer.safetensors", 2),  # in the middle of a state
        ("rename", "000003/manifest.json", 2),  # the last file of a state
        ("rename", "disc/disc.safetensors", 4),  # the chosen file, after the last step
        ("fsync", "disc-000002", 2),
        ("write", "disc-000003", 3),
    ],
)
def test_what_was_saved_stays_and_the_run_goes_on(
    where: str, name: str, kept: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[str] = []
    with monkeypatch.context() as patch:
        if where == "rename":
            patch.setattr(os, "replace", failing(os.replace, lambda t: t.endswith(name), faults))
        elif where == "fsync":  # what the file descriptor stands for
            real = os.fsync
            patch.setattr(
                os,
                "fsync",
                lambda fd: failing(lambda path: real(fd), lambda t: name in t, faults)(
                    os.readlink(f"/proc/self/fd/{fd}")
                ),
            )
        else:
            real_bytes, writing = safetensors.tensor_bytes, [0]

            def bytes_of(tensor: Any) -> Any:
                part = [p for p in (tmp_path / "disc/checkpoints").glob(f".{name}*.part")]
                writing[0] += bool(part)
                if writing[0] == 20:
                    faults.append(name)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real_bytes(tensor)

            patch.setattr(safetensors, "tensor_bytes", bytes_of)
        with pytest.raises(
            MaquetteError, match=rf"The disk is full .* up to step {kept} is intact. Make room and .*--resume"
        ):
            train.run(TrainConfig.parse({**VALUES, "photos": whole / "photos", "out": tmp_path / "disc"}))
    assert len(faults) == 1
    run = RunFolder(tmp_path / "disc")
    found = state.latest(run)
    assert found is not None and found[0] == kept
    for step, file in run.checkpoints().items():
        assert file.read_bytes() == RunFolder(whole / "disc").checkpoint(step).read_bytes()
    assert not list(run.path.rglob("*.part"))
    result = train.resume(run.path)
    assert result.file and Path(result.file).read_bytes() == (whole / "disc/disc.safetensors").read_bytes()


def test_metrics_that_do_not_fit_stop_the_run_too(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = RunFolder.append_metric

    def append(self: RunFolder, values: dict[str, Any]) -> None:
        if values["step"] == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.metrics))
        real(self, values)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append_metric", append)
        with pytest.raises(MaquetteError, match=r"metrics\.jsonl.*up to step 2 is intact"):
            train.run(TrainConfig.parse({**VALUES, "photos": whole / "photos", "out": tmp_path / "disc"}))
    result = train.resume(tmp_path / "disc")
    assert result.file and Path(result.file).read_bytes() == (whole / "disc/disc.safetensors").read_bytes()


def test_a_full_disk_before_the_first_file_says_that_nothing_began(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing(os.replace, lambda t: t.endswith("dataset.json"), []))
        with pytest.raises(MaquetteError, match=r"the run has not begun\. Make room and start it again"):
            train.run(TrainConfig.parse({**VALUES, "photos": whole / "photos", "out": tmp_path / "disc"}))
    train.run(TrainConfig.parse({**VALUES, "photos": whole / "photos", "out": tmp_path / "disc", "steps": 1}))


def test_the_operating_systems_own_limit_stops_a_real_run(whole: Path, tmp_path: Path) -> None:
    """No file may grow beyond half a checkpoint: the kernel itself cuts the write."""
    run, settings = tmp_path / "disc", tmp_path / "run.toml"
    settings.write_text(TrainConfig.parse({**VALUES, "photos": whole / "photos", "out": run}).to_toml())
    child = start(settings, run)
    limit = RunFolder(whole / "disc").checkpoint(1).stat().st_size // 2
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (limit, limit))
    _, error = child.communicate()
    assert child.returncode == 1 and "The disk is full" in error and "no step had been saved yet" in error
    again = start(settings, run)
    again.communicate()
    assert again.returncode == 0
    assert (run / "disc.safetensors").read_bytes() == (whole / "disc/disc.safetensors").read_bytes()


@pytest.mark.heavy
@pytest.mark.parametrize("checkpoints", [0, 1, 2])
def test_a_small_file_system_fills_up(checkpoints: int, whole: Path, tmp_path: Path) -> None:
    """A real file system of a few checkpoints' size, where it may be mounted; the estimate before a save is off."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        one = sum(f.stat().st_size for f in (whole / "disc/state/000004").iterdir())
        file = RunFolder(whole / "disc").checkpoint(4).stat().st_size
        room = checkpoints * (file + one) + 3 * file  # enough for these, not for another checkpoint and its state
        filler = disk / "filler"
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        with filler.open("wb") as big:
            os.posix_fallocate(big.fileno(), 0, free - room)
        patch = pytest.MonkeyPatch()
        patch.setattr(keeping.Keeper, "need_room", lambda self, size: None)
        settings = {**VALUES, "photos": whole / "photos", "out": disk / "disc"}
        with patch.context(), pytest.raises(MaquetteError, match="The disk is full"):
            train.run(TrainConfig.parse(settings))
        patch.undo()
        kept = state.latest(RunFolder(disk / "disc"))
        assert (kept[0] if kept else 0) == checkpoints
        filler.unlink()
        result = train.resume(disk / "disc")
        assert result.file and Path(result.file).read_bytes() == (whole / "disc/disc.safetensors").read_bytes()
    finally:
        gc.collect()  # the traceback of the training that failed holds files of the disk
        subprocess.run(["umount", disk], check=True)
