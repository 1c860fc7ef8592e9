"""Options of Kohya's trainer by name, each taken once as the kind of value that it is."""

from __future__ import annotations

import math
from typing import Any

from ...errors import MaquetteError
from ...trainers.kohya import OPTIONS
from .words import listed

_TRUTH = {"true": True, "1": True, "false": False, "0": False, "none": False, "": False}


class Values:
    """What is left of the options that were given. source: the file, for messages."""

    def __init__(self, given: dict[str, Any], source: str) -> None:
        self.left, self.source = dict(given), source

    def __contains__(self, name: str) -> bool:
        return not _empty(self.left.get(name))

    def fault(self, name: str, value: Any, kind: str) -> MaquetteError:
        return MaquetteError(f"{self.source}: {name} = {str(value)[:60]} is not {kind}.")

    def take(self, name: str) -> Any:
        """The option as its kind has it; None where it was not given or left empty."""
        take = {"flag": self.flag, "int": self.whole, "float": self.number, "list": self.words, "text": self.text}
        return take[OPTIONS[name].kind](name)

    def text(self, name: str) -> str | None:
        value = self.left.pop(name, None)
        if _empty(value):
            return None
        if value is True or isinstance(value, list | dict):
            raise self.fault(name, value, "one text")
        return str(value)

    def flag(self, name: str) -> bool | None:
        if name not in self.left:
            return None
        value = self.left.pop(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        if str(value).lower() not in _TRUTH:
            raise self.fault(name, value, "true or false")
        return _TRUTH[str(value).lower()]

    def number(self, name: str) -> float | None:
        value = self.left.pop(name, None)
        return None if _empty(value) else self.as_number(name, value)

    def as_number(self, name: str, value: Any) -> float:
        try:
            found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            found = math.nan
        if not math.isfinite(found):
            raise self.fault(name, value, "a number")
        return found

    def whole(self, name: str) -> int | None:
        value = self.left.get(name)
        found = self.number(name)
        if found is None:
            return None
        if found != int(found) or abs(found) > 2**63:
            raise self.fault(name, value, "a whole number")
        return value if isinstance(value, int) else int(found)

    def words(self, name: str) -> list[str]:
        return listed(self.left.pop(name, None))

    def share(self, name: str) -> float | int | None:
        """A number of steps, or below 1 or with % a share of them."""
        value = self.left.get(name)
        if isinstance(value, str) and value.endswith("%"):
            self.left[name] = value[:-1]
            percent = self.number(name)
            return None if percent is None else percent / 100
        found = self.number(name)
        return int(found) if found is not None and found >= 1 else found


def _empty(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == "None"
