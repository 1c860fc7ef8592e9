"""A network's answers without gradients, recorded once for each shape and replayed, as `graphs` does for training.

Drawing one picture asks a network for two rows, for which a graphics card needs less time than the CPU needs to start
its kernels; a CUDA graph starts all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..core.denoiser import Conditioning, Denoiser
from .graphs import CUDARecorder, Recorder

MOST = 4  # recordings kept; calls of further shapes are made as they are
REMEMBERED = 4  # conditionings whose memo is kept: of a picture alone, or of a few that are computed one by one
PLAIN = 4  # calls of a shape before it is recorded: recording takes as long as some ten, as many as a short drawing has
TOLERANCE = 1e-2  # relative distance of a recording's answer from the network's own; kernels may be chosen otherwise


@dataclass
class _Recording:
    """replay() computes `output` from what `inputs` hold at that time."""

    replay: Callable[[], None]
    inputs: list[Tensor]
    output: Tensor


class ReplayedDenoiser:
    """A denoiser that answers as `model` does, on a graphics card by recordings.

    network: whose weights are read. Recordings hold where these lie, so they go as soon as one lies elsewhere, which is
    looked up at each call: a LoRA that is put in or taken out gives a layer another tensor. record: how, for tests on
    the CPU; otherwise CUDA graphs, and on a CPU the model itself answers. A recording that does not give the model's
    own answer is not used, nor is any other afterwards. On a CPU the model keeps what it makes of a conditioning
    that it is asked with again, until `forget`.
    """

    def __init__(self, model: Denoiser, network: nn.Module, record: Recorder | None = None) -> None:
        self.model, self.network = model, network
        self._given, self._record = record, record
        self._calls: dict[Hashable, int] = {}
        self._recordings: dict[Hashable, _Recording] = {}
        self._places: tuple[int, ...] = ()
        self._seen: dict[int, tuple[Conditioning, Conditioning]] = {}  # by the first's id; the second has a memo
        self.trusted = True

    def forget(self) -> None:
        """Give the recordings' memory back."""
        self._recordings.clear()
        self._calls.clear()
        self._seen.clear()
        self._places = ()
        self._record = self._given  # graphs share memory only with graphs that are still there

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """As the model's own; see `core.denoiser.Denoiser`."""
        plain = not self.trusted or torch.is_grad_enabled() or (self._given is None and x_t.device.type != "cuda")
        if plain:
            return self.model.predict(x_t, t, self._remembered(conditioning))
        self._look_up_weights()
        inputs = (x_t, t, *conditioning.fields())
        key = tuple(None if x is None else (tuple(x.shape), x.dtype) for x in inputs), tuple(conditioning.others)
        recording = self._recordings.get(key)
        if recording is None:
            answer = self.model.predict(x_t, t, conditioning)
            self._calls[key] = self._calls.get(key, 0) + 1
            if self._calls[key] > PLAIN and len(self._recordings) < MOST:
                self._try(key, inputs, conditioning.rebuild, answer)
            return answer
        torch._foreach_copy_(recording.inputs, [x for x in inputs if x is not None])
        recording.replay()
        return recording.output.clone()

    def _remembered(self, conditioning: Conditioning) -> Conditioning:
        """With a memo, of the last few that were asked; none where gradients are wanted or on a card."""
        if torch.is_grad_enabled() or conditioning.tokens.device.type != "cpu":
            return conditioning
        found = self._seen.pop(id(conditioning), None) or (conditioning, replace(conditioning, memo={}))
        self._seen[id(conditioning)] = found
        while len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return found[1]

    def _look_up_weights(self) -> None:
        places = tuple(p.data_ptr() for p in self.network.parameters())
        if places != self._places:
            self.forget()
            self._places = places

    def _try(
        self,
        key: Hashable,
        inputs: tuple[Tensor | None, ...],
        rebuild: Callable[..., Conditioning],
        expected: Tensor,
    ) -> None:
        """Record, replay once on the same inputs and keep the recording if it gives the same."""
        held = [None if x is None else x.clone() for x in inputs]

        def work() -> tuple[Tensor, list[Tensor]]:
            x_t, t, *conditioning = held
            assert x_t is not None and t is not None
            return self.model.predict(x_t, t, rebuild(*conditioning)), []

        try:
            if self._record is None:
                self._record = CUDARecorder()
            replay, output, _ = self._record(work)
            replay()
        except RuntimeError:  # what cannot be recorded, or too little memory for it: drawing goes on without
            self._distrust()
            return
        apart, whole = (torch.linalg.vector_norm(x.float()) for x in (output - expected, expected))
        if bool(apart <= TOLERANCE * whole):
            self._recordings[key] = _Recording(replay, [x for x in held if x is not None], output)
        elif bool(torch.isfinite(whole)):  # numbers that are not finite compare with none
            self._distrust()

    def _distrust(self) -> None:
        self.trusted = False
        self.forget()
