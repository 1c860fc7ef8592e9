"""Prompts with chance in them, in the grammar of Dynamic Prompts: `__colour__`, `{a|b}`, `{2$$a|b|c}`, `{0.8::a|b}`."""

from __future__ import annotations

import logging
import random
import re
from pathlib import Path

from ..errors import MaquetteError
from ..prompts.limits import require_bounded

_WILDCARD = re.compile(r"__([\w/*.-]+?)__")


def chosen(prompt: str, seed: int, folder: Path | None) -> str:
    """One of the prompts that a prompt stands for; the same one for the same seed.

    folder: of text files, a choice a line, called `__name__` by their path without ending. Raises MaquetteError for a
    wildcard without file and for brackets that are not closed.
    """
    from dynamicprompts.generators import RandomPromptGenerator
    from dynamicprompts.wildcards.wildcard_manager import WildcardManager

    require_bounded(prompt)
    if folder is not None and not folder.is_dir():
        raise MaquetteError(f"The folder of wildcards {folder} does not exist.")
    manager = WildcardManager(folder)
    logging.getLogger("dynamicprompts").setLevel(logging.ERROR)
    for name in _WILDCARD.findall(prompt):
        if not len(manager.get_values(name)):
            where = f"in {folder}" if folder else "without a folder of wildcards; name it with --wildcard-dir"
            raise MaquetteError(f"There is no wildcard __{name}__ {where}.")
    try:
        found = RandomPromptGenerator(manager, seed=random.Random(seed).getrandbits(32)).generate(prompt, 1)
    except Exception as error:  # its parser's own kinds
        raise MaquetteError(
            f"The prompt {prompt[:60]!r} has a {{…|…}} that cannot be read: {_first(error)}."
        ) from error
    return str(found[0]) if found else ""


def _first(error: Exception) -> str:
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__
