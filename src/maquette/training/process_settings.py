"""What training changes in its process, put back when it ends: a program may call it between other things."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from ..config import TrainConfig
from ..events import Cancel, Cancelled, Event, Listener, ignore
from ..fast import compiled, memory
from .environment import kernels, one_thread_for

_AT_WORK = threading.RLock()  # held by the thread that trains
PATIENCE = 0.2  # seconds between two looks at whether a run that waits is to end


@contextmanager
def process_settings(config: TrainConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> Iterator[None]:
    """Set what a run needs, and restore on exit: torch's global random state (each step seeds it), deterministic
    kernels, the number of threads, the compiler's limits and the C library's thresholds for freed memory.

    All of it is the process's own: a run in another thread waits here until this one has left the block. Raises
    Cancelled where `cancel` is set meanwhile.
    """
    cuda = torch.cuda.is_available() and config.device != "cpu"
    with ExitStack() as held:
        held.enter_context(_alone(on_event, cancel))
        held.enter_context(torch.random.fork_rng([torch.cuda.current_device()] if cuda else []))
        held.enter_context(kernels(config.deterministic))
        held.enter_context(one_thread_for(config.base))
        if config.compile:
            held.enter_context(compiled.many_variants())
        held.callback(memory.keep_no_longer)
        yield


@contextmanager
def _alone(on_event: Listener, cancel: Cancel | None) -> Iterator[None]:
    """Be the only thread within the block; say so where another has to be waited for."""
    if not _AT_WORK.acquire(blocking=False):
        message = "Another training is at work in this process; this one begins when that has ended."
        on_event(Event("warning", {"message": message}))
        while not _AT_WORK.acquire(timeout=PATIENCE):
            if cancel is not None and cancel.is_set():
                raise Cancelled("Stopped while it waited for another training in this process; nothing was written.")
    try:
        yield
    finally:
        _AT_WORK.release()
