"""Where in a picture the UNet looks for a word: its cross-attention, recorded while it computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from .transformer import Attend, BasicTransformerBlock


@contextmanager
def word_maps(unet: nn.Module, places: Sequence[int]) -> Iterator[list[Tensor]]:
    """Within the block each pass adds, for each layer that attends to the text, the share of its attention that goes
    to the tokens at `places` (0 is the start token), the mean over heads: (B, pixels of that layer), float32.
    """
    maps: list[Tensor] = []
    layers = [module.attn2 for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
    usual = [layer.attend for layer in layers]

    def recording(attend: Attend) -> Attend:
        def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            table = (
                (q @ k.mT * q.shape[-1] ** -0.5).float().softmax(-1)
            )  # (B, heads, n = h w pixels, m tokens of the text)
            maps.append(table[..., list(places)].sum(-1).mean(1))
            return attend(q, k, v)

        return attended

    try:
        for layer in layers:
            layer.attend = recording(layer.attend)
        yield maps
    finally:
        for layer, attend in zip(layers, usual, strict=True):
            layer.attend = attend
