"""What `maquette inspect` says about an adapter: method, ranks, whose names it has, and which of its layers exist."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..adapters.file import Adapter
from ..adapters.parts import DISPLAY
from ..errors import MaquetteError
from ..families.detect import FAMILY_NAMES
from ..families.named_layers import layer_names
from ..parsing import parse_json

_FAMILIES = ("sd1", "sd2", "sdxl", "pocket")


@dataclass
class LoraFacts:
    """An adapter: its method, ranks and alphas with how many modules have them, whose names it has (dialect), how many
    of its modules are layers of its family, and the words (embeddings) that come with it.
    """

    method: str
    ranks: dict[str, int]
    alphas: dict[str, int]
    modules: int
    matched: int
    unmatched: list[str]
    trigger_words: list[str]
    dialect: str = "Kohya"
    words: list[str] = field(default_factory=list)

    @property
    def called(self) -> str:
        """With its article: "a lora adapter", "an OFT adapter"."""
        name = DISPLAY.get(self.method, self.method)
        return f"{'an' if name[0] in 'AEIO' else 'a'} {name} adapter"


def describe(adapter: Adapter) -> tuple[LoraFacts, str | None, list[str]]:
    """The facts, the family (None when it fits none), and what is wrong."""
    families = [adapter.family] if adapter.family in _FAMILIES else list(_FAMILIES)
    fits = {family: [name for name in adapter.modules if name in layer_names(family)] for family in families}
    best = max(families, key=lambda family: len(fits[family]))
    family = adapter.family if adapter.family in _FAMILIES else best if fits[best] else None
    ranks = Counter(str(module.rank) for module in adapter.modules.values() if module.rank is not None)
    alphas = Counter(
        f"{module.alpha:g}" for module in adapter.modules.values() if module.alpha is not None and module.rank
    )
    known = set(fits[best])
    unmatched = sorted(name for name in adapter.modules if name not in known)
    facts = LoraFacts(
        adapter.method,
        dict(ranks.most_common()),
        dict(alphas.most_common()),
        len(adapter.modules),
        len(known),
        unmatched,
        trigger_words(adapter.metadata),
        adapter.dialect,
        [word.name for word in adapter.embeddings],
    )
    problems = list(adapter.notes)
    try:
        _tag_frequency(adapter.metadata)
    except MaquetteError as error:
        problems.append(f"The tags that it was trained with cannot be read: {error}")
    if unmatched:
        problems.append(
            f"{len(unmatched)} of {len(adapter.modules)} modules are not layers of "
            f"{FAMILY_NAMES.get(str(family), 'any family')}, for example {unmatched[0]}."
        )
    return facts, family, problems


def trigger_words(metadata: Mapping[str, str]) -> list[str]:
    """Words that the file itself names as its trigger, else the tags that stand in nearly every training caption."""
    phrase = metadata.get("modelspec.trigger_phrase", "").strip()
    if phrase:
        return [word.strip() for word in phrase.split(",") if word.strip()]
    try:
        folders = _tag_frequency(metadata)
    except MaquetteError:  # of which `describe` tells
        return []
    counts: Counter[str] = Counter()
    for tags in _tables(folders):
        for tag, count in tags.items():
            if isinstance(count, int | float) and math.isfinite(count):
                counts[str(tag).strip()] += int(count)
    most = max(counts.values(), default=0)
    return [tag for tag, count in counts.most_common(3) if count >= 0.9 * most]


def _tag_frequency(metadata: Mapping[str, str]) -> Any:
    """Folder -> tag -> how often. Raises MaquetteError for what is not to be read."""
    return parse_json(metadata.get("ss_tag_frequency", "{}"), "ss_tag_frequency")


def _tables(folders: Any) -> list[dict[str, Any]]:
    tables = folders.values() if isinstance(folders, dict) else ()
    return [table for table in tables if isinstance(table, dict)]
