"""`RunReport`, the frozen answer of `run`: the array that was asked for, and what goes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc.analysis.report import Diagnostic
from convcalc.executor.kernels import Array
from convcalc.records import dataclass, field


@dataclass(frozen=True, eq=False)
class RunReport:
    """`output` is what was asked for: the network's output, a layer's, a matrix, or learned weights.

    `others` are further arrays by name, such as "indices.0"; the one that is called `same` is the output once more.
    `losses` are the loss before each step and after the last. `written`: the output is in a file already. `said`: the
    diagnostics have been printed. `interrupted`: learning ended before all steps were done.
    """

    output: Array
    others: Mapping[str, Array] = field(default_factory=dict)
    same: str = ""
    losses: Sequence[float] = ()
    diagnostics: Sequence[Diagnostic] = ()
    written: bool = False
    said: bool = False
    interrupted: bool = False
