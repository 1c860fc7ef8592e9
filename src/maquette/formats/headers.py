"""Headers of safetensors files, for lists and estimates: without torch, and without the checks that loading makes."""

from __future__ import annotations

import json
import os
from typing import Any

from ..limits import HEADER_BYTES


def header_of(path: str) -> dict[str, Any]:
    """Entries by the names of tensors, and "__metadata__"; {} of what is no such file. Raises OSError."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(HEADER_BYTES, os.fstat(file.fileno()).st_size):
            return {}
        try:
            found = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return {}
    return found if isinstance(found, dict) else {}
