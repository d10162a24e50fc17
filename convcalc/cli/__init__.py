"""The command line: thin verbs, shared options, and the one place where errors become text and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from convcalc.cli.options import AllVerbs, Option, VerbCommand, help_parameter
from convcalc.cli.typer_core import Abort, Exit, UsageError
from convcalc.errors import ConvcalcError, ExpressionError, ModelFileError, did_you_mean, too_much

VERBS = {
    "shape": "The output shape of each layer.",
    "flops": "Parameters, MACs and exact FLOPs, forward and backward.",
    "memory": "Bytes of inputs, outputs, weights; peaks; what training keeps.",
    "summary": "All of it in one table, with shares of the whole.",
    "compose": "A chain as one layer, and its weights merged.",
    "run": "The numbers: layers on real arrays.",
}
"""The verbs, and the line that the help gives each. Their modules are loaded when they are asked for."""

_HELP = """\
Shapes, FLOPs, memory, merging and execution of convolutional layers and models.

Examples:
  convcalc shape 3x224x224 -k 7 -s 2 -p 3 -c 64          one layer by options
  convcalc flops 3x32x32 conv:16,k3,p1 relu maxpool:2    a chain of layers
  convcalc memory net.txt --input 3x224x224 --train      a file; - for stdin
  convcalc run photo.png -w sobel                        the numbers themselves
"""
_EPILOG = (
    "convcalc help VERB shows the options of a verb, convcalc help expressions how layers are written,"
    " convcalc help kinds every kind of layer, and convcalc help conv (or another kind) what it takes."
)


def run_command_line(arguments: Sequence[str]) -> int:
    """Run the command that the arguments ask for and give the exit status. Prints; never raises."""
    status = 0
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has what it wants
        _drop_output()
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        _drop_output()
        reason = (error.strerror or "error").lower()
        return _fail(ModelFileError(f"standard output cannot be written: {reason}"), wants_json=False)
    return status


def _run(arguments: Sequence[str]) -> int:
    wants_json = _wants_json(arguments)
    verb = arguments[0] if arguments and arguments[0] in VERBS else ""
    try:
        if len(arguments) > 1 and arguments[0] == "help" and arguments[1] not in VERBS:
            return _print_topic(arguments[1])
        command, rest, name = _command(arguments)
        status = command.main(args=list(rest), prog_name=name, standalone_mode=False)
    except ConvcalcError as error:
        return _fail(error, wants_json)
    except UsageError as error:  # typer's own: an unknown option, a missing value
        from convcalc.cli.usage import usage_error

        return _fail(usage_error(error, verb, arguments, VERBS), wants_json)
    except SystemExit:  # typer's way to say that the pipe is closed
        raise BrokenPipeError from None
    except Abort:
        raise KeyboardInterrupt from None
    except (MemoryError, RecursionError, OverflowError, ValueError) as error:
        return _fail(too_much(error), wants_json)
    return status if isinstance(status, int) else 0


def _drop_output() -> None:
    """Keep the interpreter from flushing into what cannot be written, when it ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # no file of the system's
        return


def _command(arguments: Sequence[str]) -> tuple[Any, Sequence[str], str]:
    """The command with only the verb that was asked for, the arguments left for it, and its name."""
    verb = arguments[0] if arguments else ""
    if verb == "help":
        verb, arguments = (arguments[1], [arguments[1], "--help"]) if len(arguments) > 1 else ("", [])
    if verb in VERBS:
        return command_of(verb), arguments[1:], f"convcalc {verb}"
    if arguments and not verb.startswith("-"):
        raise _no_verb(verb)
    return every_verb(), arguments or ["--help"], "convcalc"


def command_of(verb: str) -> VerbCommand:
    """The command of one verb alone."""
    module = import_module(f"convcalc.cli.{verb}")
    command: VerbCommand = module.VERB.command(verb, module.HELP, VERBS[verb])
    return command


def _print_topic(word: str) -> int:
    """Print what `convcalc help kinds`, `convcalc help expressions` and `convcalc help conv` ask for."""
    from convcalc.render.kinds import topic_help

    for line in topic_help(word, VERBS):
        print(line)  # noqa: T201  the answer
    return 0


_ASKED_OTHERWISE = {"kinds": "help kinds", "layers": "help kinds", "version": "--version"}


def _no_verb(word: str) -> ConvcalcError:
    from convcalc.expressions.tokens import is_expression, is_input

    verbs = ", ".join(VERBS)
    if is_input(word) or is_expression(word) or os.path.isfile(word):  # noqa: PTH113  pathlib takes long to load
        return ExpressionError(f"a verb comes before {word}: {verbs}", value=word)
    if word in _ASKED_OTHERWISE:
        return ExpressionError(f"unknown verb {word}; did you mean 'convcalc {_ASKED_OTHERWISE[word]}'?", value=word)
    meant = did_you_mean(word, VERBS)
    return ExpressionError(f"unknown verb {word}{meant or f'; convcalc has {verbs}'}", value=word)


def every_verb() -> AllVerbs:
    """The whole application, for its help and for completions."""
    version = Option("--version", "Print the version and exit.", bool).parameter()
    version.is_eager = True
    version.callback = _print_version
    return AllVerbs(
        name="",
        commands={verb: command_of(verb) for verb in VERBS},
        params=[version, help_parameter()],
        help=_HELP.rstrip(),
        epilog=_EPILOG,
        add_help_option=False,
        rich_markup_mode=None,
    )


def _print_version(ctx: object, parameter: object, asked: bool) -> None:
    if asked:
        from convcalc._version import __version__

        print(f"convcalc {__version__}")  # noqa: T201  the answer to --version
        raise Exit


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether errors are to be JSON too. Asked before anything is parsed, because parsing may be what fails."""
    for index, argument in enumerate(arguments):
        value = argument.partition("=")[2] if argument.startswith("--format=") else ""
        if argument == "--format" and index + 1 < len(arguments):
            value = arguments[index + 1]
        if value in ("json", "jsonl"):
            return True
    return False


def _fail(error: ConvcalcError, wants_json: bool) -> int:
    """Print an error and give its exit status."""
    from convcalc.render.failures import error_lines, exit_status

    try:
        if wants_json and not error.told:
            from convcalc.render.document import error_document, json_text

            print(json_text(error_document(error), compact=True))  # noqa: T201  the document that takes the report's place
        for line in error_lines(error, _columns()):
            print(line, file=sys.stderr)  # noqa: T201  messages go to standard error
    except BrokenPipeError:
        _drop_output()
    return exit_status(error)


def _columns() -> int:
    """How wide the terminal is that errors go to; as wide as can be when they go elsewhere."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or sys.maxsize
    except (OSError, ValueError):
        return sys.maxsize
