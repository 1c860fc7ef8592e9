"""Conditioning of every caption and prompt: encoded once and kept, or at each step where it changes.

A caption that comes while training is encoded by itself, so that its numbers do not depend on which others are kept:
a resumed run computes what an uninterrupted one does.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch

from ..core.denoiser import Conditioning
from ..families.base import BaseModel
from ..prompts.captions import caption_chunks, encode_caption

MOST_BYTES = 256_000_000  # of captions kept that came while training: 1,000 of SD1, 400 of SDXL
_TOGETHER = 32  # captions encoded at a time before training


class PromptCache:
    """Every prompt of a run.

    prompts: those known before. vary: others may be asked for. trainable: whether training changes a prompt's
    encoding; None: no prompt's. weighted: brackets weigh words, as in A1111's prompts. most_tokens: 75, 150 or 225;
    what a caption has more is cut off.
    """

    def __init__(
        self,
        base: BaseModel,
        prompts: Sequence[str],
        clip_skip: int,
        trainable: Callable[[str], bool] | None,
        weighted: bool = False,
        most_tokens: int = 225,
        vary: bool = False,
    ) -> None:
        self._base, self._clip_skip, self._trainable, self._weighted = base, clip_skip, trainable, weighted
        self._most_tokens, self._vary = most_tokens, vary
        self._before = copy.copy(base)  # the same networks; its tokenizers will not learn the run's words
        self.untrained: Callable[[], AbstractContextManager[None]] = nullcontext  # the networks as they were, meanwhile
        self.windows = lru_cache(maxsize=10_000)(self._windows)  # asked when the run's words are known
        self._place: dict[str, tuple[int, int]] = {}
        self._kept: dict[int, Conditioning] = {}
        groups: dict[int, list[str]] = {}
        for prompt in dict.fromkeys([*prompts, ""]):
            groups.setdefault(self._count(base, prompt), []).append(prompt)
        for count, group in groups.items():
            self._place |= {prompt: (count, i) for i, prompt in enumerate(group)}
            self._kept[count] = self._encode_all(group)
        self._recent: OrderedDict[str, Conditioning] = OrderedDict()

    def _windows(self, prompt: str) -> int:
        """How many windows of 75 tokens a prompt takes. Prompts of a batch must agree; see `alike`."""
        return self._count(self._base, prompt)

    def _count(self, base: BaseModel, prompt: str) -> int:
        return len(caption_chunks(prompt, base.tokenizers[0], self._most_tokens, self._weighted))

    def alike(self, prompts: Sequence[str]) -> list[list[int]]:
        """The numbers of the prompts, by how many windows they take."""
        groups: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            groups.setdefault(self.windows(prompt), []).append(i)
        return [groups[count] for count in sorted(groups)]

    @torch.no_grad()
    def _encode_all(self, prompts: list[str]) -> Conditioning:
        starts = range(0, len(prompts), _TOGETHER)
        return Conditioning.cat([self._encode(self._before, prompts[i : i + _TOGETHER]) for i in starts])

    def _encode(self, base: BaseModel, prompts: list[str]) -> Conditioning:
        if not self._weighted and self._count(base, prompts[0]) == 1:
            return base.encode_text(prompts, self._clip_skip)
        parts = [encode_caption(base, p, self._clip_skip, self._most_tokens, self._weighted) for p in prompts]
        return Conditioning.cat(parts)

    @property
    def encoder_needed(self) -> bool:
        """Whether texts are still to be encoded."""
        return self._trainable is not None or self._vary

    def original(self, prompts: Sequence[str]) -> Conditioning:
        """As the untrained text encoder says it. The prompts are alike."""
        places = [place for prompt in prompts if (place := self._place.get(prompt))]
        if len(places) == len(prompts) and len({count for count, _ in places}) == 1:
            return self._kept[places[0][0]][[i for _, i in places]]
        return Conditioning.cat([self._original(prompt) for prompt in prompts])

    @torch.no_grad()
    def _original(self, prompt: str) -> Conditioning:
        if place := self._place.get(prompt):
            return self._kept[place[0]][[place[1]]]
        known = self._recent.pop(prompt, None)
        if known is None:
            with self.untrained():
                known = self._encode(self._before, [prompt])
        self._recent[prompt] = known  # the newest last
        if _size(known) * len(self._recent) > MOST_BYTES:
            self._recent.popitem(last=False)
        return known

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """As the text encoder says it now, with gradients where it learns. The prompts are alike."""
        if self._trainable is None:
            return self.original(prompts)
        distinct = list(dict.fromkeys(prompts))
        changing = [prompt for prompt in distinct if self._trainable(prompt)] or distinct  # some gradient, be it zero
        constant = [prompt for prompt in distinct if prompt not in changing]
        parts = [self._encode(self._base, changing), *([self.original(constant)] if constant else [])]
        order = [*changing, *constant]
        return Conditioning.cat(parts)[[order.index(prompt) for prompt in prompts]]


def _size(parts: Conditioning) -> int:
    """Bytes."""
    return sum(x.numel() * x.element_size() for x in parts.fields() if x is not None)
