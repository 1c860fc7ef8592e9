"""Seeded generators: the same numbers as ever, of their own for each stream."""

from __future__ import annotations

import torch

from maquette.core.seeds import seeded


def test_streams_are_independent_and_stay_what_they_are() -> None:
    """The numbers are those of every run so far: a seed draws the same picture and the same LoRA in every version."""
    streams = [(0,), (1,), (0, "lora_unet_x"), (0, "step", 7), (0, "step", 8)]
    drawn = [int(torch.randint(2**31, (), generator=seeded(*stream))) for stream in streams]
    assert len(set(drawn)) == len(drawn)
    assert drawn == [2004268169, 1091288056, 838014334, 773386818, 1004844601]
    assert torch.equal(torch.rand(5, generator=seeded(3, "a")), torch.rand(5, generator=seeded(3, "a")))
