"""Where a run's time and memory go: each layer's time beside its operations, its bytes, and this machine's best."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np

from convcalc.analysis.report import Column, Diagnostic, Report, Value
from convcalc.analysis.shapes import Resolved, View, base_row
from convcalc.executor.channels_last import VARIANTS
from convcalc.executor.kernels import kernel_of
from convcalc.executor.memory_format import is_channels_last
from convcalc.executor.plan import algorithm_of, moments
from convcalc.executor.run import Prepared, steps
from convcalc.executor.threads import share, thread_count
from convcalc.executor.weights import WINDOWED
from convcalc.layers import kind_of
from convcalc.records import replace

COLUMNS = (
    Column("algorithm", "By", "text", total=False, wide=True),
    Column("seconds", "Time", "seconds"),
    Column("gflops", "GFLOP/s", "number"),
    Column("of_matmul", "Of matmul", "share"),
    Column("intensity", "FLOP/B", "number"),
    Column("bytes", "Bytes", "bytes", wide=True),
    Column("planned", "Planned", "bytes", total=False, wide=True),
    Column("measured", "Measured", "bytes", total=False, wide=True),
)
_SIDE = 768
"""Rows and columns of the matrices whose product is the measure."""
_WHOLE_SIDE = 96
"""The same for types that no library multiplies, whole numbers and half floats: a thousandth of the speed."""
_ROUNDS = 2


def matmul_rate(dtype: np.dtype[Any]) -> float:
    """FLOPs a second that matrix products reach on all threads together: the best of some, each thread on its own."""
    stream = np.random.default_rng(0)
    side = _SIDE if dtype in (np.float32, np.float64) else _WHOLE_SIDE
    a = stream.random((side, side)).astype(dtype)
    outs = [np.empty_like(a) for _ in range(thread_count())]

    def work(index: int) -> None:
        np.matmul(a, a, out=outs[index])

    best = 0.0
    for _ in range(_ROUNDS):
        start = perf_counter()
        share(work, range(len(outs)))
        best = max(best, len(outs) * (2 * side - 1) * side**2 / (perf_counter() - start))
    return best


def profile(prepared: Prepared, repeats: int = 5) -> Report:
    """Run the network some times and say what each layer took: the least time, and what was reached in it.

    `gflops` are the layer's exact FLOPs, whatever the algorithm saves of them, over its time; `of_matmul` is their
    part of what this machine's matrix product reached, measured in turns; `bytes` are what comes in, the
    parameters, and what goes out; `intensity` is FLOPs over bytes. `planned` and `measured` are the bytes that are
    alive at once while the layer runs, by the plan and by tracemalloc, which sees NumPy's. Layers that run as one are
    one row.
    """
    measured = _measured(prepared)
    dtype = next(iter(prepared.inputs.values())).dtype
    # In turns, so that what else the machine does slows both.
    rate, times = matmul_rate(dtype), []
    for _ in range(repeats):
        times.append(_times(prepared))
        rate = max(rate, matmul_rate(dtype))
    view = View(prepared.network, list(prepared.resolved))
    planned = moments(prepared.network, prepared.resolved, str(dtype))
    rows, flops_in_all, bytes_in_all = [], 0, 0
    for index, (items, _, moved, lying) in enumerate(times[0]):
        seconds = min(each[index][1] for each in times)
        flops = sum(item.layer.cost(item.inputs, item.outputs).flops for item in items)
        values: dict[str, Value] = {
            "algorithm": _algorithm(items[0], dtype, lying=lying),
            **_speeds(flops, seconds, moved, rate),
            "planned": planned[index].total,
            "measured": measured[index],
        }
        first, last = base_row(items[0], view), base_row(items[-1], view)
        kinds = [kind_of(item.layer).name for item in items[1:]]
        text = " ".join([first.layer, *kinds])
        kind = "+".join([first.kind, *kinds])
        rows.append(replace(first, kind=kind, source=text, outputs=last.outputs, values=values))
        flops_in_all += flops
        bytes_in_all += moved
    seconds = min(sum(second for _, second, *_ in each) for each in times)
    totals: Mapping[str, Value] = {
        **_speeds(flops_in_all, seconds, bytes_in_all, rate),
        "flops": flops_in_all,
        "threads": thread_count(),
        "matmul_gflops": rate / 1e9,
        "planned_peak": max(moment.total for moment in planned),
        "measured_peak": max(measured),
    }
    note = f"the best of {repeats} runs, {thread_count()} {'thread' if thread_count() == 1 else 'threads'}, {dtype}"
    return Report("profile", COLUMNS, tuple(rows), totals, seconds, (Diagnostic("note", note),))


def _algorithm(item: Resolved, dtype: np.dtype[Any], *, lying: bool) -> str:
    """By which algorithm a layer was computed, where its tensors lie with their channels last or not."""
    if item.layer.kind not in WINDOWED:
        return ""
    name = algorithm_of(item, dtype)
    return VARIANTS.get(name, name) if lying else name


def _speeds(flops: int, seconds: float, moved: int, rate: float) -> dict[str, Value]:
    """What was reached, where anything was computed; a layer that only hands on has no speed."""
    reached = flops / seconds if seconds else 0.0
    return {
        "seconds": seconds,
        "gflops": reached / 1e9,
        "of_matmul": reached / rate,
        "intensity": flops / moved if moved else 0.0,
        "bytes": moved,
    }


def _times(prepared: Prepared) -> list[tuple[tuple[Resolved, ...], float, int, bool]]:
    """The layers that run as one, their seconds, the bytes that went in and out, and if any had its channels last."""
    found = []
    start = perf_counter()
    for items, inputs, outputs, _ in steps(prepared, prepared.inputs, joined=True):
        seconds = perf_counter() - start
        weights = [array for item in items for array in prepared.weights_of(item.node.name).values()]
        moved = 0 if items[0].layer.view else sum(array.nbytes for array in (*inputs, *weights, *outputs))
        found.append((items, seconds, moved, any(map(is_channels_last, (*inputs, *outputs)))))
        del inputs, outputs
        start = perf_counter()
    return found


def _measured(prepared: Prepared) -> list[int]:
    """The most bytes that NumPy held while each layer ran, inputs and weights included: a run of its own."""
    for item in prepared.resolved:
        kernel_of(item.layer)  # what is loaded for it is no part of it
    there = sum(array.nbytes for array in (*prepared.inputs.values(), *prepared.weights.values()))
    found = []
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _, inputs, outputs, _ in steps(prepared, prepared.inputs, joined=True):
            found.append(there + tracemalloc.get_traced_memory()[1] - before)
            del inputs, outputs
            tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    return found
