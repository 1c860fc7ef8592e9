"""Damage inside a JPEG's compressed data, which decoders smooth over without a word (ITU-T T.81, annex B).

Where bytes were lost or overwritten, decoders fill with grey or shift what follows and count it as success. Without
decoding it can be seen that the data hold a marker that cannot be there, break off, or are blank over a long stretch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MARKER = re.compile(rb"\xff[^\xff\0]")  # any number of \xff may stand before it
_NO_LENGTH = {0x01, *range(0xD0, 0xD8)}  # TEM, RST0 … RST7
_START, _END, _SCAN, _RESTART, _HUFFMAN, _LINES = 0xD8, 0xD9, 0xDA, 0xDD, 0xC4, 0xDC
_SEQUENTIAL = {0xC0, 0xC1}  # frames with Huffman codes that are not progressive
_PROGRESSIVE = {0xC2}
# What may stand between two scans: tables, comments and application data.
_BETWEEN_SCANS = {_SCAN, _END, _RESTART, _HUFFMAN, _LINES, 0xDB, 0xFE, *range(0xE0, 0xF0)}
_GARBLED = "its data are garbled in the middle"
BLANK = 512  # bytes; a sector of a disk


@dataclass
class _Header:
    """What the headers so far say about the scans to come."""

    restarts: bool = False
    sequential: bool = False
    components: int = 0
    zeros_are_data: bool = True

    def hear(self, marker: int, body: bytes) -> None:
        if marker == _RESTART:
            self.restarts = any(body[:2])
        elif marker in _SEQUENTIAL | _PROGRESSIVE:
            self.sequential, self.components = marker in _SEQUENTIAL, body[5] if len(body) > 5 else 0
        elif marker == _HUFFMAN:
            self.zeros_are_data = self.zeros_are_data and _zeros_mean_nothing(body)


def fault(data: bytes) -> str:
    """What is wrong with the compressed data of a JPEG, as the end of a sentence; "" when nothing is seen.

    Reads the first picture in the file: phones put others behind it. Time grows with the length.
    """
    header = _Header()
    position, scanned = 2, False
    while found := _MARKER.search(data, position):
        marker, position = found[0][-1], found.end()
        if marker == _END:
            return ""
        if marker in _NO_LENGTH or marker == _START:
            continue
        length = max(2, int.from_bytes(data[position : position + 2], "big"))
        body = data[position + 2 : position + length]
        position += length
        if scanned and data[position : position + 1] != b"\xff" and marker != _SCAN:
            return _GARBLED  # it was no segment: nothing follows it
        header.hear(marker, body)
        if marker == _SCAN:
            whole = header.sequential and body[:1] == bytes([header.components])
            position, what = _scan(data, position, header, whole)
            scanned = True
            if what:
                return what
    return "it breaks off before its end"


def _scan(data: bytes, start: int, header: _Header, whole: bool) -> tuple[int, str]:
    """Walk the compressed data of one scan: where they end, and what is wrong with them. whole: no other may follow."""
    expected = 0
    position = start
    while found := _MARKER.search(data, position):
        marker, position = found[0][-1], found.end()
        if 0xD0 <= marker < 0xD8:
            if not header.restarts or marker - 0xD0 != expected:
                return position, _GARBLED
            expected = (expected + 1) % 8
        elif marker not in ({_END, _LINES} if whole else _BETWEEN_SCANS):
            return position, _GARBLED
        else:
            break
    if found is None:
        return len(data), "it breaks off before its end"
    end = found.start()
    if header.sequential and not header.zeros_are_data and data.find(bytes(BLANK), start, end) >= 0:
        return end, "a part of its data is blank"
    return end, ""


def _zeros_mean_nothing(tables: bytes) -> bool:
    """Whether all Huffman tables give their first code, zeros only, to "no change": then zeros may be a plain area."""
    position = 0
    while position + 17 <= len(tables):
        count = sum(tables[position + 1 : position + 17])
        if count and tables[position + 17 : position + 18] != b"\0":
            return False
        position += 17 + count
    return True
