"""`ALGORITHMS`: the ways to compute a convolution, and `choose`, the rule that picks one from the layer's numbers.

All give the same numbers up to rounding; how far apart they may be is in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from convcalc.errors import LayerError, did_you_mean
from convcalc.executor import channels_last, columns
from convcalc.executor.blocks import COPY, Activation, Problem, add_up
from convcalc.executor.fourier import fft, fft_macs, spectrum_elements, weight_spectrum
from convcalc.executor.kernels import Array, Weights, aligned, derived
from convcalc.executor.kn2row import kn2row, taps_first
from convcalc.executor.memory_format import is_channels_last
from convcalc.executor.rows import fits_rows, row_weights, rows
from convcalc.executor.threads import share
from convcalc.executor.winograd import tiles_of, transformed_weight, winograd
from convcalc.tracing import ceil_div, per_axis, product

Compute = Callable[[Problem, Array, Array, Array | None, Activation | None, Array], None]


class Algorithm(NamedTuple):
    """One way: for which problems it is there, how it takes the weights, what it does."""

    fits: Callable[[Problem], bool]
    ready: Callable[[Problem, Weights], Array]
    compute: Compute
    about: str


def _matrix(problem: Problem, weights: Weights) -> Array:
    weight = aligned(weights["weight"])
    return weight.reshape(weight.shape[0], -1)


def _matrix_with_bias(problem: Problem, weights: Weights) -> Array:
    matrix = _matrix(problem, weights)
    return np.column_stack((matrix, weights["bias"])) if "bias" in weights else matrix


def _matrices_with_bias(problem: Problem, weights: Weights) -> Array:
    matrix = _matrix_with_bias(problem, weights)
    return np.ascontiguousarray(matrix.reshape(problem.groups, -1, matrix.shape[1]))


def _is_pointwise(problem: Problem) -> bool:
    return problem.taps == 1 and set(problem.stride) == {1} and problem.groups == 1 and not any(map(any, problem.pads))


def _slides_by_one(problem: Problem) -> bool:
    return set(problem.stride) == {1} and set(problem.dilation) == {1} and problem.taps > 1


def _winograd(tile: int) -> Algorithm:
    """F(tile, r) for kernels of up to 5 taps along each of two axes: with more, rounding errors grow large."""

    def compute(problem: Problem, x: Array, weight: Array, *rest: Any) -> None:
        winograd(problem, x, weight, *rest, tiles=tiles_of(problem.kernel_size, tile))

    return Algorithm(
        lambda problem: (
            _slides_by_one(problem)
            and max(problem.kernel_size) <= 5
            and sum(taps > 1 for taps in problem.kernel_size) <= 2
        ),
        lambda problem, weights: transformed_weight(
            weights["weight"], problem.groups, tiles_of(problem.kernel_size, tile)
        ),
        compute,
        f"Winograd's F({tile}, r): {tile} outputs along each axis at once",
    )


ALGORITHMS: Mapping[str, Algorithm] = {
    "pointwise": Algorithm(_is_pointwise, _matrix, columns.pointwise, "1x1: a matrix product with no copy"),
    "im2col": Algorithm(
        lambda problem: problem.groups == 1,
        _matrix_with_bias,
        columns.im2col,
        "windows laid out as columns, block by block",
    ),
    "grouped": Algorithm(
        lambda problem: True,
        _matrices_with_bias,
        columns.grouped,
        "the same for many groups in one call, such as depthwise",
    ),
    "kn2row": Algorithm(
        lambda problem: set(problem.stride) == {1} and problem.groups == 1 and problem.taps > 1,
        lambda problem, weights: taps_first(weights["weight"]),
        kn2row,
        "tap by tap, on the input as it lies: nothing is laid out",
    ),
    "rows": Algorithm(
        fits_rows,
        lambda problem, weights: row_weights(problem, weights["weight"]),
        rows,
        "rows laid out for the taps along the other axes alone",
    ),
    "winograd2": _winograd(2),
    "winograd4": _winograd(4),
    "fft": Algorithm(
        lambda problem: set(problem.dilation) == {1},
        lambda problem, weights: weight_spectrum(problem, weights["weight"]),
        fft,
        "products of Fourier transforms",
    ),
}
"""What `choose` and `--algorithm` name, besides "direct": all columns of an image at once, which every layer can do."""

SMALL = 1 << 18
"""Multiply-adds below which the direct way is as fast as any."""
GROUPED_COPY = 15
"""The same where whole rows are laid out."""
LONG_ROW = 64
"""The outputs of a row, from which on a product for each of them is as fast as one for many."""
READ = 22
"""What a weight costs that a product reads, beside its multiply-adds."""
LEAST_ROWS = 8
"""A matrix product of fewer rows takes as long as of so many."""


_once: list[None] = []


@contextmanager
def weights_once() -> Iterator[None]:
    """Inside the `with` block `choose` counts what is made of the weights too: they are used once, as in learning."""
    _once.append(None)
    try:
        yield
    finally:
        _once.pop()


def used_once() -> bool:
    """Whether weights are used once."""
    return bool(_once)


def choose(problem: Problem) -> str:
    """The algorithm for a convolution of floats, from its numbers alone. The table in docs/performance.md says why."""
    return _chosen(problem, used_once())


@lru_cache(maxsize=4096)
def _chosen(problem: Problem, once: bool) -> str:
    if problem.macs < SMALL:
        return "direct"
    costs = _costs(problem, once=once)
    return min(costs, key=lambda name: costs[name])


def cost_of(problem: Problem) -> float:
    """What a convolution of floats takes by the algorithm that is best for it, in multiply-adds of a matrix product."""
    return min(_costs(problem, once=used_once()).values())


def _costs(problem: Problem, *, once: bool = False) -> dict[str, float]:
    """What the algorithms take that are worth a thought."""
    costs = _costs_of_use(problem)
    return {name: cost + once * COPY * made_of_weights(name, problem) for name, cost in costs.items()}


def made_of_weights(name: str, problem: Problem) -> int:
    """The numbers that an algorithm makes of the weights before it can use them, where that takes long."""
    if name == "fft":
        return int(2 * spectrum_elements(problem))
    if not name.startswith("winograd"):
        return 0
    tiles = tiles_of(problem.kernel_size, int(name.removeprefix("winograd")))
    points = product(per_axis(lambda outputs, taps: outputs + taps - 1, tiles, problem.kernel_size))
    return int(points * problem.output[1] * problem.depth // problem.taps)


def _costs_of_use(problem: Problem) -> dict[str, float]:
    """The same without what is made of the weights."""
    if _is_pointwise(problem) and (problem.output[0] == 1 or product(problem.output[2:]) >= 64):
        return {"pointwise": float(problem.macs)}
    by_rows = ALGORITHMS["rows"].fits(problem)
    if by_rows and problem.groups > 1 and problem.output[1] <= 2 * problem.groups:
        return {"rows": _rows_cost(problem)}
    costs = {"im2col" if problem.groups == 1 else "grouped": _columns_cost(problem)}
    if by_rows and product(problem.output[3:]) >= LONG_ROW:
        costs["rows"] = _rows_cost(problem)
    if ALGORITHMS["kn2row"].fits(problem):
        costs["kn2row"] = _taps_cost(problem)
    for name, tile in (("winograd2", 2), ("winograd4", 4)):
        if ALGORITHMS[name].fits(problem):
            costs[name] = _winograd_cost(problem, tile)
    several = product(problem.kernel_size) > 1 and problem.groups == 1
    if several and ALGORITHMS["fft"].fits(problem) and spectrum_elements(problem) <= 1 << 26:
        costs["fft"] = fft_macs(problem)
    return costs


def _columns_cost(problem: Problem) -> float:
    """Multiply-adds of im2col or grouped, and what else it does in the same unit."""
    channels_out = problem.output[1] // problem.groups
    copy = GROUPED_COPY if problem.groups > 1 and set(problem.stride) == {1} else COPY
    return problem.macs * (1 + copy / channels_out) + problem.depth * problem.output[1] * READ


def _rows_cost(problem: Problem) -> float:
    """Multiply-adds of rows, one output row at a time, and what else it does in the same unit."""
    rows_out = problem.output[1] // problem.groups
    laid = problem.stride[0] / problem.kernel_size[0] / rows_out
    return problem.macs * (max(LEAST_ROWS / rows_out, 1) + COPY * laid)


def _taps_cost(problem: Problem) -> float:
    """Multiply-adds of kn2row, whose rows have ends computed in vain, and its additions: as dear as laying out."""
    channels_out = problem.output[1]
    in_vain = product(problem.widths) / product(problem.output[3:]) * max(LEAST_ROWS / channels_out, 1)
    weights = problem.depth * channels_out * problem.output[0]  # read again for every image
    return float(problem.macs * in_vain * (1 + COPY / problem.input[1]) + weights * READ)


def _winograd_cost(problem: Problem, tile: int) -> float:
    """Multiply-adds of the products, of the transforms of tiles in and out, and what else it does in the same unit."""
    tiles = tiles_of(problem.kernel_size, tile)
    count = problem.output[0] * product(per_axis(ceil_div, problem.output[2:], tiles))
    points = product(per_axis(lambda outputs, taps: outputs + taps - 1, tiles, problem.kernel_size))
    channels, channels_out = problem.input[1], problem.output[1]
    rows_out = max(channels_out // problem.groups, LEAST_ROWS)
    products = points * channels * rows_out * (count + READ)
    transforms = count * points * (channels * (points + COPY) + channels_out * product(tiles))
    return float(products + transforms)


_forced: list[str] = []


@contextmanager
def forced(name: str | None) -> Iterator[None]:
    """Use this algorithm inside the `with` block, for every layer that can; "auto" leaves it to the rule.

    None changes nothing, inside another such block either. Raises `LayerError` for a name that is none.
    """
    if name is None:
        yield
        return
    if name not in ("auto", "direct", *ALGORITHMS):
        known = ("auto", "direct", *ALGORITHMS)
        meant = did_you_mean(name, known) or f"; there are {', '.join(known)}"
        raise LayerError(f"unknown algorithm {name}{meant}", field="algorithm", value=name)
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


def forced_name() -> str | None:
    """The algorithm that is forced now, if any is."""
    return _forced[-1] if _forced else None


def algorithm_for(problem: Problem, dtypes: Sequence[np.dtype[Any]]) -> str:
    """The name of the algorithm: the forced one where it can be had, else the rule's.

    Whole numbers, half floats and mixed types are done directly.
    """
    if direct_only(dtypes):
        return "direct"
    forced_one = ALGORITHMS.get(_forced[-1]) if _forced else None
    if forced_one is not None and forced_one.fits(problem):
        return _forced[-1]
    return choose(problem)


def direct_only(dtypes: Sequence[np.dtype[Any]]) -> bool:
    """Whether the direct way is asked for, or the only one for these types."""
    return _forced[-1:] == ["direct"] or len(set(dtypes)) > 1 or dtypes[0] not in (np.float32, np.float64)


def convolve(
    name: str,
    problem: Problem,
    x: Array,
    weights: Weights,
    activation: Activation | None = None,
    out: Array | None = None,
    added: Sequence[Array] = (),
) -> Array:
    """The convolution by the algorithm of this name, arrays of its shape added to it, and activated.

    `x` is what came in, without padding; `out` may be any view.
    """
    if name in channels_last.VARIANTS and (is_channels_last(x) or (out is not None and is_channels_last(out))):
        out = np.empty(problem.output, x.dtype) if out is None else out
        _convolve_channels_last(name, problem, x, weights, activation, out, added)
        return out
    algorithm = ALGORITHMS[name]
    ready = derived(weights, name, lambda: algorithm.ready(problem, weights))
    direct = out is not None and (out.flags.c_contiguous or name in _INTO_VIEWS)
    found = out if out is not None and direct else np.empty(problem.output, x.dtype)
    x, bias = np.ascontiguousarray(x), weights.get("bias")
    if name == "pointwise":
        columns.pointwise(problem, x, ready, bias, activation, found, added)
    else:
        algorithm.compute(problem, x, ready, bias, None if added else activation, found)
        if added:
            add_up((found, *added), found, activation)
    if out is None or direct:
        return found
    share(lambda image: np.copyto(out[image], found[image]), range(len(out)))
    return out


def _convolve_channels_last(
    name: str,
    problem: Problem,
    x: Array,
    weights: Weights,
    activation: Activation | None,
    out: Array,
    added: Sequence[Array],
) -> None:
    """The same where `x` or `out` lies with its channels last."""
    bias, variant = weights.get("bias"), channels_last.VARIANTS[name]
    if variant in ("pointwise", "im2col"):
        ready = derived(weights, *channels_last.matrix(problem, weights))
        function = channels_last.pointwise if variant == "pointwise" else channels_last.im2col
        function(problem, x, ready, bias, activation, out, added)
        return
    ready = derived(weights, name, lambda: ALGORITHMS[name].ready(problem, weights))
    own = None if added else activation
    if variant != "rows":
        ALGORITHMS[name].compute(problem, x, ready, bias, own, out)
    elif is_channels_last(out):
        channels_last.rows(problem, x, ready[0, 0], bias, own, out)
    else:
        rows(problem, x, ready, bias, own, out)
    if added:
        add_up((out, *added), out, activation)


_INTO_VIEWS = ("winograd2", "winograd4")
"""The algorithms that can write to any view of an array."""
