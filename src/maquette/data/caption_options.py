"""Captions that vary while training: shuffled and dropped tags, wildcards, text in front and behind.

Each time that a photo is seen its caption is drawn anew, as in sd-scripts; the draw follows from the step's own random
numbers, so that a resumed run reads what an uninterrupted one would.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_BRACES = re.compile(r"([{|}])")
_ESCAPED = {"{{": "\x02", "}}": "\x03"}


@dataclass(frozen=True)
class CaptionOptions:
    """What is done to a caption, in the order of `vary`. The names are Kohya's."""

    prefix: str = ""
    suffix: str = ""
    wildcards: bool = False  # {a|b|c} becomes one of them; of several lines one is taken; {{ and }} are plain braces
    separator: str = ","
    keep_tokens: int = 0  # so many tags at the beginning stay where they are
    keep_tokens_separator: str = ""  # tags before its first occurrence stay in front, after its second behind
    shuffle: bool = False
    tag_dropout: float = 0.0  # chance of each tag that is not kept
    secondary_separator: str = ""  # binds tags that move together; becomes the separator in the end
    dropout: float = 0.0  # chance of the whole caption, drawn anew at each step by the training loop

    @property
    def varies(self) -> bool:
        """Whether two draws may differ."""
        return self.shuffle or self.wildcards or self.tag_dropout > 0


PLAIN = CaptionOptions()  # the caption as it is


def vary(text: str, options: CaptionOptions, source: random.Random) -> str:
    """One draw of a caption."""
    if options.wildcards:
        text = source.choice([line for line in text.splitlines() if line.strip()] or [""])
    text = " ".join(part for part in (options.prefix, text, options.suffix) if part)
    if options.wildcards:
        text = _fill(text, source)
    arranges = options.shuffle or options.tag_dropout > 0 or options.keep_tokens_separator
    if arranges:
        text = _arrange(text, options, source)
    if options.secondary_separator:
        text = text.replace(options.secondary_separator, options.separator)
    return " ".join(text.split())


def _fill(text: str, source: random.Random) -> str:
    """Replace each {a|b|c}, innermost first, by one of its parts. A brace without its other half stays."""
    for brace, mark in _ESCAPED.items():
        text = text.replace(brace, mark)
    opened: list[list[list[Any]]] = [[[]]]  # of each brace that is open: its parts so far, each a list of pieces
    for piece in _BRACES.split(text):
        if piece == "{":
            opened.append([[]])
        elif piece == "}" and len(opened) > 1:
            chosen = source.choice(opened.pop())
            opened[-1][-1].append(chosen)
        elif piece == "|" and len(opened) > 1:
            opened[-1].append([])
        else:
            opened[-1][-1].append(piece)
    whole: list[Any] = []
    for i, parts in enumerate(opened):
        for j, part in enumerate(parts):
            whole += ["{" if i and not j else "|" if j else "", part]
    return "".join(_flat(whole)).replace("\x02", "{").replace("\x03", "}")


def _flat(pieces: list[Any]) -> Iterator[str]:
    """The texts of nested lists in order, however deep they lie."""
    left = [iter(pieces)]
    while left:
        piece = next(left[-1], None)
        if piece is None:
            left.pop()
        elif isinstance(piece, str):
            yield piece
        else:
            left.append(iter(piece))


def _arrange(text: str, options: CaptionOptions, source: random.Random) -> str:
    """Shuffle and drop tags between those that are kept in front and behind."""
    if options.keep_tokens_separator and options.keep_tokens_separator in text:
        parts = text.split(options.keep_tokens_separator, 2)
        head, middle, tail = (_tags(part, options) for part in [*parts, ""][:3])
    else:
        tags = _tags(text, options)
        head, middle, tail = tags[: options.keep_tokens], tags[options.keep_tokens :], []
    if options.shuffle:
        source.shuffle(middle)
    middle = [tag for tag in middle if source.random() >= options.tag_dropout]
    return ", ".join([*head, *middle, *tail])


def _tags(text: str, options: CaptionOptions) -> list[str]:
    return [tag.strip() for tag in text.split(options.separator) if tag.strip()]
