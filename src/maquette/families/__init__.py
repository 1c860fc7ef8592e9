"""Base models: `load` opens one, `targets` finds the layers to train, `kohya_names` lists adapter keys.

What stands here is imported when it is asked for: names, shapes and kinds of files can be told without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import BaseModel, FamilySpec
    from .loading import load
    from .named_layers import layer_names
    from .trainable import kohya_names, targets

__all__ = ["BaseModel", "FamilySpec", "kohya_names", "layer_names", "load", "targets"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from . import base, loading, named_layers, trainable

    found = {
        "BaseModel": base.BaseModel,
        "FamilySpec": base.FamilySpec,
        "kohya_names": trainable.kohya_names,
        "layer_names": named_layers.layer_names,
        "load": loading.load,
        "targets": trainable.targets,
    }
    return found[name]
