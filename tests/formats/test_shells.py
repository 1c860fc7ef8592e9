"""Scripts of three shells: what their commands are given."""

import contextlib
import sys
from typing import Any

import pytest

from maquette.errors import MaquetteError
from maquette.formats.shells import read_script, unset_names

SH = r"""#!/bin/bash
# accelerate launch commented_train.py
BASE="models/sd 15.safetensors"; export RATE=1e-4
MORE=(--seed 1 # the usual
  "--name=a b")
MORE+=(--last)
cat > data.toml <<'END'
[general]
x = "$BASE"
END
accelerate launch --num_cpu_threads_per_process=2 train_network.py \
  --base="$BASE" --rate=${RATE} --size=${SIZE:-512} --home=$HOME/x "${MORE[@]}" \
  --quoted='a "b" $RATE' --esc=\$x 2>&1 | tee log.txt
"""
CMD = r"""@echo off
rem accelerate launch commented_train.py
:: accelerate launch commented_train.py
set BASE=D:\models\new\sd15.safetensors
set "OUT=D:\out folder"
accelerate launch train_network.py ^
  --base=%BASE% --data=D:\photos\train --out="%OUT%" --there=%NOWHERE% --said="a\"b" --full=100%% ^
  --args "conv_dim=8" 'x' --here="%~dp0img" --caret=a^&b & pause
"""
POWERSHELL = """<# accelerate launch commented_train.py #>
$base = "D:\\models\\sd 15.safetensors" # a comment
[float]$rate = 1e-4
$more = @("--seed=1",
  '--flip_aug')
$more += "--last"
if ($other) { $extra = "x" }
& "C:\\python\\accelerate.exe" launch "./sd-scripts/train_network.py" `
  --base=$base --rate $rate --name "a `"b`" $rate" --it='x''y' --unknown=$extra --sum=$(1 + 1) @more ; pause
"""


def call(text: str, name: str) -> list[str]:
    found = [words for words in read_script(text, name).commands if any("train_network" in word for word in words)]
    assert len(found) == 1
    return found[0]


def test_sh_has_quotes_variables_arrays_and_documents() -> None:
    words = call(SH, "a.sh")
    assert words[:4] == ["accelerate", "launch", "--num_cpu_threads_per_process=2", "train_network.py"]
    assert words[4:7] == ["--base=models/sd 15.safetensors", "--rate=1e-4", "--size=512"]
    assert unset_names(words[7]) == ["$HOME"]
    assert words[8:] == ["--seed", "1", "--name=a b", "--last", '--quoted=a "b" $RATE', "--esc=$x"]
    assert read_script(SH, "a.sh").files == {"data.toml": '[general]\nx = "$BASE"\n'}


def test_cmd_keeps_backslashes_and_knows_carets_and_percents() -> None:
    words = call(CMD, "a.bat")
    assert words[2:6] == ["train_network.py", r"--base=D:\models\new\sd15.safetensors", r"--data=D:\photos\train",
                          r"--out=D:\out folder"]  # fmt: skip
    assert unset_names(words[6]) == ["%NOWHERE%"]
    assert words[7:] == ['--said=a"b', "--full=100%", "--args", "conv_dim=8", "'x'", r"--here=.\img", "--caret=a&b"]
    assert call(CMD.replace("\n", "\r\n"), "A.CMD") == words


def test_powershell_has_backticks_variables_and_splatting() -> None:
    words = call(POWERSHELL, "a.ps1")
    assert words[:3] == [r"C:\python\accelerate.exe", "launch", "./sd-scripts/train_network.py"]
    assert words[3:8] == [r"--base=D:\models\sd 15.safetensors", "--rate", "1e-4", "--name", 'a "b" 1e-4']
    assert words[8] == "--it=x'y"
    assert unset_names(words[9]) == ["$extra"] and unset_names(words[10]) == ["$(1 + 1)"]  # only running it would tell
    assert words[11:] == ["--seed=1", "--flip_aug", "--last"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.sh", "A=1\nif [ -f x ]; then\n  A=2\nfi\ntrain_network.py $A"),
        ("a.bat", "set A=1\nif exist x (\n  set A=2\n)\ntrain_network.py %A%"),
        ("a.bat", "set A=1\nif exist x set A=2\ntrain_network.py %A%"),
        ("a.ps1", "$a = 1\nif ($x) {\n  $a = 2\n}\ntrain_network.py $a"),
    ],
)
def test_what_depends_on_a_condition_is_not_guessed(name: str, text: str) -> None:
    assert len(unset_names(call(text, name)[1])) == 1


def test_without_a_suffix_the_way_lines_go_on_tells() -> None:
    assert call("train_network.py ^\n --a=C:\\x", "notes.txt") == ["train_network.py", r"--a=C:\x"]
    assert call("train_network.py `\n --a=C:\\x", "notes.txt") == ["train_network.py", r"--a=C:\x"]
    assert call("train_network.py \\\n --a=C:\\x", "notes.txt") == ["train_network.py", "--a=C:x"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.sh", "x\necho 'a", r"^a\.sh: a quotation mark in line 2 is never closed\.$"),
        ("a.sh", 'echo "a', r"a quotation mark in line 1 is never closed"),
        ("a.sh", "cat > a << E\ntext", r"a here-document \(<< E\) in line 1 is never closed"),
        ("a.sh", "A=(1 2", r"a parenthesis in line 1 is never closed"),
        ("a.sh", "echo $(a", r"a parenthesis in line 1 is never closed"),
        ("a.bat", '\n\ntrain.py "a', r"a quotation mark in line 3 is never closed"),
        ("a.ps1", 'echo "a', r"a quotation mark in line 1 is never closed"),
        ("a.ps1", "echo 'a", r"a quotation mark in line 1 is never closed"),
        ("a.ps1", "<# a", r"a comment \(<#\) in line 1 is never closed"),
        ("a.sh", "A=xxxxxxxx\n" + "A=$A$A\n" * 40, "a variable holds more than 1000000 characters"),
        ("a.bat", "set A=xxxxxxxx\n" + "set A=%A%%A%\n" * 40, "a variable holds more than 1000000 characters"),
        ("a.ps1", '$a = "xxxxxxxx"\n' + '$a = "$a$a"\n' * 40, "a variable holds more than 1000000 characters"),
        ("a.sh", f"A={'x' * 900_000}\necho " + "$A " * 1000, "variables make more than 10000000 characters of it"),
        ("a.bat", f"set A={'x' * 900_000}\necho " + "%A% " * 1000, "variables make more than 10000000 characters"),
    ],
)
def test_faults_are_named(name: str, text: str, message: str) -> None:
    with pytest.raises(MaquetteError, match=message):
        read_script(text, name)


HARD = ['"a"', "'a'", "$a", "`\n", "^\n", "%a", "\\", "a&", "$(a)", "@(", "A+=(1)\n", "# x\n", "<", "train",
        "cat > a << 'E'\n"]  # fmt: skip


def work(text: str, name: str) -> int:
    """Calls of functions, Python's and those of regular expressions, that reading takes."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event.endswith("call")

    sys.setprofile(count)
    try:
        with contextlib.suppress(MaquetteError):
            read_script(text, name)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("suffix", ["sh", "bat", "ps1"])
@pytest.mark.parametrize("piece", HARD)
def test_work_grows_with_the_length_of_the_text(piece: str, suffix: str) -> None:
    short, long = (work(piece * count, f"a.{suffix}") for count in (500, 2000))
    assert long < 4.5 * short + 100


def test_megabytes_are_read() -> None:
    """What took minutes where each beginning of a word, or each open document, was tried to the end."""
    line = "train_network.py --name="
    assert len(call("a" * 200_000 + "\n" + line, "a.sh")) == 2
    assert len(call(line + "x" * 1_000_000, "a.sh")[1]) == 1_000_007
    assert read_script("train" * 200_000, "a.sh").commands == [["train" * 200_000]]
    with pytest.raises(MaquetteError, match="here-document"):
        read_script("cat > a << 'E'\n" * 20_000 + line, "a.sh")
