"""CLIP tokens and text features: the real 49,408-entry vocabulary, 77-token windows, clip skip as A1111 counts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import MaquetteError

WINDOW = 77  # tokens that the text encoder sees at once, start and end included
EMBEDDED = Path(__file__).parent.parent / "pocket" / "weights" / "tokenizer" / "tokenizer.json"


@dataclass(frozen=True)
class Encoding:
    """Result of calling a tokenizer: one list of ids per text."""

    input_ids: list[list[int]]


class Tokenizer:
    """CLIP's byte-pair tokenizer.

    pad: the id that fills a window: the end token in SD1, 0 ("!") in SD2 and in SDXL's second encoder.
    """

    def __init__(self, path: str | Path = EMBEDDED, pad: int | None = None) -> None:
        from tokenizers import Tokenizer as BytePairs

        pairs: Any = BytePairs.from_file(str(path))
        self.pairs = pairs
        self.pairs.no_truncation()
        self.pairs.no_padding()
        self.bos = int(self.pairs.token_to_id("<|startoftext|>"))
        self.eos = int(self.pairs.token_to_id("<|endoftext|>"))
        self.pad = self.eos if pad is None else pad
        self.model_max_length = WINDOW

    def __len__(self) -> int:
        return int(self.pairs.get_vocab_size())

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Token ids of a text, without the start and end tokens unless asked for."""
        return list(self.pairs.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.pairs.decode(list(ids)))

    def token(self, index: int) -> str:
        """The vocabulary entry of an id, such as "cat</w>"."""
        return str(self.pairs.id_to_token(index))

    def __call__(self, texts: str | Sequence[str], add_special_tokens: bool = False) -> Encoding:
        """Token ids of each text, untruncated and unpadded."""
        return Encoding([self.encode(t, add_special_tokens) for t in ([texts] if isinstance(texts, str) else texts)])

    def window(self, text: str) -> list[int]:
        """Exactly 77 ids: start, text cut to 75 tokens, end, padding."""
        ids = [self.bos, *self.encode(text)[: WINDOW - 2], self.eos]
        return ids + [self.pad] * (WINDOW - len(ids))


def encode_windows(encoder: Any, ids: Tensor, clip_skip: int = 1, final_norm: bool = True) -> tuple[Tensor, Tensor]:
    """Text features of token windows: (B, 77) int64 -> tokens (B, 77, D) and the encoder's pooled vector (B, D or P).

    clip_skip 1 is the last layer, 2 the one before (A1111's counting). final_norm applies the last layer norm to the
    chosen layer, as SD1 and SD2 do and SDXL does not.
    """
    layers = encoder.config.num_hidden_layers
    if not 1 <= clip_skip <= layers:
        raise MaquetteError(f"clip skip {clip_skip} is impossible: the text encoder has {layers} layers.")
    output = encoder(input_ids=ids.to(next(encoder.parameters()).device), output_hidden_states=True)
    hidden = output.hidden_states[-clip_skip]
    if final_norm:
        hidden = getattr(encoder, "text_model", encoder).final_layer_norm(hidden)
    pooled = output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output
    return hidden, pooled
