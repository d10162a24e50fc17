"""`convcalc shape`."""

from __future__ import annotations

from typing import Annotated

import typer

from convcalc.cli.answer import answer
from convcalc.cli.options import Question, verb
from convcalc.errors import ExpressionError

HELP = """\
The output shape of each layer.

\b
  convcalc shape 224 -k 7 -s 2 -p 3 -q                       112x112
  convcalc shape 3x224x224 conv:64,k7,s2,p3 --explain        the formula, with the numbers in it
  convcalc shape 3x32x32 conv:6,k5 relu maxpool:2 flatten linear:10
  convcalc shape 3x224x224 'Conv2d(3, 64, kernel_size=(7, 7), stride=(2, 2))'
  convcalc shape 3x64x64 conv:8,k3,s2 conv:8,k3 convt:8,k2,s2 --receptive-field
  echo '3x8x8 conv:4,k3' | convcalc shape --lines            a JSON line for each question
"""


@verb()
def VERB(  # noqa: N802  every verb's module has one of this name
    question: Question,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print each formula, with and without the numbers.")
    ] = False,
    receptive_field: Annotated[
        bool,
        typer.Option(
            "--receptive-field", help="Add what each output reads of the input: field, jump, offset, tile overlap."
        ),
    ] = False,
) -> None:
    """Answer `shape`."""
    if receptive_field:
        from convcalc.analysis.receptive_field import receptive_fields

        if explain:
            raise ExpressionError("--explain has no formulas for --receptive-field; keep one of them")
        answer(question, receptive_fields)
        return
    from convcalc.analysis.shapes import shapes

    answer(question, lambda network: shapes(network, explain=explain), explain=explain)
