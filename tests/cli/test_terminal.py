"""Nothing that stands in a file or name steers the terminal, and no encoding or closed stream ends a report."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from maquette.cli.main import main
from maquette.cli.terminal import Screen, Stream
from maquette.formats import safetensors

SOURCE = Path(__file__).parent.parent.parent / "src" / "maquette"
HOSTILE = "\x1b]0;pwn\x07\x1b[2J\x9b31m\u202e[/][bold]"
COMMANDING = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
LAYER = "lora_unet_down_blocks_1_attentions_0_proj_in"


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str, object]:
    """stdout, stderr and exit code of a command."""
    with pytest.raises(SystemExit) as leaving:
        main(list(arguments))
    captured = capsys.readouterr()
    return captured.out, captured.err, leaving.value.code


def assert_harmless(*texts: str) -> None:
    for text in texts:
        assert COMMANDING.findall(text) == [], ascii(text)
        assert "fault in maquette" not in text, text


@pytest.fixture
def hostile_photos(tmp_path: Path) -> Path:
    """Names of files and folders, captions and metadata with control characters and markup."""
    folder = tmp_path / "photos\x1b[31m"
    folder.mkdir()
    for name in (f"a{HOSTILE.replace('/', '|')}", "b", "c\nd"):
        Image.effect_noise((96, 96), 80).convert("RGB").save(folder / f"{name}.png")
    (folder / "b.txt").write_text(f"zkw robot {HOSTILE}", encoding="utf-8")
    (folder / "x\x1b[31m.png").write_text("no picture")
    (folder / "y\x9b.gif").write_text("no picture")
    (folder / "left\x07.txt").write_text("zkw robot")
    entries = [{"file_name": name, "text": "zkw robot \x1b"} for name in (f"z{HOSTILE}.png", "c\nd.png")]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    return folder


@pytest.mark.parametrize("output", [(), ("--json",)])
@pytest.mark.parametrize("command", [("check",), ("caption", "--dry-run"), ("caption", "--shuffle", "2")])
def test_photos_that_are_named_and_captioned_by_a_stranger(
    hostile_photos: Path, command: tuple[str, ...], output: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    name, *rest = command
    out, err, code = told(capsys, name, str(hostile_photos), "--subject", f"zkw robot {HOSTILE}", *rest, *output)
    assert code == 0, err
    assert_harmless(out, err)
    assert r"x\x1b[31m.png" in out or r"x\u001b[31m.png" in out
    if output:
        result = json.loads(out)
        texts = [photo["caption"] for photo in result["photos"]] if "photos" in result else result["captions"]
        assert any(HOSTILE in str(text) or repr(HOSTILE)[1:-1] in str(text) for text in texts)


def test_the_events_of_training_and_its_files_come_out_harmless(
    hostile_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run\x1b[2J"
    arguments = ("train", str(hostile_photos), "--subject", f"zkw robot {HOSTILE}", "--steps", "1", "--out", str(run))
    out, err, code = told(capsys, *arguments, "--set", "sample_prompts=[]")
    assert code == 0, err
    assert_harmless(out, err)
    assert r"run\x1b[2J" in out
    for command in (["command", str(run)], ["inspect", str(run / "run-2J.safetensors"), "--metadata"]):
        out, err, _ = told(capsys, *command)
        assert_harmless(out, err)


def lora(path: Path, name: str = LAYER, **metadata: str) -> Path:
    factors = {"lora_down.weight": torch.ones(2, 320), "lora_up.weight": torch.ones(320, 2)}
    safetensors.save({f"{name}.{part}": tensor for part, tensor in factors.items()}, path, metadata)
    return path


def test_every_field_that_inspect_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trigger = {
        "modelspec.trigger_phrase": HOSTILE,
        "ss_tag_frequency": json.dumps({"1_a": {HOSTILE: 3}}),
        f"own {HOSTILE}": HOSTILE + "\n\x1b",
    }
    files = [
        lora(tmp_path / "a\x1b[2J.safetensors", **trigger),
        lora(tmp_path / "b.safetensors", "lora_unet_" + HOSTILE),
    ]
    for file in files:
        for output in ((), ("--metadata",), ("--json",)):
            out, err, code = told(capsys, "inspect", str(file), *output)
            assert code == 0, err
            assert_harmless(out, err)
    assert (
        json.loads(told(capsys, "inspect", str(files[0]), "--json")[0])["metadata"][f"own {HOSTILE}"]
        == HOSTILE + "\n\x1b"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", f"no{HOSTILE}"),
        ("generate", f"a <lora:{HOSTILE.replace('>', '')}:1>", "--lora-dir", "."),
        ("check", f"no{HOSTILE}"),
        ("train", f"no{HOSTILE}", "--set", f"{HOSTILE}=1"),
        ("train", "--config", f"{HOSTILE}.toml"),
        ("import", HOSTILE, "x"),
        ("import", "kohya", f"{HOSTILE}.sh"),
        ("convert", f"{HOSTILE}.safetensors", "--to", HOSTILE, "--out", HOSTILE),
        (f"--{HOSTILE}",),
        ("inspect", "a", f"too many {HOSTILE}"),
        (HOSTILE,),
    ],
)
def test_errors_show_what_was_given(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    out, err, code = told(capsys, *arguments)
    assert code in (1, 2)
    assert_harmless(out, err)
    assert r"\x1b]0;pwn\x07\x1b[2J" in err


def test_colours_of_a_terminal_come_from_us_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Stream(terminal))
    screen = Screen()
    screen.line(HOSTILE, style="yellow")
    screen.table([[HOSTILE, "\n"]], ("a", "b"))
    print(HOSTILE)
    text = terminal.getvalue()
    assert "\x1b[33m" in text and r"\x1b]0;pwn\x07" in text and "[/][bold]" in text
    assert COMMANDING.findall(re.sub("\x1b\\[[0-9;]*m", "", text)) == []


def test_the_command_line_prints_through_screens_and_streams_only() -> None:
    """No console of rich but Screen's, whose text is plain, and nothing written past the streams but a fixed text."""
    found = []
    for path in SOURCE.rglob("*.py"):
        if path.name in ("terminal.py", "streaming.py"):  # the latter writes into files alone
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and name == "os.write" and isinstance(node.args[1], ast.Constant):
                continue
            if name in ("Console", "rich.print", "os.write", "typer.echo", "typer.secho") or name.endswith(
                (".stdout.buffer.write", "console.print", "add_row")
            ):
                found.append((path.name, name))
    assert found == []


def run(folder: Path, environment: dict[str, str], shell: str) -> subprocess.CompletedProcess[bytes]:
    program = f'"{sys.executable}" -m maquette'
    return subprocess.run(
        ["bash", "-c", shell.replace("maquette", program, 1)],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, text in enumerate(("zkw robot \U0001f600", "zkw robot, 日本", "zkw robot hat", "zkw robot — “tree”")):
        Image.effect_noise((128, 96), 80).convert("RGB").save(folder / f"i{i}.png")
        (folder / f"i{i}.txt").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_no_output_encoding_ends_a_report(photos: Path, encoding: str) -> None:
    command = 'maquette check photos --subject "zkw robot"'
    done = run(photos, {"PYTHONIOENCODING": encoding}, command)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert "zkw robot hat" in text and ("日本" if encoding == "utf-8" else r"\u65e5\u672c") in text
    done = run(photos, {"PYTHONIOENCODING": encoding}, command + " --json")
    captions = [photo["caption"] for photo in json.loads(done.stdout.decode(encoding))["photos"]]
    assert captions == ["zkw robot \U0001f600", "zkw robot, 日本", "zkw robot hat", "zkw robot — “tree”"]


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-", "| head -1", "2>&1 | true"])
def test_no_closed_stream_or_pipe_ends_a_report(photos: Path, closing: str) -> None:
    shell = f"set -o pipefail; maquette caption photos --add hat {closing}"
    done = run(photos, {}, shell)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr and b"BrokenPipe" not in done.stderr
    assert (photos / "photos" / "i3.txt").read_text(encoding="utf-8") == "zkw robot — “tree”, hat\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_no_success(photos: Path) -> None:
    done = run(photos, {}, "maquette caption photos --dry-run --add hat > /dev/full")
    assert done.returncode == 1 and b"The disk is full" in done.stderr
