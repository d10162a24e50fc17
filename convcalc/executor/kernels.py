"""`KERNELS` and `GRADIENTS`: the tables from a class of layer to the functions that compute it.

A kernel takes the bound layer, the arrays that come in (batch first) and the layer's weights by name, and gives the
arrays that go out. A gradient takes besides what went out and the gradient of each output, and gives the gradient of
each input and of each weight. Neither repeats a formula: sizes are what `layer.infer` says.

The kernels of `convcalc.layers.conv` stand in `convcalc.executor.conv`, and so on: a family is loaded when one of its
layers is computed. Gradients stand beside the kernels, or in `convcalc.executor.gradients.conv`, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from math import isqrt
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from convcalc.errors import ResourceError, UnsupportedOpError
from convcalc.layers.base import Layer
from convcalc.tracing import ceil_div

Array = npt.NDArray[Any]
Weights = Mapping[str, Array]
"""A layer's weights by parameter, maybe `LayerWeights`."""
Kernel = Callable[[Any, tuple[Array, ...], Weights], tuple[Array, ...]]
Gradients = tuple[tuple[Array | None, ...], dict[str, Array]]
"""The gradients of the inputs (None: it has none, such as an index), and of the weights by name."""
Gradient = Callable[[Any, tuple[Array, ...], tuple[Array, ...], Weights, tuple[Array, ...]], Gradients]
K = TypeVar("K", bound=Callable[..., Any])

KERNELS: dict[type[Layer], Kernel] = {}
"""What computes each class of layer; a subclass for one rank finds its base's."""
GRADIENTS: dict[type[Layer], Gradient] = {}
"""What computes the gradients of each class of layer that has them here."""
WEIGHT_GRADIENTS: dict[type[Layer], Gradient] = {}
"""The same without those of the inputs (None), where that saves work and nothing before the layer learns."""


def kernel(*classes: type[Layer]) -> Callable[[K], K]:
    """Register a function as the kernel of these classes."""
    return _register(KERNELS, classes)


def gradient(*classes: type[Layer]) -> Callable[[K], K]:
    """Register a function as the gradient of these classes."""
    return _register(GRADIENTS, classes)


def weight_gradient(*classes: type[Layer]) -> Callable[[K], K]:
    """Register a function as the gradient of these classes where no input has one."""
    return _register(WEIGHT_GRADIENTS, classes)


def _register(table: dict[type[Layer], Any], classes: tuple[type[Layer], ...]) -> Callable[[K], K]:
    def register(function: K) -> K:
        for cls in classes:
            table[cls] = function
        return function

    return register


def kernel_of(layer: Layer | type[Layer]) -> Kernel:
    """The function that computes a layer. Raises `UnsupportedOpError` for a layer that has none."""
    found: Kernel | None = _find(KERNELS, layer)
    if found is None:
        raise UnsupportedOpError(f"{layer.kind} cannot be run: there is no kernel for it")
    return found


def gradient_of(layer: Layer | type[Layer], *, of_inputs: bool = True) -> Gradient:
    """The function that computes a layer's gradients. Raises `UnsupportedOpError` for a layer that has none.

    Without `of_inputs` it may leave out theirs.
    """
    found: Gradient | None = _find(GRADIENTS, layer)
    if not of_inputs:
        found = _find(WEIGHT_GRADIENTS, layer) or found
    if found is None:
        raise UnsupportedOpError(f"{layer.kind} has no gradient here, so that nothing before it can be fitted")
    return found


def _find(table: dict[type[Layer], Any], layer: Layer | type[Layer]) -> Any:
    cls = layer if isinstance(layer, type) else type(layer)
    _load(cls.__module__, gradients=table is not KERNELS)
    return next((table[base] for base in cls.__mro__ if base in table), None)


@cache
def _load(module: str, *, gradients: bool) -> None:
    """Import what computes the layers of a module, and what their gradients."""
    family = module.removeprefix("convcalc.layers.")
    for place in ("convcalc.executor", "convcalc.executor.gradients")[: 1 + gradients]:
        if family != module and find_spec(f"{place}.{family}") is not None:
            import_module(f"{place}.{family}")


class LayerWeights(dict[str, Array]):
    """A layer's weights by parameter, and what was worked out from them once, such as a transform."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        self.derived: dict[str, Any] = {}


def derived(weights: Weights, name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, made once for `LayerWeights`."""
    if not isinstance(weights, LayerWeights):
        return make()
    if name not in weights.derived:
        weights.derived[name] = make()
    return weights.derived[name]


def aligned(array: Array) -> Array:
    """The array where its numbers begin at multiples of their size, which those of a mapped file may not.

    Of any other a matrix product makes a copy every time, which may take ten times as long as the product.
    """
    result: Array = np.require(array, requirements="A")
    return result


def floats(x: Array) -> Array:
    """The array as floats: floats as they are, whole numbers as float64."""
    return x if x.dtype.kind == "f" else x.astype(np.float64)


def largest(x: Array) -> int:
    """The largest size of a whole number in the array, whatever its sign."""
    return max(int(x.max()), -int(x.min())) if x.size else 0


def refuse_wrapping(bound: int) -> None:
    """Raise `ResourceError` when whole numbers may become as large as the bound and that is too large: NumPy's wrap."""
    if bound >= 2**63:
        raise ResourceError("what becomes of these whole numbers may pass 2^63; give numbers with a decimal point")


def matmul(a: Array, b: Array) -> Array:
    """a @ b; of whole numbers exactly. Raises `ResourceError` when sums of whole numbers may pass 2^63."""
    if a.dtype.kind != "f" and b.dtype.kind != "f":
        refuse_wrapping(largest(a) * largest(b) * a.shape[-1])
        result: Array = np.matmul(a, b)
        return result
    return sums_of_products(a, b)


def parts_of(terms: int) -> int:
    """In how many parts a sum of so many terms is made: a sixth of the square root, rounded up.

    Every addition rounds, by up to half an epsilon of what is summed by then, and such errors add up as their squares
    do: n terms in p parts leave about √(n / p) of them, and adding up the parts √p. So many parts keep that below 4
    epsilons on numbers that are all positive, for the cost of some additions: of 64 terms in one part the worst of
    100,000 sums were off by 5.

    >>> [parts_of(terms) for terms in (1, 36, 37, 512, 1024)]
    [1, 1, 2, 4, 6]
    """
    return isqrt(max(terms - 1, 0)) // 6 + 1


def sums_of_products(a: Array, b: Array, out: Array | None = None, room: Array | None = None) -> Array:
    """a @ b of floats, with each sum in `parts_of` parts. `room` is as `out`, and holds one part after the other."""
    step = ceil_div(a.shape[-1], parts_of(a.shape[-1]))
    if step >= a.shape[-1] or a.ndim < 2 or b.ndim < 2:
        whole: Array = np.matmul(a, b, out=out)
        return whole
    result: Array = np.matmul(a[..., :step], b[..., :step, :], out=out)
    for start in range(step, a.shape[-1], step):
        part = slice(start, start + step)
        result += np.matmul(a[..., part], b[..., part, :], out=room)
    return result
