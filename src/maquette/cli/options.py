"""Options of a command made from the keys of its configuration, where names, types, help and groups are written."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from ..config import StageConfig

Command = Callable[..., None]
UNGROUPED = "Options"  # heading of the keys that have no group
WIDEST_CHOICE = 40  # characters of choices that --help shows behind an option's name


def options_from(
    config: type[StageConfig],
    *arguments: str,
    names: Mapping[str, str] | None = None,
    only: Collection[str] = (),
    without: Collection[str] = (),
    optional: Collection[str] = (),
) -> Callable[[Command], Command]:
    """Give a command `command(values, **own)` an option for each key of `config`; the given ones arrive in `values`.

    arguments: the keys that are given by their place, not by name. names: other names for options, as "control" for the
    list "controls". only, without: the keys that are options, or that are none; tables never are. optional: keys that
    the configuration needs, but that may come from elsewhere. The command's own parameters come last.
    """

    def decorate(command: Command) -> Command:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "values"]
        keys = [*arguments, *(key for key in config.model_fields if key not in arguments and key not in without)]
        keys = [key for key in keys if (not only or key in only) and _kind(config.model_fields[key].annotation)]

        def run(**given: Any) -> None:
            values = {key: given.pop(key) for key in keys}
            command({key: value for key, value in values.items() if value not in (None, [])}, **given)

        needed = {key for key in keys if config.model_fields[key].is_required() and key not in optional}
        parameters = [
            _parameter(config, key, None if key in arguments else (names or {}).get(key, key), key in needed)
            for key in keys
        ]
        run.__doc__ = command.__doc__
        run.__name__ = command.__name__
        signature = inspect.Signature([*(p.replace(kind=p.KEYWORD_ONLY) for p in (*parameters, *own))])
        setattr(run, "__signature__", signature)  # noqa: B010 (typer reads it; functions declare none)
        run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return run

    return decorate


def _parameter(config: type[StageConfig], key: str, name: str | None, needed: bool) -> inspect.Parameter:
    """name: of the option; None for what is given by its place."""
    field = config.model_fields[key]
    kind: Any = _kind(field.annotation)
    shared: dict[str, Any] = {"help": _help(config, key), "show_default": False}
    if name is None:
        info: Any = typer.Argument(metavar=key.upper(), **shared)
    else:
        dashed = name.replace("_", "-")
        flags = [f"--{dashed}/--no-{dashed}"] if kind is bool else [f"--{dashed}"]
        flags += [
            f"--{old.replace('_', '-')}" for old, new in config.renamed.items() if new == key and kind is not bool
        ]
        metavar = "|".join(_choices(field.annotation))
        if 0 < len(metavar) <= WIDEST_CHOICE:
            shared["metavar"] = metavar
        info = typer.Option(*flags, rich_help_panel=config.group_of(key) or UNGROUPED, **shared)
    annotated: Any = Annotated
    annotation = annotated[kind if needed else kind | None, info]
    default = inspect.Parameter.empty if needed else None
    return inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _bare(annotation: Any) -> Any:
    """A type without its bounds, and without None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return _bare(next(part for part in get_args(annotation) if part is not type(None)))
    return annotation


def _kind(annotation: Any) -> Any:
    """What typer reads a key as: bool, int, float, a path, text or a list of texts; None for a table."""
    bare = _bare(annotation)
    if get_origin(bare) is dict:
        return None
    if get_origin(bare) is list:
        return list[str]
    return bare if bare in (bool, int, float, Path) else str


def _choices(annotation: Any) -> list[str]:
    bare = _bare(annotation)
    return [str(value) for value in get_args(bare)] if get_origin(bare) is Literal else []


def _help(config: type[StageConfig], key: str) -> str:
    """The key's documentation, with its default where it has one that says something."""
    text = config.describe(key).rstrip(".")
    field = config.model_fields[key]
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if default is None or default in ("", [], -1) or isinstance(default, bool):
        return f"{text}."
    return f"{text} [{', '.join(map(str, default)) if isinstance(default, list) else default}]"
