"""Prompts with chance in them, in the grammar of Dynamic Prompts: `__colour__`, `{a|b}`, `{2$$a|b|c}`, `{0.8::a|b}`."""

from __future__ import annotations

import logging
import random
import re
from pathlib import Path

from ..errors import MaquetteError
from ..prompts.limits import require_bounded

_WILDCARD = re.compile(r"__([\w/*.-]+?)__")
_COMMENT, _SIGN = re.compile(r"#[^\n]*"), re.compile("#")
_FIRST, _STANDS_FOR = 0xE000, re.compile("[\ue000-\uf8ff]")  # characters for private use, which no prompt has


def chosen(prompt: str, seed: int, folder: Path | None, comments: bool = True) -> str:
    """One of the prompts that a prompt stands for; the same one for the same seed.

    folder: of text files, a choice a line, called `__name__` by their path without ending. comments: what stands behind
    # holds no choices; it is kept here, for whoever reads the prompt next. Raises MaquetteError for a wildcard without
    file and for brackets that are not closed.
    """
    from dynamicprompts.generators import RandomPromptGenerator
    from dynamicprompts.wildcards.wildcard_manager import WildcardManager

    require_bounded(prompt)
    if folder is not None and not folder.is_dir():
        raise MaquetteError(f"The folder of wildcards {folder} does not exist.")
    manager = WildcardManager(folder)
    logging.getLogger("dynamicprompts").setLevel(logging.ERROR)
    hidden = _COMMENT.findall(prompt) if comments else ["#"]
    places = iter(range(len(hidden)))
    words = (_COMMENT if comments else _SIGN).sub(lambda _: chr(_FIRST + next(places, 0)), prompt)
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
    stands_for = {chr(_FIRST + i): text for i, text in enumerate(hidden)}
    return _STANDS_FOR.sub(lambda match: stands_for.get(match[0], match[0]), str(found[0])) if found else ""


def _first(error: Exception) -> str:
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__
