"""Attention with its projections."""

from __future__ import annotations

import numpy as np

from convcalc.executor.attention import attend
from convcalc.executor.kernels import Array, Weights, kernel
from convcalc.layers.multihead import MultiheadAttention
from convcalc.records import replace


@kernel(MultiheadAttention)
def multihead(layer: MultiheadAttention, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Three products, the attention by heads, and a product."""
    three = (inputs[0],) * 3 if len(inputs) == 1 else inputs[:3]
    projections = np.split(weights["in_proj_weight"], 3)
    biases = np.split(weights["in_proj_bias"], 3) if layer.bias else (0, 0, 0)
    projected = tuple(
        (x if layer.batch_first else x.swapaxes(0, 1)) @ weight.T + bias
        for x, weight, bias in zip(three, projections, biases, strict=True)
    )
    attention, masks = layer.attention(), inputs[3:]
    if masks:
        attention = replace(attention, given=("mask",), masked=True)
        # True hides here, and shows in the attention.
        masks = tuple(~mask if mask.dtype == bool else mask for mask in masks)
    (found,) = attend(attention, (*projected, *masks))
    found = found @ weights["out_proj.weight"].T + (weights["out_proj.bias"] if layer.bias else 0)
    return (found if layer.batch_first else found.swapaxes(0, 1),)
