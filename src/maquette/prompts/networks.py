"""Tags of extra networks in A1111's prompt language: `<lora:NAME:0.8>`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from .limits import require_bounded

_TAG = re.compile(r"<(\w+):([^>]+)>")
_NEARLY = re.compile(
    r"""
    (?:[<＜〈‹《⟨]|&lt;)\s*(?:lora|lyco|hypernet)\b    # opened, so that what was not taken out is not closed or spaced
    | (?<!\w)(?:lora|lyco)\s*[:：][^<>\[\](){},\n]{1,200}(?:>|＞|&gt;)    # closed, not opened
    | (?<!\w)(?:lora|lyco)[:：][^<>\[\](){},:\s][^<>\[\](){},:\n]{0,200}[:：]\s*-?[\d.]+    # neither
    | [(\[{]\s*(?:lora|lyco)\s*:[^<>\[\](){},:\n]{1,200}:[\s\d.]{1,20}[)\]}]   # other brackets
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SHOWN = 60  # characters of a faulty tag that a message repeats


@dataclass(frozen=True)
class Network:
    """One tag. kind: "lora", …; positional: its arguments in order, the first is the name; named: `key=value` ones."""

    kind: str
    positional: list[str] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The tag as it is written."""
        return f"<{':'.join([self.kind, *self.positional, *(f'{k}={v}' for k, v in self.named.items())])}>"


def parse_networks(prompt: str) -> tuple[str, list[Network]]:
    """Take the tags out of a prompt: "x <lora:f:0.8>" -> ("x ", [Network("lora", ["f", "0.8"], {})]).

    Raises MaquetteError for a prompt that is too long.
    """
    require_bounded(prompt)
    head, tail = _with_tags(prompt)
    return _TAG.sub("", head) + tail, [_network(match) for match in _TAG.finditer(head)]


def replace_networks(prompt: str, text_of: Callable[[Network], str]) -> str:
    """The prompt with other text in the place of each tag, from left to right. Raises MaquetteError as above."""
    require_bounded(prompt)
    head, tail = _with_tags(prompt)
    return _TAG.sub(lambda match: text_of(_network(match)), head) + tail


def _with_tags(prompt: str) -> tuple[str, str]:
    """What may hold tags, and the rest: no tag ends there, and looking for one from every "<" would take n² steps."""
    end = prompt.rfind(">") + 1
    return prompt[:end], prompt[end:]


def _network(match: re.Match[str]) -> Network:
    positional: list[str] = []
    named: dict[str, str] = {}
    for argument in match[2].split(":"):
        parts = argument.split("=")
        if len(parts) == 2:
            named[parts[0]] = parts[1]
        else:
            positional.append(argument)
    return Network(match[1], positional, named)


def malformed_tag(rest: str) -> str | None:
    """What in a prompt without its tags looks like one that is not closed, oddly spaced or in other brackets.

    "a < lora:mine:0.8>" -> "< lora:mine:0.8>". Such a tag would be read as words and the LoRA be without effect.
    """
    require_bounded(rest)
    match = _NEARLY.search(rest)
    if match is None:
        return None
    shown = rest[match.start() : match.start() + _SHOWN]
    end = next((i + 1 for i, c in enumerate(shown) if c in ">＞〉›》⟩\n"), len(shown))
    return shown[:end].strip()
