"""One run on several devices or machines: each process computes its share of a step's photos, gradients are summed.

Started by `torchrun` or `accelerate launch`, which set RANK, WORLD_SIZE and the address. Every process draws the whole
step's random numbers and computes its own rows, so that the run is the same however many processes share it. An adapter
needs one sum of a few megabytes a step; of a whole model, each process also keeps only its part of the optimizer's
state (ZeRO stage 1, arXiv 1910.02054). Only the first process writes.
"""

from __future__ import annotations

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
class Team:
    """The processes that share a run. rank: this one's number; size: how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    def share(self) -> Share:
        return Share(self.rank, self.size)

    def wait(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            torch.distributed.barrier()

    def agree(self, value: Any) -> Any:
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    @torch.no_grad()
    def add_up(self, parameters: Sequence[nn.Parameter], loss: Tensor, stop: bool) -> tuple[Tensor, bool]:
        """Sum gradients and loss () over the processes, in place; whether any process was told to stop.

        A parameter that no process has a gradient for keeps none.
        """
        if self.size == 1:
            return loss, stop
        facts = torch.tensor(
            [float(loss), float(stop), *(float(p.grad is not None) for p in parameters)], device=loss.device
        )
        torch.distributed.all_reduce(facts)
        told = facts.tolist()
        learning = [p for p, have in zip(parameters, told[2:], strict=True) if have]
        for bucket in _buckets(learning):
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in bucket])
            torch.distributed.all_reduce(flat)
            for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = part.view_as(p).clone()
        return facts[0], told[1] > 0

    def split(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The same optimizer, its state spread over the processes where its arithmetic is element by element."""
        kind = type(optimizer)
        if self.size == 1 or kind.__name__ not in ELEMENTWISE:
            return optimizer
        from torch.distributed.optim import ZeroRedundancyOptimizer

        known = inspect.signature(kind).parameters
        options = {key: value for key, value in optimizer.defaults.items() if key in known}
        groups = [{key: value for key, value in group.items()} for group in optimizer.param_groups]
        return ZeroRedundancyOptimizer(groups, optimizer_class=kind, **options)

    def collect(self, optimizer: torch.optim.Optimizer) -> None:
        """Before the first process saves: bring it the others' parts of the optimizer's state."""
        gather = getattr(optimizer, "consolidate_state_dict", None)
        if gather is not None:
            gather(to=0)


class Share:
    """Which rows of each batch of a step are this process's: photo by photo in turn, over all batches of the step."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self._rank, self._size, self._seen = rank, size, 0

    def begin(self) -> None:
        """A step begins."""
        self._seen = 0

    def rows(self, count: int) -> list[int] | None:
        """Row numbers of the next batch of `count` photos; None for all of them."""
        if self._size == 1:
            return None
        mine = [i for i in range(count) if (self._seen + i) % self._size == self._rank]
        self._seen += count
        return mine


@contextmanager
def team(device: str = "auto") -> Iterator[Team]:
    """The processes that a launcher started together; without one, this process alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team()
        return
    cuda = torch.cuda.is_available() and device != "cpu"
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    begun = not torch.distributed.is_initialized()
    if begun:
        torch.distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Team(torch.distributed.get_rank(), size)
    finally:
        if begun:
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
