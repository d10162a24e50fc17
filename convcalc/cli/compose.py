"""`convcalc compose`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convcalc.cli.answer import answer
from convcalc.cli.options import Option, Question, verb
from convcalc.errors import ExpressionError
from convcalc.records import replace

if TYPE_CHECKING:
    from convcalc.analysis.report import Report
    from convcalc.network import Network

HELP = """\
A chain of convolutions and pools as one: kernel, stride, padding, dilation and
receptive field.

Examples:
  convcalc compose conv:k3 conv:k3 -q                      5x5
  convcalc compose 3x224x224 conv:64,k7,s2,p3 relu maxpool:3,s2,p1 conv:64,k3,p1
  convcalc compose 8x9x9 @x conv:8,k3,p1 @a from:@x conv:8,k1 add:@a --verify
  convcalc compose conv:k3,s2 conv:k3 --explain            formulas with numbers
  convcalc compose conv conv -w sobel -w gaussian          the merged kernel
  convcalc compose 3x32x32 conv:16,k3 conv:8 -w net.npz -o merged.npz
  convcalc compose model.onnx -o merged.onnx              what pays, in the file
  convcalc compose 64x56x56 conv:64,k3 --split tucker --error 0.1 -w w.npz
"""
_WEIGHT_FILES = (".npz", ".npy")


@verb(
    Option("--explain", "Print each formula, with and without the numbers.", bool),
    Option("-w --weights", "Merge weights too: an .npz of all by name, 2.weight=ARRAY, or arrays in the layers' order.",
           metavar="ARRAY", many=True),
    Option("--verify", "Run both on random numbers, and say where and how much they differ.", bool),
    Option("--split", "Split a convolution: rank (column and row), two (smaller kernels), depthwise, or tucker.",
           metavar="WAY"),
    Option("--rank", "With --split: the rank wanted.", int, "N"),
    Option("--error", "With --split: the largest error allowed, such as 0.1.", float, "E"),
    Option("--dtype", "Of the weights written: float64 (as computed), float32 or float16.", metavar="TYPE"),
    Option("--always", "For ONNX files: merge all that can be, not only what pays.", bool),
    Option("--seed", "Of the random numbers of --verify.", int, "N", default=0),
)  # fmt: skip
def VERB(  # noqa: N802  every verb's module has one of this name
    question: Question,
    explain: bool,
    weights: Sequence[str],
    verify: bool,
    split: str | None,
    rank: int | None,
    error: float | None,
    dtype: str | None,
    always: bool,
    seed: int,
) -> None:
    """Answer `compose`."""
    from convcalc.composition.compose import compose
    from convcalc.composition.parameters import as_type

    given = _read(weights) if weights else None
    if split is None and (rank is not None or error is not None):
        raise ExpressionError("--rank and --error are for --split", field="rank")
    if rank is not None and error is not None:
        raise ExpressionError("--rank and --error both choose the split; keep one of them", field="rank")
    path = question["output"]
    written = path if path is not None and Path(path).suffix.lower() in _WEIGHT_FILES else None
    if written is not None and given is None:
        raise ExpressionError(f"-o {path} is for merged weights; give the layers' weights with -w", value=path)

    if dtype is not None and written is None:
        raise ExpressionError("--dtype is for weights that -o writes, such as -o merged.npz", field="dtype")
    model = next((word for word in question.words if word.lower().endswith(".onnx")), None)
    target = path if path is not None and Path(path).suffix.lower() == ".onnx" else None
    if always and model is None:
        raise ExpressionError("--always is for an ONNX file", field="always")
    if target is not None and model is None:
        raise ExpressionError(f"-o {path} is for a merged ONNX file; give the file to merge", value=path)

    def analysis(network: Network) -> Report:
        if model is not None and given is None and split is None and not explain:
            from convcalc.composition.models import merge_model

            return merge_model(Path(model), model, network, target, always=always, verify=verify, seed=seed)
        if split is not None:
            from convcalc.composition.splitting import split as split_layer

            report = split_layer(network, split, given, rank=rank, error=error, explain=explain, verify=verify,
                                 seed=seed)  # fmt: skip
        else:
            report = compose(network, given, explain=explain, verify=verify, seed=seed)
        if written is not None:
            from convcalc.arrays.writing import write_arrays

            write_arrays(written, as_type(report.arrays, dtype or "float64"), inputs=weights)
            report = replace(report, arrays={})  # they are in the file
        return report

    if written is not None or target is not None:
        # The weights go into the file, and the report where it always goes.
        question = Question(question.words, {**question.options, "output": None})
    answer(question, analysis, explain=explain, open_input=True, files=weights or ())


def _read(texts: Sequence[str]) -> Any:
    """The weights by name, or in the layers' order."""
    from convcalc.arrays import read_weights

    named, bare = read_weights(texts)
    if named and bare:
        raise ExpressionError("some weights have a name and others none; name each: -w 0.weight=...", field="weights")
    return named or bare
