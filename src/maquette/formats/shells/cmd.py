"""Batch files of Windows' cmd.exe: ^ continues lines and escapes, %NAME% are variables, backslashes stay."""

from __future__ import annotations

import re

from ...errors import MaquetteError
from . import Script, unset
from .reader import Reader

_PERCENT = re.compile(r"%%|%~?[a-z]*(\d)|%([^%\s:]+)(?::[^%\n]*)?%", re.IGNORECASE)
_BANG = re.compile(r"!([^!\s]+)!")
_INNER_SET = re.compile(r"\s*@?(?:if|for|else)\b.*?[\s(]set\s+\"?([^=\s\"]+)", re.IGNORECASE)
_NAME = re.compile(r"\s*@?set\s+(?:/[ap]\s+)?\"?([^=\s\"]*)", re.IGNORECASE)
_SET = re.compile(r"\s*@?set\s+(.*)", re.IGNORECASE | re.DOTALL)
_PLAIN = re.compile(r"[^\s\"\\&|<>()^]+")
_IN_QUOTES = re.compile(r"[^\"\\]+")
_BLANK = re.compile(r"\s+")
_SLASHES = re.compile(r"\\+")
_TARGET = re.compile(r">*[ \t]*(&\d|\"[^\"]*\"|[^\s&|<>]+)?")


def read(text: str, name: str) -> Script:
    """Read a batch file; see formats.shells."""
    script, variables, counted = Script(), dict[str, str](), Reader("", name)
    delayed, depth = "enabledelayedexpansion" in text.lower(), 0
    for number, line in _lines(text):
        bare = line.lstrip("@ \t").lower()
        if re.match(r"(rem\b|::)", bare):
            continue
        line = _PERCENT.sub(lambda match: counted.count(_value(match, variables)), line)
        if delayed:
            line = _BANG.sub(lambda match: counted.count(variables.get(match[1].lower(), unset(match[0]))), line)
        setting, inner = _SET.match(line), _INNER_SET.match(line)
        depth += bare.rstrip().endswith("(")
        depth -= bare.startswith(")")
        unclear = inner or (_NAME.match(line) if setting and depth > 0 else None)
        if unclear:  # only running it would tell
            variables.pop(unclear[1].lower(), None)
        elif setting:
            _assign(setting[1], variables, name)
        else:
            script.commands += _Cmd(line, name, number).read()
    return script


def _lines(text: str) -> list[tuple[int, str]]:
    """Lines with those that end in ^ joined to the next, and the number of the first."""
    joined: list[tuple[int, str]] = []
    waiting: list[str] = []
    begun = 1
    for number, line in enumerate(text.split("\n"), 1):
        if not waiting:
            begun = number
        tail = len(line) - len(line.rstrip("^"))
        if tail % 2:
            waiting.append(line[:-1])
        else:
            joined.append((begun, " ".join([*waiting, line]) if waiting else line))
            waiting = []
    if waiting:
        joined.append((begun, " ".join(waiting)))
    return joined


def _value(match: re.Match[str], variables: dict[str, str]) -> str:
    if match[0] == "%%":
        return "%"
    if match[1] == "0" and "d" in match[0].lower():
        return ".\\"  # %~dp0, the folder of the batch file
    name = match[2] or match[0]
    return variables.get(name.lower(), unset(match[0]))


def _assign(text: str, variables: dict[str, str], source: str) -> None:
    """`set NAME=VALUE` or `set "NAME=VALUE"`; sums and questions leave the name without a value."""
    if text.startswith('"'):
        text = text[1:].rpartition('"')[0] or text[1:]
    prompted = re.match(r"/[ap]\s+\"?(\w+)", text, re.IGNORECASE)
    if prompted:
        variables.pop(prompted[1].lower(), None)
        return
    name, equals, value = text.partition("=")
    if equals:
        variables[name.strip().lower()] = Reader("", source).bounded([value.rstrip()])[0]


class _Cmd(Reader):
    """The commands of one line, with words as programs of Windows are given them."""

    def __init__(self, text: str, name: str, line: int) -> None:
        super().__init__(text, name)
        self.line, self.quoted = line, False

    def read(self) -> list[list[str]]:
        begun = 0
        while self.at < len(self.text):
            if self.quoted:
                self._in_quotes()
                continue
            character = self.text[self.at]
            if plain := self.take(_PLAIN):
                self.add(plain[0])
            elif self.take(_BLANK):
                self.end_word()
            elif character == "^":
                self.add(self.text[self.at + 1 : self.at + 2])
                self.at += 2
            elif character == "\\":
                self._slashes()
            elif character == '"':
                self.quoted, begun, self.at = True, self.at, self.at + 1
                self.add("")
            elif character in "<>":
                self.end_word()
                self.at += 1
                self.take(_TARGET)
            else:  # & | ( )
                self.at += 1
                self.end_command()
        if self.quoted:
            raise self.open(begun)
        self.end_command()
        return self.script.commands

    def _in_quotes(self) -> None:
        character = self.text[self.at]
        if character == "\\":
            self._slashes()
        elif character == '"':
            self.quoted, self.at = False, self.at + 1
        else:
            self.add(self.require(_IN_QUOTES))

    def _slashes(self) -> None:
        """Backslashes mean themselves, but before a quotation mark, where two are one and an odd one makes it text."""
        count = len(self.require(_SLASHES))
        if self.text[self.at : self.at + 1] != '"':
            return self.add("\\" * count)
        self.add("\\" * (count // 2))
        if count % 2:
            self.add('"')
            self.at += 1

    def open(self, begun: int, what: str = "a quotation mark") -> MaquetteError:
        error = super().open(begun, what)
        return type(error)(str(error).replace("in line 1 ", f"in line {self.line} "))
