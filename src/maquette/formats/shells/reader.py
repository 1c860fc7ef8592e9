"""What the readers of the shells share: a place in a text, and the words of a command that grow there."""

from __future__ import annotations

import re

from ...errors import MaquetteError
from . import Script

LONGEST = 1_000_000  # characters of a variable's value
MOST = 10_000_000  # characters of all words


class Reader:
    """Goes through a text from left to right, piece by piece."""

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name, self.at = text, name, 0
        self.script = Script()
        self.total = 0
        self.words: list[str] = []
        self.parts: list[str] | None = None  # of the word that is being read; None between words

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Match the pattern here and go behind it."""
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()
        return match

    def require(self, pattern: re.Pattern[str]) -> str:
        """What the pattern matches here, which it does; go behind it."""
        match = self.take(pattern)
        assert match is not None
        return match[0]

    def until(self, end: str, begun: int, what: str = "a quotation mark") -> str:
        """The text up to `end`, and go behind that. begun: where what is to be closed begins."""
        found = self.text.find(end, self.at)
        if found < 0:
            raise self.open(begun, what)
        text, self.at = self.text[self.at : found], found + len(end)
        return text

    def open(self, begun: int, what: str = "a quotation mark") -> MaquetteError:
        line = self.text.count("\n", 0, begun) + 1
        return MaquetteError(f"{self.name}: {what} in line {line} is never closed.")

    def add(self, text: str) -> None:
        """More of the word that is being read, which begins here if none is."""
        if self.parts is None:
            self.parts = []
        self.parts.append(self.count(text))

    def count(self, text: str) -> str:
        """The text. Raises MaquetteError where variables make more of the script than any command line holds."""
        self.total += len(text)
        if self.total > MOST:
            raise MaquetteError(f"{self.name}: its variables make more than {MOST} characters of it.")
        return text

    def bounded(self, values: list[str], before: list[str] | None = None) -> list[str]:
        """The value of a variable, behind what it had. Raises MaquetteError where doubling would fill the memory."""
        if before is not None:
            before.extend(values)
            values = before
        if len(values) + max(map(len, values[-100:]), default=0) > LONGEST:
            raise MaquetteError(f"{self.name}: a variable holds more than {LONGEST} characters.")
        return values

    def end_word(self) -> None:
        if self.parts is not None:
            self.words.append("".join(self.parts))
            self.parts = None

    def end_command(self) -> None:
        self.end_word()
        if self.words:
            self.run(self.words)
        self.words = []

    def run(self, words: list[str]) -> None:
        """A whole command was read."""
        self.script.commands.append(words)
