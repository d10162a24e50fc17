"""The options that verbs share, declared once, and the `Question` that a verb gets of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from convcalc.errors import ExpressionError

FORMATS = ("table", "plain", "tsv", "csv", "json", "jsonl", "markdown")

_LAYER = "A layer by options"
_OUTPUT = "Output"
_NETWORK = "Network"
HELP_FLAGS = {"help_option_names": ["-h", "--help"]}
"""The setting of a command that makes -h mean --help."""


class Shared:
    """One shared option: the name of its parameter, its flags, its type and its help."""

    __slots__ = ("default", "flags", "help", "metavar", "name", "panel", "type")

    def __init__(self, name: str, flags: str, text: str, panel: str, kind: Any = str | None, metavar: str = "") -> None:
        self.name = name
        self.flags = flags.split()
        self.help = text
        self.panel = panel
        self.type = kind
        self.metavar = metavar or None
        self.default = False if kind is bool else None

    def parameter(self) -> inspect.Parameter:
        """The parameter as typer reads it."""
        option = typer.Option(*self.flags, help=self.help, metavar=self.metavar, rich_help_panel=self.panel,
                              show_default=False)  # fmt: skip
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=self.default, annotation=Annotated[self.type, option]
        )


LAYER_OPTIONS = (
    Shared("kind", "--kind", "The kind of layer; conv if none is named.", _LAYER, metavar="KIND"),
    Shared("kernel_size", "-k --kernel-size", "Kernel: 3, or 3x5.", _LAYER, metavar="SIZES"),
    Shared("stride", "-s --stride", "Stride: 2, or 2x1.", _LAYER, metavar="SIZES"),
    Shared("padding", "-p --padding", "Padding: 1, 1x0, before+after 1+2, same, full, ...", _LAYER, metavar="SIZES"),
    Shared("dilation", "-d --dilation", "Dilation: 2, or 2x1.", _LAYER, metavar="SIZES"),
    Shared("groups", "-g --groups", "Groups, or depthwise.", _LAYER, metavar="N"),
    Shared("channels", "-c --channels", "Channels or features out; if none, as many as in.", _LAYER, metavar="N"),
    Shared("bias", "--bias/--no-bias", "With a bias, or without.", _LAYER, bool | None),
    Shared("padding_mode", "--padding-mode", "zeros, reflect, replicate or circular.", _LAYER, metavar="MODE"),
    Shared("output_padding", "--output-padding", "Extra size of a transposed convolution.", _LAYER, metavar="SIZES"),
    Shared("output_size", "--output-size", "Size wanted of a transposed or adaptive layer.", _LAYER, metavar="SIZES"),
    Shared("ceil_mode", "--ceil-mode", "Let the last window of a pool stick out.", _LAYER, bool | None),
)
NETWORK_OPTIONS = (
    Shared("input_shape", "--input", "The input's shape, such as 3x224x224; of a model with several: NAME=SHAPE, "
           "each by its own --input.", _NETWORK, list[str] | None, "SHAPE"),
    Shared("batch", "--batch", "Samples at once.", _NETWORK, int | None, "N"),
    Shared("assume_sequential", "--assume-sequential",
           "For PyTorch's text: every container calls its modules in printed order.", _NETWORK, bool),
    Shared("lines", "--lines", "Answer each line of standard input as a question of its own, in JSON lines.", _NETWORK,
           bool),
)  # fmt: skip
OUTPUT_OPTIONS = (
    Shared("format_name", "--format", "table, plain, tsv, csv, json, jsonl or markdown.", _OUTPUT, metavar="FORMAT"),
    Shared("quiet", "-q --quiet", "Print the one value that a script wants.", _OUTPUT, bool),
    Shared("get", "--get", "Print one value of the JSON document, such as totals.params.", _OUTPUT, metavar="PATH"),
    Shared("budget", "--max", "Fail when a total is larger: params=5M,macs=600M.", _OUTPUT, metavar="BUDGET"),
    Shared("strict", "--strict", "Fail when anything is unknown.", _OUTPUT, bool),
    Shared("output", "-o --output", "Write to this file, in the format of its suffix.", _OUTPUT, metavar="FILE"),
)
SHARED = (*LAYER_OPTIONS, *NETWORK_OPTIONS, *OUTPUT_OPTIONS)

_WORDS = inspect.Parameter(
    "words",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        list[str] | None,
        typer.Argument(metavar="[INPUT] [LAYER|FILE|-]...", help="A shape, layers, a file, or - for standard input.",
                       show_default=False),
    ],
)  # fmt: skip


class Question:
    """What was asked: the words, and the values of the shared options."""

    def __init__(self, words: Sequence[str], options: Mapping[str, Any]) -> None:
        self.words = words
        self.options = options

    def __getitem__(self, name: str) -> Any:
        return self.options[name]


def verb(shared: Sequence[Shared] = SHARED) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a verb of a function: its first parameter is the `Question`, the others are options of its own."""

    def make(function: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        ]
        names = [option.name for option in shared]

        def command(words: list[str] | None = None, **values: Any) -> None:
            options = {name: values.pop(name) for name in names}
            options["input_shape"] = _one_input(options.get("input_shape") or [])
            function(Question(words or [], options), **values)

        parameters = [_WORDS, *own, *(option.parameter() for option in shared)]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return make


def _one_input(given: Sequence[str]) -> str | None:
    """All that --input was given, as x=1x3x224x224,y=1x10. Raises `ExpressionError` for several without names."""
    if len(given) > 1 and not all("=" in text for text in given):
        raise ExpressionError(
            f"--input is given {len(given)} times, {' and '.join(given)}; keep one of them, or for a model with"
            " several inputs name each, such as --input x=1x3x224x224 --input y=1x10",
            field="input",
        )
    return ",".join(given) or None


class _ExamplesFirst:
    """Help that begins with what the command is for and its examples, as they stand, and then says how to call it."""

    def format_help(self: Any, ctx: Any, formatter: Any) -> None:
        formatter.write(inspect.cleandoc(self.help))
        formatter.write("\n\n")
        self.format_usage(ctx, formatter)
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)


class VerbCommand(_ExamplesFirst, TyperCommand):
    """A verb, whose options the help shows in groups: its own, the layer's, the network's, the output's."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the groups, each under its name."""
        groups: dict[str, list[tuple[str, str]]] = {f"Options of {self.name}": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and parameter.name != "words":
                # typer adds --help itself, last and without a group.
                ours = _OUTPUT if parameter.name == "help" else f"Options of {self.name}"
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or ours, []).append(record)
        width = max(len(flags) for records in groups.values() for flags, _ in records)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl([(flags.ljust(width), text) for flags, text in records])


class AllVerbs(_ExamplesFirst, TyperGroup):
    """The whole application, which is there for its help."""
