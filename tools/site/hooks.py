"""Called by mkdocs (mkdocs.yml): tables of options in the place of a marker, and the pages of the checkout's root.

The marker is a line of its own, `<!-- options -->`, and becomes a section for each command that has options.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from maquette.config import StageConfig

ROOT = Path(__file__).parents[2]
ROOT_PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
MARKER = "<!-- options -->"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that GitHub wants in the root, with links as they are on the site."""
    from mkdocs.structure.files import File

    for name, source in ROOT_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        for page, original in ROOT_PAGES.items():
            text = text.replace(f"]({original})", f"]({page})")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **context: Any) -> str:
    """Put the options of all commands in the place of the marker."""
    return markdown.replace(MARKER, sections()) if MARKER in markdown else markdown


def sections() -> str:
    """Every command that has options, with its table, in the order of `maquette --help`."""
    from maquette.cli.main import ORDER

    found = dict(stages())
    names = sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    return "\n\n".join(f"## {name}\n\n{table(found[name])}" for name in names)


def stages() -> Iterator[tuple[str, type[StageConfig]]]:
    """Name and options of every stage: what the `config` of its function `run` is."""
    import maquette.stages

    for info in pkgutil.iter_modules(maquette.stages.__path__):
        module = importlib.import_module(f"maquette.stages.{info.name}")
        run = getattr(module, "run", None)
        named = getattr(run, "__annotations__", {}).get("config")
        if named is not None and getattr(run, "__module__", "") == module.__name__:
            yield info.name, getattr(module, named) if isinstance(named, str) else named


def table(model: type[StageConfig]) -> str:
    """A Markdown table: key, what it takes, its default, what it does."""
    lines = ["| key | takes | default | |", "|---|---|---|---|"]
    for key, field in model.model_fields.items():
        default = "needed" if field.is_required() else _default(field.get_default(call_default_factory=True))
        cells = (f"`{key}`", takes(field.annotation), default, _plain(model.describe(key)))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """A description in which nothing is taken for markup but code between backticks."""
    parts = text.split("`")
    for place in range(0, len(parts), 2):
        for sign in ("<", "*", "_", "["):
            parts[place] = parts[place].replace(sign, f"\\{sign}")
    return "`".join(parts)


def _default(value: Any) -> str:
    if value is None or value == "":
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def takes(kind: Any) -> str:
    """A type in words: `Literal["a", "b"]` -> "`a`, `b`", `list[int] | None` -> "list of: whole number"."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(takes(each) for each in inner if each is not NoneType))
    if origin is Annotated:
        return takes(inner[0])
    if origin in (list, tuple):
        return f"list of: {takes(inner[0])}"
    if origin is dict:
        return f"table of: {takes(inner[1])}"
    names = {bool: "true, false", int: "whole number", float: "number", str: "text", Path: "path"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))
