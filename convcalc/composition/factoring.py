"""Factoring: a kernel as two smaller ones in a row, with channels between, as nearly as there are channels for.

A kernel is a polynomial, its taps the coefficients; a split is a product of two, and with channels a sum of products.
For a given first kernel the best second one is the solution of linear equations, so that only the first is sought:
by steps along the gradient of what is lost, which L-BFGS makes longer by what it saw of the curvature (Nocedal and
Wright, Numerical Optimization, 2nd ed., algorithm 7.4; Golub and Pereyra 1973 for leaving out the second).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convcalc.records import dataclass
from convcalc.tracing import product

Array = NDArray[Any]

_ROUNDS = 400
_STARTS = 30
"""Rounds from a start, and random starts beside that of the singular vectors, where there is time for them."""
_HEAT = 50
_FINALISTS = 3
"""Where there are several starts: the rounds after which they are compared, and how many of them go on."""
_WORK = 4e9
"""Multiplications that the search for one rank may take; large kernels get fewer starts, then fewer rounds."""
_LEAST_ROUNDS = 30
_OVERHEAD = 1e6
"""Multiplications in whose time a round that has nearly none is done."""
_MEMORY = 10
"""Steps that the curvature is taken from."""
_TRIES = 10
_SHORTER = 0.3
"""How often a step is made shorter, and what it is multiplied by."""
_ENOUGH = 1e-4
"""The part of the fall that the slope promises which a step must bring."""
_STILL = 1e-9
"""The part of the loss below which a step no longer counts."""
_POLISH = 20
"""Rounds of alternating least squares at the end, which keep the digits that squaring costs."""
_NOTHING = 1e-13


def halves(kernel_size: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes of two kernels that reach as far as one, the first the larger.

    Along a single axis no size is even unless one has to be: a real polynomial always has factors of even degree, but
    not always one of odd degree.

    >>> halves((3, 3)), halves((7,)), halves((4,))
    (((2, 2), (2, 2)), ((5,), (3,)), ((3,), (2,)))
    """
    first = tuple(size // 2 + 1 for size in kernel_size)
    if sum(size > 1 for size in kernel_size) == 1:
        first = tuple(half + (size > 3 and size % 2 and half % 2 == 0)
                      for half, size in zip(first, kernel_size, strict=True))  # fmt: skip
    return first, tuple(size - part + 1 for size, part in zip(kernel_size, first, strict=True))


@dataclass(frozen=True, eq=False)
class Problem:
    """The kernel to be split, (channels out, channels in, *kernel), and the sizes of the two."""

    weight: Array
    first: tuple[int, ...]
    then: tuple[int, ...]

    @property
    def swapped(self) -> Problem:
        """The same with both ends exchanged: what comes out is what came in."""
        return Problem(np.ascontiguousarray(self.weight.swapaxes(0, 1)), self.then, self.first)

    def design(self, kernel: Array, size: Sequence[int]) -> Array:
        """The matrix by which the taps of a kernel of this size, a row for each (middle channel, tap), give the whole.

        `kernel` is the other one, (middle, ends, *taps); the columns are (end, *place in the whole).
        """
        full = self.weight.shape[2:]
        result = np.zeros((len(kernel), *size, kernel.shape[1], *full))
        for taps in np.ndindex(*size):
            places = tuple(slice(tap, tap + part) for tap, part in zip(taps, kernel.shape[2:], strict=True))
            result[(slice(None), *taps, slice(None), *places)] = kernel
        return result.reshape(len(kernel) * int(product(size)), -1)

    def second(self, one: Array, *, exactly: bool = False) -> tuple[Array, Array]:
        """The best second kernel for a first one, (out, middle, *taps), and what is left of the whole."""
        wanted = self.weight.reshape(len(self.weight), -1).T
        matrix = self.design(one, self.then)
        taps = _least_squares(matrix, wanted) if exactly else _normal_equations(matrix, wanted)
        left = matrix.T @ taps - wanted
        return taps.T.reshape(len(self.weight), len(one), *self.then), left.T.reshape(self.weight.shape)

    def slope(self, two: Array, left: Array) -> Array:
        """The gradient of half the squares left, by the first kernel."""
        inputs = self.weight.shape[1]
        matrix = self.design(two.swapaxes(0, 1), self.first)
        found = matrix @ left.swapaxes(0, 1).reshape(inputs, -1).T
        return np.moveaxis(found.T.reshape(inputs, two.shape[1], *self.first), 1, 0)


def _least_squares(matrix: Array, wanted: Array) -> Array:
    return np.linalg.lstsq(matrix.T, wanted, rcond=None)[0]


def _normal_equations(matrix: Array, wanted: Array) -> Array:
    """Least squares in a tenth of the time and half the digits."""
    squares = matrix @ matrix.T
    squares[np.diag_indices_from(squares)] += _NOTHING * max(float(np.trace(squares)) / len(squares), _NOTHING)
    try:
        return np.linalg.solve(squares, matrix @ wanted)
    except np.linalg.LinAlgError:
        return _least_squares(matrix, wanted)


def two_kernels(weight: Array, rank: int, seed: int) -> list[Array]:
    """Two kernels, (rank, in, *first) and (out, rank, *then), whose product is as near the weight as was found.

    The nearest of several starts: the singular vectors of the weight's windows, the roots of a single polynomial, and
    random ones. Nothing says that there is no nearer one, unless this one is exact.
    """
    first, then = halves(weight.shape[2:])
    whole = Problem(weight, first, then)
    turned = weight.shape[1] * product(first) > weight.shape[0] * product(then)
    problem = whole.swapped if turned else whole
    # Each round takes the products of all columns, and solves for them.
    rows, unknowns = problem.weight[0].size, rank * product(problem.then)
    work = rows * unknowns**2 + unknowns**3 + _OVERHEAD
    rounds = int(min(max(_WORK / work, _LEAST_ROUNDS), _ROUNDS))
    starts = int(min(max(_WORK / work / _HEAT - _FINALISTS * rounds / _HEAT, 1), 1 + _STARTS))
    tried = []
    for start in islice(_starts(problem, rank, seed), starts):
        tried.append(_search(problem, start, _HEAT if starts > 1 else rounds))
        if tried[-1][0] < _NOTHING:
            break
    tried.sort(key=lambda each: each[0])
    if starts > 1 and tried[0][0] >= _NOTHING:
        tried = [_search(problem, pair[0], rounds) for _, pair in tried[:_FINALISTS]]
    best = min(tried, key=lambda each: each[0])
    one, two = best[1]
    return [two.swapaxes(0, 1), one.swapaxes(0, 1)] if turned else [one, two]


def _starts(problem: Problem, rank: int, seed: int) -> Iterator[Array]:
    weight = problem.weight
    inputs = weight.shape[1]
    random = np.random.default_rng((seed, rank))
    if weight.shape[:2] == (1, 1) and rank == 1 and sum(size > 1 for size in weight.shape[2:]) == 1:
        yield from _roots(problem)
    windows = []
    for place in np.ndindex(*problem.then):
        cut = tuple(slice(start, start + size) for start, size in zip(place, problem.first, strict=True))
        windows.append(weight[(slice(None), slice(None), *cut)].reshape(len(weight), -1))
    found = np.linalg.svd(np.concatenate(windows), full_matrices=False)[2][:rank]
    more = random.normal(size=(rank - len(found), found.shape[1])) / np.sqrt(found.shape[1])
    yield np.concatenate([found, more]).reshape(rank, inputs, *problem.first)
    while True:
        yield random.normal(size=(rank, inputs, *problem.first))


def _roots(problem: Problem) -> Iterator[Array]:
    """The factor of a polynomial that some of its roots make, pairs of complex ones together."""
    roots = np.roots(problem.weight.reshape(-1))
    degree = max(problem.first) - 1
    pairs = [root for root in roots if root.imag > 0]
    single = sorted((root.real for root in roots if root.imag == 0), key=abs)
    chosen = [root for pair in pairs[: degree // 2] for root in (pair, pair.conjugate())]
    chosen += single[: degree - len(chosen)]
    if len(chosen) == degree:
        yield np.real(np.poly(chosen)).reshape(1, 1, *problem.first)


def _search(problem: Problem, start: Array, rounds: int) -> tuple[float, list[Array]]:
    """The part of the whole that is lost, and both kernels, from a start."""
    size = float(np.linalg.norm(problem.weight))
    one = _orthonormal(start)
    two, left = problem.second(one)
    lost, slope = float((left**2).sum()), problem.slope(two, left)
    steps: list[tuple[Array, Array]] = []
    while rounds > 0 and lost > (_NOTHING * size) ** 2:
        way = _direction(slope, steps)
        promised = float((slope * way).sum())
        length = 1.0 if steps else 0.1 / max(float(np.linalg.norm(slope)), _NOTHING)
        for _ in range(_TRIES):
            rounds -= 1
            there = one + length * way
            two, left = problem.second(there)
            new = float((left**2).sum())
            if new <= lost + _ENOUGH * 2 * length * promised:
                break
            length *= _SHORTER
        else:
            if not steps:
                break
            steps = []
            continue
        next_slope = problem.slope(two, left)
        step, change = (there - one).ravel(), (next_slope - slope).ravel()
        if step @ change > _NOTHING * np.linalg.norm(step) * np.linalg.norm(change):
            steps = [*steps, (step, change)][-_MEMORY:]
        still = lost - new <= _STILL * lost
        one, lost, slope = there, new, next_slope
        if still:
            break
    return _polished(problem, one, size)


def _orthonormal(kernel: Array) -> Array:
    """The same span of middle channels, mixed so that they are orthonormal; too many for that stay as they are."""
    flat = kernel.reshape(len(kernel), -1)
    if len(flat) > flat.shape[1]:
        return kernel
    return np.ascontiguousarray(np.linalg.qr(flat.T)[0].T).reshape(kernel.shape)


def _direction(slope: Array, steps: Sequence[tuple[Array, Array]]) -> Array:
    """Downwards, as far as the last steps tell of the curvature."""
    way = -slope.ravel()
    parts = []
    for step, change in reversed(steps):
        part = (step @ way) / (step @ change)
        parts.append(part)
        way = way - part * change
    if steps:
        step, change = steps[-1]
        way = way * (step @ change) / (change @ change)
    for (step, change), part in zip(steps, reversed(parts), strict=True):
        way = way + (part - (change @ way) / (step @ change)) * step
    return way.reshape(slope.shape)


def _polished(problem: Problem, one: Array, size: float) -> tuple[float, list[Array]]:
    """Both kernels after some rounds of alternating least squares, which are only taken close to exactness."""
    two, left = problem.second(one, exactly=True)
    lost = float(np.linalg.norm(left)) / size
    turned = problem.swapped
    for _ in range(_POLISH if lost < np.sqrt(_STILL) else 0):
        if lost < _NOTHING:
            break
        other = turned.second(two.swapaxes(0, 1), exactly=True)[0]
        one = other.swapaxes(0, 1)
        two, left = problem.second(one, exactly=True)
        lost = float(np.linalg.norm(left)) / size
    return lost, [one, two]
