"""What commands load: no library that torch, tokenizers and a few small ones can do without."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from maquette.config.weights import InspectConfig
from maquette.formats import safetensors
from maquette.stages.inspect import run
from maquette.training import effort
from tests.weights.narrow import related

NEVER = ("accelerate", "diffusers", "k_diffusion", "peft", "scipy", "torchvision", "transformers")
PROGRAM = """
import json, sys
known, told = set(), []
for words in json.loads(sys.argv[1]):
    sys.argv, code = ["maquette", *words], 0
    from maquette.cli.start import main
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    told.append([code, sorted(set(sys.modules) - known)])
    known |= set(sys.modules)
print(json.dumps(told), file=sys.stderr)
"""


def loaded(commands: dict[str, list[Any]]) -> dict[str, set[str]]:
    """The modules that each of some commands is the first to load, all run in one process, one after the other."""
    words = [[*name.split(), *map(str, more)] for name, more in commands.items()]
    command = [sys.executable, "-c", PROGRAM, json.dumps(words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stderr.strip().splitlines()[-1])
    for name, (code, _) in zip(commands, found, strict=True):
        assert code == (name == "check"), ended.stderr[-2000:]  # which has something to say of two squares
    return {name: set(modules) for name, (_, modules) in zip(commands, found, strict=True)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name, colour in (("a", "red"), ("b", "green")):
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")
    return folder


def test_no_command_loads_a_library_of_other_networks(folder: Path, tmp_path: Path) -> None:
    found = loaded({
        "check": [folder],
        "inspect": ["pocket"],
        "convert": ["pocket", "--to", "single-file", "--out", tmp_path / "pocket.safetensors"],
        "generate": ["a red dot", "--steps", "2", "--out", tmp_path / "pictures"],
        "train": [
            folder, "--subject", "zkw dot", "--base", "pocket", "--steps", "1", "--out", tmp_path / "run",
            "--set", 'sample_prompts=["a dot"]', "--set", "sample_steps=2",
        ],
        "regularize": [tmp_path / "class", "--prompt", "a dot", "--count", "1", "--steps", "2"],
    })  # fmt: skip
    for command, modules in found.items():
        assert {*NEVER, "torch._dynamo", "sympy"} & modules == set(), command
        assert f"maquette.stages.{command}" in modules


def test_a_model_is_blended_and_written_without_pytorchs_compiler(tmp_path: Path) -> None:
    """A tensor on the device "meta" that is joined with others imports it: two seconds. SDXL's file joins some."""
    files = related(tmp_path, "sdxl", "ab")
    blended, extracted = tmp_path / "blended.safetensors", tmp_path / "extracted.safetensors"
    found = loaded({
        "blend": [files["a"], files["b"], "--out", blended],
        "extract": [files["b"], "--base", files["a"], "--rank", "2", "--out", extracted],
    })  # fmt: skip
    assert "maquette.weights.stream" in found["blend"]
    assert [modules & {"torch._dynamo", "sympy"} for modules in found.values()] == [set(), set()]


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


def test_what_needs_no_network_loads_no_torch(folder: Path, tmp_path: Path) -> None:
    (script := tmp_path / "train.sh").write_text(COMMAND)
    shutil.copytree(folder, photos := tmp_path / "photos")
    # PyTorch is asked about the graphics card, where there is one
    commands: dict[str, list[Any]] = {} if effort.has_driver() else {"check": [photos]}
    commands |= {
        "--help": [], "train --help": [], "train --keys": [], "import kohya": [script], "runs": ["--folder", tmp_path],
        "caption": [photos, "--subject", "zkw dot"], "inspect": [photos / "a.png"],
    }  # fmt: skip
    for command, modules in loaded(commands).items():
        assert "torch" not in modules, command


def test_looking_at_a_lora_loads_no_torch(tmp_path: Path) -> None:
    """Numbers that are none are found, and ranks, alphas and layers told, from the header and from bits."""
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    down = torch.ones(4, 768)
    down[-1, -1] = torch.nan
    alpha = {f"{layer}.alpha": torch.tensor(2.0)}
    paths = {}
    for dtype in ("F32", "F16", "BF16", "F8_E4M3"):
        module = {"lora_down.weight": down, "lora_up.weight": torch.ones(1280, 4)}
        tensors = {f"{layer}.{part}": tensor.to(safetensors.DTYPES[dtype]) for part, tensor in module.items()}
        safetensors.save(tensors | alpha, path := tmp_path / f"{dtype}.safetensors")
        paths[dtype] = path
        found = run(InspectConfig(path=path))
        assert found.sentence == f"{dtype}.safetensors is a lora adapter for Stable Diffusion 1."
        assert found.lora is not None and found.lora.matched == 1
        assert (found.lora.ranks, found.lora.alphas) == ({"4": 1}, {"2": 1})
        assert found.problems == [f"1 tensors hold NaN or infinite numbers, for example {layer}.lora_down.weight."]
    commands = {"inspect": [paths["BF16"]], "inspect --json": [paths["F8_E4M3"]], "inspect --metadata": [paths["F32"]]}
    assert all("torch" not in modules for modules in loaded(commands).values())


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
