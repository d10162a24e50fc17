"""The shapes of a graph's inputs: what the file says of them, and what is given where it leaves sizes open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc.errors import ExpressionError, ModelFileError, ShapeError, UnsupportedOpError, did_you_mean
from convcalc.layers.base import Shape, shape_text
from convcalc.network import Input
from convcalc.onnx.known import Known
from convcalc.onnx.messages import ValueInfo
from convcalc.onnx.names import Scope

GivenShapes = Mapping[str, Shape]
"""Shapes of inputs by name; "" is the one input of a network that has one."""

Told = Sequence[int | str | None]
"""A shape as a file tells it: sizes, names of sizes, and None for what is open."""


def read_inputs(
    told: Sequence[ValueInfo], scope: Scope, known: Known, given: GivenShapes, batch: int | None
) -> dict[str, Input]:
    """The inputs of the main graph but those that are initializers too, which have values; their shapes are noted.

    Raises `ExpressionError` for what is given in vain, `ShapeError` for sizes that stay open or do not fit.
    """
    infos = [info for info in told if info.name not in scope.names]
    names = [info.name for info in infos]
    for name in given if names else ():
        if name and name not in names:
            raise ExpressionError(
                f"{scope.file} has no input {name}{did_you_mean(name, names)}; it has {', '.join(names)}",
                field="input",
            )
    if not names and (given or batch is not None):
        raise ExpressionError(f"{scope.file} has no inputs; leave out the shape and the batch", field="input")
    if "" in given and len(names) != 1:
        raise ExpressionError(
            f"{scope.file} has {len(names)} inputs, {', '.join(names)}; name the one that is meant, such as"
            f" --input {names[0]}={shape_text(given[''])}",
            field="input",
        )
    found = {}
    for info in infos:
        name = scope.define(info.name, "input")
        found[name] = _input(name, info, scope.file, known, given.get(name, given.get("")), batch)
    return found


def _input(name: str, info: ValueInfo, file: str, known: Known, given: Shape | None, batch: int | None) -> Input:
    dtype, told = info.dtype, info.shape
    if dtype is None:
        raise UnsupportedOpError(f"{file}: input {name} is no tensor, which cannot be reckoned with")
    batch_given = True
    if given is not None:
        if told == () and set(given) == {1}:  # one number, which on the command line is written as [3]
            given = ()
        if told is not None and len(given) == len(told) - 1:
            given = (1 if batch is None else batch, *given)
            batch_given = batch is not None
        elif told is not None and len(given) != len(told):
            raise ShapeError(
                f"input {name} is {_told_text(told)}, with {len(told)} axes, but"
                f" {shape_text(given) or 'one number'} is given",
                field="input",
            )
        sizes: list[int | str | None] = list(given)
    elif told is None:
        raise ShapeError(
            f"{file} does not say what shape input {name} has; give it: --input {name}=1x3x224x224", field="input"
        )
    else:
        sizes = [known.sizes.get(size, size) if isinstance(size, str) else size for size in told]
        if batch is not None and sizes:
            sizes[0] = batch
    shape = _settled(name, sizes, told or (), file, known)
    known.shapes[name] = shape
    known.dtypes[name] = dtype
    return Input(shape, batch_given=batch_given)


def _settled(name: str, sizes: Told, told: Told, file: str, known: Known) -> Shape:
    """The shape, of which no size is open. Sizes of one name are one."""
    for axis, size in enumerate(sizes):
        if not isinstance(size, int):
            raise _open(name, told, axis)
        if size < 0:
            raise ModelFileError(f"{file}: input {name} has a size of {size}")
        symbol = told[axis] if told else None
        if isinstance(symbol, str) and known.sizes.setdefault(symbol, size) != size:
            before = known.sizes[symbol]
            raise ShapeError(
                f"dimension {symbol} is {size} in input {name}, but {before} before it", field="input", value=size
            )
    return tuple(size for size in sizes if isinstance(size, int))


def _open(name: str, told: Told, axis: int) -> ShapeError:
    symbol = told[axis]
    what = f"dimension {symbol}" if symbol else f"axis {axis}"
    example = "x".join(str(size) if isinstance(size, int) else "1" if place == 0 else "224"
                       for place, size in enumerate(told))  # fmt: skip
    return ShapeError(
        f"{what} of input {name} ({_told_text(told)}) is open; give it: --input {name}={example}",
        field="input",
        value=symbol,
    )


def _told_text(told: Told) -> str:
    return "x".join("?" if size is None else str(size) for size in told) or "a scalar"
