"""Where a merged model comes from, as A1111's merger writes it into the file, and the family tree read back.

`sd_merge_recipe` is the merge as JSON, with the sha256 of each model; `sd_merge_models` holds, by sha256, the name of
every ancestor and its own recipe; `modelspec.merged_from` names the models for people.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from ..formats import hashes
from ..formats.known_hashes import files_sha256
from ..parsing import parse_json

_ROLES = ("primary", "secondary", "tertiary")
_MOST_LINES, _MOST_DEPTH, _SHOWN = 200, 12, 80


@dataclass
class Parent:
    """A file that a merge reads. files: its weight files; metadata: its own, with its ancestors. kind: "model" or
    "lora". found: its hash, once `hash_now` was called.
    """

    source: str
    files: list[Path]
    metadata: Mapping[str, str] = field(default_factory=dict)
    kind: str = "model"
    found: str = ""
    legacy: str = ""

    @property
    def name(self) -> str:
        return Path(self.source).name

    def hash_now(self) -> None:
        """sha256 of the file (of a folder: over those of its files), and A1111's old hash of 8 digits."""
        self.found = files_sha256(self.files)
        self.legacy = hashes.legacy(self.files[0])


@dataclass
class Ancestry:
    """The metadata of a merge, before the parents' hashes are known and after, equally long both times."""

    parents: Sequence[Parent]
    recipe: Callable[[Sequence[str]], dict[str, Any]]  # the parents' hashes -> what `sd_merge_recipe` says

    def placeholder(self) -> dict[str, str]:
        """The entries with numbers in the places of hashes."""
        return self._made([f"{i:064x}" for i in range(len(self.parents))], ["0" * 8] * len(self.parents))

    def final(self) -> dict[str, str]:
        """The entries with the hashes that were found; filled with blanks where two parents are the same file."""
        before = self.placeholder()
        made = self._made([parent.found for parent in self.parents], [parent.legacy for parent in self.parents])
        return {key: value.ljust(len(before[key])) for key, value in made.items()}

    def _made(self, found: Sequence[str], legacy: Sequence[str]) -> dict[str, str]:
        models: dict[str, Any] = {}
        for parent in self.parents:
            models |= _table(parent.metadata.get("sd_merge_models", ""))
        for parent, hashed, old in zip(self.parents, found, legacy, strict=True):
            own = _table(parent.metadata.get("sd_merge_recipe", "")) or None
            models[hashed] = {"name": parent.name, "legacy_hash": old, "sd_merge_recipe": own}
            if parent.kind != "model":
                models[hashed]["kind"] = parent.kind
        return {
            "sd_merge_recipe": json.dumps({"type": "maquette", **self.recipe(found)}),
            "sd_merge_models": json.dumps(models),
            "modelspec.merged_from": ", ".join(dict.fromkeys(parent.name for parent in self.parents)),
        }


def roles(found: Sequence[str]) -> dict[str, str]:
    """The keys under which A1111 keeps the hashes of its up to three models."""
    return {f"{role}_model_hash": value for role, value in zip(_ROLES, found, strict=False)}


def tree(metadata: Mapping[str, str]) -> list[str]:
    """The family tree as indented lines; empty for a file that no merge has written. Metadata may come from anybody:
    it is cut off at 200 lines and 12 generations.
    """
    recipe, models = _table(metadata.get("sd_merge_recipe", "")), _table(metadata.get("sd_merge_models", ""))
    if not recipe:
        return []
    lines: list[str] = []
    _grow(recipe, models, "", lines, 0)
    return lines[:_MOST_LINES]


def _grow(recipe: Mapping[str, Any], models: Mapping[str, Any], indent: str, lines: list[str], depth: int) -> None:
    lines.append(f"{indent}{_short(_method(recipe))}")
    if depth >= _MOST_DEPTH:
        lines.append(f"{indent}  …")
        return
    parents = [(f"{role[0].upper()}", recipe.get(f"{role}_model_hash")) for role in _ROLES]
    names = dict(zip("PST", "ABC", strict=True))
    listed = [(names[letter], hashed, "") for letter, hashed in parents if isinstance(hashed, str)]
    listed += [
        ("LoRA", one["hash"], f", {_short(str(one.get('weight', '')))}")
        for one in _list(recipe.get("loras"))
        if isinstance(one.get("hash"), str)
    ]
    listed += [
        (_short(str(one.get("label", ""))), one["hash"], "")
        for one in _list(recipe.get("models"))
        if isinstance(one.get("hash"), str)
    ]
    for label, hashed, more in listed:
        if len(lines) > _MOST_LINES:
            return
        found = models.get(hashed)
        known = found if isinstance(found, dict) else {}
        lines.append(f"{indent}  {label}: {_short(str(known.get('name', 'unknown')))} ({hashed[:10]}){more}")
        own = known.get("sd_merge_recipe")
        if isinstance(own, dict) and own:
            _grow(own, models, f"{indent}    ", lines, depth + 1)


def _method(recipe: Mapping[str, Any]) -> str:
    """ "add-difference, multiplier 0.5" of a recipe, A1111's or ours."""
    method = str(recipe.get("interp_method") or "a merge")
    multiplier = recipe.get("multiplier")
    return f"{method}, multiplier {multiplier}" if isinstance(multiplier, int | float) else method


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value[:_MOST_LINES] if isinstance(item, dict)] if isinstance(value, list) else []


def _table(text: str) -> dict[str, Any]:
    """A JSON table of the metadata; empty for anything else."""
    if not text.strip():
        return {}
    try:
        value = parse_json(text, "the metadata")
    except MaquetteError:
        return {}
    return value if isinstance(value, dict) else {}
