"""The command line: thin verbs, shared options, and the one place where errors become text and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import typer

from convcalc.errors import ConvcalcError, ExpressionError, ResourceError, did_you_mean

VERBS = {
    "shape": "The output shape of each layer.",
    "flops": "Parameters, MACs and exact FLOPs, forward and backward.",
    "memory": "Bytes of inputs, outputs, weights; peaks; what training keeps.",
}
"""The verbs, and the line that the help gives each. Their modules are loaded when they are asked for."""

_HELP = """\
Shapes, FLOPs, memory, merging and execution of convolutional layers and models.

\b
  convcalc shape 3x224x224 -k 7 -s 2 -p 3 -c 64              one layer by options
  convcalc flops 3x32x32 conv:16,k3,p1 relu maxpool:2        a chain of layers
  convcalc memory net.txt --input 3x224x224 --train          a file, or - for standard input
"""
_EPILOG = "convcalc VERB --help has examples of each verb."


def run_command_line(arguments: Sequence[str]) -> int:
    """Run the command that the arguments ask for and give the exit status. Prints; never raises."""
    wants_json = _wants_json(arguments)
    try:
        command, rest, name = _command(arguments)
        status = command.main(args=list(rest), prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except ConvcalcError as error:
        return _fail(error, wants_json)
    except USAGE_ERROR as error:  # typer's own: an unknown option, a missing value
        return _fail(ExpressionError(_sentence(error)), wants_json)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except (MemoryError, RecursionError, OverflowError) as error:
        return _fail(ResourceError(f"this is more than the machine can hold: {type(error).__name__}"), wants_json)
    except BrokenPipeError:
        # The reader has what it wants; keep the interpreter from flushing into the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status if isinstance(status, int) else 0


USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
"""The class of typer's errors about arguments; typer gives it no public name."""


def _command(arguments: Sequence[str]) -> tuple[Any, Sequence[str], str]:
    """The command with only the verb that was asked for, the arguments left for it, and its name."""
    from typer.main import get_command

    verb = arguments[0] if arguments else ""
    if verb in VERBS:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        _register(app, verb)
        return get_command(app), arguments[1:], f"convcalc {verb}"
    if verb and not verb.startswith("-"):
        raise ExpressionError(f"unknown verb {verb}{did_you_mean(verb, VERBS)}; convcalc has {', '.join(VERBS)}")
    return get_command(every_verb()), arguments or ["--help"], "convcalc"


def every_verb() -> typer.Typer:
    """The whole application, for its help and for completions."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.callback(help=_HELP, epilog=_EPILOG)(_root)
    for verb in VERBS:
        _register(app, verb)
    return app


def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True)) -> None:
    if version:
        from convcalc._version import __version__

        print(f"convcalc {__version__}")  # noqa: T201  the answer to --version
        raise typer.Exit


def _register(app: typer.Typer, verb: str) -> None:
    module = import_module(f"convcalc.cli.{verb}")
    function: Callable[..., None] = module.VERB
    app.command(verb, help=module.HELP, short_help=VERBS[verb])(function)


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether errors are to be JSON too. Asked before anything is parsed, because parsing may be what fails."""
    for index, argument in enumerate(arguments):
        value = argument.partition("=")[2] if argument.startswith("--format=") else ""
        if argument == "--format" and index + 1 < len(arguments):
            value = arguments[index + 1]
        if value in ("json", "jsonl"):
            return True
    return False


def _sentence(error: Any) -> str:
    text: str = error.format_message()
    return text[:1].lower() + text[1:].rstrip(".") if text[:2] != text[:2].upper() else text


def _fail(error: ConvcalcError, wants_json: bool) -> int:
    """Print an error and give its exit status."""
    from convcalc.render.failures import error_lines, exit_status

    if wants_json:
        from convcalc.render.document import error_document, json_text

        print(json_text(error_document(error), compact=True))  # noqa: T201  the document that takes the report's place
    for line in error_lines(error):
        print(line, file=sys.stderr)  # noqa: T201  messages go to standard error
    return exit_status(error)
