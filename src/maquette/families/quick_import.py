"""Import single diffusers networks without the hundred others that their packages pull in.

`diffusers.models.unets` and its neighbours import every network they know as soon as one is asked for, which takes
longer than loading the pocket base. `prepare` makes such packages lazy: their submodules can be imported one by one,
and a package itself runs when a name of its own is asked for.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_EAGER = (
    "diffusers.models.unets",
    "diffusers.models.transformers",
    "diffusers.models.autoencoders",
    "scipy.stats",  # imported by diffusers' schedulers for one option
)


class _LazyPackage(ModuleType):
    """A package whose `__init__` runs when an attribute is missed; importing its submodules does not miss any."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        if name.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


@contextmanager
def without_collection() -> Iterator[None]:
    """Python's cycle collector pauses: while networks are imported and built it finds nothing and takes a sixth of the
    time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def prepare() -> None:
    """Make the eager packages lazy; call before importing a network from diffusers. Harmless when called again."""
    importlib.import_module("diffusers.models")
    for name in _EAGER:
        parent, _, child = name.rpartition(".")
        if name in sys.modules or importlib.util.find_spec(parent) is None:
            continue
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            package = _LazyPackage(name)
            package.__path__ = list(spec.submodule_search_locations)
            package.__file__, package.__spec__, package.__package__ = spec.origin, spec, name
            sys.modules[name] = package
            setattr(sys.modules[parent], child, package)
