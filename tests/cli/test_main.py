from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from maquette.cli import main as program
from maquette.cli.common import Display
from maquette.cli.main import main
from maquette.events import Event


def outcome(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def loaded_after(code: str) -> set[str]:
    """Modules that a fresh Python has loaded after running `code`."""
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "diffusers", "transformers", "numpy", "PIL"}


def test_the_package_imports_nothing_heavy() -> None:
    assert not loaded_after("import maquette; maquette.train, maquette.prompts") & HEAVY
    assert not loaded_after("import maquette") & {"pydantic", "typer", "rich"}


def test_help_imports_nothing_heavy() -> None:
    code = "from maquette.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert not loaded_after(code) & (HEAVY | {"pydantic"})


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("--help") == 0
    listed = capsys.readouterr().out
    files = {path.stem for path in Path(program.__file__).parent.glob("*.py")}
    commands = {name.rstrip("_") for name in files - {"__init__", *program.NO_COMMANDS}}
    assert {"check", "train", "generate"} <= commands
    for command in commands:
        assert f"\n  {command} " in listed


@pytest.mark.parametrize("command", ["check", "train", "generate"])
def test_each_command_explains_itself_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(command, "--help") == 0
    text = capsys.readouterr().out
    assert f"maquette {command}" in text
    assert "Examples:" in text
    examples = [line for line in text.splitlines() if line.startswith("    maquette ")]
    assert len(examples) >= 2
    assert all(line.count('"') % 2 == 0 for line in examples)  # whole command lines, to copy
    assert "--json" in text


@pytest.mark.parametrize(
    "arguments",
    [["generate"], ["generate", "x", "--stepps", "3"], ["generat", "x"], ["generate", "x", "--steps", "many"]],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err


def test_a_fault_in_the_input_is_1_and_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("generate", "x", "--sampler", "Euler b") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: There is no sampler called 'Euler b'")
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("place", [0, 2])
def test_debug_shows_the_traceback_wherever_it_stands(place: int, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "x", "--sampler", "Euler b"]
    arguments.insert(place, "--debug")
    assert outcome(*arguments) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("error: There is no sampler")


def test_a_fault_of_the_program_is_no_traceback_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("maquette.stages.generate.run", broken)
    assert outcome("generate", "x") == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: unexpected ZeroDivisionError: division by zero.")
    assert "Traceback" not in error


def test_json_on_stdout_and_progress_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "generate",
        "a cat",
        "--steps",
        "1",
        "--seed",
        "4",
        "--batch-size",
        "2",
        "--out",
        str(tmp_path),
        "--json",
    ]
    assert outcome(*arguments) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["seeds"] == [4, 5]
    assert [Path(path).parent for path in result["paths"]] == [tmp_path] * 2
    with Image.open(result["paths"][1]) as image:
        assert image.size == (64, 64)
        assert image.info["parameters"] == result["infotexts"][1]
    assert "saved" in captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("--version") == 0
    assert capsys.readouterr().out.startswith("maquette 0.")


def test_progress_in_a_pipe_is_a_line_for_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        for step in range(1, 201):
            values = {
                "step": step,
                "steps": 200,
                "loss": 0.5,
                "images_per_second": 8.0,
                "remaining_seconds": 200.0 - step,
            }
            display(Event("metric", values))
        display(Event("warning", {"message": "photo [1].jpg is small"}))
        for done, left in [(8, 61.0), (16, 0.0)]:
            display(Event("progress", {"what": "drawing", "done": done, "of": 16, "remaining_seconds": left}))
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert lines[4] == "training 100/200  loss 0.5000  8.0 images/s  1:40 left"
    assert lines[10:] == [
        "warning: photo [1].jpg is small",
        "drawing 8/16  1:01 left",
        "drawing 16/16  0:00 left",
    ]


@pytest.mark.parametrize(
    ("shell", "words", "expected"),
    [
        ("bash", ["maquette", "re"], {"regularize"}),
        ("bash", ["maquette", "check", "--res"], {"--resolution"}),
        ("zsh", ["maquette", "capt"], {"caption"}),
        ("fish", ["maquette", "train", "--conf"], {"--config"}),
    ],
)
def test_shells_complete_commands_and_options(shell: str, words: list[str], expected: set[str]) -> None:
    """What the script of --install-completion asks at each press of the tab key."""
    asked = {
        "_MAQUETTE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": " ".join(words),
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    code = "from maquette.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked})
    assert done.returncode == 0 and done.stderr == ""
    found = set(re.findall(r"--[a-z-]+|[a-z]+", done.stdout.split("\t")[0].split(':"')[0]))
    assert expected <= found and not {"demo", "--subject"} & found


def test_the_completion_script_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))
    assert outcome("--show-completion") == 0
    assert "_MAQUETTE_COMPLETE=complete_bash" in capsys.readouterr().out


def test_generate_reads_every_option_of_its_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--steps", "1", "--out", str(tmp_path), "--json", "--sampler", "DPM++ 2M", "--width", "72"]
    options += ["--schedule-type", "uniform", "--prompt-editing", "exact", "--no-prompt-comments"]
    assert outcome("generate", "a cat #1", *options) == 0
    [text] = json.loads(capsys.readouterr().out)["infotexts"]
    assert text.startswith("a cat #1\nSteps: 1, Sampler: DPM++ 2M, Schedule type: Uniform")
    assert "Size: 72x64" in text and "Prompt editing: exact" in text
    assert outcome("generate", "a cat <lora:mine", "--out", str(tmp_path)) == 1
    assert "<lora:mine is no tag and would be read as words; write <lora:NAME:0.8>" in capsys.readouterr().err


def test_help_has_the_groups_of_the_configuration_as_headings(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("extract", "--help") == 0
    text = capsys.readouterr().out
    headings = [line for line in text.splitlines() if re.fullmatch(r"[A-Z][a-z ]+:", line)]
    assert headings == ["Arguments:", "Options:", "Rank:", "General:"]
    options, ranks = text.split("\nOptions:")[1].split("\nRank:")
    assert "--base PATH" in options.replace("<path>", "PATH") and "--energy" in ranks and "--base" not in ranks


def test_what_a_command_needs_is_named_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("extract", "tuned.safetensors") == 2
    assert "Missing option '--base'. The model it was trained from." in capsys.readouterr().err
    assert outcome("merge", "pocket", "--out", "x.safetensors") == 2
    assert "Missing option '--lora'." in capsys.readouterr().err


def test_an_option_is_read_by_its_old_name_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--factor", "--lokr-factor"):
        assert outcome("extract", "gone", "--base", "pocket", "--out", str(tmp_path / "x"), option, "1") == 1
        assert "lokr_factor = 1 is not possible" in capsys.readouterr().err


def test_configurations_need_no_torch() -> None:
    modules = ", ".join(f"maquette.config.{name}" for name in ("base", "train", "photos", "weights", "blend", "runs"))
    assert not loaded_after(f"import {modules}") & HEAVY


def test_the_help_of_no_command_needs_torch() -> None:
    commands = program.LazyGroup().list_commands(None)
    code = (
        "import contextlib, io\nfrom maquette.cli.main import main\n"
        f"for command in {commands!r}:\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        main([command, '--help'])"
    )
    found = loaded_after(code)
    assert not found & {"torch", "diffusers", "transformers"}
    assert {f"maquette.cli.{name}" for name in ("extract", "generate", "check")} <= found
