"""CLIP's tokenizer: the real 49,408-entry vocabulary, behind the repair of texts that OpenAI's own begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

WINDOW = 77  # tokens that the text encoder sees at once, start and end included
EMBEDDED = Path(__file__).parent.parent / "families" / "pocket" / "weights" / "tokenizer" / "tokenizer.json"


_SPACES = str.maketrans("\n\t", "  ")
_NO_WORD = "\u0345"  # an iota below nothing: CLIP's pattern of words, which ignores case, has no place for it


def fix_text(text: str) -> str:
    """Plain characters for curly quotes, full-width letters, ligatures, HTML entities and wrongly decoded UTF-8.

    ftfy's repair, with which CLIP was trained and which A1111's and Kohya's tokenizers run too. Control characters and
    halves of surrogate pairs go.
    """
    if text.isascii() and "&" not in text and text.translate(_SPACES).isprintable():
        return text  # it has nothing that would be repaired, and ftfy need not be imported
    import ftfy

    return ftfy.fix_text(text).replace(_NO_WORD, " ")


@dataclass(frozen=True)
class Encoding:
    """Result of calling a tokenizer: one list of ids per text."""

    input_ids: list[list[int]]


@lru_cache(maxsize=4)
def _byte_pairs(path: str, changed: int, size: int) -> Any:
    """A vocabulary, which takes longer to read than pocket's networks; no caller changes it. changed, size: the file's,
    so that another one under the same name is read.
    """
    from tokenizers import Tokenizer as BytePairs

    pairs: Any = BytePairs.from_file(path)
    pairs.no_truncation()
    pairs.no_padding()
    return pairs


SHORT = 100  # characters of texts whose ids are remembered: the pieces of a prompt come again at every change of it


@lru_cache(maxsize=4096)
def _known_ids(pairs: Any, text: str, add_special_tokens: bool) -> tuple[int, ...]:
    return _ids(pairs, text, add_special_tokens)


def _ids(pairs: Any, text: str, add_special_tokens: bool) -> tuple[int, ...]:
    return tuple(pairs.encode(fix_text(text), add_special_tokens=add_special_tokens).ids)


class Tokenizer:
    """CLIP's byte-pair tokenizer.

    pad: the id that fills a window: the end token in SD1, 0 ("!") in SD2 and in SDXL's second encoder.
    """

    def __init__(self, path: str | Path = EMBEDDED, pad: int | None = None) -> None:
        state = Path(path).stat()
        self.pairs = _byte_pairs(str(path), state.st_mtime_ns, state.st_size)
        self.bos = int(self.pairs.token_to_id("<|startoftext|>"))
        self.eos = int(self.pairs.token_to_id("<|endoftext|>"))
        self.pad = self.eos if pad is None else pad
        self.model_max_length = WINDOW

    def __len__(self) -> int:
        return int(self.pairs.get_vocab_size())

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Token ids of a text, without the start and end tokens unless asked for."""
        return list((_known_ids if len(text) <= SHORT else _ids)(self.pairs, text, add_special_tokens))

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
