"""One run on several devices or machines: each process computes its share of a step's photos, gradients are summed.

Started by `torchrun` or `accelerate launch`, which set RANK, WORLD_SIZE and the address. Every process draws the whole
step's random numbers and computes its own rows, so that the run is the same however many processes share it. An adapter
needs one sum of a few megabytes a step; of a whole model, each process also keeps only its part of the optimizer's
state (ZeRO stage 1, arXiv 1910.02054). Only the first process writes.
"""

from __future__ import annotations

import gc
import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MaquetteError

BUCKET = 1 << 24  # numbers summed at a time
ELEMENTWISE = {"AdamW", "SGD", "Lion"}  # whose state can be split by parameter


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that share a run. rank: the number of this process; size: how many there are (world size)."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and emits events."""
        return self.rank == 0

    def rank_rows(self) -> RankRows:
        return RankRows(self.rank, self.size)

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            torch.distributed.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process go through the block before the others, which then find what it has made."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def broadcast(self, value: Any) -> Any:
        """Send the main process's value to every process; returns it in each."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    @torch.no_grad()
    def all_reduce(self, parameters: Sequence[nn.Parameter], loss: Tensor, stop: bool) -> tuple[Tensor, bool]:
        """All-reduce gradients (in place) and loss () over the processes. Returns the summed loss, and whether any
        process is asked to stop.

        A parameter for which no process has a gradient keeps none.
        """
        if self.size == 1:
            return loss, stop
        facts = torch.tensor(
            [float(loss), float(stop), *(float(p.grad is not None) for p in parameters)], device=loss.device
        )
        torch.distributed.all_reduce(facts)
        summed = facts.tolist()
        learning = [p for p, have in zip(parameters, summed[2:], strict=True) if have]
        for bucket in _buckets(learning):
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in bucket])
            torch.distributed.all_reduce(flat)
            for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = part.view_as(p).clone()
        return facts[0], summed[1] > 0

    def shard(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Shard the optimizer's state over the processes (ZeRO stage 1). Optimizers whose arithmetic is not element by
        element come back as they are.
        """
        kind = type(optimizer)
        if self.size == 1 or kind.__name__ not in ELEMENTWISE:
            return optimizer
        from torch.distributed.optim import ZeroRedundancyOptimizer

        known = inspect.signature(kind).parameters
        options = {key: value for key, value in optimizer.defaults.items() if key in known}
        groups = [{key: value for key, value in group.items()} for group in optimizer.param_groups]
        return ZeroRedundancyOptimizer(groups, optimizer_class=kind, **options)

    def consolidate(self, optimizer: torch.optim.Optimizer) -> None:
        """Gather a sharded optimizer's state in the main process, before it saves."""
        gather = getattr(optimizer, "consolidate_state_dict", None)
        if gather is not None:
            gather(to=0)


ALONE = ProcessGroup()


class RankRows:
    """Rows of each batch that this rank computes: photo by photo in turn, over all batches of a step."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self._rank, self._size, self._seen = rank, size, 0

    def start_step(self) -> None:
        """Begin a step: its first photo goes to rank 0."""
        self._seen = 0

    def rows(self, count: int) -> list[int] | None:
        """Return this rank's row numbers of the step's next batch of `count` photos; None means all rows."""
        if self._size == 1:
            return None
        mine = [i for i in range(count) if (self._seen + i) % self._size == self._rank]
        self._seen += count
        return mine


@contextmanager
def process_group(device: str = "auto") -> Iterator[ProcessGroup]:
    """Join the processes that a launcher started together; without a launcher, this process alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    cuda = torch.cuda.is_available() and device != "cpu"
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    begun = not torch.distributed.is_initialized()
    if begun:
        torch.distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield ProcessGroup(torch.distributed.get_rank(), size)
    finally:
        if begun:
            gc.collect()  # a split optimizer in a cycle would hold the group, whose threads abort an ending process
            torch.distributed.destroy_process_group()


def require_enough(photos_per_step: int, size: int) -> None:
    """Raise MaquetteError when a step has fewer photos than there are processes."""
    if photos_per_step < size:
        raise MaquetteError(
            f"A step of batch_size = {photos_per_step} cannot be shared by {size} processes; "
            f"use --set batch_size={size} or a multiple of it."
        )


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for p in parameters:
        if bucket and sum(q.numel() for q in bucket) + p.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket
