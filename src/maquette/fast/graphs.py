"""A pass forward and back recorded once for each shape and replayed, so that the CPU need not start every kernel anew.

At one photo a step a graphics card waits for the CPU, which starts some five thousand kernels; a CUDA graph starts all
of them at once. The optimizer's few kernels stay outside, so that a step that is not finite can still be refused.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MOST = 16  # recordings kept; passes of further shapes run as they are
WARM_UP = 2  # passes before a recording, in which libraries choose kernels and take their workspace
TOLERANCE = 1e-2  # relative distance of a recording's gradients from those of the pass itself; atomics add in any order

Inputs = tuple[Tensor | None, ...]
Pass = Callable[..., Tensor]
"""Tensors, any of which may be None -> losses (B,)."""
Work = Callable[[], tuple[Tensor, list[Tensor]]]
Recorder = Callable[[Work], tuple[Callable[[], None], Tensor, list[Tensor]]]
"""A pass -> how to replay it, and the loss and gradients that each replay fills anew."""


@dataclass
class Recording:
    """replay() computes `loss` () and `gradients` from what `inputs` hold at that time."""

    replay: Callable[[], None]
    inputs: list[Tensor]
    loss: Tensor
    gradients: list[Tensor]


class Graphs:
    """Passes over frozen networks with adapters, recorded on their first use. All of a step's gradients come from here.

    record: how; tests on the CPU have another way. A recording that does not give the pass's own gradients is not used,
    nor is any other afterwards, and `on_warning` is told.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], record: Recorder | None = None) -> None:
        self._parameters = list(parameters)
        self._record: Recorder = record or CUDARecorder()
        self.on_warning: Callable[[str], None] = lambda message: None
        self._recordings: dict[Hashable, Recording] = {}
        self._sums = [torch.zeros_like(p) for p in self._parameters]
        self.trusted = True

    def learn(self, name: str, compute: Pass, inputs: Inputs, factor: float) -> Tensor:
        """Add the gradients of factor x the sum of compute(*inputs) to the parameters'. Returns that sum, ()."""
        shapes = tuple(None if x is None else (tuple(x.shape), x.dtype) for x in inputs)
        key = (name, factor, shapes)
        recording = self._recordings.get(key)
        if recording is None:
            loss, gradients = self._pass(compute, inputs, factor)
            if self.trusted and len(self._recordings) < MOST:
                self._try(key, compute, inputs, factor, gradients)
            self._add(gradients)
            return loss
        torch._foreach_copy_(recording.inputs, [x for x in inputs if x is not None])
        recording.replay()
        self._add(recording.gradients)
        return recording.loss.clone()

    def _pass(self, compute: Pass, inputs: Inputs, factor: float) -> tuple[Tensor, list[Tensor]]:
        loss = compute(*inputs).sum() * factor
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        given = [torch.zeros_like(p) if g is None else g for g, p in zip(found, self._parameters, strict=True)]
        return loss.detach(), given

    def _add(self, gradients: list[Tensor]) -> None:
        """To the parameters' gradients, which are tensors of our own: recordings overwrite theirs."""
        if self._parameters[0].grad is None:
            torch._foreach_copy_(self._sums, gradients)
            for p, total in zip(self._parameters, self._sums, strict=True):
                p.grad = total
        else:
            torch._foreach_add_(self._sums, gradients)

    def _try(self, key: Hashable, compute: Pass, inputs: Inputs, factor: float, expected: list[Tensor]) -> None:
        """Record, replay once on the same inputs and keep the recording if it gives the same."""
        held = tuple(None if x is None else x.clone() for x in inputs)

        def work() -> tuple[Tensor, list[Tensor]]:
            return self._pass(compute, held, factor)

        try:
            replay, loss, gradients = self._record(work)
            replay()
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self._distrust(f"a pass cannot be recorded ({str(error).splitlines()[0]})")
            return
        apart, whole = _length(torch._foreach_sub(gradients, expected)), _length(expected)
        if not whole < float("inf"):
            return  # such a step is refused anyhow; there will be another to compare with
        if not apart <= TOLERANCE * whole:
            self._distrust("a recorded pass does not give the gradients of the pass itself")
            return
        kept = [x for x in held if x is not None]
        self._recordings[key] = Recording(replay, kept, loss, gradients)

    def _distrust(self, why: str) -> None:
        self.trusted = False
        self._recordings.clear()
        self.on_warning(f"CUDA graphs are not used, because {why}; training goes on without, only slower.")


def _length(tensors: Sequence[Tensor]) -> float:
    """Of all of them as one vector."""
    return float(torch.linalg.vector_norm(torch.stack([n.float() for n in torch._foreach_norm([*tensors])])))


class CUDARecorder:
    """Records into CUDA graphs, which share their memory: they never run at the same time."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, work: Work) -> tuple[Callable[[], None], Tensor, list[Tensor]]:
        """See `Recorder`. Raises RuntimeError for what cannot be recorded."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            loss, gradients = work()
        return graph.replay, loss, gradients
