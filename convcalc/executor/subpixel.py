"""Transposed convolution as a convolution for each phase of the stride: output s·q + r sees taps r, r + s, ... only.

Source: Shi et al., Is the deconvolution layer the same as a convolutional layer?, 2016.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import product as combinations
from typing import Any, NamedTuple, cast

import numpy as np

from convcalc.executor.algorithms import algorithm_for, convolve, cost_of, used_once
from convcalc.executor.blocks import Problem, even_slices
from convcalc.executor.kernels import Array, LayerWeights, Weights, derived
from convcalc.executor.threads import Calls, share_calls, thread_count
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
        yield _phase(own, x, y, layer.stride, layer.dilation, layer.bound[2])


def _phase(
    own: tuple[AxisPhase, ...], x: Shape, y: Shape, stride: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> Phase:
    """The phase of these phases of the axes."""
    target = tuple(slice(phase.first, None, step) for phase, step in zip(own, stride, strict=True))
    source, pads = cut(x, [phase.pads for phase in own])
    sizes = per_axis(lambda part, size: len(range(*part.indices(size))), source, x[2:])
    problem = None
    if all(sizes) and all(phase.taps for phase in own):
        taps, ones = tuple(len(phase.taps) for phase in own), (1,) * len(own)
        outputs = (*y[:2], *(phase.outputs for phase in own))
        problem = Problem(taps, ones, dilation, pads, groups, (*x[:2], *sizes), outputs)
    return Phase(own, target, source, problem)


def algorithm_of_phase(problem: Problem, dtype: np.dtype[Any]) -> str:
    """The algorithm for a phase, which is small where the whole is not."""
    name = algorithm_for(problem, [dtype])
    return name if name != "direct" else "grouped" if problem.groups > 1 else "im2col"


class Together(NamedTuple):
    """All phases as one convolution with an output channel of each for every channel.

    `source` is what of the input it reads, `places` what of its outputs each phase is, and where that stands.
    """

    source: tuple[slice, ...]
    problem: Problem
    places: tuple[tuple[tuple[slice, ...], tuple[slice, ...]], ...]


def together(layer: ConvTranspose, x: Shape, y: Shape) -> Together | None:
    """The phases in one, where that takes less than they do one by one: all read nearly the same windows.

    None too where they have different numbers of taps: no number is multiplied that has no part in an output.
    """
    before = tuple(pair[0] for pair in cast("Pairs", layer.padding))
    return _together(x, y, layer.kernel_size, layer.stride, layer.dilation, before, layer.bound[2], used_once())


@lru_cache(maxsize=1024)
def _together(
    x: Shape,
    y: Shape,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    before: tuple[int, ...],
    groups: int,
    once: bool,
) -> Together | None:
    axes = per_axis(axis_phases, x[2:], y[2:], kernel_size, stride, dilation, before)
    own = [_phase(phase, x, y, stride, dilation, groups) for phase in combinations(*axes)]
    alone = [phase.problem for phase in own if phase.problem is not None]
    if len(own) == 1 or len(alone) < len(own) or len({problem.kernel_size for problem in alone}) > 1:
        return None
    starts = []
    pads = []
    counts = []
    for phases_of_axis, size, wide in zip(axes, x[2:], dilation, strict=True):
        # Every window begins at the same input element as that of the phase that begins first.
        first = min(-phase.pads[0] for phase in phases_of_axis)
        starts.append([-phase.pads[0] - first for phase in phases_of_axis])
        counts.append(max(s + phase.outputs for s, phase in zip(starts[-1], phases_of_axis, strict=True)))
        last = first + counts[-1] - 1 + (len(phases_of_axis[0].taps) - 1) * wide
        pads.append((-first, last - size + 1))
    source, rest = cut(x, pads)
    sizes = per_axis(lambda part, size: len(range(*part.indices(size))), source, x[2:])
    outputs = (y[0], y[1] * len(own), *counts)
    ones = (1,) * len(counts)
    problem = Problem(alone[0].kernel_size, ones, dilation, rest, groups, (*x[:2], *sizes), outputs)
    if cost_of(problem) > sum(map(cost_of, alone)):
        return None
    windows = (
        tuple(slice(start, start + phase.outputs) for start, phase in zip(start_of, phase_of.axes, strict=True))
        for start_of, phase_of in zip(combinations(*starts), own, strict=True)
    )
    return Together(source, problem, tuple(zip(windows, (phase.target for phase in own), strict=True)))


def subpixel(layer: ConvTranspose, x: Array, weights: Weights, shape: Shape) -> Array:
    """The transposed convolution of `x`, of this output shape, phase by phase or all phases in one."""
    out = np.empty(shape, x.dtype)
    whole = together(layer, x.shape, shape)
    if whole is not None:
        ready = derived(weights, "phases", partial(_weights_together, layer, weights, x.shape, shape))
        part = x[(slice(None), slice(None), *whole.source)]
        found = convolve(algorithm_of_phase(whole.problem, x.dtype), whole.problem, part, ready)
        _interleave(found, whole, layer, out)
        return out
    for place, phase in enumerate(phases(layer, x.shape, shape)):
        target = out[(slice(None), slice(None), *phase.target)]
        if phase.problem is None:
            target[:] = weights["bias"].reshape(-1, *(1,) * len(phase.axes)) if "bias" in weights else 0
            continue
        ready = derived(weights, f"phase {place}", partial(_phase_weights, layer, weights, phase.axes))
        part = x[(slice(None), slice(None), *phase.source)]
        convolve(algorithm_of_phase(phase.problem, x.dtype), phase.problem, part, ready, out=target)
    return out


def _interleave(found: Array, whole: Together, layer: ConvTranspose, out: Array) -> None:
    """Write the outputs of all phases, found (N, groups · phases · O / groups, *sizes), to their places."""
    groups = layer.bound[2]
    apart = found.reshape(len(found), groups, len(whole.places), -1, *found.shape[2:])
    target = out.reshape(len(out), groups, -1, *out.shape[2:])

    def work(part: tuple[int, slice]) -> Calls:
        image, channels = part
        calls: Calls = []
        for phase, (own, place) in enumerate(whole.places):
            made = apart[image][:, phase, channels]
            calls.append((np.copyto, (target[image][:, channels][(..., *place)], made[(..., *own)])))
        return calls

    count = 1 if len(out) > 1 else thread_count()
    share_calls(work, list(combinations(range(len(out)), even_slices(target.shape[2], count))))


def _weights_together(layer: ConvTranspose, weights: Weights, x: Shape, y: Shape) -> LayerWeights:
    """The weights (groups · phases · O / groups, C / groups, *taps) of all phases in one."""
    groups = layer.bound[2]
    each = [_phase_weights(layer, weights, phase.axes)["weight"] for phase in phases(layer, x, y)]
    apart = [array.reshape(groups, -1, *array.shape[1:]) for array in each]
    ready = {"weight": np.stack(apart, axis=1).reshape(-1, *each[0].shape[1:])}
    if "bias" in weights:
        bias = weights["bias"].reshape(groups, 1, -1)
        ready["bias"] = np.repeat(bias, len(each), axis=1).reshape(-1)
    return LayerWeights(ready)


def _phase_weights(layer: ConvTranspose, weights: Weights, axes: Sequence[AxisPhase]) -> LayerWeights:
    """The weights (O, C / groups, *taps) of the convolution that a phase is."""
    weight, groups = weights["weight"], layer.bound[2]
    own = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).swapaxes(1, 2)
    # As a view, so that turning and reordering take one copy.
    own = own[(slice(None),) * 3 + tuple(_slice(phase.taps) for phase in axes)]
    own = own.reshape(-1, *own.shape[2:])
    return LayerWeights({**weights, "weight": np.ascontiguousarray(own)})


def _slice(taps: range) -> slice:
    """The same elements of an axis."""
    return slice(taps.start, taps.stop if taps.stop >= 0 else None, taps.step)


def cut(x: Shape, pads: Sequence[tuple[int, int]]) -> tuple[tuple[slice, ...], Pairs]:
    """What is left of each axis when negative padding has cut off its part, and the padding that is left."""
    cuts = tuple(
        slice(max(-before, 0), size + min(after, 0)) for (before, after), size in zip(pads, x[2:], strict=True)
    )
    return cuts, tuple((max(before, 0), max(after, 0)) for before, after in pads)
