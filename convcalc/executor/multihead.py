"""Attention with its projections."""

from __future__ import annotations

import numpy as np

from convcalc.executor.attention import attend
from convcalc.executor.kernels import Array, Weights, kernel
from convcalc.executor.products import rows_times
from convcalc.layers.matmul import Attention
from convcalc.layers.multihead import MultiheadAttention
from convcalc.records import replace


def projected(
    layer: MultiheadAttention, inputs: tuple[Array, ...], weights: Weights
) -> tuple[tuple[Array, ...], tuple[Array, ...], list[Array]]:
    """Queries, keys and values, the batch first; the same projected; and the three weights."""
    three = (inputs[0],) * 3 if len(inputs) == 1 else inputs[:3]
    three = tuple(x if layer.batch_first else x.swapaxes(0, 1) for x in three)
    rows = np.split(weights["in_proj_weight"], 3)
    biases = np.split(weights["in_proj_bias"], 3) if layer.bias else (0, 0, 0)
    return (
        three,
        tuple(rows_times(x, weight.T) + bias for x, weight, bias in zip(three, rows, biases, strict=True)),
        rows,
    )


def attended(
    layer: MultiheadAttention, inputs: tuple[Array, ...], projections: tuple[Array, ...]
) -> tuple[Attention, tuple[Array, ...], tuple[Array, ...]]:
    """The attention between the projections, its masks, and what it gives."""
    attention, masks = layer.attention(), inputs[3:]
    if masks:
        attention = replace(attention, given=("mask",), masked=True)
        # True hides here, and shows in the attention.
        masks = tuple(~mask if mask.dtype == bool else mask for mask in masks)
    return attention, masks, attend(attention, (*projections, *masks))


@kernel(MultiheadAttention)
def multihead(layer: MultiheadAttention, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Three products, the attention by heads, and a product."""
    _, _, (found,) = attended(layer, inputs, projected(layer, inputs, weights)[1])
    found = rows_times(found, weights["out_proj.weight"].T) + (weights["out_proj.bias"] if layer.bias else 0)
    return (found if layer.batch_first else found.swapaxes(0, 1),)
