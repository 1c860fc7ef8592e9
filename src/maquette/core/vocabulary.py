"""Words of one's own: vectors that stand behind a text encoder's vocabulary, and the tokens that call them.

Textual inversion (arXiv 2208.01618) in the form that every program reads: n vectors for one name. A name is found by
its tokens, as A1111 does it, so that it may consist of several words and its case does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ExtendedEmbedding(nn.Module):
    """Stands where a token embedding stood: ids below its size look there, id size + i gives row i of `vectors`.

    table: the frozen embedding, whose attributes can be read through this module. vectors: (n, D), float32.
    """

    def __init__(self, table: nn.Embedding, vectors: nn.Parameter) -> None:
        super().__init__()
        self.vectors = vectors  # before the table, whose own attributes (vectors too, perhaps) show through
        self.table = table

    @property
    def num_embeddings(self) -> int:
        """Rows of both together, so that a table can be extended again."""
        return int(self.table.num_embeddings) + len(self.vectors)

    def forward(self, ids: Tensor) -> Tensor:
        """(...) int64 -> (..., D)."""
        size = self.table.num_embeddings
        known: Tensor = self.table(ids.clamp(max=size - 1))
        own = F.embedding((ids - size).clamp(min=0), self.vectors).to(known.dtype)
        return torch.where((ids >= size)[..., None], own, known)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("table"), name)


class ExtendedTokenizer:
    """A tokenizer that also knows names. Everything else is the tokenizer's own.

    names: name -> number of its vectors; they get the ids `size`, size + 1 … in order. Raises ValueError for a name
    without tokens.
    """

    def __init__(self, tokenizer: Any, size: int, names: Mapping[str, int]) -> None:
        self.plain = tokenizer
        self._spans: dict[int, int] = {}  # first id of a name -> number of its vectors
        calls: list[tuple[list[int], list[int]]] = []
        for name, count in names.items():
            call = list(tokenizer.encode(name))
            if not call:
                raise ValueError(f"the name {name!r} has no tokens")
            calls.append((call, list(range(size, size + count))))
            self._spans[size] = count
            size += count
        self._calls = sorted(calls, key=lambda pair: -len(pair[0]))  # the longest name wins

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Token ids of a text, names replaced by their vectors' ids."""
        ids, out, place = self.plain.encode(text, add_special_tokens), [], 0
        while place < len(ids):
            for call, own in self._calls:
                if ids[place : place + len(call)] == call:
                    out += own
                    place += len(call)
                    break
            else:
                out.append(ids[place])
                place += 1
        return out

    def span(self, token: int) -> int:
        """How many tokens from this one on must stay together: all vectors of a name, else 1."""
        return self._spans.get(token, 1)

    def mentions_placeholder(self, text: str) -> bool:
        """Whether the text has one of the names."""
        return any(token in self._spans for token in self.encode(text))

    def window(self, text: str) -> list[int]:
        """Exactly 77 ids: start, text cut to 75 tokens, end, padding."""
        ids = [self.plain.bos, *self.encode(text)[:75], self.plain.eos]
        return ids + [self.plain.pad] * (77 - len(ids))

    def __len__(self) -> int:
        return len(self.plain)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


def repeated(rows: Tensor, count: int) -> Tensor:
    """(m, D) -> (count, D): the rows from the first on, and again where they do not suffice."""
    return rows[torch.arange(count) % len(rows)].clone()


def token_embedding_slot(encoder: nn.Module) -> tuple[nn.Module, str]:
    """(parent module, attribute name) of a CLIP text encoder's token embedding. Raises ValueError without one."""
    for module in encoder.modules():
        if isinstance(getattr(module, "token_embedding", None), nn.Module):
            return module, "token_embedding"
    raise ValueError(f"{type(encoder).__name__} has no token embedding")


def part_names(encoders: Sequence[Any]) -> tuple[str, ...]:
    """What an embedding's parts are called in a file: one text encoder's alone, or SDXL's two."""
    return ("emb_params",) if len(encoders) == 1 else ("clip_l", "clip_g")
