"""`convcalc run --check` and `--profile`: how far an output is from another one, and what each layer takes here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convcalc.cli.answer import exceeding, print_diagnostics, write_report
from convcalc.cli.options import Question
from convcalc.cli.running.answers import not_done
from convcalc.cli.running.asked import Asked
from convcalc.cli.running.given import Noun
from convcalc.errors import BudgetError, ExpressionError, LayerError
from convcalc.records import replace

if TYPE_CHECKING:
    from convcalc.analysis.report import Report
    from convcalc.executor.kernels import Array


def give_measured(question: Question, noun: Noun, asked: Asked, name: str | None) -> None:
    """Print what was measured, in the format of this name; then fail if it exceeds a limit."""
    report = _measured(noun, asked)
    exceeded = exceeding(report, asked.budget)
    print_diagnostics(report.diagnostics, quiet=question["quiet"])
    write_report(question, report, name)
    if exceeded:
        raise BudgetError("; ".join(exceeded))


def _measured(noun: Noun, asked: Asked) -> Report:
    """The answer to --profile; or to --check, an algorithm by its name or the file of a saved output."""
    from convcalc.analysis.report import Diagnostic
    from convcalc.arrays import is_array
    from convcalc.executor.algorithms import forced
    from convcalc.executor.check import check_algorithms, check_saved
    from convcalc.executor.profile import profile
    from convcalc.executor.run import compute, flipped, prepare
    from convcalc.executor.threads import threads as using_threads

    if noun.is_folder:
        raise ExpressionError(f"{asked.given('check', 'profile')[0]} works on one input; {noun.text} is a folder")
    check = asked.check
    saved = None if check is None or not is_array(check) else _saved(check, asked.seed)
    if check is not None and saved is None:
        try:
            with forced(check):
                pass
        except LayerError as error:
            raise ExpressionError(f"--check: {error.message}; or name a saved output, such as y.npy",
                                  value=error.value) from None  # fmt: skip
    x, notes = noun.inputs("random")
    with using_threads(asked.threads), forced(asked.algorithm):
        prepared = prepare(noun.program, x, noun.weights, bias=noun.bias, seed=asked.seed)
        prepared = flipped(prepared) if asked.flip else prepared
        notes += not_done(prepared, asked.algorithm)
        if check is not None and saved is None:
            with forced(check):
                notes += not_done(prepared, check)
        if check is None:
            found = profile(prepared)
        elif saved is not None:
            found = check_saved(prepared, compute(prepared).outputs, saved, check)
        else:
            found = check_algorithms(prepared, asked.algorithm, check)
    said = tuple(Diagnostic("note", note) for note in (*notes, *prepared.notes))
    return replace(found, diagnostics=(*said, *found.diagnostics))


def _saved(path: str, seed: int) -> Array | dict[str, Array]:
    """An output that was saved; of an .npz file with several arrays all by their names."""
    from convcalc.arrays import read_array, read_arrays

    arrays = read_arrays(path) if path.lower().endswith(".npz") else {}
    return arrays if len(arrays) > 1 else read_array(path, seed=seed)
