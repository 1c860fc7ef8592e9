"""What commands load: no library that torch, tokenizers and a few small ones can do without."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maquette.training import effort

NEVER = ("accelerate", "diffusers", "k_diffusion", "peft", "scipy", "torchvision", "transformers")
PROGRAM = """
import sys
sys.argv = ["maquette", *sys.argv[1:]]
from maquette.cli.start import main
try:
    main()
finally:
    print("loaded", *sorted(sys.modules), file=sys.stderr)
"""


def loaded(*words: Any) -> set[str]:
    """All modules that a command loads."""
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == (words[0] == "check"), ended.stderr[-2000:]  # which has something to say of two squares
    *_, last = ended.stderr.strip().splitlines()
    assert last.startswith("loaded ")
    return set(last.split()[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name, colour in (("a", "red"), ("b", "green")):
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("command", ["check", "inspect", "convert", "generate", "train", "regularize"])
def test_a_command_loads_no_library_of_other_networks(command: str, folder: Path, tmp_path: Path) -> None:
    words: dict[str, list[Any]] = {
        "check": [folder],
        "inspect": ["pocket"],
        "convert": ["pocket", "--to", "single-file", "--out", tmp_path / "pocket.safetensors"],
        "generate": ["a red dot", "--steps", "2", "--out", tmp_path / "pictures"],
        "train": [
            folder, "--subject", "zkw dot", "--base", "pocket", "--steps", "1", "--out", tmp_path / "run",
        ],
        "regularize": [tmp_path / "class", "--prompt", "a dot", "--count", "1", "--steps", "2"],
    }  # fmt: skip
    found = loaded(command, *words[command])
    assert sorted(name for name in NEVER if name in found) == []
    assert {"torch._dynamo", "sympy"} & found == set()
    assert any(name.startswith("maquette.stages") for name in found)


EVERYTHING = """
import importlib, pkgutil, sys
import maquette
for module in pkgutil.walk_packages(maquette.__path__, "maquette."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*sorted(sys.modules))
"""


def test_all_files_at_once_load_no_library_of_other_networks() -> None:
    """So no command does, whatever it is, but for what it imports when it runs."""
    ended = subprocess.run([sys.executable, "-c", EVERYTHING], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = set(ended.stdout.split())
    assert "maquette.stages.train" in found and sorted(name for name in NEVER if name in found) == []


COMMAND = (
    "accelerate launch train_network.py --pretrained_model_name_or_path=base.safetensors --train_data_dir=photos "
    "--network_module=networks.lora --network_dim=8"
)


@pytest.mark.parametrize(
    "words", ["--help", "train --help", "train --keys", "import kohya", "caption", "runs", "check", "inspect"]
)
def test_what_needs_no_network_loads_no_torch(words: str, folder: Path, tmp_path: Path) -> None:
    if words == "check" and effort._has_driver():
        pytest.skip("PyTorch is asked about the graphics card")
    (script := tmp_path / "train.sh").write_text(COMMAND)
    shutil.copytree(folder, photos := tmp_path / "photos")
    more = {"import kohya": [script], "caption": [photos, "--subject", "zkw dot"], "runs": ["--folder", tmp_path]}
    more |= {"check": [photos], "inspect": [photos / "a.png"]}
    assert "torch" not in loaded(*words.split(), *more.get(words, []))


def test_no_file_imports_what_only_tests_need() -> None:
    """Captions by BLIP, and CLIP and DINO of the user's own, alone use transformers, where it is installed."""
    source = Path(__file__).parent.parent / "src" / "maquette"
    found = set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            found |= {(path.name, name) for name in names if name.partition(".")[0] in NEVER}
    assert found == {("captioners.py", "transformers"), ("encoders.py", "transformers")}
