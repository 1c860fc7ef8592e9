"""What a stage tells its caller while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

EventKind = Literal["progress", "metric", "sample", "saved", "measured", "preview", "finding", "warning", "done"]


@dataclass(frozen=True)
class Event:
    """Something a stage tells its caller. `data` is JSON-ready; "warning" and "finding" have `message`, "saved" has
    `path`."""

    kind: EventKind
    data: dict[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of a caller that wants none."""
