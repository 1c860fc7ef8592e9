"""The Dockerfile, as far as it can be checked without Docker: what it names exists, and what it copies is enough."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import maquette
from maquette.cli.main import LazyGroup
from maquette.config.studio import PASSWORD_VARIABLE, StudioSettings

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PAGE = ROOT / "docs" / "container.md"
KNOWN = {
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "ONBUILD", "RUN",
    "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
}  # fmt: skip


def read(text: str) -> list[tuple[str, str]]:
    """Instructions and what stands behind them, continued lines joined, comments left out."""
    kept = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(kept))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines()]


INSTRUCTIONS = read((ROOT / "Dockerfile").read_text("utf-8"))


def values(name: str) -> list[str]:
    return [value for instruction, value in INSTRUCTIONS if instruction == name]


def arguments() -> dict[str, str]:
    return dict(value.split("=", 1) for value in values("ARG"))


def copied() -> list[str]:
    """Paths of the checkout that are copied into the image."""
    lines = [value.split() for value in values("COPY") if not value.startswith("--from=")]
    return [path for *paths, _ in lines for path in paths]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out: the last pattern that fits it or a folder above it decides."""
    kept_out = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").removeprefix("**/")
        above = [path, *map(str, Path(path).parents)][:-1]
        names = [Path(part).name for part in above] if "**/" in line else above
        if any(fnmatch.fnmatchcase(name, pattern) for name in names):
            kept_out = not line.startswith("!")
    return kept_out


def test_a_reader_of_dockerfiles() -> None:
    text = "# a comment\nFROM a AS b\n\nRUN one && \\\n    two\n"
    assert read(text) == [("FROM", "a AS b"), ("RUN", "one && two")]


def test_its_instructions_are_known_and_in_order() -> None:
    names = [name for name, _ in INSTRUCTIONS]
    assert set(names) <= KNOWN
    assert names[0] == "ARG" and names.count("FROM") == 2  # the version of Python, then both stages
    stages = {match[1] for value in values("FROM") if (match := re.search(r" AS (\w+)$", value))}
    assert {re.match(r"--from=(\w+) ", value)[1] for value in values("COPY") if "--from" in value} == stages  # type: ignore[index]
    for name in ("ENTRYPOINT", "CMD", "USER", "VOLUME"):
        assert names.count(name) == 1 and names.index(name) > len(names) - 1 - names[::-1].index("FROM")


def test_every_argument_is_used_and_every_used_one_is_given() -> None:
    given = arguments()
    used = {name for _, value in INSTRUCTIONS for name in re.findall(r"\$\{(\w+)\}", value)}
    assert used == given.keys() == {"PYTHON", "DEVICE", "EXTRAS"}
    assert f"Programming Language :: Python :: {given['PYTHON']}" in PROJECT["classifiers"]
    assert set(given["EXTRAS"].split(",")) <= PROJECT["optional-dependencies"].keys()
    assert "studio" in given["EXTRAS"].split(",")
    install = (ROOT / "docs" / "install.md").read_text("utf-8")
    named = re.findall(r"DEVICE=(\w+)", (ROOT / "Dockerfile").read_text("utf-8") + PAGE.read_text("utf-8"))
    assert set(named) == {"cpu", "cu130"}
    assert all(f"https://download.pytorch.org/whl/{index}`" in install for index in named)


def test_what_it_copies_exists_and_is_let_in() -> None:
    for path in copied():
        assert (ROOT / path).exists(), path
        assert not ignored(path), path
    for path in ("runs", "out", ".git", ".venv/bin/python", "tests", "docs", "src/maquette/__pycache__"):
        assert ignored(path), f"{path} would be sent to Docker"
    assert ignored("src/maquette/core/noise.pyc") and not ignored("src/maquette/core/noise.py")


def test_it_starts_the_command_with_options_that_the_studio_has() -> None:
    program, *rest = json.loads(values("ENTRYPOINT")[0])
    assert rest == [] and program in PROJECT["scripts"]
    name, *words = json.loads(values("CMD")[0])
    group = LazyGroup()
    assert name in group.list_commands(None)  # type: ignore[arg-type]
    context = group.get_command(None, name).make_context(name, list(words))
    given = {key: value for key, value in context.params.items() if value not in (None, ())}
    assert given == {"lan": True, "data": Path("/data"), "browser": False}
    assert json.loads(values("VOLUME")[0]) == [given["data"].as_posix()] == [values("WORKDIR")[-1]]
    assert values("EXPOSE") == [str(StudioSettings.model_fields["port"].default)]


def test_it_runs_as_nobody_in_particular_and_holds_no_password() -> None:
    (user,) = values("USER")
    assert user != "root" and any(f"useradd --create-home --uid 1000 {user}" in value for value in values("RUN"))
    assert any(f"install -d -o {user} -g {user} /data" in value for value in values("RUN"))
    text = "\n".join(value for _, value in INSTRUCTIONS)
    assert PASSWORD_VARIABLE not in text and "password" not in text.lower()
    assert PASSWORD_VARIABLE in PAGE.read_text("utf-8")


def test_the_variables_that_it_sets_are_read() -> None:
    (line,) = [value for value in values("ENV") if "MAQUETTE" in value]
    given = dict(pair.split("=", 1) for pair in line.split())
    script = (
        "from maquette.files import cache_of_user; from maquette.stages.captioners import models_folder;"
        "print(cache_of_user().as_posix(), models_folder().as_posix())"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | given, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["/data/cache", "/data/models"]


def test_what_it_copies_is_enough_to_build_the_package(tmp_path: Path) -> None:
    """Both of its builds: of the dependencies with one source file, and of the whole."""
    pytest.importorskip("hatchling")
    build = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"
    small, whole = tmp_path / "small", tmp_path / "whole"
    for folder, paths in ((small, [path for path in copied() if path != "src"]), (whole, copied())):
        for path in paths:
            target = folder / path
            if (ROOT / path).is_dir():
                leave = shutil.ignore_patterns("__pycache__", "*.pyc")
                shutil.copytree(ROOT / path, target, ignore=leave, dirs_exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, target)
        told = subprocess.run(
            [sys.executable, "-c", build, str(folder)], cwd=folder, capture_output=True, text=True, check=True
        )
        wheel = folder / told.stdout.split()[-1]
        assert wheel.name == f"maquette_lora-{maquette.__version__}-py3-none-any.whl"
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
            metadata = archive.read(f"maquette_lora-{maquette.__version__}.dist-info/METADATA").decode()
        for extra in arguments()["EXTRAS"].split(","):
            assert f"Provides-Extra: {extra}\n" in metadata
    source = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "maquette").rglob("*.py")}
    assert source <= names and any(name.startswith("maquette/families/pocket/weights/") for name in names)


def test_the_page_names_what_there_is() -> None:
    text = PAGE.read_text("utf-8")
    for command in re.findall(r"^docker run .* maquette (\w+)", text, re.MULTILINE):
        assert command in LazyGroup().list_commands(None), command  # type: ignore[arg-type]
    given = set(re.findall(r"--build-arg (\w+)=", text))
    assert given == arguments().keys()
    for word in ("--gpus all", "--init", "-p 127.0.0.1:7860:7860", "--name", "/data/bases"):
        assert word in text
