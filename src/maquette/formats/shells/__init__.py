"""Scripts of three shells, read for the commands they would run; nothing is run, and nothing outside the text is asked.

Quoting, continued lines and variables that the script itself sets are understood. What a variable holds that the
script does not set, or a command would print, stands in a word as UNSET + its name + UNSET.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath

UNSET = "\0"
_UNSET_NAME = re.compile("\0([^\0]*)\0")


@dataclass
class Script:
    """commands: the words of each. files: name -> text of those written by `cat > NAME << END`."""

    commands: list[list[str]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


def unset(name: str) -> str:
    """What stands in a word for a variable that the script does not set."""
    return f"{UNSET}{name}{UNSET}"


def unset_names(word: str) -> list[str]:
    """The variables of a word that the script does not set."""
    return _UNSET_NAME.findall(word)


def read_script(text: str, name: str) -> Script:
    """Read a script; its dialect follows from the suffix of `name`, else from how it continues lines.

    .bat and .cmd: cmd.exe, .ps1: PowerShell, others: sh. Raises MaquetteError, beginning with `name`, for a quotation
    mark or here-document that is never closed. Time grows with the length of the text.
    """
    from . import cmd, posix, powershell

    text = text.replace("\r\n", "\n").replace("\0", "")
    suffix = PurePath(name).suffix.lower()
    dialects = {".bat": cmd, ".cmd": cmd, ".ps1": powershell, ".sh": posix, ".bash": posix, ".zsh": posix}
    dialect = dialects.get(suffix)
    if dialect is None:
        dialect = cmd if re.search(r"\^$", text, re.M) else powershell if re.search(r"`$", text, re.M) else posix
    script: Script = dialect.read(text, name)
    return script
