"""Joins: several arrays into one."""

from __future__ import annotations

from functools import reduce
from math import prod

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, gradient, kernel, largest, refuse_wrapping
from convcalc.executor.pieces import able, together
from convcalc.layers.base import Shape
from convcalc.layers.join import Add, Concat, Mul


@kernel(Add)
def add(layer: Add, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The sum of all, broadcast."""
    if all(x.dtype.kind != "f" for x in inputs):
        refuse_wrapping(sum(map(largest, inputs)))
    return (together(_added, *inputs) if able(*inputs) and len(inputs) > 1 else reduce(np.add, inputs),)


def _added(*arrays: Array) -> Array:
    return reduce(np.add, arrays)


@gradient(Add)
def add_gradient(
    layer: Add, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """The gradient itself, for every input."""
    return tuple(unbroadcast(grads[0], x.shape) for x in inputs), {}


@kernel(Mul)
def mul(layer: Mul, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The product of all, broadcast."""
    if all(x.dtype.kind != "f" for x in inputs):
        refuse_wrapping(prod(map(largest, inputs)))
    return (together(_multiplied, *inputs) if able(*inputs) and len(inputs) > 1 else reduce(np.multiply, inputs),)


def _multiplied(*arrays: Array) -> Array:
    return reduce(np.multiply, arrays)


@gradient(Mul)
def mul_gradient(
    layer: Mul, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """The gradient times all other inputs."""
    return tuple(
        unbroadcast(reduce(np.multiply, (*inputs[:index], *inputs[index + 1 :]), grads[0]), x.shape)
        for index, x in enumerate(inputs)
    ), {}


def unbroadcast(grad: Array, shape: Shape) -> Array:
    """The gradient of an input of this shape: added up where the input was repeated."""
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    repeated = tuple(axis for axis, size in enumerate(shape) if size == 1 and grad.shape[axis] > 1)
    result: Array = grad.sum(axis=repeated, keepdims=True)
    return result


@kernel(Concat)
def concat(layer: Concat, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """One after the other."""
    return (np.concatenate(inputs, axis=layer.dim),)


@gradient(Concat)
def concat_gradient(
    layer: Concat, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Each input's part."""
    ends = np.cumsum([x.shape[layer.dim] for x in inputs])[:-1]
    return tuple(np.split(grads[0], ends, axis=layer.dim)), {}
