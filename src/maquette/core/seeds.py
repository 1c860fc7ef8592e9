"""Chance that depends on a seed and on what it is for, not on the order in which things happen."""

from __future__ import annotations

import hashlib

import torch


def seeded(seed: int, *stream: object) -> torch.Generator:
    """A CPU generator of its own for each stream: names or numbers, such as ("step", 7) or a layer's name."""
    digest = hashlib.sha256("/".join(map(str, (seed, *stream))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
