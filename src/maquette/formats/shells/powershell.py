"""Scripts of PowerShell: ` continues lines and escapes, $name are variables, @name spreads a list over words."""

from __future__ import annotations

import re

from . import Script, unset
from .reader import Reader

_PLAIN = re.compile(r"[^\s\"'`$@;|&#{}()]+")
_IN_QUOTES = re.compile(r"[^\"`$]+")
_BLANK = re.compile(r"[ \t\r]+")
_COMMENT = re.compile(r"#[^\n]*")
_CONTINUED = re.compile(r"`[ \t\r]*\n")
_ASSIGNMENT = re.compile(r"\s*(?:\[[\w.\[\]]+\]\s*)?\$((?:\w+:)?\w+)[ \t]*(\+?)=(?!=)[ \t]*")
_VARIABLE = re.compile(r"\$(?:\{([^}\n]*)\}|((?:\w+:)?\w+))((?:\.\w+|\[[^\]\n]*\])*)")
_SPREAD = re.compile(r"@(\w+)")
_HERE = re.compile(r"@([\"'])[ \t]*\n")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": ""}
_WORDS = {"true": "True", "false": "False", "null": ""}


def read(text: str, name: str) -> Script:
    """Read a script; see formats.shells."""
    return _PowerShell(text, name).read()


class _PowerShell(Reader):
    def __init__(self, text: str, name: str) -> None:
        super().__init__(text, name)
        self.variables: dict[str, list[str]] = {}
        self.braces = 0  # of conditions and loops, whose assignments may or may not be run

    def read(self) -> Script:
        while self.at < len(self.text):
            assignment = self.take(_ASSIGNMENT) if not self.words and self.parts is None else None
            if assignment:
                self._assign(assignment[1].lower(), bool(assignment[2]))
            else:
                self._piece()
        self.end_command()
        return self.script

    def _piece(self) -> None:
        character = self.text[self.at]
        if character in ";|\n{}":
            self.at += 1
            self.braces = max(0, self.braces + (character == "{") - (character == "}"))
            self.end_command()
        elif self.take(_BLANK) or self.take(_CONTINUED):
            self.end_word()
        elif self.text.startswith("<#", self.at):
            begun, self.at = self.at, self.at + 2
            self.until("#>", begun, "a comment (<#)")
        elif character == "#" and self.parts is None:
            self.take(_COMMENT)
        elif character == "&":  # the call operator, or the end of a command
            self.at += 1
            self.end_word()
        elif character == "@" and self.parts is None and (spread := self.take(_SPREAD)):
            self._spread(self.variables.get(spread[1].lower(), [unset(spread[0])]))
        else:
            self._word(character)

    def _word(self, character: str) -> None:
        if plain := self.take(_PLAIN):
            self.add(plain[0])
        elif here := self.take(_HERE):
            self.add(self.until(f"\n{here[1]}@", here.start(), "a text (@" + here[1] + ")"))
        elif character == "'":
            self._single()
        elif character == '"':
            self._double()
        elif character == "`":
            self.add(_ESCAPES.get(self.text[self.at + 1 : self.at + 2], self.text[self.at + 1 : self.at + 2]))
            self.at += 2
        elif character == "$":
            values = self._value()
            self.add(values[0]) if len(values) == 1 else self._spread(values)
        elif character == "(":
            self.add(unset(self._parenthesis()[:40]))
        else:
            self.at += 1
            self.add(character)

    def _spread(self, values: list[str]) -> None:
        for value in values:
            self.add(value)
            self.end_word()

    def _single(self) -> None:
        begun, self.at = self.at, self.at + 1
        self.add(self.until("'", begun))
        while self.text[self.at : self.at + 1] == "'":  # '' within is one
            self.at += 1
            self.add("'" + self.until("'", begun))

    def _double(self) -> None:
        begun, self.at = self.at, self.at + 1
        self.add("")
        while True:
            if plain := self.take(_IN_QUOTES):
                self.add(plain[0])
            elif self.at >= len(self.text):
                raise self.open(begun)
            elif self.text[self.at] == "`":
                following = self.text[self.at + 1 : self.at + 2]
                self.add(_ESCAPES.get(following, following))
                self.at += 2
            elif self.text[self.at] == "$":
                self.add(" ".join(self._value()))
            elif self.text.startswith('""', self.at):
                self.add('"')
                self.at += 2
            else:
                self.at += 1
                return

    def _value(self) -> list[str]:
        """What stands behind a $."""
        if self.text.startswith("$(", self.at):
            self.at += 1
            return [unset(f"${self._parenthesis()[:40]}")]
        match = self.take(_VARIABLE)
        if match is None:
            self.at += 1
            return ["$"]
        name = (match[1] or match[2] or "").lower()
        if name in _WORDS:
            return [_WORDS[name]]
        if match[3] or name not in self.variables:
            known = self.variables.get(name)
            if known and match[3].startswith("."):  # "$name.toml" within a text
                return [" ".join(known) + match[3]]
            return [unset(match[0])]
        return self.variables[name]

    def _parenthesis(self) -> str:
        """Go behind ( … ) and return it."""
        begun, depth = self.at, 0
        for match in re.compile(r"[()]").finditer(self.text, self.at):
            depth += 1 if match[0] == "(" else -1
            if depth == 0:
                self.at = match.end()
                return self.text[begun : self.at]
        raise self.open(begun, "a parenthesis")

    def _assign(self, name: str, appended: bool) -> None:
        """$name = value, a list of values, or something that only running it would tell."""
        values: list[str] = []
        depth, known = 0, True
        outer, self.words = self.words, []
        while self.at < len(self.text):
            character = self.text[self.at]
            if (character in "\n;" and depth == 0) or (character == "}" and self.braces):
                break
            if self.text.startswith("@(", self.at) or (character == "(" and self.parts is None):
                depth, self.at = depth + 1, self.at + (2 if character == "@" else 1)
            elif character == ")":
                depth, self.at = depth - 1, self.at + 1
            elif character in "\n;,":
                self.end_word()
                self.at += 1
            elif self.take(_BLANK) or self.take(_CONTINUED):
                continue
            elif character == "#" and self.text[self.at - 1].isspace():
                self.take(_COMMENT)
            elif character == "+" and self.parts is not None:
                self.at += 1
            elif character in "{}|&" or self.text.startswith("@{", self.at):
                known, self.at = False, self.at + 1
            else:
                if self.parts is None or character not in "\"'$":
                    self.end_word()
                self._assigned(character)
        self.end_word()
        values, self.words = self.words, outer
        if known and values and not self.braces:
            self.variables[name] = self.bounded(values, self.variables.get(name) if appended else None)
        else:
            self.variables.pop(name, None)  # only running it would tell

    def _assigned(self, character: str) -> None:
        plain = re.compile(r"[^\s\"'`$@;|&#{}(),]+").match(self.text, self.at)
        if plain:
            self.at = plain.end()
            self.add(plain[0])
        else:
            self._word(character)
