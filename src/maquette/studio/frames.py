"""How the studio and its drawing process talk: a line of JSON, and behind it as many bytes as its key "bytes" says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

_LINE = 64_000_000  # bytes of a line; a prompt has at most a few thousand


def write(stream: IO[bytes], message: Mapping[str, Any], data: bytes = b"") -> None:
    """Send a message. Raises OSError where nobody reads any more."""
    line = json.dumps({**message, "bytes": len(data)} if data else message, ensure_ascii=True)
    stream.write(line.encode() + b"\n" + data)
    stream.flush()


def read(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next message and its bytes; None at the end, also at one in the middle of a message."""
    line = stream.readline(_LINE)
    if not line.endswith(b"\n"):
        return None
    message: dict[str, Any] = json.loads(line)
    wanted = message.pop("bytes", 0)
    data = stream.read(wanted) if wanted else b""
    return (message, data) if len(data) == wanted else None
