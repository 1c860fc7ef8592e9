"""Messages, help and pages recommend only commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

from maquette.cli.main import LazyGroup

ROOT = Path(__file__).parent.parent
RECOMMENDED = re.compile(r"(?:[`:(] ?|use |with |run )maquette ([a-z]+)(?=[ `{'\")])")


def test_every_recommended_command_exists() -> None:
    commands = set(LazyGroup().list_commands(None))
    files = [*ROOT.glob("src/maquette/**/*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]
    found = {(word, file.name) for file in files for word in RECOMMENDED.findall(file.read_text("utf-8"))}
    assert {word for word, _ in found} >= {"train", "check", "generate", "inspect", "convert"}
    assert {(word, name) for word, name in found if word not in commands} == set()
