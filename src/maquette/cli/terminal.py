"""The way of all text to the terminal: control characters are shown as what they are, and no stream ends a report.

Names, captions, metadata and what stands in pickles come from strangers; raw, they could set the window's title, fill
the clipboard or clear the screen with the warning on it. `harmless` puts a Stream in the place of stdout and stderr, so
that whatever is printed by whomever passes through it. Colours come from `Screen` alone, after its text was made plain.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from ..shown import visible

if TYPE_CHECKING:
    from rich.text import Text


class Stream:
    """A text stream whose `write` shows control characters but for line breaks and tabs.

    What its encoding lacks is written as an escape. When nobody reads any more (a closed pipe), it falls silent.
    """

    def __init__(self, inner: TextIO) -> None:
        self.inner = inner
        self.styled = _Styled(self)

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("this stream takes text")
        self.put(visible(text, lines=True))
        return len(text)

    def put(self, text: str) -> None:
        """Write as it is: for text with colours that was made plain before."""
        try:
            try:
                self.inner.write(text)
            except UnicodeEncodeError:
                encoding = self.inner.encoding or "ascii"
                self.inner.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (BrokenPipeError, ValueError) as error:
            self._fall_silent(error)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self.inner.flush()
        except (BrokenPipeError, ValueError) as error:
            self._fall_silent(error)

    def _fall_silent(self, error: Exception) -> None:
        """Nobody reads: the work goes on, and what is said goes nowhere. Raises errors of any other kind again."""
        if isinstance(error, ValueError) and not getattr(self.inner, "closed", False):
            raise error
        if isinstance(error, BrokenPipeError):  # what the stream still holds would fail once more at the end
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.inner.fileno())
            os.close(nowhere)
        else:
            self.inner = _nowhere()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _Styled:
    """The same stream for Screen, whose text is plain and whose colours are its own."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.put(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


@contextmanager
def harmless() -> Iterator[None]:
    """Within, stdout and stderr are Streams; a stream that the caller closed (`>&-`) goes nowhere."""
    before = sys.stdout, sys.stderr
    streams = [stream if isinstance(stream, Stream) else Stream(stream or _nowhere()) for stream in before]
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before


def plain(text: object) -> Text:
    """For rich: text in which nothing is markup and nothing commands the terminal. Line breaks are shown too."""
    from rich.text import Text

    return Text(visible(text))


class Screen:
    """Lines and tables in colour where the stream is a terminal. All text is made plain."""

    def __init__(self, stderr: bool = False) -> None:
        from rich.console import Console

        stream = sys.stderr if stderr else sys.stdout
        self.console = Console(file=getattr(stream, "styled", stream), highlight=False, soft_wrap=True, markup=False)

    def line(self, text: object = "", style: str | None = None, before: str = "") -> None:
        """One line; `before` is its beginning in that style, such as "warning:", where not all of it shall have it."""
        from rich.text import Text

        if before:
            self.console.print(Text.assemble((before, style or ""), " ", plain(text)))
        else:
            self.console.print(plain(text), style=style)

    def table(self, rows: Iterable[Sequence[object]], headings: Sequence[str] = ()) -> None:
        """Columns as wide as their cells, which break where the terminal is too narrow."""
        from rich.table import Table

        rows = list(rows)
        table = Table(box=None, pad_edge=False, show_header=bool(headings))
        for heading in headings or [""] * max(map(len, rows), default=0):
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*map(plain, row))
        self.console.print(table)
