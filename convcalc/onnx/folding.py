"""The small tensors that a model computes its shapes with, evaluated in plain Python.

Exporters write `x.shape[0] * 4` as Shape, Gather, Mul, Concat, Reshape; all but the last are worked out here. A result
of more than `MOST_ELEMENTS` elements is nobody's shape and stays an op of the model.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product as each_of
from typing import Any

from convcalc.errors import ShapeError
from convcalc.layers.base import Shape, shape_text
from convcalc.layers.join import broadcast
from convcalc.onnx.known import MOST_ELEMENTS, UNFORESEEN, Small
from convcalc.tracing import product

Attributes = Mapping[str, Any]
Folder = Callable[[Sequence[Any], Attributes], "Small | list[Small] | None"]
"""From the inputs (None for one left out) and attributes to the output, the outputs, or None: not to be known here."""


def fold(op: str, inputs: Sequence[Small | None], attributes: Attributes) -> list[Small] | None:
    """The outputs of an op on known inputs, or None when they cannot or need not be worked out.

    >>> fold("Add", [Small((2,), [3, 4], "int64"), Small((), [1], "int64")], {})
    [Small((2,), [4, 5], int64)]
    """
    folder = FOLDERS.get(op)
    if folder is None:
        return None
    try:
        found = folder(inputs, attributes)
    except UNFORESEEN as error:
        # What Python refuses (1 / 0, an index out of range) is left to the model; what we refuse is an answer.
        if isinstance(error, ShapeError):
            raise
        return None
    return [found] if isinstance(found, Small) else found


def _rounded(value: Any, dtype: str) -> Any:
    """A number as its type holds it."""
    if dtype == "bool":
        return bool(value)
    if dtype.startswith(("int", "uint")):
        if abs(value) >= 1 << 64:
            raise OverflowError
        return int(value)
    if dtype == "float32":
        return struct.unpack("<f", struct.pack("<f", value))[0]
    return struct.unpack("<e", struct.pack("<e", value))[0] if dtype == "float16" else float(value)


def _fits(shape: Iterable[int]) -> bool:
    sizes = tuple(shape)
    return max(sizes, default=0) <= MOST_ELEMENTS and int(product(sizes)) <= MOST_ELEMENTS


def _take(x: Small, indices: Sequence[Sequence[int]]) -> Small | None:
    """The elements at these places of each axis."""
    shape = [len(places) for places in indices]
    if not _fits(shape):
        return None
    offsets = [[place * stride for place in places] for places, stride in zip(indices, x.strides(), strict=True)]
    return Small(shape, (x.items[sum(places)] for places in each_of(*offsets)), x.dtype)


def _stretched(x: Small, shape: Shape) -> list[Any]:
    """The elements with axes of 1 repeated until the tensor has this shape."""
    if not _fits(shape):
        raise ValueError("larger than any shape")
    wide = Small((1,) * (len(shape) - len(x.shape)) + x.shape, x.items, x.dtype)
    taken = _take(wide, [[0] * size if own == 1 else range(size) for own, size in zip(wide.shape, shape, strict=True)])
    return [] if taken is None else taken.items


# --- element by element ---------------------------------------------------------------------------------------------


def _divided(a: Any, b: Any) -> Any:
    """Whole numbers divide towards zero, as in C."""
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _elementwise(function: Callable[..., Any], dtype: str | None = None) -> Folder:
    def folder(inputs: Sequence[Any], attributes: Attributes) -> Small:
        shape: Shape = inputs[0].shape
        for other in inputs[1:]:
            shape = broadcast(shape, other.shape)
        kind = dtype or inputs[-1].dtype
        columns = [_stretched(x, shape) for x in inputs]
        return Small(shape, (_rounded(function(*row), kind) for row in zip(*columns, strict=True)), kind)

    return folder


def _power(a: Any, b: Any) -> Any:
    if abs(b) > MOST_ELEMENTS:  # a number that would fill the memory
        raise OverflowError
    return a**b


def _mod(inputs: Sequence[Any], attributes: Attributes) -> Small | list[Small] | None:
    return _elementwise(math.fmod if attributes.get("fmod") else operator.mod)(inputs, attributes)


def _cast(inputs: Sequence[Any], attributes: Attributes) -> Small | None:
    from convcalc.onnx.tensors import DATA_TYPES

    dtype = DATA_TYPES.get(attributes.get("to", 0), ("undefined", 0))[0]
    return _as_type(inputs[0], dtype)


def _cast_like(inputs: Sequence[Any], attributes: Attributes) -> Small | None:
    return _as_type(inputs[0], inputs[1].dtype)


def _as_type(x: Small, dtype: str) -> Small | None:
    if not dtype.startswith(("int", "uint", "bool", "float16", "float32", "float64")):
        return None
    return Small(x.shape, (_rounded(item, dtype) for item in x.items), dtype)


# --- axes -----------------------------------------------------------------------------------------------------------


def reshaped(shape: Shape, wanted: Sequence[int], *, allow_zero: bool) -> Shape:
    """The shape that ONNX's Reshape gives: -1 is what is left, 0 is copied unless allow_zero.

    >>> reshaped((2, 3, 4), [0, -1], allow_zero=False)
    (2, 12)
    """
    if not allow_zero and any(size == 0 and axis >= len(shape) for axis, size in enumerate(wanted)):
        raise ShapeError(f"shape {shape_text(tuple(wanted))} copies an axis that {shape_text(shape)} does not have")
    sizes = [shape[axis] if size == 0 and not allow_zero else size for axis, size in enumerate(wanted)]
    known, elements = product([size for size in sizes if size != -1]), product(shape)
    if sizes.count(-1) > 1 or min(sizes, default=0) < -1:
        raise ShapeError(f"shape {shape_text(tuple(sizes))} must have at most one -1 and no smaller number")
    if -1 in sizes and known:
        sizes[sizes.index(-1)] = elements // known
    if product(sizes) != elements:
        raise ShapeError(f"shape {shape_text(tuple(wanted))} does not hold the {elements} elements that come in",
                         field="shape", value=tuple(wanted))  # fmt: skip
    return tuple(sizes)


def squeezed(shape: Shape, axes: Sequence[int] | None) -> Shape:
    """The shape without these axes of 1, or without any axis of 1.

    >>> squeezed((1, 8, 1, 1), [2, 3])
    (1, 8)
    """
    if axes is None:
        return tuple(size for size in shape if size != 1)
    dropped = set()
    for axis in axes:
        if not -len(shape) <= axis < len(shape) or shape[axis] != 1:
            raise ShapeError(f"axis {axis} of {shape_text(shape)} is not 1", field="axes", value=axis)
        dropped.add(axis % len(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in dropped)


def unsqueezed(shape: Shape, axes: Sequence[int]) -> Shape:
    """The shape with axes of 1 put in, counted in the result.

    >>> unsqueezed((8,), [0, -1])
    (1, 8, 1)
    """
    rank = len(shape) + len(axes)
    if any(not -rank <= axis < rank for axis in axes) or len({axis % rank for axis in axes}) != len(axes):
        raise ShapeError(f"axes {shape_text(tuple(axes))} must be different axes of {rank}", field="axes")
    places = {axis % rank for axis in axes}
    sizes = iter(shape)
    return tuple(1 if axis in places else next(sizes) for axis in range(rank))


def sliced(
    shape: Shape, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None, steps: Sequence[int] | None
) -> list[range]:
    """Which places of each axis ONNX's Slice keeps.

    >>> sliced((5, 6), [0], [9223372036854775807], [1], [2])
    [range(0, 5), range(0, 6, 2)]
    """
    kept = [range(size) for size in shape]
    places = range(len(starts)) if axes is None else axes
    for start, end, axis, step in zip(starts, ends, places, steps or [1] * len(starts), strict=True):
        if not -len(shape) <= axis < len(shape) or not step:
            raise ShapeError(f"there is no axis {axis} with step {step} in {shape_text(shape)}", field="axes")
        kept[axis % len(shape)] = range(shape[axis])[start:end:step]
    return kept


def _list(attributes: Attributes, name: str, inputs: Sequence[Any], index: int) -> list[int] | None:
    """Numbers that are an attribute in old opsets and an input in new ones."""
    if index < len(inputs) and inputs[index] is not None:
        return list(inputs[index].items)
    found: list[int] | None = attributes.get(name)
    return found


def _reshape(inputs: Sequence[Any], attributes: Attributes) -> Small:
    x, wanted = inputs
    return Small(reshaped(x.shape, wanted.items, allow_zero=bool(attributes.get("allowzero"))), x.items, x.dtype)


def _identity(inputs: Sequence[Any], attributes: Attributes) -> Small | None:
    found: Small | None = inputs[0]
    return found


def _squeeze(inputs: Sequence[Any], attributes: Attributes) -> Small:
    return Small(squeezed(inputs[0].shape, _list(attributes, "axes", inputs, 1)), inputs[0].items, inputs[0].dtype)


def _unsqueeze(inputs: Sequence[Any], attributes: Attributes) -> Small:
    axes = _list(attributes, "axes", inputs, 1) or []
    return Small(unsqueezed(inputs[0].shape, axes), inputs[0].items, inputs[0].dtype)


def _slice(inputs: Sequence[Any], attributes: Attributes) -> Small | None:
    x, rest = inputs[0], [None, *(None if x is None else x.items for x in inputs[1:])]
    names = ("", "starts", "ends", "axes", "steps")
    starts, ends, axes, steps = (
        rest[place] if place < len(rest) else attributes.get(names[place]) for place in range(1, 5)
    )
    if starts is None or ends is None:
        return None
    return _take(x, sliced(x.shape, starts, ends, axes, steps))


def _gather(inputs: Sequence[Any], attributes: Attributes) -> Small | None:
    x, indices = inputs
    axis = x.axis(attributes.get("axis", 0))
    places: list[Sequence[int]] = [range(size) for size in x.shape]
    if any(not -x.shape[axis] <= place < x.shape[axis] for place in indices.items):
        return None
    places[axis] = [place % x.shape[axis] for place in indices.items]
    taken = _take(x, places)
    return taken and Small((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), taken.items, x.dtype)


def _concat(inputs: Sequence[Any], attributes: Attributes) -> Small | None:
    axis = inputs[0].axis(attributes["axis"])
    shape = list(inputs[0].shape)
    shape[axis] = sum(x.shape[axis] for x in inputs)
    if not _fits(shape):
        return None
    items = []
    inner = [product(x.shape[axis:]) for x in inputs]
    for row in range(product(shape[:axis])):
        for x, size in zip(inputs, inner, strict=True):
            items += x.items[row * size : (row + 1) * size]
    return Small(shape, items, inputs[0].dtype)


def _split(inputs: Sequence[Any], attributes: Attributes) -> list[Small] | None:
    x = inputs[0]
    axis = x.axis(attributes.get("axis", 0))
    sizes = _list(attributes, "split", inputs, 1)
    if sizes is None:
        count = attributes["outputs"]
        each = -(-x.shape[axis] // count)
        sizes = [min(each, x.shape[axis] - part * each) for part in range(count)]
    parts, start = [], 0
    for size in sizes:
        places: list[Sequence[int]] = [range(own) for own in x.shape]
        places[axis] = range(start, start + size)
        taken = _take(x, places)
        if taken is None:
            return None
        parts.append(taken)
        start += size
    return parts


def _transpose(inputs: Sequence[Any], attributes: Attributes) -> Small:
    x = inputs[0]
    order = attributes.get("perm") or list(range(len(x.shape)))[::-1]
    strides = x.strides()
    offsets = [[place * strides[axis] for place in range(x.shape[axis])] for axis in order]
    return Small((x.shape[axis] for axis in order), (x.items[sum(places)] for places in each_of(*offsets)), x.dtype)


def _expand(inputs: Sequence[Any], attributes: Attributes) -> Small | None:
    shape = broadcast(inputs[0].shape, tuple(inputs[1].items))
    return Small(shape, _stretched(inputs[0], shape), inputs[0].dtype) if _fits(shape) else None


def _tile(inputs: Sequence[Any], attributes: Attributes) -> Small | None:
    x, repeats = inputs
    if not _fits(size * times for size, times in zip(x.shape, repeats.items, strict=True)):
        return None
    return _take(x, [list(range(size)) * times for size, times in zip(x.shape, repeats.items, strict=True)])


# --- made from numbers ----------------------------------------------------------------------------------------------


def _constant_of_shape(inputs: Sequence[Any], attributes: Attributes) -> Small | None:
    shape = inputs[0].items
    if min(shape, default=0) < 0 or not _fits(shape):
        return None
    value = attributes.get("value")
    numbers = [0.0] if value is None else value.numbers()
    if not numbers:
        return None
    return Small(shape, numbers * product(shape), "float32" if value is None else value.dtype)


def _range(inputs: Sequence[Any], attributes: Attributes) -> Small | None:
    start, limit, delta = (x.items[0] for x in inputs)
    count = max(math.ceil((limit - start) / delta), 0)
    dtype = inputs[0].dtype
    if count > MOST_ELEMENTS:
        return None
    return Small((count,), (_rounded(start + place * delta, dtype) for place in range(count)), dtype)


def _nonzero(inputs: Sequence[Any], attributes: Attributes) -> Small:
    x = inputs[0]
    found = [place for place in each_of(*map(range, x.shape)) if x.items[_offset(x, place)]]
    return Small((len(x.shape), len(found)), (place[axis] for axis in range(len(x.shape)) for place in found), "int64")


def _offset(x: Small, place: Sequence[int]) -> int:
    return sum(index * stride for index, stride in zip(place, x.strides(), strict=True))


def _reduce(function: Callable[[Sequence[Any]], Any]) -> Folder:
    def folder(inputs: Sequence[Any], attributes: Attributes) -> Small:
        x = inputs[0]
        axes = _list(attributes, "axes", inputs, 1)
        if not axes:
            axes = [] if attributes.get("noop_with_empty_axes") else list(range(len(x.shape)))
        dropped = {x.axis(axis) for axis in axes}
        outer = [range(1) if axis in dropped else range(size) for axis, size in enumerate(x.shape)]
        inner = [range(size) if axis in dropped else range(1) for axis, size in enumerate(x.shape)]
        items = [
            function([x.items[_offset(x, place) + _offset(x, within)] for within in each_of(*inner)])
            for place in each_of(*outer)
        ]
        keep = attributes.get("keepdims", 1)
        shape = (1 if axis in dropped else size for axis, size in enumerate(x.shape) if keep or axis not in dropped)
        return Small(shape, (_rounded(item, x.dtype) for item in items), x.dtype)

    return folder


FOLDERS: dict[str, Folder] = {
    "Add": _elementwise(operator.add), "Sub": _elementwise(operator.sub), "Mul": _elementwise(operator.mul),
    "Div": _elementwise(_divided), "Mod": _mod, "Pow": _elementwise(_power), "Neg": _elementwise(operator.neg),
    "Abs": _elementwise(abs), "Min": _elementwise(lambda *row: min(row)), "Max": _elementwise(lambda *row: max(row)),
    "Sum": _elementwise(lambda *row: sum(row)), "Floor": _elementwise(math.floor), "Ceil": _elementwise(math.ceil),
    "Round": _elementwise(round), "Sqrt": _elementwise(math.sqrt), "Reciprocal": _elementwise(lambda x: 1 / x),
    "Relu": _elementwise(lambda x: max(x, 0)),
    "Sign": _elementwise(lambda x: (x > 0) - (x < 0)), "Exp": _elementwise(math.exp), "Log": _elementwise(math.log),
    "Equal": _elementwise(operator.eq, "bool"), "Less": _elementwise(operator.lt, "bool"),
    "Greater": _elementwise(operator.gt, "bool"), "LessOrEqual": _elementwise(operator.le, "bool"),
    "GreaterOrEqual": _elementwise(operator.ge, "bool"), "And": _elementwise(lambda a, b: a and b, "bool"),
    "Or": _elementwise(lambda a, b: a or b, "bool"), "Xor": _elementwise(operator.ne, "bool"),
    "Not": _elementwise(operator.not_, "bool"), "Where": _elementwise(lambda which, a, b: a if which else b),
    "Identity": _identity, "Cast": _cast, "CastLike": _cast_like,
    "Reshape": _reshape, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Slice": _slice, "Gather": _gather,
    "Concat": _concat, "Split": _split, "Transpose": _transpose, "Expand": _expand, "Tile": _tile,
    "ConstantOfShape": _constant_of_shape, "Range": _range, "NonZero": _nonzero,
    "ReduceProd": _reduce(math.prod), "ReduceSum": _reduce(sum), "ReduceMax": _reduce(max), "ReduceMin": _reduce(min),
}  # fmt: skip
"""What is worked out, by ONNX's name of the op."""
