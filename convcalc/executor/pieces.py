"""Formulas on arrays, a piece at a time that stays in the cache, without an array for anything between.

A formula is asked once what it does, with `Symbol`s in place of arrays; what it asks NumPy for is written down as a
`Program` of functions that write where they are told to. Choosing by a condition is done with the bits of the numbers,
as whole ones that are multiplied by 1 or 0, because NumPy's own way jumps at every number: as long as fifty additions
where the condition changes often.
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
SHARED = 1 << 20
"""The same where threads share an array: a thread that waits for the interpreter sleeps, for as long as many a call."""
ALONE = 1 << 21
"""Numbers times functions that one thread computes before two would be done."""
ROW = 1 << 13
"""An array of one axis is computed in rows of so many numbers, so that a number to compare with is a row too."""
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


def _between(x: Array, low: Array, high: Array, out: Array) -> None:
    x.clip(low, high, out)


_INSTEAD: dict[np.ufunc, Callable[..., Any]] = {np.fabs: np.absolute, np.maximum: _maximum, np.minimum: _minimum}
"""What is called for a function: one that computes many at a time for one by one, or takes its output by place."""
_OF_ARRAYS = frozenset((_maximum, _minimum, np.fmax))
"""Functions that take five times as long for a number as for a row full of it."""
_LIMITS: dict[Callable[..., Any], Callable[[float], tuple[float, float]]] = {
    _maximum: lambda least: (least, np.inf), _minimum: lambda most: (-np.inf, most),
}  # fmt: skip
"""Between what two limits `_between` does the same, which needs no row: in two thirds of the time, if that is all."""
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
    """A function, what it is given, and what comes out: "f" floats, "b" conditions, "i" bits, or another type's name.

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
    """Stands for an array of floats, of conditions ("b"), or of whole numbers that `as_floats` takes ("u").

    What NumPy is asked to do with it is written down.
    """

    def __init__(self, steps: list[_Step], index: int, dtype: np.dtype[Any], kind: str = "f") -> None:
        self.steps = steps
        self.index = index
        self.dtype = dtype
        self.kind = kind

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *given: Any, **settings: Any) -> Any:
        if method != "__call__" or settings:
            return NotImplemented
        limits = self._limits(ufunc, given)
        if limits is not None:
            return limits
        return self.noted(_INSTEAD.get(ufunc, ufunc), *given, kind="b" if ufunc in _CONDITIONS else "f")

    def _limits(self, ufunc: np.ufunc, given: tuple[Any, ...]) -> Symbol | None:
        """The smaller of a number and the larger of another, in one go."""
        if ufunc is not np.minimum or isinstance(given[1], Symbol) or given[0].index < _INPUTS:
            return None
        before = self.steps[given[0].index - _INPUTS]
        if before.function is not _maximum or not isinstance(before.given[1], float) or before.given[1] > given[1]:
            return None
        index, low = before.given
        return self.noted(_between, Symbol(self.steps, int(index), self.dtype), low, given[1])

    def __array_function__(self, function: Any, types: Any, given: Sequence[Any], settings: Any) -> Any:
        if function is not np.where or settings:
            return NotImplemented
        condition, a, b = given
        if not isinstance(a, Symbol) and a == 0:
            condition, a, b = np.logical_not(condition), b, a
        holds = condition.noted(_ones, condition, kind="i", bits=True)
        if not isinstance(b, Symbol) and b == 0:
            return self.noted(np.multiply, a, holds, bits=True)
        change = self.noted(np.subtract, a, b, kind="i", bits=True)
        change = self.noted(np.multiply, change, holds, kind="i", bits=True)
        return self.noted(np.add, change, b, bits=True)

    def noted(self, function: Callable[..., Any], *given: Any, kind: str = "f", bits: bool = False) -> Symbol:
        """What the function of these gives, which takes them and where to write it."""
        numbers = tuple(x.index if isinstance(x, Symbol) else float(x) for x in given)
        self.steps.append(_Step(function, numbers, kind, bits))
        return Symbol(self.steps, _INPUTS + len(self.steps) - 1, self.dtype, kind)


def as_floats(x: Any) -> Any:
    """Whole numbers as floats: those that a `Symbol` stands for, or of an array as float32."""
    return x.noted(_copied, x) if isinstance(x, Symbol) else x.astype(np.float32)


def as_type(x: Any, dtype: str) -> Any:
    """Floats in another type, which must be able to hold them: the last thing that a formula does."""
    return x.noted(_copied, x, kind=dtype) if isinstance(x, Symbol) else x.astype(dtype)


def _copied(x: Array, out: Array) -> None:
    np.copyto(out, x, casting="unsafe")


def _ones(condition: Array, out: Array) -> None:
    """1 where the condition holds, 0 elsewhere."""
    np.copyto(out, condition.view(np.int8))


class _Move(NamedTuple):
    """A step with the places that it reads and writes: an int is a place of `Program`'s, else it is a number.

    A float is a number that is to be given as a row full of it.
    """

    function: Callable[..., Any]
    sources: tuple[int | float | Array, ...]
    target: int
    bits: bool


class Program(NamedTuple):
    """The moves of a formula. Places are the inputs, then the output, then `floats` and `conditions` to work in."""

    moves: tuple[_Move, ...]
    floats: int
    conditions: int
    dtype: np.dtype[Any]
    result: np.dtype[Any]

    def room(self, size: int) -> int:
        """The numbers that the threads work in, for an output of this size."""
        if size < SMALL:  # as the formula is written
            return min(len(self.moves) - 1, 2) * size
        hands = self.hands(size)
        return hands * piece_of(size, hands, self.dtype) * (self.floats + self.conditions)

    def hands(self, size: int) -> int:
        """How many threads share an output of this size."""
        return hands_for(size * len(self.moves))

    def is_one_call(self, size: int) -> bool:
        """Whether it is one function for one thread, so that nothing is won by calling it for a piece at a time."""
        return len(self.moves) == 1 == self.hands(size) and not any(
            isinstance(source, float) for source in self.moves[0].sources
        )

    def is_plain(self, size: int) -> bool:
        """Whether that is one of NumPy's, which takes arrays as they lie."""
        return isinstance(self.moves[0].function, np.ufunc) and self.is_one_call(size)

    def run(self, inputs: Sequence[Array], out: Array) -> None:
        """Compute for arrays of one axis; or of two, (rows, columns), of which inputs may have 1."""
        if out.ndim == 2:
            self._run(inputs, out)
            return
        if out.nbytes <= PIECE or self.is_one_call(out.size):
            self._once(inputs, out)
            return
        body = out.size // ROW * ROW
        for part in (slice(0, body), slice(body, out.size)):
            if part.stop > part.start:
                columns = min(ROW, part.stop - part.start)
                cut = [(x if x.size == 1 else x[part]).reshape(-1, 1 if x.size == 1 else columns) for x in inputs]
                self._run(cut, out[part].reshape(-1, columns))

    def _once(self, inputs: Sequence[Array], out: Array) -> None:
        """Compute for arrays of one axis in one go."""
        size = out.size
        places = [*inputs, out]
        places += [scratch(f"piece {place}", (size,), self.dtype) for place in range(self.floats)]
        places += [scratch(f"condition {place}", (size,), np.dtype(bool)) for place in range(self.conditions)]
        for function, sources, target, bits in self.moves:
            given = [
                places[source]
                if isinstance(source, int)
                else _full(source, self.dtype, 1 << (size - 1).bit_length())[:size]
                if isinstance(source, float)
                else source
                for source in (*sources, target)
            ]
            function(*(map(_bits, given) if bits else given))

    def _run(self, inputs: Sequence[Array], out: Array) -> None:
        rows, columns = out.shape
        hands = self.hands(out.size)
        piece = piece_of(out.size, hands, self.dtype)
        across = max(1, min(columns, piece))
        down = max(1, -(-piece // across))
        parts = [
            (slice(top, top + down), slice(left, left + across))
            for top in range(0, rows, down)
            for left in range(0, columns, across)
        ]
        if hands == 1:
            for function, given in self._calls(inputs, out, parts):
                function(*given)
        else:
            share_calls(lambda hand: self._calls(inputs, out, parts[hand::hands]), range(hands))

    def _calls(self, inputs: Sequence[Array], out: Array, parts: Sequence[tuple[slice, slice]]) -> Calls:
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
                places[source]
                if isinstance(source, int)
                else [_full(source, self.dtype, part.shape[1]) for part in outs]
                if isinstance(source, float)
                else [source] * len(outs)
                for source in (*sources, target)
            ]
            if bits:
                given = [[_bits(array) for array in arrays] for arrays in given]
            columns.append([(function, arrays) for arrays in zip(*given, strict=True)])
        return [call for row in zip(*columns, strict=True) for call in row]


def hands_for(work: int) -> int:
    """How many threads are worth so many numbers times functions."""
    return thread_count() if work > ALONE else 1


def piece_of(size: int, hands: int, dtype: np.dtype[Any]) -> int:
    """How many numbers of an array of this size are computed at once, so that each thread has as many pieces."""
    each = ceil_div(size, hands)
    most = (PIECE if hands == 1 else SHARED) // dtype.itemsize
    return ceil_div(each, ceil_div(each, most)) if each else 1


def _parts(array: Array, parts: Sequence[tuple[slice, slice]]) -> Sequence[Array]:
    """The parts of an array; of an axis of 1 the whole."""
    every = slice(None)
    down, across = (size > 1 for size in array.shape)
    return [array[top if down else every, left if across else every] for top, left in parts]


def _shaped(array: Array, like: Sequence[Array]) -> Sequence[Array]:
    """As much of an array as each of these takes, in its shape."""
    found = {shape: array[: product(shape)].reshape(shape) for shape in {part.shape for part in like}}
    return [found[part.shape] for part in like]


def _bits(array: Array) -> Array:
    kind = _BITS.get(array.dtype)
    return array if kind is None else array.view(kind)


@lru_cache(64)
def _full(number: float, dtype: np.dtype[Any], length: int) -> Array:
    return np.full(length, number, dtype)


@lru_cache(256)
def program(
    formula: Formula, numbers: tuple[Any, ...], kinds: str, dtype: np.dtype[Any], *, in_place: bool = False
) -> Program:
    """The program of a formula of arrays and these numbers; `kinds` are the inputs', as `Symbol` has them.

    With `in_place` its one input is its output too.
    """
    steps: list[_Step] = []
    result = formula(*(Symbol(steps, index, dtype, kind) for index, kind in enumerate(kinds)), *numbers)
    if result.index != _INPUTS + len(steps) - 1:
        result.noted(np.positive, result)
    steps = _needed(steps)
    if len(steps) == 1 and steps[0].function in _LIMITS and isinstance(steps[0].given[1], float):
        steps = [_Step(_between, (steps[0].given[0], *_LIMITS[steps[0].function](steps[0].given[1])), "f")]
    last = {value: index for index, step in enumerate(steps) for value in step.given if isinstance(value, int)}
    output = len(kinds)
    places = dict.fromkeys(range(output), output) if in_place else {index: index for index in range(output)}
    floats, conditions = _Places(output + 1), _Places(_CONDITIONS_FROM)
    if not in_place and steps[-1].kind == "f":
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
    result_type = {"f": dtype, "b": np.dtype(bool)}.get(steps[-1].kind) or np.dtype(steps[-1].kind)
    return Program(moved, floats.count, conditions.count, dtype, result_type)


def _needed(steps: Sequence[_Step]) -> list[_Step]:
    """The steps that the last one needs, numbered anew."""
    needed = {len(steps) - 1}
    for index in range(len(steps) - 1, -1, -1):
        if index in needed:
            needed |= {value - _INPUTS for value in steps[index].given if isinstance(value, int) and value >= _INPUTS}
    numbers = {_INPUTS + index: _INPUTS + place for place, index in enumerate(sorted(needed))}
    return [
        steps[index]._replace(
            given=tuple(numbers.get(value, value) if isinstance(value, int) else value for value in steps[index].given)
        )
        for index in sorted(needed)
    ]


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


def _number(number: float, step: _Step, dtype: np.dtype[Any]) -> float | Array:
    return number if step.function in _OF_ARRAYS else np.array(number, dtype)


def each(formula: Formula, x: Array, *numbers: float) -> Array:
    """The formula of each element of a float32 or float64 array."""
    if x.size < SMALL:
        return np.asarray(formula(x, *numbers))
    found = program(formula, numbers, "f", x.dtype)
    if found.is_plain(x.size):
        return np.asarray(formula(x, *numbers))
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


def together(formula: Formula, *arrays: Array, numbers: tuple[Any, ...] = (), dtype: Any = None) -> Array:
    """The formula of elements of several arrays, broadcast, and of numbers; `dtype` is that of its floats.

    None is the type of the last array.
    """
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    if product(shape) < SMALL or len(arrays) > _INPUTS:
        return np.asarray(formula(*arrays, *numbers))
    kinds = "".join({"f": "f", "b": "b"}.get(array.dtype.kind, "u") for array in arrays)
    made = program(formula, numbers, kinds, np.dtype(arrays[-1].dtype if dtype is None else dtype))
    found = None if made.is_plain(product(shape)) else _rows(arrays, shape)
    if found is None:
        return np.asarray(formula(*arrays, *numbers))
    out = np.empty(shape, made.result)
    made.run(found, out.reshape(max(x.shape[0] for x in found), -1) if found[0].ndim > 1 else out.reshape(-1))
    return out


def _rows(arrays: Sequence[Array], shape: tuple[int, ...]) -> list[Array] | None:
    """Arrays as `Program.run` takes them, which are made to be of this shape. None: they can not be."""
    if all(array.shape == shape for array in arrays):
        return [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    wide = [array.reshape((1,) * (len(shape) - array.ndim) + array.shape) for array in arrays]
    for split in range(len(shape)):
        lead, rest = shape[:split], shape[split:]
        rows, columns = product(lead), product(rest)
        found = []
        for array in wide:
            if array.shape[split:] == rest and array.shape[:split] in (lead, (1,) * split):
                found.append(np.ascontiguousarray(array).reshape(-1, columns))
            elif product(array.shape[split:]) == 1:
                found.append(np.broadcast_to(array, lead + (1,) * len(rest)).reshape(rows, 1))
        if len(found) == len(wide) and columns > 1:
            return _longer(found, rows, columns)
    return None


def _longer(arrays: list[Array], rows: int, columns: int) -> list[Array]:
    """The same with several short rows as one, where no array has a number for each row: calls are for a row each."""
    times = max((count for count in range(1, ROW // columns + 1) if rows % count == 0), default=1)
    if times == 1 or any(array.shape[1] == 1 < columns and len(array) > 1 for array in arrays):
        return arrays
    return [
        array if array.size == 1 else (np.tile(array, times) if len(array) == 1 else array.reshape(-1, times * columns))
        for array in arrays
    ]
