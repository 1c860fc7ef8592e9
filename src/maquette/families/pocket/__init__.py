"""The embedded default base: its weights folder, its specification and its own judge of pictures."""

from __future__ import annotations

from .spec import POCKET, WEIGHTS

__all__ = ["POCKET", "WEIGHTS"]
