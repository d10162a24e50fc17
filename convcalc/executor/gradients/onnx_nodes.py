"""Gradients of the nodes of ONNX files that `convcalc.executor.onnx_nodes` computes otherwise than their layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from convcalc.executor.gradients.reduce import cumulate_gradient
from convcalc.executor.kernels import Array, Gradients, Weights, gradient_of, kernel_of
from convcalc.records import replace
from convcalc.tracing import product

Compute = Callable[
    [Any, Mapping[str, Any], tuple[Array, ...], tuple[Array, ...], Weights, tuple[Array, ...]], Gradients
]
"""From the bound layer, the node's attributes, its inputs, outputs and weights, and the outputs' gradients."""


def _layers_own(
    layer: Any,
    attributes: Mapping[str, Any],
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """The layer's, whatever the attributes say."""
    return gradient_of(layer)(layer, inputs, outputs, weights, grads)


def _nothing(layer: Any, attributes: Mapping[str, Any], inputs: tuple[Array, ...], *_: Any) -> Gradients:
    """What goes out are whole numbers, or stays as it is for a small change."""
    return (None,) * len(inputs), {}


def _cumulate(
    layer: Any,
    attributes: Mapping[str, Any],
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """The layer's, of what is turned round with reverse; with exclusive each output is the next one's."""
    turn = slice(None, None, -1 if attributes.get("reverse") else 1)
    x, grad = (np.moveaxis(array, layer.dim, 0)[turn] for array in (inputs[0], grads[0]))
    if attributes.get("exclusive"):
        grad = np.concatenate([grad[1:], np.zeros_like(grad[:1])])
    (found,), _ = cumulate_gradient(replace(layer, dim=0), (x,), (), weights, (grad,))
    return (np.moveaxis(np.asarray(found)[turn], 0, layer.dim),), {}


def _mod(
    layer: Any,
    attributes: Mapping[str, Any],
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """a - b·n, n being how often b is taken from a: 1 and -n."""
    from convcalc.executor.join import unbroadcast

    a, b = inputs
    if outputs[0].dtype.kind != "f":
        return (None, None), {}
    times = np.rint((a - outputs[0]) / b)
    return (unbroadcast(grads[0], a.shape), unbroadcast(-grads[0] * times, b.shape)), {}


def _shrink(
    layer: Any,
    attributes: Mapping[str, Any],
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """The gradient outside of -lambd to lambd."""
    return (grads[0] * (np.abs(inputs[0]) > attributes.get("lambd", 0.5)),), {}


def _trilu(
    layer: Any,
    attributes: Mapping[str, Any],
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """The gradient where nothing was set to 0."""
    from convcalc.executor.onnx_nodes import NODES

    return (*NODES["Trilu"](layer, attributes, (grads[0], *inputs[1:]), weights), *(None,) * (len(inputs) - 1)), {}


def _group_norm(
    layer: Any,
    attributes: Mapping[str, Any],
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """The layer's; before opset 21 through the scale of each group, which with the bias has a gradient too."""
    (grad,) = grads
    if len(inputs) == 1:
        return gradient_of(layer)(layer, inputs, outputs, weights, grads)
    x, scale, _ = inputs
    normal = kernel_of(layer)(layer, (x,), weights)
    column = (-1, *(1,) * (x.ndim - 2))
    wide = np.repeat(scale, x.shape[1] // layer.num_groups).reshape(column)
    (of_x,), learned = gradient_of(layer)(layer, (x,), normal, weights, (grad * wide,))
    by_groups = (len(x), layer.num_groups, -1)
    of_scale, of_bias = (part.reshape(by_groups).sum(axis=(0, 2)) for part in (grad * normal[0], grad))
    return (of_x, of_scale, of_bias), learned


def _max_unpool(
    layer: Any,
    attributes: Mapping[str, Any],
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """Each value's gradient is what stands at its place; none where a smaller output leaves it out."""
    values, indices = inputs
    (pooled,) = replace(layer, output_size=None).infer(values.shape, indices.shape)
    whole = np.zeros(pooled, grads[0].dtype)
    corner = tuple(slice(min(size, other)) for size, other in zip(pooled, grads[0].shape, strict=True))
    whole[corner] = grads[0][corner]
    return (whole.reshape(product(pooled))[indices.reshape(-1)].reshape(values.shape), None), {}


NODES: Mapping[str, Compute] = {
    "MaxPool": _layers_own,
    "CumSum": _cumulate,
    "CumProd": _cumulate,
    "Mod": _mod,
    "Shrink": _shrink,
    "Trilu": _trilu,
    "GroupNormalization": _group_norm,
    "MaxUnpool": _max_unpool,
    **dict.fromkeys(("ArgMax", "ArgMin", "IsInf", "BitShift", "Hardmax"), _nothing),
}
"""What gives the gradients of a node of this op instead of its layer's function."""
WITHOUT: Mapping[str, str] = {
    "If": "has a branch of its own to go back through",
    "BitCast": "takes the bits of numbers, not the numbers,",
    **dict.fromkeys(("ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul"), "rounds"),
}
"""What has no gradients, and why."""
