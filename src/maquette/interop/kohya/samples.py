"""The sample pictures of a Kohya configuration: a file of prompts, or the prompts themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ...parsing import parse_json, parse_toml

if TYPE_CHECKING:
    from .read import _Reader

_FLAG = re.compile(r"\s--(\w)\s+(\S+)")
_FLAGS = (("d", "seed", "sample_seed"), ("s", "sample_steps", "sample_steps"), ("l", "scale", "sample_cfg_scale"))


def read(reader: _Reader) -> None:
    """Take the prompts. Raises MaquetteError when their file is not there."""
    named = reader.values.text("sample_prompts")
    if named is None:
        reader.made["sample_prompts"] = []
        return
    suffix = named.lower().rpartition(".")[2] if "\n" not in named else ""
    text = reader.source.text_of(named) if "\n" not in named and len(named) < 1000 else None
    if text is None and suffix in ("txt", "toml", "json"):
        raise reader.refuse(f"its sample_prompts file {named} is not there.")
    if text is not None and suffix in ("toml", "json"):
        return _structured(reader, parse_toml(text, named) if suffix == "toml" else parse_json(text, named))
    lines = [line.strip() for line in (named if text is None else text).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    reader.made["sample_prompts"] = [line.split(" --")[0].strip() for line in lines]
    flags = dict(_FLAG.findall(f" {lines[0]}")) if lines else {}
    for flag, _, key in _FLAGS:
        if flag in flags:
            _set(reader, key, flag, flags[flag])


def _structured(reader: _Reader, content: Any) -> None:
    """A list of tables with `prompt`, or in TOML [prompt] with subsets that inherit from it."""
    shared: dict[str, Any] = {}
    if isinstance(content, dict):
        held = content.get("prompt", {})
        shared = held if isinstance(held, dict) else {}
        content = shared.get("subset", [])
    entries = [{**shared, **entry} for entry in content if isinstance(entry, dict)] if isinstance(content, list) else []
    reader.made["sample_prompts"] = [str(entry["prompt"]) for entry in entries if entry.get("prompt")]
    for _, name, key in _FLAGS:
        if entries and name in entries[0]:
            _set(reader, key, name, entries[0][name])


def _set(reader: _Reader, key: str, name: str, value: Any) -> None:
    found = reader.values.as_number(f"sample_prompts --{name}", value)
    reader.made[key] = max(1.0, found) if key == "sample_cfg_scale" else int(abs(found))
