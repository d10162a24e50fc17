"""Formulas on arrays, a piece at a time that stays in the cache, without an array for anything between.

A formula is asked once what it does, with `Symbol`s in place of arrays; what it asks NumPy for is written down as a
`Program` of functions that write where they are told to. Choosing by a condition is done with the bits of the numbers,
because NumPy's own way jumps at every number: as long as fifty additions where the condition changes often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from convcalc.executor.kernels import Array
from convcalc.executor.threads import Calls, scratch, share_calls, thread_count
from convcalc.tracing import ceil_div, product

Formula = Callable[..., Any]
"""From arrays, and numbers after them, to an array."""

PIECE = 1 << 18
"""Bytes of an array that are computed at once: a few such pieces fit the second level of a core's cache."""
ALONE = 1 << 19
"""Numbers times functions that one thread computes before another is awake."""
SMALL = 1 << 11
"""Numbers of which a formula is computed as it is written: calls take longer than numbers there."""

_CONDITIONS = frozenset(
    (np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal, np.isnan, np.isinf, np.isfinite,
     np.logical_and, np.logical_or, np.logical_not, np.logical_xor)
)  # fmt: skip


def _maximum(a: Array, b: Array, out: Array) -> None:
    np.maximum(a, b, out=out)


def _minimum(a: Array, b: Array, out: Array) -> None:
    np.minimum(a, b, out=out)


_INSTEAD: dict[np.ufunc, Callable[..., Any]] = {np.fabs: np.absolute, np.maximum: _maximum, np.minimum: _minimum}
"""What is called for a function: one that computes many at a time for one by one, or takes its output by place."""
_OF_ARRAYS = frozenset((_maximum, _minimum))
"""Functions that take five times as long for a number as for an array full of it."""
_BITS: dict[Any, np.dtype[Any]] = {
    np.dtype(np.float32): np.dtype(np.int32),
    np.dtype(np.float64): np.dtype(np.int64),
}
"""Whole numbers as long as floats."""
TYPES = frozenset(_BITS)
"""The types that there are programs for."""


def able(*arrays: Array) -> bool:
    """Whether programs can compute with these: float32 or float64, all of them one."""
    return arrays[0].dtype in TYPES and all(array.dtype == arrays[0].dtype for array in arrays)


class _Step(NamedTuple):
    """A function, what it is given, and what comes out: "f" floats, "b" conditions, "i" bits of floats.

    Of what is given an int is the number of a value, the inputs first; a float is a number. With `bits` floats are
    given by their bits.
    """

    function: Callable[..., Any]
    given: tuple[int | float, ...]
    kind: str
    bits: bool = False


_INPUTS = 8
"""At most so many inputs; the values of the steps are numbered from here on."""


class Symbol(np.lib.mixins.NDArrayOperatorsMixin):
    """Stands for an array of floats, or of conditions: what NumPy is asked to do with it is written down."""

    def __init__(self, steps: list[_Step], index: int, dtype: np.dtype[Any], kind: str = "f") -> None:
        self.steps = steps
        self.index = index
        self.dtype = dtype
        self.kind = kind

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *given: Any, **settings: Any) -> Any:
        if method != "__call__" or settings:
            return NotImplemented
        return self.noted(_INSTEAD.get(ufunc, ufunc), *given, kind="b" if ufunc in _CONDITIONS else "f")

    def __array_function__(self, function: Any, types: Any, given: Sequence[Any], settings: Any) -> Any:
        if function is not np.where or settings:
            return NotImplemented
        condition, a, b = given
        if not isinstance(a, Symbol) and a == 0:
            return self.noted(np.bitwise_and, b, condition.noted(_unless, condition, kind="i", bits=True), bits=True)
        mask = condition.noted(_when, condition, kind="i", bits=True)
        if not isinstance(b, Symbol) and b == 0:
            return self.noted(np.bitwise_and, a, mask, bits=True)
        change = self.noted(np.bitwise_xor, a, b, kind="i", bits=True)
        change = self.noted(np.bitwise_and, change, mask, kind="i", bits=True)
        return self.noted(np.bitwise_xor, change, b, bits=True)

    def noted(self, function: Callable[..., Any], *given: Any, kind: str = "f", bits: bool = False) -> Symbol:
        """What the function of these gives, which takes them and where to write it."""
        numbers = tuple(x.index if isinstance(x, Symbol) else float(x) for x in given)
        self.steps.append(_Step(function, numbers, kind, bits))
        return Symbol(self.steps, _INPUTS + len(self.steps) - 1, self.dtype, kind)


def _when(condition: Array, out: Array) -> None:
    """All bits where the condition holds, none elsewhere."""
    np.negative(condition.view(np.int8), out=out, dtype=out.dtype)


def _unless(condition: Array, out: Array) -> None:
    """No bits where the condition holds, all elsewhere."""
    np.subtract(condition.view(np.int8), 1, out=out, dtype=out.dtype)


class _Move(NamedTuple):
    """A step with the places that it reads and writes: an int is a place of `Program`'s, else it is a number."""

    function: Callable[..., Any]
    sources: tuple[int | Array, ...]
    target: int
    bits: bool


class Program(NamedTuple):
    """The moves of a formula. Places are the inputs, then the output, then `floats` and `conditions` to work in."""

    moves: tuple[_Move, ...]
    floats: int
    conditions: int
    dtype: np.dtype[Any]
    result: np.dtype[Any]

    @property
    def piece(self) -> int:
        """How many numbers are computed at once."""
        return PIECE // self.dtype.itemsize

    def room(self, size: int) -> int:
        """The numbers that the threads work in, for an output of this size, and those that they compare with."""
        if size < SMALL:
            return min(len(self.moves) - 1, 2) * size
        full = sum(not isinstance(source, int) and source.ndim > 0 for move in self.moves for source in move.sources)
        return self.hands(size) * min(self.piece, size) * (self.floats + self.conditions) + full * self.piece

    def hands(self, size: int) -> int:
        """How many threads share an output of this size."""
        pieces = ceil_div(size, self.piece)
        return min(thread_count(), pieces) if size * len(self.moves) > ALONE else 1

    def run(self, inputs: Sequence[Array], out: Array) -> None:
        """Compute for arrays of one axis; or of two, (rows, columns), of which inputs may have 1."""
        if out.ndim == 1:
            parts: Sequence[Any] = [slice(start, start + self.piece) for start in range(0, len(out), self.piece)]
        else:
            across = min(out.shape[1], self.piece)
            down = max(1, self.piece // max(across, 1))
            tops = [slice(top, top + down) for top in range(0, out.shape[0], down)]
            lefts = [slice(left, left + across) for left in range(0, out.shape[1], max(across, 1))]
            parts = [(top, left) for top in tops for left in lefts]
        hands = self.hands(out.size)
        if hands == 1:
            for function, given in self._calls(inputs, out, parts):
                function(*given)
        else:
            share_calls(lambda hand: self._calls(inputs, out, parts[hand::hands]), range(hands))

    def _calls(self, inputs: Sequence[Array], out: Array, parts: Sequence[Any]) -> Calls:
        """What is called for some parts, one after the other."""
        outs = [out[part] for part in parts]
        most = max((part.size for part in outs), default=0)
        rooms = [scratch(f"piece {place}", (most,), self.dtype) for place in range(self.floats)]
        rooms += [scratch(f"condition {place}", (most,), np.dtype(bool)) for place in range(self.conditions)]
        places: list[Sequence[Array]] = [_parts(array, parts) for array in inputs]
        places += [outs, *(_shaped(room, outs) for room in rooms)]
        columns = []
        for function, sources, target, bits in self.moves:
            given = [
                places[source] if isinstance(source, int) else _shaped(source, outs) for source in (*sources, target)
            ]
            if bits:
                given = [[_bits(array) for array in arrays] for arrays in given]
            columns.append([(function, arrays) for arrays in zip(*given, strict=True)])
        return [call for row in zip(*columns, strict=True) for call in row]


def _parts(array: Array, parts: Sequence[Any]) -> Sequence[Array]:
    """The parts of an array; of an axis of 1 the whole."""
    if array.ndim < 2:
        return [array[part] for part in parts] if array.size > 1 else [array] * len(parts)
    every = slice(None)
    down, across = (size > 1 for size in array.shape)
    return [array[top if down else every, left if across else every] for top, left in parts]


def _shaped(array: Array, like: Sequence[Array]) -> Sequence[Array]:
    """A number as it is, or as much of an array as each of these takes, in its shape."""
    if not array.ndim:
        return [array] * len(like)
    found = {shape: array[: product(shape)].reshape(shape) for shape in {part.shape for part in like}}
    return [found[part.shape] for part in like]


def _bits(array: Array) -> Array:
    kind = _BITS.get(array.dtype)
    return array if kind is None else array.view(kind)


@lru_cache(32)
def _full(number: float, dtype: np.dtype[Any]) -> Array:
    return np.full(PIECE // dtype.itemsize, number, dtype)


@lru_cache(256)
def program(
    formula: Formula, numbers: tuple[float, ...], kinds: str, dtype: np.dtype[Any], *, in_place: bool = False
) -> Program:
    """The program of a formula of arrays and these numbers; `kinds` has "f" for floats and "b" for conditions.

    With `in_place` its one input is its output too.
    """
    steps: list[_Step] = []
    result = formula(*(Symbol(steps, index, dtype, kind) for index, kind in enumerate(kinds)), *numbers)
    if result.index != _INPUTS + len(steps) - 1:
        result.noted(np.positive, result)
    last = {value: index for index, step in enumerate(steps) for value in step.given if isinstance(value, int)}
    output = len(kinds)
    places = dict.fromkeys(range(output), output) if in_place else {index: index for index in range(output)}
    floats, conditions = _Places(output + 1), _Places(_CONDITIONS_FROM)
    if not in_place and steps[-1].kind != "b":
        floats.free.append(output)
    moves = []
    for index, step in enumerate(steps):
        sources = tuple(
            places[value] if isinstance(value, int) else _number(value, step, dtype) for value in step.given
        )
        for value in {value for value in step.given if isinstance(value, int)}:
            if last[value] == index and (value >= _INPUTS or in_place):
                (conditions if places[value] >= _CONDITIONS_FROM else floats).free.append(places[value])
        target = output if index == len(steps) - 1 else (conditions if step.kind == "b" else floats).take()
        places[_INPUTS + index] = target
        moves.append(_Move(step.function, sources, target, step.bits))
    shift = _CONDITIONS_FROM - output - 1 - floats.count
    moved = tuple(
        move._replace(
            sources=tuple(_moved(source, shift) for source in move.sources), target=_moved(move.target, shift)
        )
        for move in moves
    )
    return Program(moved, floats.count, conditions.count, dtype, np.dtype(bool) if steps[-1].kind == "b" else dtype)


_CONDITIONS_FROM = 1 << 10
"""Places of conditions are numbered from here on until it is known how many of floats there are."""


class _Places:
    """Places to work in: how many were made, and in which of them nothing stands that is needed."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.count = 0
        self.free: list[int] = []

    def take(self) -> int:
        if self.free:
            return self.free.pop()
        self.count += 1
        return self.start + self.count - 1


def _moved(place: Any, shift: int) -> Any:
    return place - shift if isinstance(place, int) and place >= _CONDITIONS_FROM else place


def _number(number: float, step: _Step, dtype: np.dtype[Any]) -> Array:
    return _full(number, dtype) if step.function in _OF_ARRAYS else np.array(number, dtype)


def each(formula: Formula, x: Array, *numbers: float) -> Array:
    """The formula of each element of a float32 or float64 array."""
    if x.size < SMALL:
        return np.asarray(formula(x, *numbers))
    found = program(formula, numbers, "f", x.dtype)
    if x.flags.c_contiguous:
        out = np.empty(x.shape, found.result)
        found.run([x.reshape(-1)], out.reshape(-1))
        return out
    # What lies without gaps in another order of its axes is computed as it lies.
    order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    return each(formula, np.ascontiguousarray(x.transpose(order)), *numbers).transpose(np.argsort(order))


def change(formula: Formula, x: Array, *numbers: float) -> None:
    """The same, written over the array."""
    if not x.flags.c_contiguous or x.size < SMALL:
        np.copyto(x, each(formula, x, *numbers))
        return
    flat = x.reshape(-1)
    program(formula, numbers, "f", x.dtype, in_place=True).run([flat], flat)


def together(formula: Formula, *arrays: Array) -> Array:
    """The formula of elements of several arrays of one type, of which the first may be of conditions, broadcast."""
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    found = _rows(arrays, shape) if product(shape) >= SMALL else None
    if found is None:
        return np.asarray(formula(*arrays))
    made = program(formula, (), "".join("b" if x.dtype == bool else "f" for x in arrays), arrays[-1].dtype)
    out = np.empty(shape, made.result)
    made.run(found, out.reshape(max(x.shape[0] for x in found), -1) if found[0].ndim > 1 else out.reshape(-1))
    return out


def _rows(arrays: Sequence[Array], shape: tuple[int, ...]) -> list[Array] | None:
    """Arrays as `Program.run` takes them, which are made to be of this shape. None: they can not be."""
    if all(array.shape == shape for array in arrays):
        return [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    wide = [array.reshape((1,) * (len(shape) - array.ndim) + array.shape) for array in arrays]
    for split in range(len(shape), 0, -1):
        lead, rest = shape[:split], shape[split:]
        rows, columns = product(lead), product(rest)
        found = []
        for array in wide:
            if array.shape[split:] == rest and array.shape[:split] in (lead, (1,) * split):
                found.append(np.ascontiguousarray(array).reshape(-1, columns))
            elif product(array.shape[split:]) == 1:
                found.append(np.broadcast_to(array, lead + (1,) * len(rest)).reshape(rows, 1))
        if len(found) == len(wide) and columns > 1:
            return found
    return None
