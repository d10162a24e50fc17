"""`INTO`: layers without weights that are computed into a given array, all by `share_calls`, so that calls are kept.

They give the numbers that their kernels give, bit by bit. Convolutions, which have weights, are in `fusion`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from convcalc.analysis.shapes import Resolved
from convcalc.executor.adaptive import averages
from convcalc.executor.blocks import BLOCK_ELEMENTS, Activation, add_up, even_slices
from convcalc.executor.kernels import Array
from convcalc.executor.memory_format import as_they_lie
from convcalc.executor.pool import maxima
from convcalc.executor.threads import Calls, share_calls, thread_count
from convcalc.layers.adaptive import AdaptiveAvgPool, GlobalAvgPool
from convcalc.layers.base import Layer
from convcalc.layers.join import Add, Concat, Mul
from convcalc.layers.pool import MaxPool

Into = Callable[[tuple[Array, ...], Array], None]
"""Computes from arrays that come in into the one that goes out, in memory in the order that `format_choice` chose."""


def _add(layer: Add, item: Resolved) -> Into | None:
    same = len(set(item.inputs)) == 1 < len(item.inputs)
    return partial(add_up, activation=None) if same else None


def _mul(layer: Mul, item: Resolved) -> Into | None:
    """One factor for each channel."""
    whole = item.outputs[0]
    factors = (*whole[:2], *(1,) * (len(whole) - 2))
    if len(whole) < 3 or sorted(item.inputs) != sorted((whole, factors)):
        return None

    def into(inputs: tuple[Array, ...], out: Array) -> None:
        def work(own: slice) -> Calls:
            return [(np.multiply, (inputs[0][:, own], inputs[1][:, own], out[:, own]))]

        share_calls(work, even_slices(out.shape[1], thread_count()))

    return into


def _concat(layer: Concat, item: Resolved) -> Into:
    def into(inputs: tuple[Array, ...], out: Array) -> None:
        ends = np.cumsum([array.shape[layer.dim] for array in inputs[:-1]])
        share_calls(lambda pair: [(np.copyto, pair)], list(zip(np.split(out, ends, layer.dim), inputs, strict=True)))

    return into


def _average(layer: AdaptiveAvgPool | GlobalAvgPool, item: Resolved) -> Into | None:
    """Of whole images."""
    if set(item.outputs[0][2:]) != {1}:
        return None

    def into(inputs: tuple[Array, ...], out: Array) -> None:
        share_calls(lambda _: [(lambda: np.copyto(out, averages(inputs[0], out.shape)), ())], [None])

    return into


def _max_pool(layer: MaxPool, item: Resolved) -> Into | None:
    def into(inputs: tuple[Array, ...], out: Array) -> None:
        maxima(layer, inputs[0], out)

    return into if len(item.node.outputs) == 1 else None


INTO: Mapping[type[Layer], Callable[[Any, Resolved], Into | None]] = {
    Add: _add,
    Mul: _mul,
    Concat: _concat,
    AdaptiveAvgPool: _average,
    GlobalAvgPool: _average,
    MaxPool: _max_pool,
}
"""From a class of layer to what gives the function for a layer, or None for one that cannot be done so."""


def into_of(item: Resolved) -> Into | None:
    """What computes a layer into a given array, if anything does."""
    return next((INTO[cls](item.layer, item) for cls in type(item.layer).__mro__ if cls in INTO), None)


def activating(activation: Activation) -> Into:
    """A copy, activated block by block."""

    def into(inputs: tuple[Array, ...], out: Array) -> None:
        source, target = (array.reshape(-1) for array in as_they_lie(inputs[0], out))

        def work(start: int) -> Calls:
            part = target[start : start + BLOCK_ELEMENTS]
            return [(np.copyto, (part, source[start : start + BLOCK_ELEMENTS])), *activation(part)]

        share_calls(work, range(0, out.size, BLOCK_ELEMENTS))

    return into
