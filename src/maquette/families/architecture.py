"""A network's configuration: the dictionary of its config.json with defaults, readable as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import MaquetteError


class Config(dict[str, Any]):
    """A network's configuration with its defaults; values can be read as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def complete(
    given: Mapping[str, Any], defaults: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]], network: str
) -> Config:
    """The configuration with its defaults.

    fixed: key -> the values that Stable Diffusion's networks have. network: its name in the sentence of MaquetteError,
    raised for another value or a key without any.
    """
    config = Config({**defaults, **{key: value for key, value in given.items() if not key.startswith("_")}})
    for key, allowed in fixed.items():
        value_read = config.get(key, allowed[0])
        for value in value_read if isinstance(value_read, list | tuple) else [value_read]:
            if value not in allowed:
                raise MaquetteError(
                    f"The configuration of the {network} says {key} = {value!r}; maquette knows "
                    f"{' and '.join(map(repr, allowed))}."
                )
    return config
