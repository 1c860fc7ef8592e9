"""What Windows lacks is not needed: with it hidden, every module is imported, and a run trains, stops and resumes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import maquette

# Posix modules and names that Python on Windows has not; folders cannot be opened there; msvcrt locks bytes.
HIDE = """
import os, sys, types, errno
import multiprocessing, shutil, subprocess, tempfile, torch, pydantic, typer, PIL.Image  # theirs
held = {}
def locking(handle, mode, count):
    place = os.fstat(handle).st_ino
    if held.get(place, handle) != handle:
        raise OSError(errno.EACCES, "Permission denied")
    held[place] = handle
windows = types.ModuleType("msvcrt")
windows.locking, windows.LK_NBLCK = locking, 2
sys.modules["msvcrt"] = windows
for name in ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
HIDDEN = ("fchmod", "fchown", "chown", "fork", "getuid", "geteuid", "getgid", "getpgid", "killpg", "mkfifo", "nice",
          "sched_getaffinity", "sysconf", "uname", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY")
opened = os.open
def refuse_folders(path, flags, *rest, **named):
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return opened(path, flags, *rest, **named)
def in_use(path):  # Windows neither removes nor replaces a file that is open or mapped
    if not os.path.isdir("/proc/self/fd"):
        return False
    mapped = [line.split(maxsplit=5)[-1].strip() for line in open("/proc/self/maps", encoding="utf-8")]
    handles = [os.path.realpath("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")]
    return os.path.realpath(path) in {*mapped, *handles}
def careful(call):
    def checked(path, *rest, **named):
        for each in (path, *rest[:1]):
            if in_use(each):
                raise PermissionError(errno.EACCES, "The process cannot access the file", str(each))
        return call(path, *rest, **named)
    return checked
def as_on_windows():
    for name in HIDDEN:
        if hasattr(os, name): delattr(os, name)
    shutil._use_fd_functions = False
    os.open = refuse_folders
    for name in ("unlink", "remove", "replace", "rename"):
        setattr(os, name, careful(getattr(os, name)))
"""

IMPORT_ALL = """
import pkgutil, importlib, maquette
as_on_windows()
for module in pkgutil.walk_packages(maquette.__path__, "maquette."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("all imported")
"""

TRAIN = """
import threading, maquette
as_on_windows()
cancel = threading.Event()
def stop(event):
    if event.kind == "metric": cancel.set()
made = maquette.train(sys.argv[1], stop, cancel, subject="zkw robot", steps=2, batch_size=1, out=sys.argv[2],
                      sample_prompts=[])
assert made.status == "stopped" and made.step == 1
from maquette.run_folder import RunFolder
run = RunFolder(sys.argv[2])
with run.locked():
    try:
        with run.locked(): pass
    except maquette.MaquetteError as error:
        print(error)
print(maquette.resume(sys.argv[2]).status)
"""


def without_posix(code: str, *arguments: str) -> str:
    """What a program prints that runs as if on Windows."""
    source = Path(maquette.__file__).parent.parent
    told = subprocess.run(
        [sys.executable, "-c", HIDE + code, *arguments],
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_every_module_is_imported() -> None:
    assert without_posix(IMPORT_ALL) == "all imported\n"


def test_a_run_trains_stops_and_resumes_and_its_folder_is_locked(
    tmp_path: Path, quadrants: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, run = tmp_path / "photos", tmp_path / "run"
    photos.mkdir()
    assert callable(quadrants)
    quadrants().save(photos / "a.png")
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "cache"))
    told = without_posix(TRAIN, str(photos), str(run)).splitlines()
    assert told == [f"Another run is writing into {run}; wait for it or choose another --out.", "finished"]
    assert (run / "run.safetensors").stat().st_size > 0
