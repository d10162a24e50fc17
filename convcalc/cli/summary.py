"""`convcalc summary`."""

from __future__ import annotations

from convcalc.cli.answer import answer
from convcalc.cli.options import Option, Question, verb
from convcalc.errors import refuse_below_one, refuse_other

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

    refuse_other("--by", by, SHARES)
    refuse_other("--dtype", dtype, DTYPES, dtype.replace("fp", "float"))
    refuse_below_one("--depth", depth)
    answer(question, lambda network: summary(network, depth=depth, by=by, dtype=dtype))
