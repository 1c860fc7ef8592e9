"""What a stage tells its caller while it works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NotRequired, TypedDict

from .errors import MaquetteError

EventKind = Literal["progress", "metric", "sample", "saved", "measured", "preview", "finding", "warning", "done"]


class Progress(TypedDict):
    """How much of a part of the work is done."""

    what: str
    done: int
    of: int
    unit: NotRequired[str]  # of done and of, where it is no mere number of things
    gb_per_second: NotRequired[float]
    remaining_seconds: NotRequired[float]


class Metric(TypedDict):
    """A training step, counted from 1."""

    step: int
    steps: int  # of the whole run
    loss: float
    gradient_norm: float
    learning_rate: float
    images_per_second: float
    remaining_seconds: float


class Sample(TypedDict):
    """Sample pictures, 0.png and so on in `folder`."""

    step: int
    folder: str
    prompts: list[str]


class Saved(TypedDict):
    """A file or folder that is whole."""

    path: str
    step: NotRequired[int]  # of a checkpoint


class Message(TypedDict):
    """A warning or a finding, as a sentence."""

    message: str
    kind: NotRequired[str]  # of a finding
    photo: NotRequired[str | None]


# What `data` of an event holds. "done" has the result's own keys, "measured" a row of the evaluation, "preview" the
# pictures themselves, which no file can hold.
EVENT_DATA: dict[EventKind, type] = {
    "progress": Progress, "metric": Metric, "sample": Sample, "saved": Saved, "warning": Message, "finding": Message,
}  # fmt: skip


@dataclass(frozen=True)
class Event:
    """Something a stage tells its caller. `data` has the keys that EVENT_DATA says, as JSON has values."""

    kind: EventKind
    data: Mapping[str, Any] = field(default_factory=dict)


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


def progress(on_event: Listener, what: str) -> Callable[[int, int], None]:
    """A function of (done, of) that tells how far a part of the work is."""
    return partial(progress_of_parts(on_event), what)


def progress_of_parts(on_event: Listener) -> Callable[[str, int, int], None]:
    """A function of (what, done, of) that tells how far a part of the work is, and which."""
    return lambda what, done, of: on_event(Event("progress", {"what": what, "done": done, "of": of}))
