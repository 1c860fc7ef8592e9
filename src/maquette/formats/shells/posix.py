"""Scripts of sh, bash and zsh."""

from __future__ import annotations

import re

from . import Script, unset
from .reader import Reader

_PLAIN = re.compile(r"[^\\'\"$`\s;&|<>()#]+")
_IN_QUOTES = re.compile(r"[^\\\"$`]+")
_BLANK = re.compile(r"[ \t\r]+")
_COMMENT = re.compile(r"#[^\n]*")
_ENDS = re.compile(r"[;&|\n]+")
_HEREDOC = re.compile(r"<<(-?)[ \t]*(['\"]?)(\w+)\2")
_REDIRECT = re.compile(r"&?[<>]+(&\d*)?[ \t]*")
_NAME = re.compile(r"\$(?:(\w+)|\{(\w+)(\[[@*]\])?\}|\{(\w+):?-([^{}$\"'`\\]*)\}|\{[^}]*\}|[@*#?!$-])")
_ASSIGNMENT = re.compile(r"(\w+)\+?=")
_SETS = {"export", "declare", "readonly", "local", "typeset", "set"}
_OPENS, _CLOSES = {"if", "for", "while", "until", "case"}, {"fi", "done", "esac"}
_BETWEEN = {"then", "else", "do", "elif", "{", "}", "!", *_OPENS, *_CLOSES}


def read(text: str, name: str) -> Script:
    """Read a script; see formats.shells."""
    return _Posix(text, name).read()


class _Posix(Reader):
    def __init__(self, text: str, name: str) -> None:
        super().__init__(text, name)
        self.variables: dict[str, list[str]] = {}
        self.waiting: list[tuple[str, bool, int]] = []  # here-documents whose text begins on the next line
        self.target: str | None = None  # where the command's output goes
        self.targets_next = False
        self.depth = 0  # of conditions and loops, whose assignments may or may not be run

    def read(self) -> Script:
        while self.at < len(self.text):
            self._piece()
        self.end_command()
        self._documents()
        return self.script

    def _piece(self) -> None:
        character = self.text[self.at]
        if character == "<" and (document := self.take(_HEREDOC)):
            self.end_word()
            self.waiting.append((document[3], bool(document[1]), document.start()))
        elif character in "<>" or self.text.startswith(("&>", "&>>"), self.at):
            self._redirect()
        elif character in ";&|\n":
            self.end_command()
            newline = "\n" in self.require(_ENDS)
            if newline:
                self._documents()
        elif self.take(_BLANK):
            self.end_word()
        elif character == "#" and self.parts is None:
            self.take(_COMMENT)
        elif character == "(" and self.parts and _ASSIGNMENT.fullmatch("".join(self.parts)):
            self._array("".join(self.parts).rstrip("+="))
        elif character in "()":
            self.at += 1
            self.end_command()
        else:
            self._word(character)

    def _word(self, character: str) -> None:
        if plain := self.take(_PLAIN):
            self.add(plain[0])
        elif character == "\\":
            if self.text[self.at + 1 : self.at + 2] != "\n":
                self.add(self.text[self.at + 1 : self.at + 2])
            self.at += 2
        elif character == "'":
            self.at += 1
            self.add(self.until("'", self.at - 1))
        elif character == '"':
            self._quoted()
        elif character in "$`":
            for number, value in enumerate(" ".join(self._expanded()).split()):
                if number:
                    self.end_word()
                self.add(value)
        else:
            self.at += 1
            self.add(character)

    def _quoted(self) -> None:
        begun = self.at
        self.at += 1
        self.add("")
        while self.text[self.at : self.at + 1] != '"':
            if plain := self.take(_IN_QUOTES):
                self.add(plain[0])
            elif self.at >= len(self.text):
                raise self.open(begun)
            elif self.text[self.at] == "\\":
                following = self.text[self.at + 1 : self.at + 2]
                self.add("" if following == "\n" else following if following in '$`"\\' else f"\\{following}")
                self.at += 2
            else:
                for number, value in enumerate(self._expanded()):
                    if number:
                        self.end_word()
                    self.add(value)
        self.at += 1

    def _expanded(self) -> list[str]:
        """What a $ or backtick stands for: one value, or those of an array."""
        begun = self.at
        if self.text[self.at] == "`":
            self.at += 1
            return [unset(f"`{self.until('`', begun, 'a command within backticks')[:40]}`")]
        if self.text.startswith("$(", self.at):
            return [unset(self._parenthesis()[:40])]
        if match := self.take(_NAME):
            name = match[1] or match[2] or match[4]
            if name in self.variables:
                return self.variables[name]
            return [match[5] if match[5] is not None else unset(match[0])]
        self.at += 1
        return ["$"]

    def _parenthesis(self) -> str:
        """Go behind a $( … ) and return it."""
        begun, depth = self.at, 0
        for match in re.compile(r"[()]").finditer(self.text, self.at):
            depth += 1 if match[0] == "(" else -1
            if depth == 0:
                self.at = match.end()
                return self.text[begun : self.at]
        raise self.open(begun, "a parenthesis")

    def _array(self, name: str) -> None:
        """NAME=( words )."""
        begun, appended = self.at, "".join(self.parts or []).endswith("+=")
        outer, self.parts = self.words, None
        self.words, self.at = [], self.at + 1
        while self.text[self.at : self.at + 1] != ")":
            if self.at >= len(self.text):
                raise self.open(begun, "a parenthesis")
            character = self.text[self.at]
            if character.isspace():
                self.end_word()
                self.at += 1
            elif character == "#" and self.parts is None:
                self.take(_COMMENT)
            else:
                self._word(character)
        self.end_word()
        self.at += 1
        self.variables[name] = self.bounded(self.words, self.variables.get(name) if appended else None)
        self.words, self.parts = outer, None

    def _redirect(self) -> None:
        if self.parts and "".join(self.parts).isdigit():
            self.parts = None  # 2>
        self.end_word()
        self.targets_next = not (self.take(_REDIRECT) or [None, None])[1]

    def end_word(self) -> None:
        if self.parts is not None and self.targets_next:
            self.target, self.parts, self.targets_next = "".join(self.parts), None, False
        super().end_word()

    def end_command(self) -> None:
        super().end_command()
        self.targets_next = False
        if not self.waiting:
            self.target = None

    def run(self, words: list[str]) -> None:
        while words and words[0] in _BETWEEN:
            self.depth += (words[0] in _OPENS) - (words[0] in _CLOSES)
            words = words[1:]
        names = words[1:] if words and words[0] in _SETS else words
        found = [_ASSIGNMENT.match(word) for word in names]
        if not all(found):
            return super().run(words)
        for match, word in zip(found, names, strict=True):
            if match and self.depth > 0:
                self.variables.pop(match[1], None)  # only running it would tell
            elif match:
                self.variables[match[1]] = self.bounded([word[match.end() :]])

    def _documents(self) -> None:
        """The texts of here-documents, which follow the line that names them."""
        for tag, indented, begun in self.waiting:
            margin = r"\t*" if indented else ""
            end = re.compile(rf"^{margin}{tag}[ \t]*$", re.MULTILINE).search(self.text, self.at)
            if end is None:
                raise self.open(begun, f"a here-document (<< {tag})")
            if self.target is not None:
                self.script.files[self.target] = self.text[self.at : end.start()]
            self.at = min(len(self.text), end.end() + 1)
        self.waiting, self.target = [], None
