"""The rooms and floors of the design: a lower one never imports a higher one, and core needs torch only."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "maquette"
# Each room, and the rooms of the floors below from which it may import.
FLOORS = (
    ("core",),
    ("formats",),
    ("adapters",),
    ("families", "methods", "data", "prompts", "fast"),
    ("sampling", "interop", "demo"),
    ("report",),
    ("training", "evaluation", "weights"),
    ("stages",),
    ("fleet",),
    ("studio",),
    ("cli",),
)
# What lies beneath all rooms: it imports no room but what is named here.
ROOT = {
    "errors",
    "limits",
    "files",
    "parsing",
    "shown",
    "events",
    "trainers",
    "config",
    "run_folder",
    "openmp",
    "__version__",
}
NEIGHBOURS = {("training", "evaluation")}  # rooms of one floor, of which the first may import the second


@cache
def tree_of(path: Path) -> ast.Module:
    """What a file says, parsed once for all tests."""
    return ast.parse(path.read_text("utf-8"))


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree_of(path)))


def floor_of(room: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def allowed_in(room: str) -> set[str]:
    """Rooms and root modules that a file of this room may import."""
    below = {name for rooms in FLOORS[: floor_of(room)] for name in rooms}
    return below | {room} | {second for first, second in NEIGHBOURS if first == room} | ROOT


FOREIGN_TO_CORE = {"diffusers", "transformers", "PIL", "pydantic", "typer", "rich"}


def maquette_imports(path: Path) -> set[str]:
    """Top-level parts of maquette that a file imports, anywhere in it: {"core", "formats", …}."""
    package = ("maquette", *path.relative_to(SOURCE).parent.parts)
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            names = [module] if len(module) > 1 else [(*module, alias.name) for alias in node.names]
            found |= {name[1] for name in names if name[0] == "maquette" and len(name) > 1}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("maquette.")}
    return found


@pytest.mark.parametrize("room", sorted(p.name for p in SOURCE.iterdir() if (p / "__init__.py").exists()))
def test_room_imports_only_what_lies_below(room: str) -> None:
    allowed = ROOT if room in ROOT else allowed_in(room)
    wrong = {str(f.relative_to(SOURCE)): sorted(maquette_imports(f) - allowed) for f in (SOURCE / room).rglob("*.py")}
    assert {name: parts for name, parts in wrong.items() if parts} == {}


@pytest.mark.parametrize("module", sorted(ROOT - {"trainers", "config", "__version__"}))
def test_root_modules_import_no_room(module: str) -> None:
    assert maquette_imports(SOURCE / f"{module}.py") <= ROOT


def test_no_room_is_over_a_fifth_of_the_code() -> None:
    lines = {
        p.name: sum(len(f.read_text().splitlines()) for f in p.rglob("*.py")) for p in SOURCE.iterdir() if p.is_dir()
    }
    total = sum(lines.values()) + sum(len(f.read_text().splitlines()) for f in SOURCE.glob("*.py"))
    assert {room: n for room, n in lines.items() if n > total / 5} == {}


def test_core_needs_torch_only() -> None:
    for path in (SOURCE / "core").rglob("*.py"):
        for node in nodes_of(path):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            roots = {m.split(".")[0] for m in modules}
            assert not roots & FOREIGN_TO_CORE, f"{path.name}: {roots}"


def test_no_surgery_on_classes_or_on_imported_modules() -> None:
    """Nobody changes the class of an object, or puts into `sys.modules` what he wants others to import."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in nodes_of(path):
            targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else []
            changed = [ast.unparse(target) for target in targets]
            wrong = [name for name in changed if name.endswith(".__class__") or name.startswith("sys.modules")]
            assert not wrong, f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)} changes {wrong}"


def test_a_network_is_a_file_of_at_most_250_lines() -> None:
    networks = [*(SOURCE / "families/unet").glob("*.py"), *(SOURCE / "families/clip").glob("*.py")]
    for path in [*networks, SOURCE / "families/vae.py"]:
        assert len(path.read_text("utf-8").splitlines()) <= 250, path.name


def test_every_stage_is_run_alike() -> None:
    """run(config, on_event, cancel), a base that is open already after them."""
    found = 0
    for path in [*sorted((SOURCE / "stages").glob("*.py")), SOURCE / "fleet" / "comparing.py"]:
        for node in tree_of(path).body:
            if isinstance(node, ast.FunctionDef) and node.name == "run":
                arguments = [(a.arg, ast.unparse(a.annotation) if a.annotation else "") for a in node.args.args]
                assert arguments[0][0] == "config" and arguments[0][1].endswith("Config"), path.name
                assert arguments[1:3] == [("on_event", "Listener"), ("cancel", "Cancel | None")], path.name
                assert [name for name, _ in arguments[3:]] in ([], ["base"]), path.name
                assert len(node.args.defaults) == len(arguments) - 1 and not node.args.kwonlyargs, path.name
                found += 1
    assert found >= 20


def test_kohyas_names_of_layers_are_known_to_adapters_alone() -> None:
    """Besides: who reads Kohya's options for blocks, and the studio's stand-in, which writes a file of such keys."""
    own = ("adapters/", "interop/kohya/", "studio/fake.py")
    names = {str(path.relative_to(SOURCE)): path.read_text("utf-8") for path in SOURCE.rglob("*.py")}
    naming = [name for name, text in names.items() if re.search(r"lora_(unet|te[12]?)\b|lora_(unet|te[12]?)_", text)]
    assert [name for name in naming if not name.startswith(own)] == []


LONGEST = 50  # lines of a function
# Longer ones, and why they stay in one piece.
LONG = {
    "evaluation/panel.py: build_panel": "a signature of settings by name, and a dataclass with a field on each line",
    "evaluation/verdict.py: judge": "a signature of settings by name, and a dataclass with a field on each line",
    "sampling/loop.py: sample": "a signature of settings by name, and what each means",
    "trainers/kohya.py: _mapped": "a table: the options of Kohya's trainer",
    "training/metadata.py: metadata": "a table: the keys of Kohya's metadata",
    "weights/extract.py: extract": "two closures over what several threads collect",
}


def test_functions_are_short_or_say_why() -> None:
    long = {
        f"{path.relative_to(SOURCE)}: {node.name}"
        for path in SOURCE.rglob("*.py")
        for node in nodes_of(path)
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= LONGEST
    }
    assert long == set(LONG)


def test_types_are_ignored_seldom() -> None:
    lines = [line for path in SOURCE.rglob("*.py") for line in path.read_text().splitlines()]
    assert sum("# type: ignore" in line for line in lines) < 10


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest would stop at the second, and run none."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
