"""The gradient of attention with its projections."""

from __future__ import annotations

import numpy as np

from convcalc.executor.gradients.matmul import attention_gradient
from convcalc.executor.kernels import Array, Gradients, Weights, gradient
from convcalc.executor.multihead import attended, projected
from convcalc.layers.multihead import MultiheadAttention


@gradient(MultiheadAttention)
def multihead_gradient(
    layer: MultiheadAttention,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """Back through the last product, the attention, and the three before it."""
    three, projections, rows = projected(layer, inputs, weights)
    attention, masks, (mixed,) = attended(layer, inputs, projections)
    (grad,) = (grads[0] if layer.batch_first else grads[0].swapaxes(0, 1),)
    size = layer.embed_dim
    flat = grad.reshape(-1, size)
    learned = {"out_proj.weight": flat.T @ mixed.reshape(-1, size)}
    of_mixed = (flat @ weights["out_proj.weight"]).reshape(mixed.shape)
    of_all, _ = attention_gradient(attention, (*projections, *masks), (mixed,), {}, (of_mixed,))
    of_rows = [np.asarray(of).reshape(-1, size) for of in of_all[:3]]
    learned["in_proj_weight"] = np.concatenate(
        [of.T @ x.reshape(-1, size) for of, x in zip(of_rows, three, strict=True)]
    )
    if layer.bias:
        learned["out_proj.bias"] = flat.sum(axis=0)
        learned["in_proj_bias"] = np.concatenate([of.sum(axis=0) for of in of_rows])
    back = [(of @ weight).reshape(x.shape) for of, weight, x in zip(of_rows, rows, three, strict=True)]
    turned = [of if layer.batch_first else of.swapaxes(0, 1) for of in back]
    found = (sum(turned[1:], turned[0]),) if len(inputs) == 1 else tuple(turned)
    return (*found, *of_all[3:]), learned
