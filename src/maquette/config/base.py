"""What the configuration of every command can do: read TOML and keywords, name unknown keys, describe its keys."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from ..errors import MaquetteError
from ..parsing import NotToml, parse_toml, read_toml

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Prediction = Literal["auto", "epsilon", "v_prediction", "flow"]
Kind = Literal["person", "animal", "object", "style"]
Precision = Literal["fp16", "bf16", "fp32"]
DenoisingSteps = Annotated[int, Field(ge=1, le=1000)]  # a base has a thousand timesteps


class StageConfig(BaseModel):
    """Unknown keys are errors that name the nearest known one. A class that groups keys says its heading in `group`."""

    group: ClassVar[str] = ""
    renamed: ClassVar[Mapping[str, str]] = {}  # keys that had another name, which is still read: old -> new
    _old_names: tuple[str, ...] = PrivateAttr(())
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True)

    @classmethod
    def parse(
        cls, values: dict[str, Any], source: str = "the configuration", names: Mapping[str, str] | None = None
    ) -> Self:
        """From keys and values as TOML or the command line give them. Raises MaquetteError naming key and source.

        names: what the source calls keys, for messages, where it calls them otherwise.
        """
        try:
            made = cls.model_validate(values)
            made._old_names = tuple(sorted(cls.renamed.keys() & values.keys()))
            return made
        except ValidationError as error:
            raise MaquetteError(_sentence(cls, error, source, names or {})) from error

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for old in cls.renamed.keys() & values.keys():
            if cls.renamed[old] in values:
                raise ValueError(f"{old} is the old name of {cls.renamed[old]}: give one of them")
        paths_as_text = {key: fspath(value) if isinstance(value, PathLike) else value for key, value in values.items()}
        return cls.in_new_names(paths_as_text)

    @classmethod
    def in_new_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Keys and values, with each key by the name that it has now."""
        return {cls.renamed.get(key, key): value for key, value in values.items()}

    def old_names(self) -> list[str]:
        """A sentence for each key that was given by its old name."""
        return [f"{old} is called {self.renamed[old]} now; the old name is still read." for old in self._old_names]

    @classmethod
    def read(cls, path: str | Path, **overrides: Any) -> Self:
        """From a TOML file; `overrides` win."""
        return cls.parse(read_toml(path) | overrides, str(path))

    def refuse_without_effect(self, keys: Iterable[str], where: str) -> None:
        """Raise ValueError where one of the keys has another value than its default. where: ends the sentence "KEY has
        no effect …".
        """
        for key in keys:
            if getattr(self, key) != type(self).model_fields[key].get_default(call_default_factory=True):
                raise ValueError(f"{key} has no effect {where}: leave it out")

    def to_toml(self) -> str:
        """TOML text with every key that has a value; `parse` of it gives the same configuration."""
        return toml_text(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def describe(cls, key: str) -> str:
        """The documentation of a key."""
        return " ".join((cls.model_fields[key].description or "").split())

    @classmethod
    def group_of(cls, key: str) -> str:
        """The heading under which --help lists a key: that of the class which declares it first; "" is no heading."""
        owners = [c for c in cls.__mro__ if issubclass(c, StageConfig) and key in inspect.get_annotations(c)]
        return owners[-1].__dict__.get("group", "") if owners else ""


def toml_text(values: dict[str, Any]) -> str:
    """Keys and values, as JSON has them, as TOML text."""
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in values.items())


def parse_setting(text: str) -> tuple[str, Any]:
    """ "key=value" of --set. The value is read as TOML where it is that (numbers, true, lists), else as a text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise MaquetteError(f"--set {text} has no value; write --set key=value, such as --set learning_rate=1e-4.")
    try:
        return key.strip().replace("-", "_"), parse_toml(f"value = {value}", f"--set {key}")["value"]
    except NotToml:
        return key.strip().replace("-", "_"), value


def toml_value(value: Any) -> str:
    """A value, as JSON has it, as TOML text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    text = json.dumps(value, ensure_ascii=False)  # TOML's strings, numbers and booleans are written as in JSON
    return text.replace("\x7f", "\\u007f")  # but for this


def _sentence(
    model: type[BaseModel], error: ValidationError, source: str, names: Mapping[str, str] | None = None
) -> str:
    """The first fault, as one sentence."""
    fault = error.errors()[0]
    model, loc, place = _table_of(model, fault["loc"])
    source += place
    key = str(loc[0]) if loc else ""
    if fault["type"] == "extra_forbidden":
        return f"{source} has the unknown key {key!r}{_meant(key, model.model_fields)}"
    if fault["type"] == "missing":
        return f"{source} lacks {key!r}: {model.model_fields[key].description}"
    message = fault["msg"].removeprefix("Value error, ")
    if not key:
        return f"{source}: {message}."
    field = model.model_fields.get(key)
    if field is not None and get_origin(field.annotation) is dict and len(loc) > 1:
        key = f"{key}.{loc[1]}"
    shown = f" = {_shown(fault['input'])}" if field is None or field.repr else ""  # a password is not repeated
    return f"{source}: {(names or {}).get(key, key)}{shown} is not possible: {message[:1].lower()}{message[1:]}."


def _table_of(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[type[BaseModel], tuple[int | str, ...], str]:
    """The innermost table that a fault lies in, where in it, and which it is, for people: tables in lists are counted
    from 1, tables in tables have their own name.
    """
    place = ""
    while len(loc) > 1 and (field := model.model_fields.get(str(loc[0]))) is not None:
        inner = [one for one in get_args(field.annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
        if not inner or (get_origin(field.annotation) is dict and len(loc) == 2):
            break
        place += f", number {loc[1] + 1} of {loc[0]}" if isinstance(loc[1], int) else f", [{loc[0]}.{loc[1]}]"
        model, loc = inner[0], loc[2:]
    return model, loc, place


def _meant(key: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown key: another trainer's word for one of ours, or one that is nearly it."""
    from ..trainers.words import meaning

    names = list(known)
    foreign = meaning(key, names)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    return f"; {foreign}" if foreign else f"; did you mean {near[0]!r}?" if near else "."


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float | bool) else type(value).__name__
