"""`convcalc summary`."""

from __future__ import annotations

from convcalc.cli.answer import answer
from convcalc.cli.options import Option, Question, verb
from convcalc.errors import ExpressionError, did_you_mean

HELP = """\
Everything about a network in one table: output shapes, parameters, MACs,
memory, and shares of the whole.

Examples:
  convcalc summary 3x32x32 conv:6,k5 relu maxpool:2 flatten linear:10
  convcalc summary net.txt --input 3x224x224 --depth 1       the outer modules
  python -c 'print(model)' | convcalc summary - --input 3x224x224 --by params
"""


@verb(
    Option("--depth", "Levels of modules that are told apart; all if none.", int, "N"),
    Option("--by", "What the share is of: macs, params or memory.", metavar="WHAT", default="macs"),
    Option("--dtype", "The type of every number.", metavar="TYPE", default="float32"),
)
def VERB(  # noqa: N802  every verb's module has one of this name
    question: Question, depth: int | None, by: str, dtype: str
) -> None:
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
