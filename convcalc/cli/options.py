"""The options that verbs share, declared once, and the `Question` that a verb gets of them.

An `Option` is one line of a table; typer's parser gets it as typer's own `TyperOption`. Reading the same out of
functions' signatures and type hints, as `typer.Typer` does, takes longer than parsing, and loads three times as much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from convcalc.cli.typer_core import Exit, NoSuchOption, TyperArgument, TyperCommand, TyperGroup, TyperOption, types
from convcalc.errors import ExpressionError

FORMATS = ("table", "plain", "tsv", "csv", "json", "jsonl", "markdown")

_LAYER = "A layer by options"
_OUTPUT = "Output"
_NETWORK = "Network"
_OF_KIND: Any = object()


class Option:
    """One option: its flags, what its help says, its type, and what it is when it is not given.

    The last flag names the parameter that gets the value, unless `name` does. A bool is a flag without a value, False
    when it is not given; all others are None then, or `default`. With `many` it may be given more than once. `least` is
    the smallest number that it takes.
    """

    __slots__ = ("default", "flags", "help", "kind", "least", "many", "metavar", "name", "panel")

    def __init__(
        self,
        flags: str,
        text: str,
        kind: type = str,
        metavar: str | None = None,
        *,
        name: str = "",
        default: Any = _OF_KIND,
        least: int | None = None,
        many: bool = False,
    ) -> None:
        self.flags = flags.split()
        self.name = name or self.flags[-1].partition("/")[0].strip("-").replace("-", "_")
        self.help = text
        self.kind = kind
        self.metavar = metavar
        self.default = default if default is not _OF_KIND else False if kind is bool else None
        self.least = least
        self.many = many
        self.panel: str | None = None

    def parameter(self) -> TyperOption:
        """The option as typer parses it."""
        kind = self.kind if self.least is None else types.IntRange(min=self.least)
        made = TyperOption(
            param_decls=[self.name, *self.flags],
            type=None if kind is bool else kind,
            is_flag=kind is bool,
            default=self.default,
            metavar=self.metavar,
            multiple=self.many,
            show_default=True,
            rich_help_panel=self.panel,
        )
        # The constructor would clear it of indentation, which it has not, with a module that is slow to load.
        made.help = self.help
        return made


def under(panel: str, *options: Option) -> tuple[Option, ...]:
    """The options with the title that the help puts above them."""
    for option in options:
        option.panel = panel
    return options


LAYER_OPTIONS = under(
    _LAYER,
    Option("--kind", "The kind of layer; conv if none is named.", metavar="KIND"),
    Option("-k --kernel-size", "Kernel: 3, or 3x5.", metavar="SIZES"),
    Option("-s --stride", "Stride: 2, or 2x1.", metavar="SIZES"),
    Option("-p --padding", "Padding: 1, 1x0, before+after 1+2, same, full, ...", metavar="SIZES"),
    Option("-d --dilation", "Dilation: 2, or 2x1.", metavar="SIZES"),
    Option("-g --groups", "Groups, or depthwise.", metavar="N"),
    Option("-c --channels", "Channels or features out; if none, as many as in.", metavar="N"),
    Option("--bias/--no-bias", "With a bias, or without.", bool, default=None),
    Option("--padding-mode", "zeros, reflect, replicate or circular.", metavar="MODE"),
    Option("--output-padding", "Extra size of a transposed convolution.", metavar="SIZES"),
    Option("--output-size", "Size wanted of a transposed or adaptive layer.", metavar="SIZES"),
    Option("--ceil-mode", "Let the last window of a pool stick out.", bool, default=None),
)
NETWORK_OPTIONS = under(
    _NETWORK,
    Option(
        "--input",
        "The input's shape, such as 3x224x224; of a model with several: NAME=SHAPE, each by its own --input.",
        metavar="SHAPE",
        name="input_shape",
        many=True,
    ),
    Option("--batch", "Samples at once.", int, "N"),
    Option("--assume-sequential", "For PyTorch's text: every container calls its modules in printed order.", bool),
    Option(
        "--unprinted",
        "For PyTorch's text: what it leaves out, num_heads=8 or encoder.attn.num_heads=8.",
        metavar="NAME=VALUE",
        many=True,
    ),
    Option("--lines", "Answer each line of standard input as a question of its own, in JSON lines.", bool),
)
OUTPUT_OPTIONS = under(
    _OUTPUT,
    Option("--format", f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}.", metavar="FORMAT", name="format_name"),
    Option("-q --quiet", "Print the one value that a script wants.", bool),
    Option("--get", "Print one value of the JSON document, such as totals.params.", metavar="PATH"),
    Option("--max", "Fail when a total is larger: params=5M,macs=600M.", metavar="BUDGET", name="budget"),
    Option("--strict", "Fail when anything is unknown.", bool),
    Option("-o --output", "Write to this file, in the format of its suffix.", metavar="FILE"),
)
ROW_OPTIONS = under(
    _OUTPUT,
    Option("--layer", "Show this layer alone, or this module; totals stay those of all.", metavar="NAME"),
    Option("--sort", "Rows with the most of a column first, such as macs.", metavar="COLUMN"),
    Option("--top", "So many rows alone, those with the most.", int, "N"),
)
SHARED = (*LAYER_OPTIONS, *NETWORK_OPTIONS, *ROW_OPTIONS, *OUTPUT_OPTIONS)


class Question:
    """What was asked: the words, and the values of the shared options."""

    def __init__(self, words: Sequence[str], options: Mapping[str, Any]) -> None:
        self.words = words
        self.options = options

    def __getitem__(self, name: str) -> Any:
        return self.options[name]


class Verb:
    """A function that answers: it gets the `Question`, and by name the values of the verb's own options."""

    def __init__(self, function: Callable[..., None], own: Sequence[Option], shared: Sequence[Option]) -> None:
        self.function = function
        self.own = own
        self.shared = shared

    def command(self, name: str, text: str, summary: str) -> VerbCommand:
        """The command as typer parses it; `text` is its help, `summary` the line about it in the help of all."""
        words = TyperArgument(
            param_decls=["words"],
            type=str,
            nargs=-1,
            metavar="[INPUT] [LAYER|FILE|-]...",
            help="A shape, layers, a file, or - for standard input.",
            show_default=False,
        )
        options = [option.parameter() for option in (*self.own, *self.shared)]
        return VerbCommand(
            name,
            callback=self._answer,
            params=[words, *options, help_parameter()],
            help=text.rstrip(),
            short_help=summary,
            add_help_option=False,
            rich_markup_mode=None,
        )

    def _answer(self, words: Sequence[str], **values: Any) -> None:
        options = {option.name: values.pop(option.name) for option in self.shared}
        options["input_shape"] = _one_input(options["input_shape"])
        self.function(Question(list(words), options), **values)


def verb(*own: Option, shared: Sequence[Option] = SHARED) -> Callable[[Callable[..., None]], Verb]:
    """Make a verb of a function, with these options of its own."""
    return lambda function: Verb(function, own, shared)


def _one_input(given: Sequence[str]) -> str | None:
    """All that --input was given, as x=1x3x224x224,y=1x10. Raises `ExpressionError` for several without names."""
    if len(given) > 1 and not all("=" in text for text in given):
        raise ExpressionError(
            f"--input is given {len(given)} times, {' and '.join(given)}; keep one of them, or for a model with"
            " several inputs name each, such as --input x=1x3x224x224 --input y=1x10",
            field="input",
        )
    return ",".join(given) or None


def help_parameter() -> TyperOption:
    """-h and --help. Typer's own is made with what no answer needs, at every start."""
    made = Option("-h --help", "Show this message and exit.", bool).parameter()
    made.is_eager = True
    made.expose_value = False
    made.callback = _print_help
    made.rich_help_panel = _OUTPUT
    return made


def _print_help(ctx: Any, parameter: object, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        print(ctx.get_help())  # noqa: T201  the answer to --help
        raise Exit


class _ExamplesFirst:
    """Help that begins with what the command is for and its examples, as they stand, and then says how to call it."""

    def format_help(self: Any, ctx: Any, formatter: Any) -> None:
        formatter.write(self.help)
        formatter.write("\n\n")
        self.format_usage(ctx, formatter)
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)


class VerbCommand(_ExamplesFirst, TyperCommand):
    """A verb, whose options the help shows in groups: its own, the layer's, the network's, the output's."""

    def make_parser(self, ctx: Any) -> Any:
        """The parser of the command line.

        Typer's own takes every -k for a long option first, and looks with a slow module for what was meant by it.
        """
        parser: Any = super().make_parser(ctx)
        match_long = parser._match_long_opt

        def match(option: str, value: str | None, state: object) -> None:
            if option[:2] != "--":
                raise NoSuchOption(option, ctx=ctx)
            match_long(option, value, state)

        parser._match_long_opt = match
        return parser

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the groups, each under its name."""
        groups: dict[str, list[tuple[str, str]]] = {f"Options of {self.name}": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and parameter.name != "words":
                title = getattr(parameter, "rich_help_panel", None) or f"Options of {self.name}"
                groups.setdefault(title, []).append(record)
        width = max(len(flags) for records in groups.values() for flags, _ in records)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl([(flags.ljust(width), text) for flags, text in records])


class AllVerbs(_ExamplesFirst, TyperGroup):
    """The whole application, which is there for its help."""
