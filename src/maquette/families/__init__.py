"""Base models: `load` opens one, `targets` finds the layers to train, `kohya_names` lists adapter keys."""

from __future__ import annotations

from .base import BaseModel, FamilySpec
from .load import load
from .targets import kohya_names, layer_names, targets

__all__ = ["BaseModel", "FamilySpec", "kohya_names", "layer_names", "load", "targets"]
