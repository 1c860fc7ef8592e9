"""Options of a command made from the keys of its configuration: names, types and help are written once, there."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from ..config import StageConfig

Command = Callable[..., None]


def options_from(
    config: type[StageConfig],
    argument: str | None = None,
    names: Mapping[str, str] | None = None,
    without: Collection[str] = (),
) -> Callable[[Command], Command]:
    """Give a command `command(values, **own)` an option for each key of `config`; the given ones arrive in `values`.

    argument: the key that is given by its place, not by name. names: other names for options, as "control" for the list
    "controls". without: keys that are no options. The command's own parameters come last.
    """

    def decorate(command: Command) -> Command:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "values"]
        keys = {(names or {}).get(key, key): key for key in config.model_fields if key not in without}

        def run(**given: Any) -> None:
            values = {key: given.pop(name) for name, key in keys.items()}
            command({key: value for key, value in values.items() if value not in (None, [])}, **given)

        parameters = [_parameter(config, name, key, key == argument) for name, key in keys.items()]
        run.__doc__ = command.__doc__
        run.__name__ = command.__name__
        signature = inspect.Signature([*(p.replace(kind=p.KEYWORD_ONLY) for p in (*parameters, *own))])
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return run

    return decorate


def _parameter(config: type[StageConfig], name: str, key: str, by_place: bool) -> inspect.Parameter:
    field = config.model_fields[key]
    kind = _kind(field.annotation)
    text = _help(config, key)
    if by_place:
        info: Any = typer.Argument(help=text, show_default=False)
    else:
        dashed = name.replace("_", "-")
        flags = [f"--{dashed}/--no-{dashed}"] if kind is bool else [f"--{dashed}"]
        info = typer.Option(*flags, help=text, show_default=False)
    annotation = Annotated[kind | None, info]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _kind(annotation: Any) -> Any:
    """What typer reads a key as: bool, int, float, a path, text or a list of texts."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return _kind(next(part for part in get_args(annotation) if part is not type(None)))
    if get_origin(annotation) is list:
        return list[str]
    if get_origin(annotation) is Literal:
        return str
    return annotation if annotation in (bool, int, float, Path) else str


def _help(config: type[StageConfig], key: str) -> str:
    """The key's documentation, with its default where it has one that says something."""
    text = config.describe(key).rstrip(".")
    default = config.model_fields[key].get_default(call_default_factory=True)
    said = default is not None and default not in ("", [], -1) and not isinstance(default, bool)
    return f"{text} [{default}]" if said and config.model_fields[key].default is not None else f"{text}."
