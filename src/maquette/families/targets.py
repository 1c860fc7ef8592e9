"""Which layers of a base can be trained, under the names that Kohya's trainer gives them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from torch import nn

from ..errors import MaquetteError
from ..formats.keys import kohya_module_name
from .base import BaseModel
from .sd.spec import TEXT_TARGETS


def targets(
    base: BaseModel, which: Sequence[str] = ("attention", "feed_forward"), text_encoder: bool = False
) -> dict[str, tuple[nn.Module, str]]:
    """Kohya module name -> (parent module, attribute name) of each layer to adapt, in the order of the network.

    which: groups out of `base.targets`; text_encoder: also every attention and MLP layer of the text encoder(s).
    Raises MaquetteError for an unknown group.
    """
    unknown = [group for group in which if group not in base.targets]
    if unknown:
        raise MaquetteError(
            f"there is no group of layers called {unknown[0]!r}; choose from {', '.join(base.targets)}."
        )
    patterns = [pattern for group in which for pattern in base.targets[group]]
    found = {}
    for path, parent, attribute in _matches(base.unet, patterns):
        found[kohya_module_name(base.spec.name, "unet", path)] = (parent, attribute)
    if text_encoder:
        for prefix, encoder in zip(base.spec.te_prefixes, base.text_encoders, strict=True):
            for path, parent, attribute in _matches(encoder, TEXT_TARGETS):
                name = kohya_module_name(base.spec.name, prefix.removeprefix("lora_"), path)
                found[name] = (parent, attribute)
    return found


def _matches(root: nn.Module, patterns: Sequence[str]) -> Iterator[tuple[str, nn.Module, str]]:
    expression = re.compile("|".join(rf"(?:.*\.)?(?:{pattern})" for pattern in patterns) or r"(?!)")
    for path, module in root.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and expression.fullmatch(path):
            parent_path, _, attribute = path.rpartition(".")
            yield path, root.get_submodule(parent_path), attribute
