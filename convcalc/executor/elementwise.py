"""Functions of one or several tensors, element by element, that PyTorch has as functions and not as modules."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from convcalc.errors import UnsupportedOpError
from convcalc.executor.kernels import Array, Weights, kernel
from convcalc.executor.pieces import able, as_floats, as_type, each, together
from convcalc.executor.special import erf
from convcalc.layers.elementwise import Clip, Combine, Function, HardSigmoid, Quantize
from convcalc.narrow import FORMATS, converted, holder, limits

FUNCTIONS: dict[str, Callable[[Array], Any]] = {
    "abs": np.abs, "acos": np.arccos, "acosh": np.arccosh, "asin": np.arcsin, "asinh": np.arcsinh, "atan": np.arctan,
    "atanh": np.arctanh, "bit_not": np.invert, "ceil": np.ceil, "cos": np.cos, "cosh": np.cosh,
    "erf": erf, "exp": np.exp, "floor": np.floor, "isinf": np.isinf,
    "isnan": np.isnan, "log": np.log, "neg": np.negative, "not": np.logical_not, "reciprocal": np.reciprocal,
    "round": np.rint, "sign": np.sign, "sin": np.sin, "sinh": np.sinh, "sqrt": np.sqrt, "tan": np.tan,
}  # fmt: skip


def _divided(a: Array, b: Array) -> Any:
    """Whole numbers divide towards zero, as in C."""
    return np.true_divide(a, b) if a.dtype.kind == "f" else np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))


def _clipped(x: Array, least: Array, most: Array | None = None) -> Any:
    above = np.maximum(x, least)
    return above if most is None else np.minimum(above, most)


COMBINATIONS: dict[str, Callable[..., Any]] = {
    "and": np.logical_and, "bit_and": np.bitwise_and, "bit_or": np.bitwise_or, "bit_xor": np.bitwise_xor,
    "clip": _clipped, "div": _divided, "equal": np.equal, "greater": np.greater, "greater_equal": np.greater_equal,
    "less": np.less, "less_equal": np.less_equal, "max": lambda *xs: reduce(np.maximum, xs),
    "mean": lambda *xs: reduce(np.add, xs) / len(xs), "min": lambda *xs: reduce(np.minimum, xs), "or": np.logical_or,
    "pow": np.power, "prelu": lambda x, slope: np.where(x < 0, slope * x, x), "sub": np.subtract, "where": np.where,
    "xor": np.logical_xor,
}  # fmt: skip


_POWERS: dict[float, Callable[[Any], Any]] = {1.0: np.positive, 2.0: np.square, 3.0: lambda x: x * x * x}
"""Powers that are products."""
_LIMITED: dict[tuple[bool, bool], Callable[..., Any]] = {
    (False, False): np.positive, (True, False): np.maximum, (False, True): np.minimum,
    (True, True): lambda x, least, most: np.minimum(np.maximum(x, least), most),
}  # fmt: skip
"""The input between limits, of which the first, the second or both are there."""


@kernel(Function)
def function(layer: Function, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """NumPy's function, in the input's type."""
    if layer.function not in FUNCTIONS:
        raise UnsupportedOpError(f"{layer.function} cannot be run: there is no kernel for it")
    if able(inputs[0]):
        return (each(FUNCTIONS[layer.function], inputs[0]),)
    found = np.asarray(FUNCTIONS[layer.function](inputs[0]))
    return (found if found.dtype == bool else found.astype(inputs[0].dtype, copy=False),)


@kernel(Combine)
def combine(layer: Combine, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The function of all, in the type of the first (of where: of what is chosen from)."""
    if layer.function not in COMBINATIONS:
        raise UnsupportedOpError(f"{layer.function} cannot be run: there is no kernel for it")
    formula = COMBINATIONS[layer.function]
    if layer.function == "pow" and inputs[1].size == 1 and float(inputs[1].reshape(())) in _POWERS:
        shape = np.broadcast_shapes(*(x.shape for x in inputs))
        formula, inputs = _POWERS[float(inputs[1].reshape(()))], (inputs[0].reshape(shape),)
    if layer.function == "where":
        condition = inputs[0].astype(bool, copy=False)
        if able(*inputs[1:]):
            return (together(np.where, condition, *inputs[1:]),)
        return (np.where(condition, *inputs[1:]).astype(inputs[-1].dtype, copy=False),)
    found = together(formula, *inputs) if able(*inputs) else np.asarray(formula(*inputs))
    return (found if found.dtype == bool else found.astype(inputs[0].dtype, copy=False),)


@kernel(Clip)
def clip(layer: Clip, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The input between its limits."""
    x = inputs[0]
    limited = _LIMITED[layer.least is not None, layer.most is not None]
    limits = tuple(x.dtype.type(limit) for limit in (layer.least, layer.most) if limit is not None)
    return (each(limited, x, *limits) if able(x) else limited(x, *limits),)


@kernel(HardSigmoid)
def hard_sigmoid(layer: HardSigmoid, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """A line between 0 and 1."""
    (x,) = inputs
    numbers = (x.dtype.type(layer.alpha), x.dtype.type(layer.beta))
    return (each(_line, x, *numbers) if able(x) else _line(x, *numbers),)


def _line(x: Any, alpha: Any, beta: Any) -> Any:
    return np.minimum(np.maximum(x * alpha + beta, 0), 1)


@kernel(Quantize)
def quantize(layer: Quantize, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """x / scale + zero, rounded to even and held to what the type can be; or back, (x - zero)·scale."""
    x, scale, *rest = inputs
    scale = _spread(layer, scale, x.shape)
    zero = _spread(layer, rest[0], x.shape) if rest else None
    return (dequantized(x, scale, zero, layer.dtype) if layer.back else quantized(x, scale, zero, layer.dtype),)


def _spread(layer: Quantize, numbers: Array, shape: tuple[int, ...]) -> Array:
    """Scales or zero points, one for each place of an array of this shape, or for each block of it."""
    if layer.block:
        repeated = np.repeat(numbers, layer.block, axis=layer.axis)
        return repeated.take(range(shape[layer.axis]), axis=layer.axis)
    if numbers.size == 1:
        return numbers.reshape(())
    axis = layer.axis % len(shape)
    return numbers.reshape(-1, *(1,) * (len(shape) - 1 - axis))


_SHORT = frozenset(("int8", "uint8", "int16", "uint16", "int4", "uint4", "int2", "uint2"))
"""Whole numbers that float32 holds exactly, and their sums."""


def _by_one_step(
    formula: Callable[..., Any], x: Array, scale: Array, zero: Array | None, dtype: np.dtype[Any], rest: tuple[Any, ...]
) -> Array:
    """A formula of x, scale and zero: those of one number as numbers, which programs have no arrays for."""
    given = scale, np.zeros((), np.uint8) if zero is None else zero
    if all(array.size == 1 for array in given):
        return together(formula, x, numbers=(*(float(array.reshape(())) for array in given), *rest), dtype=dtype)
    return together(formula, x, scale, given[1], numbers=rest, dtype=dtype)


def _as_steps(x: Any, scale: Any, zero: Any, least: int, most: int, dtype: str) -> Any:
    """x / scale + zero, rounded to even, between the limits, as a type; what is no number is 0."""
    steps = np.rint(x / scale)
    if not isinstance(zero, float):
        steps = steps + as_floats(zero)
    elif zero:
        steps = steps + zero
    # Of what is no number the larger is 0 here, where that is the least.
    steps = np.fmax(steps, 0) if least == 0 else np.maximum(np.where(steps == steps, steps, 0), least)  # noqa: PLR0124
    return as_type(np.minimum(steps, most), dtype)


def _from_steps(x: Any, scale: Any, zero: Any) -> Any:
    """(x - zero)·scale."""
    steps = as_floats(x)
    if not isinstance(zero, float):
        steps = steps - as_floats(zero)
    elif zero:
        steps = steps - zero
    return steps * scale


def quantized(x: Array, scale: Array, zero: Array | None, dtype: str) -> Array:
    """Floats as numbers of a scale: whole ones with halves to even and what is too large as the largest, or floats."""
    if dtype in _SHORT and able(x, scale):
        return _by_one_step(_as_steps, x, scale, zero, x.dtype, (*limits(dtype), holder(dtype)))
    steps = x / scale
    if dtype in FORMATS:
        return converted(steps if zero is None else steps + zero, dtype)
    steps = np.rint(steps) if zero is None else np.rint(steps) + zero.astype(np.float64)
    found: Array = np.clip(np.nan_to_num(steps), *limits(dtype)).astype(holder(dtype))
    return found


def dequantized(x: Array, scale: Array, zero: Array | None, dtype: str) -> Array:
    """Numbers of a scale as floats; the differences of whole ones are exact."""
    if x.dtype.name in _SHORT and scale.dtype.name == dtype == "float32":
        return _by_one_step(_from_steps, x, scale, zero, scale.dtype, ())
    wide = x if x.dtype.kind == "f" else x.astype(np.int64)
    steps = wide if zero is None else wide - zero.astype(wide.dtype)
    found: Array = converted(steps.astype(np.result_type(scale.dtype, np.float32)) * scale, dtype)
    return found
