"""What a stage tells its caller while it works."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import MaquetteError

EventKind = Literal["progress", "metric", "sample", "saved", "measured", "preview", "finding", "warning", "done"]


@dataclass(frozen=True)
class Event:
    """Something a stage tells its caller. `data` is JSON-ready; "warning" and "finding" have `message`, "saved" has
    `path`."""

    kind: EventKind
    data: dict[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]
Cancel = threading.Event  # set from any thread, it ends a stage


def ignore(event: Event) -> None:
    """The listener of a caller that wants none."""


class Cancelled(MaquetteError):
    """The caller ended the stage before its result was written."""


def until(cancel: Cancel | None, on_event: Listener) -> Listener:
    """A listener that ends the stage with Cancelled at its next event once `cancel` is set; files are written whole."""
    if cancel is None:
        return on_event

    def listen(event: Event) -> None:
        if cancel.is_set():
            raise Cancelled("Stopped; nothing more was written.")
        on_event(event)

    return listen
