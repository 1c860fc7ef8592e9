"""docs/maquette.ipynb: its cells compile, use what maquette offers, hold no output, and run from top to bottom."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import maquette

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "maquette.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    found = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def code() -> list[str]:
    return ["".join(cell["source"]) for cell in cells("code")]


def test_it_holds_no_output_and_no_machine_of_its_author() -> None:
    found = json.loads(NOTEBOOK.read_text("utf-8"))
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
    assert found["metadata"].keys() == {"kernelspec", "language_info"}
    assert len(code()) > 15
    for cell in cells("code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None and cell["metadata"] == {}
    identities = [cell["id"] for cell in found["cells"]]
    assert len(set(identities)) == len(identities)


def test_every_cell_is_plain_python_without_a_shell() -> None:
    known = {*sys.stdlib_module_names, "maquette", "IPython", "PIL"}
    for number, text in enumerate(code()):
        tree = ast.parse(text, f"cell {number}")  # "!pip" and "%run" are no Python
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                roots = {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                roots = {(node.module or "").split(".")[0]}
            else:
                continue
            assert roots <= known - {"subprocess", "os"}, text


def test_it_uses_only_what_maquette_offers() -> None:
    used = set()
    for text in code():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("maquette")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "maquette":
                used.add(node.attr)
    assert used <= set(maquette.__all__)
    road = {"demo_photos", "check", "caption", "regularize", "train", "resume", "evaluate", "grid", "Pipeline"}
    assert used >= road | {"generate", "merge", "inspect", "convert", "extract"}


def test_one_cell_holds_all_settings() -> None:
    """Names in capitals that a later cell reads are set in the first, or follow from those there."""
    first = {target.id for node in ast.parse(code()[0]).body if isinstance(node, ast.Assign)
             for target in node.targets if isinstance(target, ast.Name)}  # fmt: skip
    assert first == {"QUICK", "PHOTOS", "SUBJECT", "BASE", "CLASS_PICTURES", "OTHER_LORA", "VARIANTS", "A1111", "WORK"}
    rest = "\n".join(code()[1:])
    for name in first:
        assert re.search(rf"\b{name}\b", rest), f"{name} has no effect"


def test_its_options_exist() -> None:
    """Keywords of a call of maquette.NAME(…) that stand there by name."""
    from maquette.config import TrainConfig
    from maquette.config.photos import CaptionConfig, CheckConfig, RegularizeConfig
    from maquette.config.runs import EvaluateConfig
    from maquette.config.weights import ConvertConfig, ExtractConfig, MergeConfig
    from maquette.sampling.draw_settings import GenerateConfig
    from maquette.sampling.grid.settings import GridConfig

    configs = {
        "check": CheckConfig, "caption": CaptionConfig, "regularize": RegularizeConfig, "train": TrainConfig,
        "evaluate": EvaluateConfig, "grid": GridConfig, "generate": GenerateConfig, "merge": MergeConfig,
        "convert": ConvertConfig, "extract": ExtractConfig,
    }  # fmt: skip
    seen = 0
    for text in code():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                name = node.func.attr if node.func.value.id == "maquette" else ""
            else:
                name = {"train": "train", "draw": "generate"}.get(getattr(node.func, "id", ""), "")
            if name in configs:
                given = {word.arg for word in node.keywords if word.arg} - {"loras"}  # `draw` has that one itself
                assert given <= configs[name].model_fields.keys(), f"{name}: {given}"
                seen += len(given)
    assert seen > 25


def test_every_page_that_it_names_exists() -> None:
    links = [link for cell in cells("markdown") for link in re.findall(r"\]\(([^)]+)\)", "".join(cell["source"]))]
    assert len(links) > 2
    for link in links:
        assert (ROOT / "docs" / link.partition("#")[0]).is_file(), link


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> list[str]:
    """Run the notebook in `folder` with this interpreter, the first cell's settings changed; what each cell printed."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    spec = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "here",
            "language": "python"}  # fmt: skip
    kernels = folder / "jupyter" / "kernels"
    (kernels / "here").mkdir(parents=True, exist_ok=True)
    (kernels / "here" / "kernel.json").write_text(json.dumps(spec), "utf-8")
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(folder / "jupyter" / name.lower()))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for name, value in changes.items():
        settings.source, times = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", settings.source, flags=re.MULTILINE)
        assert times == 1
    manager = AsyncKernelManager(kernel_name="here", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(kernels)]))
    client = NotebookClient(notebook, km=manager, resources={"metadata": {"path": str(folder)}}, timeout=None)
    client.owns_km = True  # the kernel ends with the notebook, not with the tests
    client.execute()
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(out.get("text", "") for out in cell.outputs if out.output_type == "stream") for cell in ran]


@pytest.mark.heavy
def test_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos in a zip with a folder in it and no captions, regularization images, another LoRA, no variants."""
    import shutil

    inside = tmp_path / "upload" / "my photos"
    for path in maquette.demo_photos(tmp_path / "drawn")[:5]:
        inside.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, inside)
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "upload")
    other = maquette.train(
        tmp_path / "drawn",
        subject="zkw robot",
        out=tmp_path / "other",
        rank=2,
        steps=1,
        sample_prompts=[],
        choose=False,
    )
    changes = {"PHOTOS": "photos.zip", "SUBJECT": "zkw (big) robot", "CLASS_PICTURES": "pictures", "VARIANTS": False}
    told = run(tmp_path, monkeypatch, {**changes, "QUICK": True, "OTHER_LORA": other.file, "WORK": "mine"})
    assert told[-1].replace("\\", "/").startswith("Keep mine/zkw-big-robot/zkw-big-robot.safetensors at weight ")
    work = tmp_path / "mine"
    assert len(list((work / "class").glob("*.png"))) == 8
    written = sorted((work / "photos" / "my photos").glob("*.txt"))
    assert [path.read_text("utf-8").strip() for path in written] == ["a photo of zkw (big) robot"] * 5
    assert {path.stem for path in (work / "loras").iterdir()} == {"zkw-big-robot", "other"}
    assert not list(work.glob("zkw-word")) and not list(work.glob("*dreambooth"))


@pytest.mark.heavy
def test_it_runs_from_top_to_bottom_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    a1111 = tmp_path / "a1111"
    a1111.mkdir()
    told = run(tmp_path, monkeypatch, {"QUICK": True, "A1111": str(a1111)})
    work = tmp_path / "notebook-run"
    chosen = work / "zkw-robot" / "zkw-robot.safetensors"
    assert re.fullmatch(
        r"Keep notebook-run/zkw-robot/zkw-robot\.safetensors at weight [\d.]+\n", told[-1].replace("\\", "/")
    )
    found = maquette.inspect(chosen)
    assert found.lora is not None and found.lora.method == "locon" and found.lora.unmatched == []
    assert {path.suffix for path in a1111.iterdir()} == {".safetensors", ".json", ".png"}
    assert (a1111 / chosen.name).read_bytes() == chosen.read_bytes()
    steps = sorted(path.stem[-6:] for path in (work / "zkw-robot" / "checkpoints").glob("*.safetensors"))
    assert steps == ["000008", "000016", "000024"]
    assert (work / "grid" / "grid.png").exists() and len(list((work / "grid" / "cells").glob("*.png"))) == 6
    pictures = sorted((work / "pictures").glob("*.png"))
    assert len(pictures) == 12
    bare, half, whole, *_, tagged, merged, _, _, _ = [Image.open(path).convert("RGB") for path in pictures]
    assert len({bare.tobytes(), half.tobytes(), whole.tobytes()}) == 3
    assert tagged.tobytes() == whole.tobytes()
    differences = [abs(a - b) for a, b in zip(tagged.tobytes(), merged.tobytes(), strict=True)]
    assert sum(differences) / len(differences) < 1  # of 255: the merged checkpoint is rounded to the base's precision
    assert maquette.inspect(work / "both.safetensors").lora is not None
    assert maquette.inspect(work / "zkw-word" / "zkw-word.safetensors").embedding is not None
    assert maquette.inspect(work / "zkw-dreambooth" / "zkw-dreambooth.safetensors").kind == "model"
    # all cells again: nothing is trained a second time, nothing written over
    before = {path: path.stat().st_mtime_ns for path in work.rglob("checkpoints/*.safetensors")}
    run(tmp_path, monkeypatch, {"QUICK": True, "VARIANTS": False})
    assert {path: path.stat().st_mtime_ns for path in work.rglob("checkpoints/*.safetensors")} == before
    assert (work / "merged-2.safetensors").exists()
