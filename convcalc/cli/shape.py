"""`convcalc shape`."""

from __future__ import annotations

from convcalc.cli.answer import answer, check_output_options, format_name, give, layer_options
from convcalc.cli.options import Option, Question, verb
from convcalc.errors import ExpressionError

HELP = """\
The output shape of each layer.

Examples:
  convcalc shape 224 -k 7 -s 2 -p 3 -q                     112x112
  convcalc shape 3x224x224 conv:64,k7,s2,p3 --explain      formulas with numbers
  convcalc shape 3x32x32 conv:6,k5 relu maxpool:2 flatten linear:10
  convcalc shape 3x224x224 'Conv2d(3, 64, kernel_size=(7, 7), stride=(2, 2))'
  convcalc shape 224 --to 112                              layers that give it
  convcalc shape 3x64x64 conv:8,k3,s2 convt:8,k2,s2 --receptive-field
  echo '3x8x8 conv:4,k3' | convcalc shape --lines          a JSON line for each
"""


@verb(
    Option("--explain", "Print each formula, with and without the numbers.", bool),
    Option("--receptive-field", "Add what each output reads of the input: field, jump, offset, tile overlap.", bool),
    Option("--to", "Find the layers that give these sizes; what you give of one stays.", metavar="SIZES"),
)
def VERB(  # noqa: N802  every verb's module has one of this name
    question: Question, explain: bool, receptive_field: bool, to: str | None
) -> None:
    """Answer `shape`."""
    if to is not None:
        if explain or receptive_field:
            raise ExpressionError("--to finds layers, not what they do; ask --explain of one of them")
        _answer_inverse(question, to)
        return
    if receptive_field:
        from convcalc.analysis.receptive_field import receptive_fields

        if explain:
            raise ExpressionError("--explain has no formulas for --receptive-field; keep one of them")
        answer(question, receptive_fields)
        return
    from convcalc.analysis.shapes import shapes

    answer(question, lambda network: shapes(network, explain=explain), explain=explain)


def _answer_inverse(question: Question, to: str) -> None:
    from convcalc.analysis.inverse import inverse
    from convcalc.expressions.program import Program
    from convcalc.expressions.tokens import shape_of
    from convcalc.nouns import LayerOptions, option_span, read_program

    if question["lines"]:
        raise ExpressionError("--to answers one question; leave out --lines")
    check_output_options(question, format_name(question), explain=False)
    options = layer_options(question)
    program = read_program(question.words, options)
    if not program.layers:
        program = Program([(options or LayerOptions("conv", {})).layer()], program.given, program.input_span)
    given = question["input_shape"]
    shape = None if given is None else shape_of(given, option_span("--input", given))
    give(question, inverse(program, shape_of(to, option_span("--to", to)), shape))
