"""Textual inversion embeddings put into a base for a while, and found by their file's name, as in A1111."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ..adapters.embeddings import Embedding
from ..core.vocabulary import ExtendedEmbedding, ExtendedTokenizer, token_embedding_slot
from ..data.images import walk
from ..errors import MaquetteError
from ..families.base import BaseModel

DEFAULT_FOLDER = Path("embeddings")
SUFFIXES = (".safetensors", ".pt", ".bin")


@contextmanager
def apply_embeddings(base: BaseModel, found: Sequence[Embedding]) -> Iterator[None]:
    """Within the block the embeddings' names call their vectors; afterwards the text encoders are as before.

    Raises MaquetteError for an embedding of another kind of base.
    """
    if not found:
        yield
        return
    for embedding in found:
        _require_fit(base, embedding)
    slots = [token_embedding_slot(encoder) for encoder in base.text_encoders]
    tables: list[nn.Embedding] = [getattr(parent, attribute) for parent, attribute in slots]
    tokenizers = base.tokenizers
    try:
        base.tokenizers = with_names(base, {embedding.name: len(embedding) for embedding in found})
        for i, ((parent, attribute), table) in enumerate(zip(slots, tables, strict=True)):
            vectors = torch.cat([embedding.vectors[i].float() for embedding in found]).to(table.weight.device)
            setattr(parent, attribute, ExtendedEmbedding(table, nn.Parameter(vectors, requires_grad=False)))
        yield
    finally:
        base.tokenizers = tokenizers
        for (parent, attribute), table in zip(slots, tables, strict=True):
            setattr(parent, attribute, table)


def with_names(base: BaseModel, names: dict[str, int]) -> list[ExtendedTokenizer]:
    """The base's tokenizers, which also know the names (name -> number of vectors)."""
    sizes = [_size(encoder) for encoder in base.text_encoders]
    try:
        return [ExtendedTokenizer(t, size, names) for t, size in zip(base.tokenizers, sizes, strict=True)]
    except ValueError as error:
        raise MaquetteError(f"An embedding cannot be called by its name: {error}.") from error


def _size(encoder: nn.Module) -> int:
    parent, attribute = token_embedding_slot(encoder)
    return int(getattr(parent, attribute).num_embeddings)


def _require_fit(base: BaseModel, embedding: Embedding) -> None:
    widths = base.token_widths
    own = [vectors.shape[1] for vectors in embedding.vectors]
    if own != widths:
        raise MaquetteError(
            f"The embedding {embedding.name} has vectors of {' and '.join(map(str, own))} numbers, {base.source} needs "
            f"{' and '.join(map(str, widths))}: it was made for another kind of base."
        )


def embedding_files(base: BaseModel, prompts: Sequence[str], folder: Path | None) -> dict[str, Path]:
    """Name -> file of the embeddings that the prompts call, out of a folder with its subfolders, or one file.

    folder None: `embeddings`, where that exists. Raises MaquetteError when a folder that was named does not exist.
    """
    files = all_files(folder)
    tokenizer = base.tokenizers[0]
    texts = [tokenizer.encode(prompt) for prompt in prompts]
    called = [file for file in files if any(_within(tokenizer.encode(file.stem), text) for text in texts)]
    found = {file.stem: file for file in reversed(called)}
    return dict(sorted(found.items()))


def all_files(folder: Path | None) -> list[Path]:
    """The files of embeddings in a folder, as above; its linked subfolders count too."""
    place = DEFAULT_FOLDER if folder is None else folder
    if not place.exists():
        if folder is None:
            return []
        raise MaquetteError(
            f"The folder of embeddings {place} does not exist; give the right one with --embedding-dir."
        )
    return [place] if place.is_file() else sorted(file for file in walk(place) if file.suffix.lower() in SUFFIXES)


def _within(part: list[int], whole: list[int]) -> bool:
    return bool(part) and any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def initial_tokens(base: BaseModel, word: str) -> dict[str, Sequence[int]]:
    """Token ids of the word that the vectors begin as, for each part. Raises MaquetteError for an empty word."""
    from ..core.vocabulary import part_names

    ids = [tokenizer.encode(word) for tokenizer in base.tokenizers]
    if not all(ids):
        raise MaquetteError(f"init_word {word!r} has no tokens; name a word that is near to what is to be learned.")
    return dict(zip(part_names(base.text_encoders), ids, strict=True))


def vectors_of(state: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """The parts of an embedding's state, in the order of the text encoders."""
    return (state["emb_params"],) if "emb_params" in state else (state["clip_l"], state["clip_g"])
