"""Nodes of ONNX files whose numbers hang on attributes that their layers, which tell shapes and costs, do not have.

`NODES` is the table from an op to the function that computes it, from the node, its inputs and its weights; it is asked
before the layer's kernel. `refuse` says which nodes cannot be run though their layers could.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from convcalc.errors import UnsupportedOpError
from convcalc.executor.kernels import Array, Weights, kernel_of
from convcalc.layers.base import Layer
from convcalc.network import Node

Compute = Callable[[Any, Mapping[str, Any], tuple[Array, ...], Weights], tuple[Array, ...]]
"""From the bound layer, the node's attributes, its inputs and its weights."""


def _arg(layer: Any, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Of equal elements the first, or with select_last_index the last."""
    (x,) = inputs
    (axis,) = layer.axes(x.shape)
    if not attributes.get("select_last_index"):
        return kernel_of(layer)(layer, inputs, weights)
    found = kernel_of(layer)(layer, (np.flip(x, axis),), weights)[0]
    return (x.shape[axis] - 1 - found,)


def _cumulate(
    layer: Any, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """From the other end with reverse; without the element itself with exclusive."""
    x = np.moveaxis(inputs[0], layer.dim, 0)
    x = x[::-1] if attributes.get("reverse") else x
    function, start = (np.cumsum, 0) if layer.function == "sum" else (np.cumprod, 1)
    found = function(x, axis=0, dtype=x.dtype)
    if attributes.get("exclusive"):
        found = np.concatenate([np.full_like(found[:1], start), found[:-1]])
    found = found[::-1] if attributes.get("reverse") else found
    return (np.moveaxis(found, 0, layer.dim),)


def _is_inf(
    layer: Layer, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """Infinite, of the signs that are asked for."""
    (x,) = inputs
    wanted = np.zeros(x.shape, bool)
    if attributes.get("detect_positive", 1):
        wanted |= x > 0
    if attributes.get("detect_negative", 1):
        wanted |= x < 0
    return (np.isinf(x) & wanted,)


def _mod(layer: Layer, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The remainder with the divisor's sign, or with fmod the dividend's."""
    return (np.fmod(*inputs) if attributes.get("fmod") else np.mod(*inputs),)


def _bit_shift(
    layer: Layer, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """To the left or to the right."""
    left = attributes.get("direction") in ("LEFT", b"LEFT")
    return (np.left_shift(*inputs) if left else np.right_shift(*inputs),)


def _hardmax(
    layer: Layer, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """1 for the first of the largest along the axis, 0 elsewhere."""
    (x,) = inputs
    axis = attributes.get("axis", -1)
    result = np.zeros_like(x)
    np.put_along_axis(result, np.expand_dims(np.argmax(x, axis=axis), axis), 1, axis=axis)
    return (result,)


def _shrink(
    layer: Layer, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """Nearer to 0 by the bias, and 0 between -lambd and lambd."""
    (x,) = inputs
    bias, lambd = (np.asarray(attributes.get(name, other), x.dtype) for name, other in (("bias", 0.0), ("lambd", 0.5)))
    return (np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, np.zeros_like(x))),)


NODES: Mapping[str, Compute] = {
    "ArgMax": _arg,
    "ArgMin": _arg,
    "CumSum": _cumulate,
    "CumProd": _cumulate,
    "IsInf": _is_inf,
    "Mod": _mod,
    "BitShift": _bit_shift,
    "Hardmax": _hardmax,
    "Shrink": _shrink,
}
"""What computes a node of this op instead of its layer's kernel."""

_WHOLE = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "MaxUnpool")
"""Ops with inputs that their layers leave out: zero points, scales, the place of each maximum in the whole."""


def refuse(node: Node) -> None:
    """Raise `UnsupportedOpError` for a node that would give other numbers than it should."""
    attributes = node.attributes
    reason = ""
    if node.op in _WHOLE:
        reason = "is not computed"
    elif node.op == "Dropout" and attributes.get("training_mode"):
        reason = "in training mode drops at random"
    elif node.op == "GroupNormalization" and not node.weights:
        reason = "with a scale for each group is not computed"
    elif node.op == "MaxPool" and attributes.get("storage_order"):
        reason = "with places counted by columns is not computed"
    elif node.op == "BatchNormalization" and attributes.get("training_mode"):
        reason = "in training mode is not computed"
    elif node.op == "LpPool" and attributes.get("p", 2) % 2:
        reason = "of an odd power is not computed"
    if reason:
        raise UnsupportedOpError(f"{node.op} {reason}")
