"""The `maquette` command. Each module beside this one with a function `command` is a command of that name."""

from __future__ import annotations

import ast
import gc
import importlib
import keyword
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from .. import __version__
from ..errors import MaquetteError, sentence_of
from .start import INTERRUPTED
from .terminal import harmless

PACKAGE = __package__ or "maquette.cli"
NO_COMMANDS = {"main", "common", "interrupt", "options", "start", "terminal"}
# New objects after which Python looks for cycles among them; at its usual 700 that is a tenth of the time of imports.
RARELY = 100_000
# The road from photos to pictures first; the others follow by name.
ORDER = ("demo", "check", "caption", "regularize", "train", "evaluate", "generate", "grid", "compare")


class Command(TyperCommand):
    """A command that answers options which are keys, or another trainer's words, with the way to set them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            fault: Any = error
            name = getattr(error, "option_name", "")  # click's NoSuchOption
            if name and any("--set" in parameter.opts for parameter in self.params):
                _explain(error, name, {option for parameter in self.params for option in parameter.opts})
            if type(error).__name__ == "MissingParameter":
                fault.message = fault.message or fault.param.help
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options under the headings of their groups; what every command has comes last."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        rest: list[tuple[str, str]] = []  # of the command itself
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                group = (
                    "Arguments"
                    if parameter.param_type_name == "argument"
                    else getattr(parameter, "rich_help_panel", None)
                )
                (sections.setdefault(group, []) if group else rest).append(record)
        for title, rows in (*sections.items(), ("General", rest)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _explain(error: Any, name: str, options: set[str]) -> None:
    """Say what to write instead of an option that the command does not have."""
    from ..config import TrainConfig
    from ..trainers.words import meaning

    key = name.lstrip("-").replace("-", "_")
    foreign = meaning(key, TrainConfig.model_fields)
    if key == "out" and "--root" in options:
        error.message, error.possibilities = f"No such option: {name}; results go to --root FOLDER", None
    elif key in TrainConfig.model_fields:
        error.message, error.possibilities = f"No such option: {name}; it is a key: --set {key}=VALUE", None
    elif foreign:
        error.message, error.possibilities = f"No such option: {name}; {foreign} (keys: --set KEY=VALUE)", None


class LazyGroup(TyperGroup):
    """Commands are imported when asked for; none of them imports torch before it runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        path = importlib.import_module(PACKAGE).__path__
        names = {module.name.rstrip("_") for module in pkgutil.iter_modules(path)} - NO_COMMANDS
        return [name for name in ORDER if name in names] + sorted(names.difference(ORDER))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{PACKAGE}.{_module(cmd_name)}")
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        below: dict[str, Any] = getattr(module, "COMMANDS", {})  # of a command that is a group of some
        if below:
            app.callback(no_args_is_help=True)(module.command)
        for name, function in (below or {cmd_name: module.command}).items():
            app.command(name, cls=Command)(function)
        command: Any = typer.main.get_command(app)
        for one in [command, *getattr(command, "commands", {}).values()]:
            one.help = _keep_examples(one.help or "")
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list in --help, from the modules' text: importing all of them would take three times as long."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_sentence(name)) for name in self.list_commands(ctx)])


def _module(command: str) -> str:
    return f"{command}_" if keyword.iskeyword(command) else command


def _first_sentence(command: str) -> str:
    """The beginning of a command's docstring."""
    tree = ast.parse((Path(__file__).parent / f"{_module(command)}.py").read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "command")
    text = " ".join((ast.get_docstring(next(functions)) or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".") + "."


def _keep_examples(text: str) -> str:
    """Mark indented paragraphs, which are command lines to copy, as not to be wrapped."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(f"\b\n{part}" if part.startswith("  ") else part for part in paragraphs)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="On an error, show the traceback too.")] = False,
) -> None:
    """From a folder of about 14 photos to a LoRA that makes Stable Diffusion draw their subject.

    maquette demo shows the whole road in three minutes; maquette COMMAND --help explains a command with examples.
    """
    if version:
        print(f"maquette {__version__}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 success, 1 the input is at fault, 2 wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:  # a process of our own
        gc.set_threshold(RARELY)
    debug = _take_debug(given)
    with harmless():
        try:
            app(args=given, prog_name="maquette")
        except MaquetteError as error:
            _fail(str(error), debug)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
        except OSError as error:
            _fail(sentence_of(error), debug)
        except Exception as error:  # a fault of the program: the sentence says how to report it
            _fail(
                f"unexpected {type(error).__name__}: {error}. This is a fault in maquette; --debug shows where it "
                "arose.",
                debug,
            )


def _take_debug(arguments: list[str]) -> bool:
    """Remove --debug wherever it stands before "--", so that it can follow the command as well."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:end]
    arguments[:end] = [argument for argument in arguments[:end] if argument != "--debug"]
    return debug


def _fail(message: str, debug: bool) -> Any:
    if debug:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)
