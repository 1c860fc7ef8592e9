"""Base models: `load` opens one, `targets` finds the layers to train."""

from __future__ import annotations

from .base import BaseModel, FamilySpec
from .load import load
from .targets import targets

__all__ = ["BaseModel", "FamilySpec", "load", "targets"]
