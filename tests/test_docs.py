"""The docs: links lead somewhere, files and functions that they name exist, every page and option is in them."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_architecture import FLOORS

import maquette
from maquette.config import TrainConfig
from tools.site import hooks

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "maquette"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.joinpath("docs").rglob("*.md"), *ROOT.joinpath("tools").rglob("*.md")])
USERS = [path for path in PAGES if path.parent == ROOT / "docs"]


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Places of a page that a link can name, as GitHub and mkdocs make them of its headings."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text("utf-8"))):
        if re.match(r"https?://", link):
            continue
        file, _, place = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if place and target.suffix == ".md":
            assert place in anchors(target.read_text("utf-8")), link


def test_the_index_names_every_page_and_the_site_has_it() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    menu = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in ROOT.joinpath("docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert f" {name}\n" in menu, f"mkdocs.yml lacks {name}"
        assert name == "index.md" or f"]({name})" in index, f"docs/index.md lacks {name}"


def named_files(text: str) -> list[str]:
    """Paths of the package in a page's code: with a slash or the ending .py. NAME stands for what a reader chooses."""
    spans = re.findall(r"`([^`\n]+)`", prose(text))
    paths = (span.partition(":")[0] for span in spans)
    found = [path for path in paths if re.fullmatch(r"[\w.-]+(/[\w.*-]+)*(/|\.py|\.md|\.toml|\.yml)", path)]
    return [path for path in found if "NAME" not in path]


def test_every_file_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    found = named_files(text)
    missing = [name for name in found if not any(list(place.glob(name.rstrip("/"))) for place in (SOURCE, ROOT))]
    assert missing == []
    assert len(found) > 20


def test_every_function_that_the_architecture_names_is_in_its_file() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    for file, names in re.findall(r"`([\w/]+\.py): ([^`\n]+)`", text):
        path = next(place / file for place in (SOURCE, ROOT) if (place / file).exists())
        defined = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                defined |= {target.id for target in targets if isinstance(target, ast.Name)}
        for name in names.split(", "):
            assert name.rpartition(".")[2] in defined, f"{file} has no {name}"


def test_the_picture_of_the_layers_is_the_rule_that_is_enforced() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    block = re.search(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    known = {room for rooms in FLOORS for room in rooms}
    assert [set(line.split()) & known for line in block[1].splitlines()] == [set(rooms) for rooms in reversed(FLOORS)]


def test_the_architecture_has_every_room_and_the_rooms_alone() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rooms = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert {room for room in rooms if f"`{room}/`" not in text} == set()


def test_tables_of_options_have_every_key_with_its_description() -> None:
    text = hooks.table(TrainConfig)
    for key in TrainConfig.model_fields:
        assert f"| `{key}` | " in text
    assert "| `rank` | whole number | `16` | Rank of the adapter: its capacity and file size. |" in text
    assert "| `photos` | path | needed | Folder of photos: plain, or with Kohya's `40_ohwx man` folders. |" in text
    assert "| `keep_steps` | list of: whole number | `[]` |" in text
    assert "| `save_dtype` | `fp16`, `bf16`, `fp32` | `fp16` |" in text
    assert "| `flip_aug` | true, false | `false` |" in text
    assert "| `subject` | text |  | The rare word" in text


def test_the_page_of_options_has_every_stage() -> None:
    page = hooks.on_page_markdown((ROOT / "docs" / "options.md").read_text("utf-8"))
    assert hooks.MARKER not in page
    for name in ("demo", "check", "caption", "regularize", "train", "generate", "convert", "inspect"):
        assert f"\n## {name}\n" in page
    assert page.index("## check") < page.index("## train") < page.index("## generate") < page.index("## convert")


def test_what_the_site_says_of_functions_is_what_the_package_offers() -> None:
    assert {name for name in maquette.__all__ if not callable(getattr(maquette, name))} == set()
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert "\n::: maquette\n" in page and "\n::: maquette.prompts\n" in page


def test_the_readme_names_every_command_and_no_other() -> None:
    from maquette.cli.main import LazyGroup

    text = (ROOT / "README.md").read_text("utf-8")
    rows = set(re.findall(r"^\| `maquette (\w+)", text, re.MULTILINE))
    assert rows == set(LazyGroup().list_commands(None))  # type: ignore[arg-type]


def test_citation_and_changelog_say_the_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {maquette.__version__}\n" in citation
    assert f"\n## [{maquette.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_users_pages_are_no_diaries() -> None:
    """How something was measured, in many rows, stands in docs/measurements."""
    long = {page.name for page in USERS if page.read_text("utf-8").count("GFLOP/s") > 3}
    assert long == set()


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    told = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0 and "WARNING" not in told.stderr, told.stderr
    options = (tmp_path / "site" / "options.html").read_text("utf-8")
    assert "<code>min_snr_gamma</code>" in options
    functions = (tmp_path / "site" / "api.html").read_text("utf-8")
    assert 'id="maquette.train"' in functions and 'id="maquette.prompts.parse_attention"' in functions
