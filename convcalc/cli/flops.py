"""`convcalc flops`."""

from __future__ import annotations

from convcalc.cli.answer import answer
from convcalc.cli.options import Option, Question, verb
from convcalc.errors import ExpressionError, refuse_below_one, refuse_other

HELP = """\
Parameters, MACs and exact FLOPs of each layer and in all.

Examples:
  convcalc flops 3x224x224 conv:64,k7,s2,p3,nobias
  convcalc flops 8x8x8 convt:4,k3,s2,p1,op1 --explain      formulas with numbers
  convcalc flops 3x32x32 conv:16,k3,p1 relu conv:32,k3 --backward --batch 32
  convcalc flops 100x64x64 conv:100,k5,psame --samples 10M --speed 0.15T
  convcalc flops net.txt --by kind                         or --by module
  convcalc flops net.txt --top 5                           the costliest layers
  convcalc flops net.txt --max params=5M,macs=600M         exit 1 when larger
"""


@verb(
    Option("--explain", "Print each formula, with and without the numbers.", bool),
    Option("--backward", "Add what each gradient costs.", bool),
    Option("--input-grad", "With --backward: the network's input needs a gradient too.", bool),
    Option("--convention", "Count FLOPs as: exact, macs, 2mac, torch, fvcore, thop, ptflops.", metavar="NAME",
           default="exact"),
    Option("--samples", "For so many samples, such as 1M.", metavar="N"),
    Option("--speed", "The time at so many FLOPs a second, such as 0.15T.", metavar="FLOPS"),
    Option("--by", "A row for each: layer, kind or module.", metavar="WHAT", default="layer"),
    Option("--depth", "With --by module: levels that are told apart; 1 if none.", int, "N"),
)  # fmt: skip
def VERB(  # noqa: N802  every verb's module has one of this name
    question: Question,
    explain: bool,
    backward: bool,
    input_grad: bool,
    convention: str,
    samples: str | None,
    speed: str | None,
    by: str,
    depth: int | None,
) -> None:
    """Answer `flops`."""
    from convcalc.analysis.costs import CONVENTIONS, GROUPS, costs
    from convcalc.render.units import quantity

    refuse_other("--convention", convention, CONVENTIONS)
    refuse_other("--by", by, GROUPS)
    if depth is not None and by != "module":
        raise ExpressionError("--depth has a meaning with --by module only")
    refuse_below_one("--depth", depth)
    if explain and by != "layer":
        raise ExpressionError("--explain has a meaning by layer only; leave --by out")
    if input_grad and not backward:
        raise ExpressionError("--input-grad has a meaning with --backward only")
    many = None if samples is None else quantity(samples, "--samples")
    rate = None if speed is None else quantity(speed, "--speed")
    for option, value, text in (("--samples", many, samples), ("--speed", rate, speed)):
        if value is not None and value <= 0:
            raise ExpressionError(f"{option} is {text}, but must be more than 0", value=text)
    if isinstance(many, float):
        raise ExpressionError(f"--samples is {samples}, but must be a whole number", value=samples)
    answer(
        question,
        lambda network: costs(
            network,
            backward=backward,
            input_grad=input_grad,
            convention=convention,
            samples=many,
            speed=rate,
            explain=explain,
            by=by,
            depth=depth or 1,
        ),
        explain=explain,
    )
