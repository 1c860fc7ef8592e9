"""What training changes in its process, put back when it ends: a program may call it between other things."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from ..config import TrainConfig
from ..fast import compiled, memory
from .environment import kernels, one_thread_for


@contextmanager
def process_settings(config: TrainConfig) -> Iterator[None]:
    """Set what a run needs, and restore on exit: torch's global random state (each step seeds it), deterministic
    kernels, the number of threads, the compiler's limits and the C library's thresholds for freed memory.
    """
    cuda = torch.cuda.is_available() and config.device != "cpu"
    with ExitStack() as held:
        held.enter_context(torch.random.fork_rng([torch.cuda.current_device()] if cuda else []))
        held.enter_context(kernels(config.deterministic))
        held.enter_context(one_thread_for(config.base))
        if config.compile:
            held.enter_context(compiled.many_variants())
        held.callback(memory.keep_no_longer)
        yield
