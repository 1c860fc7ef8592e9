"""The real CLIP tokenizer from its published merge list (`bpe_simple_vocab_16e6.txt.gz`, MIT): 49,408 entries."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
ENTRIES = 49408


def byte_letters() -> list[str]:
    """A printable letter for each byte, in the vocabulary's order: printable bytes first, the others moved past 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def write(merge_list: Path, folder: Path) -> None:
    """Write folder/tokenizer.json and tokenizer_config.json as transformers' CLIPTokenizer saves them."""
    from transformers import CLIPTokenizer

    data = merge_list.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise SystemExit(f"{merge_list}: not the published merge list (sha256 differs)")
    lines = gzip.decompress(data).decode().split("\n")[1 : ENTRIES - 256 - 256 - 2 + 1]
    merges = [tuple(line.split()) for line in lines]
    letters = byte_letters()
    words = [
        *letters,
        *(c + "</w>" for c in letters),
        *("".join(m) for m in merges),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    assert len(words) == len(set(words)) == ENTRIES
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges))
    pairs = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    pairs("", padding="max_length", truncation=True, max_length=77)  # saved with it: 77 tokens is how CLIP is used
    pairs.save_pretrained(folder)
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()
