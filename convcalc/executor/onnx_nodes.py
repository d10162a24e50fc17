"""Nodes of ONNX files whose numbers hang on attributes that their layers, which tell shapes and costs, do not have.

`NODES` is the table from an op to the function that computes it, from the node, its inputs and its weights; it is asked
before the layer's kernel. `refuse` says which nodes cannot be run though their layers could.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from convcalc.analysis.shapes import Resolved
from convcalc.errors import ShapeError, UnsupportedOpError
from convcalc.executor.kernels import Array, Gradients, Weights, gradient_of, kernel_of
from convcalc.executor.quantized import conv_integer, matmul_integer, qlinear_conv, qlinear_matmul
from convcalc.layers.base import Layer
from convcalc.narrow import holder
from convcalc.network import Network
from convcalc.records import replace
from convcalc.tracing import product

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


def _bit_cast(
    layer: Any, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """The same bits as another type."""
    (x,) = inputs
    if holder(layer.dtype) != layer.dtype or x.dtype.itemsize != np.dtype(layer.dtype).itemsize:
        raise UnsupportedOpError(f"BitCast to {layer.dtype} is not computed: its bits are not held as they are")
    return (x.view(layer.dtype),)


def _trilu(
    layer: Layer, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """Zeros below (upper) or above the diagonal, or one that is k places beside it."""
    x, *place = inputs
    keep = np.triu if attributes.get("upper", 1) else np.tril
    return (keep(x, int(place[0].reshape(())) if place else 0),)


def _group_norm(
    layer: Any, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """Before opset 21 a scale and a bias come in for each group."""
    found = kernel_of(layer)(layer, inputs[:1], weights)
    if len(inputs) == 1:
        return found
    column = (-1, *(1,) * (inputs[0].ndim - 2))
    scale, bias = (np.repeat(x, inputs[0].shape[1] // layer.num_groups).reshape(column) for x in inputs[1:])
    return (found[0] * scale + bias,)


def _max_pool(
    layer: Any, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """Places are counted in the whole tensor, not in each channel; with storage_order the last axis comes last."""
    best, *indices = kernel_of(layer)(layer, inputs, weights)
    if not indices:
        return (best,)
    shape = inputs[0].shape
    (found,) = indices
    if attributes.get("storage_order"):
        found = np.ravel_multi_index(np.unravel_index(found, shape[2:])[::-1], shape[:1:-1])
    planes = np.arange(product(shape[:2])).reshape(*shape[:2], *(1,) * (len(shape) - 2))
    return best, (planes * product(shape[2:]) + found).astype(np.int64)


def _max_unpool(
    layer: Any, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """Places are counted in the whole of what was pooled, which is put into the corner of a larger output."""
    values, indices = inputs
    plain = replace(layer, output_size=None)
    (pooled,), (shape,) = plain.infer(values.shape, indices.shape), layer.infer(values.shape, indices.shape)
    whole = np.zeros(product(pooled), values.dtype)
    if indices.size and not 0 <= indices.min() <= indices.max() < whole.size:
        raise ShapeError(f"an index is {indices.max()}, but the output has places 0 to {whole.size - 1}")
    whole[indices.reshape(-1)] = values.reshape(-1)
    result = np.zeros(shape, values.dtype)
    corner = tuple(slice(min(size, other)) for size, other in zip(pooled, shape, strict=True))
    result[corner] = whole.reshape(pooled)[corner]
    return (result,)


def _if(layer: Layer, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The branch that the condition chooses, on those of the further inputs that it takes."""
    from convcalc.executor.run import compute, prepare

    branch: Network = attributes["then_branch" if inputs[0].reshape(()) else "else_branch"]
    given = dict(zip(attributes["inputs"], inputs, strict=True))
    result = compute(prepare(branch, {name: given[name] for name in branch.inputs}))
    return tuple(result.outputs[name] for name in branch.outputs)


NODES: Mapping[str, Compute] = {
    "If": _if,
    "ArgMax": _arg,
    "ArgMin": _arg,
    "CumSum": _cumulate,
    "CumProd": _cumulate,
    "IsInf": _is_inf,
    "Mod": _mod,
    "BitShift": _bit_shift,
    "Hardmax": _hardmax,
    "Shrink": _shrink,
    "BitCast": _bit_cast,
    "Trilu": _trilu,
    "GroupNormalization": _group_norm,
    "MaxPool": _max_pool,
    "MaxUnpool": _max_unpool,
    "ConvInteger": conv_integer,
    "QLinearConv": qlinear_conv,
    "MatMulInteger": matmul_integer,
    "QLinearMatMul": qlinear_matmul,
}
"""What computes a node of this op instead of its layer's kernel."""


def computing(item: Resolved) -> Callable[[tuple[Array, ...], Weights], tuple[Array, ...]]:
    """What computes a layer, from its inputs and weights. Calling it raises `UnsupportedOpError` if nothing does."""
    layer, node = item.layer, item.node
    if node.op in NODES:
        return lambda inputs, weights: NODES[node.op](layer, node.attributes, inputs, weights)
    return lambda inputs, weights: kernel_of(layer)(layer, inputs, weights)


def differentiating(item: Resolved, *, of_inputs: bool = True) -> Callable[[Any, Any, Weights, Any], Gradients]:
    """What gives a layer's gradients, from its inputs, outputs, weights, and the outputs' gradients.

    Without `of_inputs` theirs may be left out. Calling it raises `UnsupportedOpError` if nothing gives them.
    """
    layer, node = item.layer, item.node
    if node.op in NODES:
        from convcalc.executor.gradients.onnx_nodes import NODES as GRADIENTS, WITHOUT

        if node.op in WITHOUT:
            raise UnsupportedOpError(f"{node.op} {WITHOUT[node.op]} and has no gradient here, so that nothing before it"
                                     " can be fitted")  # fmt: skip
        return lambda inputs, outputs, weights, grads: GRADIENTS[node.op](
            layer, node.attributes, inputs, outputs, weights, grads
        )
    return lambda inputs, outputs, weights, grads: gradient_of(layer, of_inputs=of_inputs)(
        layer, inputs, outputs, weights, grads
    )


def refuse(item: Resolved) -> None:
    """Raise `UnsupportedOpError` for a node that cannot be run, or would give other numbers than it should."""
    node = item.node
    # An If runs though nobody knows which of its branches does; another node without a layer does not.
    reason = item.unknown if node.op != "If" or not item.outputs else ""
    reason = reason or str(node.attributes.get("lacking", ""))
    if node.op == "Dropout" and node.attributes.get("training_mode") and getattr(node.layer, "p", 0):
        reason = "Dropout in training mode drops at random"
    if reason:
        raise UnsupportedOpError(reason)
