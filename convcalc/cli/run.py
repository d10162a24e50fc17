"""`convcalc run`."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convcalc.cli.answer import check_output_options, format_name, print_diagnostics
from convcalc.cli.options import Question, verb
from convcalc.cli.running.asked import OPTIONS, SHARED, Asked, named_files, refuse_together

if TYPE_CHECKING:
    from convcalc.errors import Span
    from convcalc.executor.report import RunReport

HELP = """\
Run layers on real arrays, with NumPy.

Examples:
  convcalc run '[[0,1,2],[3,4,5],[6,7,8]]' -w '[[0,1],[2,3]]'
  convcalc run photo.png -w sobel                           a kernel by its name
  convcalc run x.npy conv:8,k3,p1 relu maxpool:2 -w weights.npz -o y.npy
  convcalc run 4x4 -w '[[1,2],[3,4]]' --as-matrix           as a matrix product
  convcalc run 2x2 -w '[[1,2],[3,4]]' --kind convt --as-matrix
  convcalc run x.csv conv:k1x2,nobias --fit y.csv --lr 0.03 --steps 20
  convcalc run x.npy maxpool:2,indices @p maxunpool:2,@p.1  a pooling undone
  convcalc run photos/ net.txt -w w.npz --resize 224x224 --batch 8 -o y.npy
  convcalc run model.onnx --input ids=ids.npy,mask=ones:1x128 -o y.npz
  convcalc run inputs.npz model.onnx -o y.npz               inputs by name

Arrays, of the input, weights and targets: nested lists; files (.npy, .npz,
file.npz:name, .csv, .tsv, images); ones:3x4, zeros:, arange:, random: (from
--seed; a shape alone is random too); and kernels by name: identity, difference,
sobel-x, sobel-y, prewitt-x, prewitt-y, scharr-x, scharr-y, roberts-x,
roberts-y, laplacian, laplacian8, edge, sharpen, emboss, box, box5, gaussian,
gaussian5.

With --batch the first axis are samples: a file is mapped, a folder (its name
ends in /) read image by image, and an .npy output grows batch by batch;
--resume goes on with one that was interrupted.
"""


@verb(*OPTIONS, shared=SHARED)
def VERB(question: Question, **values: Any) -> None:  # noqa: N802  every verb's module has one of this name
    """Answer `run`."""
    # Arrays are large, and tracebacks of refused ones form cycles; the start is over.
    gc.enable()
    asked = Asked(**values)
    refuse_together(question, asked)
    name = format_name(question)
    files = named_files(question, asked)
    check_output_options(question, name, explain=False, files=files, array=not asked.measures)
    from convcalc.cli.running.given import read_noun

    def report_of(words: Sequence[Span]) -> RunReport:
        from convcalc.executor.algorithms import forced
        from convcalc.executor.threads import threads as using_threads

        noun = read_noun(question, words, asked)
        with using_threads(asked.threads), forced(asked.algorithm):
            if asked.batch is not None or asked.resume or noun.is_folder:
                from convcalc.cli.running.batches import run_batched

                return run_batched(question, noun, asked)
            from convcalc.cli.running.answers import answer_one

            return answer_one(question, noun, asked)

    from convcalc.cli.running.output import give_array, give_lines

    if question["lines"]:
        give_lines(question, report_of)
        return
    from convcalc.nouns import word_spans

    words = word_spans(question.words)
    if asked.measures:
        from convcalc.cli.running.checks import give_measured

        give_measured(question, read_noun(question, words, asked), asked, name)
        return
    report = report_of(words)
    if not report.said:
        print_diagnostics(report.diagnostics, quiet=question["quiet"])
    if report.written:
        return
    give_array(question, report, name, None if asked.heatmap is None else "heatmap" if asked.heatmap else "table")
    if report.interrupted:
        raise KeyboardInterrupt  # for the exit status
