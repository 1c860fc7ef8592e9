"""Prompts with chance in them, in the grammar of Dynamic Prompts: `__colour__`, `{a|b}`, `{2$$a|b|c}`, `{0.8::a|b}`."""

from __future__ import annotations

import logging
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from ..prompts.limits import require_bounded

_WILDCARD = re.compile(r"__([\w/*.-]+?)__")
_COMMENT, _SIGN = r"\#[^\n]*", r"\#"
_FIRST, _STANDS_FOR = 0xE000, re.compile("[\ue000-\uf8ff]")  # characters for private use, which no prompt has
_GRAMMAR = r"""
    \{\s*[~!@]?\s*(?:\d+-?\d*|-\d+)\s*\$\$(?:[^${}]*\$\$)?    # {2$$ and {1-2$$ and $$
    | \$\{(?=\s*[A-Za-z_-][\w-]*\s*(?:[}:=]|\?=))    # ${colour}
    | %\{ | [{}] | \$\$ | [$%]
"""


class _Hiding:
    """Puts characters for private use where a text has what the library's grammar would take for its own."""

    def __init__(self) -> None:
        self.hidden: list[str] = []

    def hide(self, text: str, also: str = "(?!)") -> str:
        """The text without $ and % that begin nothing of the grammar, and without what a pattern matches besides."""
        opened: list[str] = []

        def kept(match: re.Match[str]) -> str:
            part = match[0]
            if "{" in part and part[0] in "{$%":
                opened.append(part[0])
                return part
            if part == "}":
                del opened[-1:]
                return part
            return part if part == "$$" and opened[-1:] == ["%"] else self._place(part)

        return re.sub(f"{also} | {_GRAMMAR}", kept, text, flags=re.VERBOSE)

    def _place(self, part: str) -> str:
        if part not in self.hidden:
            self.hidden.append(part)
        return chr(_FIRST + self.hidden.index(part))

    def shown(self, text: str) -> str:
        """A text with what was hidden."""
        stands_for = {chr(_FIRST + i): part for i, part in enumerate(self.hidden)}
        return _STANDS_FOR.sub(lambda match: stands_for.get(match[0], match[0]), text)


def chosen(prompt: str, seed: int, folder: Path | None, comments: bool = True) -> str:
    """One of the prompts that a prompt stands for; the same one for the same seed.

    folder: of text files, a choice a line, called `__name__` by their path without ending. comments: what stands behind
    # holds no choices; it is kept here, for whoever reads the prompt next. Raises MaquetteError for a wildcard without
    file and for brackets that are not closed.
    """
    from dynamicprompts.generators import RandomPromptGenerator
    from dynamicprompts.wildcards.values import WildcardValues
    from dynamicprompts.wildcards.wildcard_manager import WildcardManager

    class Manager(WildcardManager):  # type: ignore[misc,unused-ignore]
        def get_values(self, wildcard: str) -> WildcardValues:
            return WildcardValues.from_items([hidden(item) for item in super().get_values(wildcard).items])

    def hidden(item: Any) -> Any:  # a line, or what a YAML file gives a weight
        return hiding.hide(item) if isinstance(item, str) else replace(item, content=hiding.hide(item.content))

    require_bounded(prompt)
    if folder is not None and not folder.is_dir():
        raise MaquetteError(f"The folder of wildcards {folder} does not exist.")
    hiding = _Hiding()
    manager = Manager(folder)
    logging.getLogger("dynamicprompts").setLevel(logging.ERROR)
    words = hiding.hide(prompt, _COMMENT if comments else _SIGN)
    for name in _WILDCARD.findall(words):
        if not len(manager.get_values(name)):
            where = f"in {folder}" if folder else "without a folder of wildcards; name it with --wildcard-dir"
            raise MaquetteError(f"There is no wildcard __{name}__ {where}.")
    try:
        found = RandomPromptGenerator(manager, seed=random.Random(seed).getrandbits(32)).generate(words, 1)
    except Exception as error:  # its parser's own kinds
        raise MaquetteError(
            f"The prompt {prompt[:60]!r} has a {{…|…}} that cannot be read: {_first(error)}."
        ) from error
    return hiding.shown(str(found[0])) if found else ""


def _first(error: Exception) -> str:
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__
