"""`convcalc memory`."""

from __future__ import annotations

from convcalc.cli.answer import answer
from convcalc.cli.options import Option, Question, verb
from convcalc.errors import ExpressionError, refuse_other

HELP = """\
Bytes of each layer's input, output, weights and bias; the peak of inference;
what training keeps.

Examples:
  convcalc memory 3x224x224 conv:64,k7,s2,p3 --batch 32
  convcalc memory 3x32x32 conv:16,k3,p1 relu maxpool:2 --dtype float16
  convcalc memory net.txt --train --optimizer adam
"""


@verb(
    Option("--dtype", "The type of every number.", metavar="TYPE", default="float32"),
    Option("--train", "Add what autograd keeps, gradients and optimizer state.", bool),
    Option("--optimizer", "With --train: sgd, momentum, adam or adamw; sgd if none.", metavar="NAME"),
)
def VERB(  # noqa: N802  every verb's module has one of this name
    question: Question, dtype: str, train: bool, optimizer: str | None
) -> None:
    """Answer `memory`."""
    from convcalc.analysis.memory import DTYPES, OPTIMIZERS, memory

    refuse_other("--dtype", dtype, DTYPES, dtype.replace("fp", "float"))
    refuse_other("--optimizer", optimizer or "sgd", OPTIMIZERS)
    if optimizer is not None and not train:
        raise ExpressionError("--optimizer has a meaning with --train only")
    answer(question, lambda network: memory(network, dtype=dtype, train=train, optimizer=optimizer or "sgd"))
