"""Transposed convolution as a convolution for each phase of the stride: output s·q + r sees taps r, r + s, ... only.

Source: Shi et al., Is the deconvolution layer the same as a convolutional layer?, 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product as combinations
from typing import NamedTuple, cast

import numpy as np

from convcalc.executor.algorithms import algorithm_for, convolve
from convcalc.executor.blocks import Problem
from convcalc.executor.kernels import Array, LayerWeights, Weights, derived
from convcalc.layers.base import Pairs, Shape
from convcalc.layers.conv import ConvTranspose
from convcalc.tracing import ceil_div, per_axis


class AxisPhase(NamedTuple):
    """Every stride-th output of an axis from `first` on, `outputs` of them: a convolution of the input.

    `pads` are zeros around the input; negative numbers cut it. The taps are the kernel's, last to first.
    """

    first: int
    outputs: int
    taps: range
    pads: tuple[int, int]


def axis_phases(size: int, output: int, kernel: int, stride: int, dilation: int, before: int) -> list[AxisPhase]:
    """The phases of an axis, with stride or dilation 1; `before` is the layer's padding, which crops the output.

    Output u of the uncropped axis is the sum over taps k of weight[k]·x[(u - k·dilation) / stride].

    >>> axis_phases(28, 56, 4, 2, 1, 1)[0]
    AxisPhase(first=0, outputs=28, taps=range(3, -1, -2), pads=(1, 0))
    """
    phases = []
    for first in range(min(stride, output)):
        taps = range((first + before) % stride, kernel, stride)
        count = ceil_div(output - first, stride)
        if not taps:
            phases.append(AxisPhase(first, count, taps, (0, 0)))
            continue
        # The first output reads the last tap at the input element (first + before - last tap) / stride.
        low = (first + before - taps[-1] * dilation) // stride
        high = low + count - 1 + (len(taps) - 1) * dilation
        phases.append(AxisPhase(first, count, taps[::-1], (-low, high - size + 1)))
    return phases


def subpixel(layer: ConvTranspose, x: Array, weights: Weights, shape: Shape) -> Array:
    """The transposed convolution of `x`, of this output shape, phase by phase."""
    out = np.empty(shape, x.dtype)
    before = [pair[0] for pair in cast("Pairs", layer.padding)]
    axes = per_axis(axis_phases, x.shape[2:], shape[2:], layer.kernel_size, layer.stride, layer.dilation, before)
    for place, phases in enumerate(combinations(*axes)):
        spots = (slice(phase.first, None, stride) for phase, stride in zip(phases, layer.stride, strict=True))
        target = out[(slice(None), slice(None), *spots)]
        part, pads = _cut(x, [phase.pads for phase in phases])
        if not part.size or not all(phase.taps for phase in phases):  # no input element reaches these
            target[:] = weights["bias"].reshape(-1, *(1,) * len(phases)) if "bias" in weights else 0
            continue
        ready = derived(weights, f"phase {place}", partial(_phase_weights, layer, weights, phases))
        taps = tuple(len(phase.taps) for phase in phases)
        ones = (1,) * len(taps)
        problem = Problem(taps, ones, layer.dilation, pads, layer.bound[2], part.shape, target.shape)
        name = algorithm_for(problem, [x.dtype])
        if name == "direct":  # a phase is small where the whole is not
            name = "grouped" if problem.groups > 1 else "im2col"
        convolve(name, problem, part, ready, out=target)
    return out


def _phase_weights(layer: ConvTranspose, weights: Weights, phases: Sequence[AxisPhase]) -> LayerWeights:
    """The weights (O, C / groups, *taps) of the convolution that a phase is."""
    weight, groups = weights["weight"], layer.bound[2]
    own = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).swapaxes(1, 2)
    for axis, phase in enumerate(phases, 3):
        own = own.take(phase.taps, axis)
    own = own.reshape(-1, *own.shape[2:])
    return LayerWeights({**weights, "weight": np.ascontiguousarray(own)})


def _cut(x: Array, pads: Sequence[tuple[int, int]]) -> tuple[Array, Pairs]:
    """The input without what negative padding cuts off, and the padding that is left."""
    cuts = (
        slice(max(-before, 0), size + min(after, 0)) for (before, after), size in zip(pads, x.shape[2:], strict=True)
    )
    return x[(slice(None), slice(None), *cuts)], tuple((max(before, 0), max(after, 0)) for before, after in pads)
