"""Gradients of a few steps of NumPy, from a record of what was computed: for formulas with many forms.

`Taped` arrays stand in for arrays in the formula; `pull` then gives what reaches each of them. Source: Griewank and
Walther, Evaluating derivatives, 2008, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from convcalc.executor.join import unbroadcast
from convcalc.executor.kernels import Array

SLOPES: Mapping[Any, Callable[..., tuple[Any, ...]]] = {
    np.add: lambda y, a, b: (1, 1),
    np.subtract: lambda y, a, b: (1, -1),
    np.multiply: lambda y, a, b: (b, a),
    np.true_divide: lambda y, a, b: (1 / b, -y / b),
    np.negative: lambda y, x: (-1,),
    np.tanh: lambda y, x: (1 - y * y,),
    np.expm1: lambda y, x: (y + 1,),
    np.logaddexp: lambda y, a, b: (np.exp(a - y), np.exp(b - y)),
    np.absolute: lambda y, x: (np.sign(x),),
    np.maximum: lambda y, a, b: (a > b, b >= a),
    np.minimum: lambda y, a, b: (a < b, b <= a),
    np.clip: lambda y, x, least, most: ((x >= least) & (x <= most), 0, 0),
    np.where: lambda y, chosen, a, b: (0, chosen, ~np.asarray(chosen)),
}
"""The slope for each argument, of what came out and the arguments; a corner has the slope of one side."""


class Taped(np.lib.mixins.NDArrayOperatorsMixin):
    """An array, and how the gradient of it goes back to those that it was made of."""

    def __init__(self, value: Array, sources: Sequence[tuple[Taped, Callable[[Array], Array]]] = ()) -> None:
        self.value = value
        self.sources = sources

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's."""
        return self.value.shape

    @property
    def T(self) -> Taped:  # noqa: N802  as NumPy calls it
        """The matrix turned."""
        return Taped(self.value.T, [(self, lambda grad: grad.T)])

    def __getitem__(self, key: Any) -> Taped:
        def back(grad: Array) -> Array:
            whole = np.zeros(self.value.shape, grad.dtype)
            whole[key] = grad
            return whole

        return Taped(self.value[key], [(self, back)])

    def __array_ufunc__(self, function: np.ufunc, method: str, *arguments: Any, **more: Any) -> Any:
        values = [_value(argument) for argument in arguments]
        result = function(*values)
        if function is np.matmul:
            a, b = values
            backs: list[Callable[[Array], Array]] = [lambda grad: grad @ b.T, lambda grad: a.T @ grad]
            return Taped(result, [(x, back) for x, back in zip(arguments, backs, strict=True) if isinstance(x, Taped)])
        return _recorded(function, result, arguments, values)

    def __array_function__(self, function: Any, types: Any, arguments: Sequence[Any], more: Mapping[str, Any]) -> Any:
        values = [_value(argument) for argument in arguments]
        return _recorded(function, function(*values), arguments, values)


def _value(argument: Any) -> Any:
    return argument.value if isinstance(argument, Taped) else argument


def _recorded(function: Any, result: Any, arguments: Sequence[Any], values: Sequence[Any]) -> Any:
    if result.dtype == bool:
        return result
    slopes = SLOPES[function](result, *values)
    pairs = zip(arguments, slopes, strict=True)
    return Taped(result, [(x, partial(_sloped, slope, x.shape)) for x, slope in pairs if isinstance(x, Taped)])


def _sloped(slope: Any, shape: tuple[int, ...], grad: Array) -> Array:
    return unbroadcast(grad * slope, shape)


def pull(results: Sequence[Taped], grads: Sequence[Array], sources: Sequence[Taped]) -> list[Array]:
    """The gradient of each source, from those of the results: zeros where nothing reaches it."""
    order: list[Taped] = []
    seen: set[int] = set()

    def visit(node: Taped) -> None:
        if id(node) not in seen:
            seen.add(id(node))
            for source, _ in node.sources:
                visit(source)
            order.append(node)

    for result in results:
        visit(result)
    found: dict[int, Array] = {}
    for result, grad in zip(results, grads, strict=True):
        found[id(result)] = found.get(id(result), 0) + grad
    for node in reversed(order):
        if id(node) in found:
            for source, back in node.sources:
                found[id(source)] = found.get(id(source), 0) + back(found[id(node)])
    return [found[id(source)] if id(source) in found else np.zeros_like(source.value) for source in sources]
