"""Ctrl-C at any moment of a command's beginning: one line, exit 130."""

import subprocess
import sys

import pytest

HUNG = 1800  # seconds that only what hangs takes, however busy the machine is
CHILD = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupting(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "MODULE":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from maquette.cli.start import main
main()
"""


def interrupted_at(module: str, *arguments: str) -> tuple[int, str]:
    """Exit code and stderr of the command, to which Ctrl-C comes at the moment when it begins to read a module."""
    command = [sys.executable, "-c", CHILD.replace("MODULE", module), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HUNG)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("module", ["maquette.cli.main", "typer", "typer.core"])
def test_while_the_program_is_read(module: str) -> None:
    assert interrupted_at(module, "--help") == (130, "\nStopped; nothing was done.\n")


@pytest.mark.parametrize("module", ["maquette.cli.train", "maquette.config", "maquette.stages.train", "torch"])
def test_while_a_command_is_read(module: str) -> None:
    assert interrupted_at(module, "train", "nowhere", "--subject", "x") == (130, "\nStopped.\n")
