"""`convcalc shape`."""

from __future__ import annotations

from typing import Annotated

import typer

from convcalc.cli.answer import answer
from convcalc.cli.options import Question, verb

HELP = """\
The output shape of each layer.

\b
  convcalc shape 224 -k 7 -s 2 -p 3 -q                       112x112
  convcalc shape 3x224x224 conv:64,k7,s2,p3 --explain        the formula, with the numbers in it
  convcalc shape 3x32x32 conv:6,k5 relu maxpool:2 flatten linear:10
  convcalc shape 3x224x224 'Conv2d(3, 64, kernel_size=(7, 7), stride=(2, 2))'
  echo '3x8x8 conv:4,k3' | convcalc shape --lines            a JSON line for each question
"""


@verb()
def VERB(  # noqa: N802  every verb's module has one of this name
    question: Question,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print each formula, with and without the numbers.")
    ] = False,
) -> None:
    """Answer `shape`."""
    from convcalc.analysis.shapes import shapes

    answer(question, lambda network: shapes(network, explain=explain), explain=explain)
