"""How far two computations of a network are apart: by two algorithms, or one and an output that was saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from convcalc.analysis.report import Column, Diagnostic, Report, Row, Value
from convcalc.analysis.shapes import Resolved, View, base_row
from convcalc.errors import ShapeError, did_you_mean
from convcalc.executor.algorithms import forced
from convcalc.executor.kernels import Array
from convcalc.executor.plan import algorithm_of
from convcalc.executor.run import Computed, Prepared, steps
from convcalc.executor.weights import WINDOWED
from convcalc.layers.base import shape_text
from convcalc.records import replace

COLUMNS = (
    Column("error", "Error", "number", total=False, wide=True),
    Column("scaled", "Of largest", "number", total=False),
    Column("relative", "Relative", "number", total=False),
    Column("ulps", "Ulps", "number", total=False),
    Column("unequal", "Unequal", "count", total=False),
)
WAYS = (
    Column("algorithm", "By", "text", total=False, wide=True),
    Column("other", "Beside", "text", total=False, wide=True),
)
"""The algorithms that are compared."""


def apart(found: Array, wanted: Array) -> dict[str, float]:
    """How far two arrays of one shape are apart at the worst element, in four ways, and in how many elements.

    `error`: the largest difference. `scaled`: the same in parts of the largest wanted element. `relative`: the largest
    in parts of the wanted element itself, where that is not 0. `ulps`: the largest in units in the last place of the
    larger of the two elements, in the coarser of their types. `unequal`: the elements that are not the same bit for
    bit. Equal infinities and two NaNs are not apart; where only one is no number or infinite, all are infinite.

    >>> apart(np.array([1.0, 2.0]), np.array([1.0, 2.0 + 2**-51]))["ulps"]
    1.0
    >>> apart(np.array([1.0, 2.0]), np.array([1.0, np.nan]))["relative"]
    inf
    """
    coarser = np.float32 if np.float32 in (found.dtype, wanted.dtype) else np.float64
    with np.errstate(all="ignore"):
        same = found == wanted
        a, b = (array.astype(np.float64) for array in (found, wanted))
        same |= np.isnan(a) & np.isnan(b)
        # Large whole numbers that float64 cannot tell apart are one apart at least.
        whole = found.dtype.kind != "f" and wanted.dtype.kind != "f"
        error = np.where(same, 0.0, np.maximum(abs(a - b), 1.0 if whole else 0.0))
        error[~same & ~(np.isfinite(a) & np.isfinite(b))] = np.inf
        sizes = np.maximum(abs(a), abs(b))
        ulp = np.spacing(np.where(np.isfinite(sizes), sizes, 1).astype(coarser)).astype(np.float64)
        worst = error.max(initial=0.0)
        finite = abs(b)[np.isfinite(b)]
        return {
            "error": float(worst),
            "scaled": float(worst / finite.max(initial=0.0)) if worst else 0.0,
            "relative": float(
                np.where(same | (b == 0), 0.0, error / np.where(np.isfinite(b), abs(b), 1)).max(initial=0.0)
            ),
            "ulps": float((error / ulp).max(initial=0.0)),
            "unequal": int(np.count_nonzero(~same)),
        }


def check_algorithms(prepared: Prepared, first: str | None, second: str) -> Report:
    """Every layer's output by one algorithm (None: as the rule says) beside that by another, each on its own way.

    What comes into a layer is what its own way gave, so that errors grow as they would. Raises `LayerError` for an
    algorithm that there is not.
    """
    view = View(prepared.network, list(prepared.resolved))
    dtype = next(iter(prepared.inputs.values())).dtype
    rows = []
    for found, wanted in zip(_each(prepared, first), _each(prepared, second), strict=True):
        item = found.items[0]
        by = {"algorithm": _by(item, first, dtype), "other": _by(item, second, dtype)}
        rows.append((replace(base_row(item, view), values=by), apart(found.outputs[0], wanted.outputs[0])))
    what = f"{first} is" if first not in (None, "auto") else "what the rule chooses is"
    return _report(rows, f"{what} compared with {second}", (*COLUMNS, *WAYS))


def _by(item: Resolved, algorithm: str | None, dtype: np.dtype[Any]) -> str:
    """By which algorithm a layer is computed where this one is forced; nothing where there is no choice."""
    with forced(algorithm or "auto"):
        return algorithm_of(item, dtype) if item.layer.kind in WINDOWED else ""


def _each(prepared: Prepared, algorithm: str | None) -> Iterator[Computed]:
    """The steps of a run, each computed with the algorithm, whatever another run does between them."""
    running = steps(prepared, prepared.inputs)
    while True:
        with forced(algorithm or "auto"):
            step = next(running, None)
        if step is None:
            return
        yield step


def check_saved(
    prepared: Prepared, outputs: Mapping[str, Array], saved: Array | Mapping[str, Array], name: str
) -> Report:
    """The outputs of a run beside those that were saved by their names, or the first beside an array.

    Raises `ShapeError` when their shapes differ, or for an output that there is not.
    """
    wanted = saved if isinstance(saved, Mapping) else {next(iter(outputs)): saved}
    view = View(prepared.network, list(prepared.resolved))
    rows = []
    for key, array in wanted.items():
        if key not in outputs:
            have = did_you_mean(key, outputs) or f"; the outputs are {', '.join(outputs)}"
            raise ShapeError(f"{name} holds {key}, which is no output{have}")
        called = f"{key} of {name}" if len(wanted) > 1 else name
        if array.shape != outputs[key].shape:
            found = shape_text(outputs[key].shape)
            raise ShapeError(f"{called} is {shape_text(array.shape)}, but the output is {found}")
        item = next(item for item in prepared.resolved if key in item.node.outputs)
        rows.append((base_row(item, view), apart(outputs[key], array)))
    what = "the output is" if len(outputs) == 1 else "the outputs are"
    if len(wanted) < len(outputs):
        what = f"of {len(outputs)} outputs {', '.join(wanted)} {'is' if len(wanted) == 1 else 'are'}"
    return _report(rows, f"{what} compared with {name}", COLUMNS)


def _report(found: Sequence[tuple[Row, Mapping[str, float]]], note: str, columns: Sequence[Column]) -> Report:
    """The rows with their values, and the worst of each; -q prints the output's error in parts of its largest element.

    Unlike the other two it stays small where an element is nearly 0 because large ones cancel.
    """
    rows = tuple(
        replace(row, values={**row.values, **{key: _value(value) for key, value in values.items()}})
        for row, values in found
    )
    worst = {key: _value(max(values[key] for _, values in found)) for key in found[0][1]}
    return Report("check", tuple(columns), rows, worst, rows[-1].values["scaled"], (Diagnostic("note", note),))


def _value(number: float) -> Value:
    """A number that JSON can hold."""
    return number if isfinite(number) else str(number)
