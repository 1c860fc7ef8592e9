"""The layers of the design: a lower one never imports a higher one, and core needs torch only."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "maquette"
LAYERS = {
    "core": {"core"},
    "formats": {"core", "formats"},
    "families": {"core", "formats", "families"},
    "methods": {"core", "formats", "methods"},
    "data": {"core", "formats", "data"},
    "prompts": {"core", "formats", "prompts"},
    "fast": {"core", "fast"},
    "weights": {"core", "formats", "families", "methods", "data", "prompts", "weights"},
    "evaluation": {"core", "formats", "families", "data", "prompts", "stages", "evaluation"},
    "stages": {
        "core",
        "formats",
        "families",
        "methods",
        "data",
        "prompts",
        "fast",
        "evaluation",
        "weights",
        "stages",
        "config",
        "run",
    },
    "cli": {"core", "formats", "families", "methods", "data", "prompts", "fast", "stages", "config", "run", "cli"},
}

# What lies beneath all layers: no layer is imported by it.
ROOT = {"errors", "limits", "files", "shown", "trainers", "__version__"}

FOREIGN_TO_CORE = {"diffusers", "transformers", "PIL", "pydantic", "typer", "rich"}


def maquette_imports(path: Path) -> set[str]:
    """Top-level parts of maquette that a file imports, anywhere in it: {"core", "formats", …}."""
    package = ("maquette", *path.relative_to(SOURCE).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            names = [module] if len(module) > 1 else [(*module, alias.name) for alias in node.names]
            found |= {name[1] for name in names if name[0] == "maquette" and len(name) > 1}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("maquette.")}
    return found


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_layer_imports_only_what_lies_below(layer: str) -> None:
    files = list((SOURCE / layer).rglob("*.py"))
    assert files, f"layer {layer} is empty"
    allowed = LAYERS[layer] | ROOT
    wrong = {str(f.relative_to(SOURCE)): sorted(maquette_imports(f) - allowed) for f in files}
    assert {name: parts for name, parts in wrong.items() if parts} == {}


def test_core_needs_torch_only() -> None:
    for path in (SOURCE / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            roots = {m.split(".")[0] for m in modules}
            assert not roots & FOREIGN_TO_CORE, f"{path.name}: {roots}"
