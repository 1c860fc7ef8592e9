"""Tags of extra networks in A1111's prompt language: `<lora:NAME:0.8>`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TAG = re.compile(r"<(\w+):([^>]+)>")


@dataclass(frozen=True)
class Network:
    """One tag. kind: "lora", …; positional: its arguments in order, the first is the name; named: `key=value` ones."""

    kind: str
    positional: list[str] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)


def parse_networks(prompt: str) -> tuple[str, list[Network]]:
    """Take the tags out of a prompt: "x <lora:f:0.8>" -> ("x ", [Network("lora", ["f", "0.8"], {})])."""
    found: list[Network] = []

    def take(match: re.Match[str]) -> str:
        positional: list[str] = []
        named: dict[str, str] = {}
        for argument in match[2].split(":"):
            parts = argument.split("=")
            if len(parts) == 2:
                named[parts[0]] = parts[1]
            else:
                positional.append(argument)
        found.append(Network(match[1], positional, named))
        return ""

    return _TAG.sub(take, prompt), found
