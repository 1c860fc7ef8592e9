"""The hashes by which programs and web sites name model files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import safetensors_header

_OLD_START, _OLD_LENGTH = 0x100000, 0x10000  # A1111's first hash looked at 64 KiB one mebibyte into the file


@dataclass(frozen=True)
class Hashes:
    """sha256 of the file; autov2, its first 10 digits (A1111, Civitai); old, A1111's 8 digits; body, sha256 after the
    header.

    body is None for files that are not safetensors; its first 12 digits are Civitai's AutoV3 and A1111's LoRA hash.
    """

    sha256: str
    old: str
    body: str | None

    @property
    def autov2(self) -> str:
        return self.sha256[:10]

    @property
    def autov3(self) -> str | None:
        return None if self.body is None else self.body[:12]


def legacy(path: str | Path) -> str:
    """A1111's first hash, 8 digits."""
    return safetensors_header.file_sha256(path, _OLD_START, _OLD_LENGTH)[:8]


def of(path: str | Path, header: safetensors_header.Header | None = None) -> Hashes:
    """All hashes of a file; `header` when it is a safetensors file. The file is read once, or twice with a header."""
    old = legacy(path)
    body = None if header is None else safetensors_header.file_sha256(path, header.body)
    return Hashes(safetensors_header.file_sha256(path), old, body)
