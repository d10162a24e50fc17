"""`convcalc summary`."""

from __future__ import annotations

from typing import Annotated

import typer

from convcalc.cli.answer import answer
from convcalc.cli.options import Question, verb
from convcalc.errors import ExpressionError, did_you_mean

HELP = """\
Everything about a network in one table: output shapes, parameters, MACs,
memory, and shares of the whole.

Examples:
  convcalc summary 3x32x32 conv:6,k5 relu maxpool:2 flatten linear:10
  convcalc summary net.txt --input 3x224x224 --depth 1       the outer modules
  python -c 'print(model)' | convcalc summary - --input 3x224x224 --by params
"""


@verb()
def VERB(  # noqa: N802  every verb's module has one of this name
    question: Question,
    depth: Annotated[
        int | None,
        typer.Option("--depth", metavar="N", help="Levels of modules that are told apart; all if none.",
                     show_default=False),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="WHAT", help="What the share is of: macs, params or memory.")
    ] = "macs",
    dtype: Annotated[str, typer.Option("--dtype", metavar="TYPE", help="The type of every number.")] = "float32",
) -> None:  # fmt: skip
    """Answer `summary`."""
    from convcalc.analysis.memory import DTYPES
    from convcalc.analysis.summary import SHARES, summary

    for option, value, known in (("--by", by, SHARES), ("--dtype", dtype, DTYPES)):
        if value not in known:
            raise ExpressionError(
                f"{option} is {value}, but must be one of {', '.join(known)}{did_you_mean(value, known)}", value=value
            )
    if depth is not None and depth < 1:
        raise ExpressionError(f"--depth is {depth}, but must be at least 1", value=depth)
    answer(question, lambda network: summary(network, depth=depth, by=by, dtype=dtype))
