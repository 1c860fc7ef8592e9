"""Text features of CLIP: 77-token windows, clip skip as A1111 counts it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...errors import MaquetteError
from ...formats.tokenizer import EMBEDDED, WINDOW, Tokenizer

__all__ = ["EMBEDDED", "WINDOW", "Tokenizer", "encode_windows"]


def encode_windows(encoder: Any, ids: Tensor, clip_skip: int = 1, final_norm: bool = True) -> tuple[Tensor, Tensor]:
    """Text features of token windows: (B, 77) int64 -> tokens (B, 77, D) and the encoder's pooled vector (B, D or P).

    clip_skip 1 is the last layer, 2 the one before (A1111's counting). final_norm applies the last layer norm to the
    chosen layer, as SD1 and SD2 do and SDXL does not.
    """
    layers = encoder.config.num_hidden_layers
    if not 1 <= clip_skip <= layers:
        raise MaquetteError(f"clip skip {clip_skip} is impossible: the text encoder has {layers} layers.")
    hidden_states, pooled = encoder(ids.to(next(encoder.parameters()).device))
    hidden = hidden_states[-clip_skip]
    return encoder.final_layer_norm(hidden) if final_norm else hidden, pooled
