"""Transposed convolution as a convolution for each phase of the stride: output s·q + r sees taps r, r + s, ... only.

Source: Shi et al., Is the deconvolution layer the same as a convolutional layer?, 2016.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product as combinations
from typing import Any, NamedTuple, cast

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


class Phase(NamedTuple):
    """A phase of all axes: where it stands in the output, what of the input it reads, and the convolution it is.

    Without a problem no input element reaches it.
    """

    axes: tuple[AxisPhase, ...]
    target: tuple[slice, ...]
    source: tuple[slice, ...]
    problem: Problem | None


def phases(layer: ConvTranspose, x: Shape, y: Shape) -> Iterator[Phase]:
    """The phases of a transposed convolution of an input and output of these shapes."""
    before = [pair[0] for pair in cast("Pairs", layer.padding)]
    axes = per_axis(axis_phases, x[2:], y[2:], layer.kernel_size, layer.stride, layer.dilation, before)
    for own in combinations(*axes):
        target = tuple(slice(phase.first, None, stride) for phase, stride in zip(own, layer.stride, strict=True))
        source, pads = _cut(x, [phase.pads for phase in own])
        sizes = per_axis(lambda part, size: len(range(*part.indices(size))), source, x[2:])
        problem = None
        if all(sizes) and all(phase.taps for phase in own):
            taps, ones = tuple(len(phase.taps) for phase in own), (1,) * len(own)
            outputs = (*y[:2], *(phase.outputs for phase in own))
            problem = Problem(taps, ones, layer.dilation, pads, layer.bound[2], (*x[:2], *sizes), outputs)
        yield Phase(own, target, source, problem)


def algorithm_of_phase(problem: Problem, dtype: np.dtype[Any]) -> str:
    """The algorithm for a phase, which is small where the whole is not."""
    name = algorithm_for(problem, [dtype])
    return name if name != "direct" else "grouped" if problem.groups > 1 else "im2col"


def subpixel(layer: ConvTranspose, x: Array, weights: Weights, shape: Shape) -> Array:
    """The transposed convolution of `x`, of this output shape, phase by phase."""
    out = np.empty(shape, x.dtype)
    for place, phase in enumerate(phases(layer, x.shape, shape)):
        target = out[(slice(None), slice(None), *phase.target)]
        if phase.problem is None:
            target[:] = weights["bias"].reshape(-1, *(1,) * len(phase.axes)) if "bias" in weights else 0
            continue
        ready = derived(weights, f"phase {place}", partial(_phase_weights, layer, weights, phase.axes))
        part = x[(slice(None), slice(None), *phase.source)]
        convolve(algorithm_of_phase(phase.problem, x.dtype), phase.problem, part, ready, out=target)
    return out


def _phase_weights(layer: ConvTranspose, weights: Weights, axes: Sequence[AxisPhase]) -> LayerWeights:
    """The weights (O, C / groups, *taps) of the convolution that a phase is."""
    weight, groups = weights["weight"], layer.bound[2]
    own = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).swapaxes(1, 2)
    for axis, phase in enumerate(axes, 3):
        own = own.take(phase.taps, axis)
    own = own.reshape(-1, *own.shape[2:])
    return LayerWeights({**weights, "weight": np.ascontiguousarray(own)})


def _cut(x: Shape, pads: Sequence[tuple[int, int]]) -> tuple[tuple[slice, ...], Pairs]:
    """What is left of each axis when negative padding has cut off its part, and the padding that is left."""
    cuts = tuple(
        slice(max(-before, 0), size + min(after, 0)) for (before, after), size in zip(pads, x[2:], strict=True)
    )
    return cuts, tuple((max(before, 0), max(after, 0)) for before, after in pads)
