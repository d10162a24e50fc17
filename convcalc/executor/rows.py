"""Convolution by rows: each row of the input is laid out for the taps along the other axes alone.

What lies below each other is then what the kernel's rows see, so that the columns of an output row are a view of what
is laid out: with 7x7 windows at every second place a quarter of the copies of im2col. Where every output channel has a
group of its own a product would have one row; there a banded matrix gives `BAND` output rows at once.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product as combinations
from typing import NamedTuple

import numpy as np

from convcalc.executor.blocks import (
    BLOCK_ELEMENTS,
    COPY,
    Activation,
    Block,
    Problem,
    blocks,
    copy,
    even_slices,
    finish,
    for_threads,
    least_work,
    multiply,
    shares,
    span,
    view_of,
)
from convcalc.executor.columns import Part
from convcalc.executor.kernels import Array, parts_of
from convcalc.executor.threads import Calls, scratch, share_calls, thread_count
from convcalc.tracing import ceil_div, per_axis, product

BAND = 8
"""Output rows that a banded matrix gives: more of them are fewer products, of more zeros."""
ROWS_ELEMENTS = BLOCK_ELEMENTS * 16
"""Numbers of a block: calls cost more than what does not fit in the cache."""


def fits_rows(problem: Problem) -> bool:
    """Whether rows of the kernel see rows that follow each other."""
    return problem.rank > 1 and problem.dilation[0] == 1


def band_of(problem: Problem) -> int:
    """How many output rows a product gives: more than one where there is one output channel to a group.

    Not where sums are made in parts: parts of a band would hold all the terms of some rows.
    """
    banded = problem.output[1] == problem.groups and parts_of(problem.depth) == 1
    return min(BAND, problem.output[2]) if banded else 1


def row_weights(problem: Problem, weight: Array) -> Array:
    """Weights (O, C / groups, *kernel_size) as (groups, 1, O / groups · band, rows read · a row's depth)."""
    taps, band, step = problem.kernel_size[0], band_of(problem), problem.stride[0]
    own = np.moveaxis(weight, 2, 1).reshape(problem.groups, -1, taps, problem.depth // taps)
    read = (band - 1) * step + taps
    result = np.zeros((*own.shape[:2], band, read, own.shape[3]), weight.dtype)
    for row in range(band):
        result[:, :, row, row * step : row * step + taps] = own
    return result.reshape(problem.groups, 1, -1, read * own.shape[3])


def rows(
    problem: Problem, x: Array, weight: Array, bias: Array | None, activation: Activation | None, out: Array
) -> None:
    """Weights as `row_weights` has them, times the rows of the input laid out for the taps along the other axes."""
    groups, band, step = problem.groups, band_of(problem), problem.stride[0]
    images, channels_out, *sizes = out.shape
    taps, across = problem.kernel_size[0], product(sizes[1:])
    depth = problem.depth // taps
    source = x.reshape(images, groups, -1, *x.shape[2:])
    result = out.reshape(images, groups, channels_out // groups, sizes[0], across)
    column = None if bias is None else bias.reshape(groups, -1, 1, 1)

    def work(part: Part) -> Calls:
        calls: Calls = []
        block, own = part.block, slice(part.first, part.last)
        read = (block.height - 1) * step + taps
        laid = scratch("rows", (block.many, part.last - part.first, read, depth, across), x.dtype)
        lay_rows(problem, source[block.first : block.last, own], block.start * step, laid, calls)
        place = result[block.first : block.last, own, :, block.start : block.stop]
        # Products of `band` rows at a time, and of the rows that are left.
        whole = block.height // band * band
        for start, height, band_now in ((0, whole, band), (whole, block.height - whole, block.height - whole)):
            if height:
                part_read = (band_now - 1) * step + taps
                windows = view_of(
                    laid[:, :, start * step :],
                    (*laid.shape[:2], height // band_now, part_read * depth, across),
                    (*laid.strides[:2], band_now * step * laid.strides[2], *laid.strides[3:]),
                )
                # Of a product's rows each is a channel of one output row, or each an output row of one channel.
                target = place[:, :, :, start : start + height].swapaxes(2, 3)
                if band > 1:
                    target = target[:, :, :, 0].reshape(*target.shape[:2], -1, band_now, across)
                multiply(weight[own, :, : target.shape[3], : windows.shape[3]], windows, target, problem.depth, calls)
        finish(place, None if column is None else column[own], activation, calls)
        return calls

    share_calls(work, rows_parts(problem))


@for_threads
def rows_parts(problem: Problem) -> list[Part]:
    """As many groups at a time as fit with all rows of the output, one at least; fewer if threads wait for work."""
    images, channels_out, rows_out, *sizes = problem.output
    groups, band, step, across = problem.groups, band_of(problem), problem.stride[0], product(sizes)
    # Of each group, for each row of outputs: numbers laid out, outputs, and what they take in multiply-adds.
    laid = problem.depth // problem.kernel_size[0] * step * across
    made = channels_out // groups * across
    terms = problem.depth // problem.kernel_size[0] * ((band - 1) * step + problem.kernel_size[0])
    macs = laid * COPY + made * (terms + COPY)
    parts = ceil_div(groups, max(1, ROWS_ELEMENTS // ((laid + made) * rows_out)))
    if images == parts == 1 and groups > 1:
        return [Part(Block(0, 1, 0, rows_out), own.start, own.stop) for own in shares(groups, macs * groups * rows_out)]
    if images < thread_count() and groups > 1:
        parts = max(parts, min(groups, thread_count(), ceil_div(macs * groups * rows_out, least_work())))
    together = ceil_div(groups, parts)
    return [
        Part(block, own.start, own.stop)
        for block in blocks(images, rows_out, together * (laid + made), together * macs, ROWS_ELEMENTS, parts)
        for own in even_slices(groups, parts)
    ]


class _Tap(NamedTuple):
    """Where a tap of the axes besides the first sees zeros, where the input, and which of it."""

    tap: tuple[int, ...]
    zeros: tuple[tuple[slice, ...], ...]
    inside: tuple[slice, ...]
    read: tuple[slice, ...]


@lru_cache(maxsize=1024)
def _taps(problem: Problem) -> list[_Tap]:
    """All taps of the axes besides the first."""
    found = []
    for tap in combinations(*map(range, problem.kernel_size[1:])):
        spans = [
            span(at * wide - before, step, count, size)
            for at, wide, (before, _), step, count, size in zip(
                tap, problem.dilation[1:], problem.pads[1:], problem.stride[1:], problem.output[3:], problem.input[3:],
                strict=True,
            )
        ]  # fmt: skip
        inside = tuple(slice(first, last) for first, last, _ in spans)
        zeros = []
        for axis, (first, last, _) in enumerate(spans):
            edges = ((0, first), (last, problem.output[3 + axis]))
            zeros += [(*inside[:axis], slice(*edge)) for edge in edges if edge[0] < edge[1]]
        read = per_axis(lambda s, step: slice(s[2], s[2] + (s[1] - s[0]) * step, step), spans, problem.stride[1:])
        found.append(_Tap(tap, tuple(zeros), inside, read))
    return found


def lay_rows(problem: Problem, x: Array, top: int, laid: Array, calls: Calls) -> None:
    """Lay out rows of x (images, groups, C / groups, *sizes) from `top` on, counted in what is padded."""
    inside, height = x.shape[2:4]
    target = laid.reshape(*laid.shape[:3], inside, *problem.kernel_size[1:], *problem.output[3:])
    front = problem.pads[0][0]
    low, high = max(front - top, 0), min(height + front - top, laid.shape[2])
    if low >= high:
        calls.append((laid.fill, (0,)))
        return
    if low:
        calls.append((target[:, :, :low].fill, (0,)))
    if high < laid.shape[2]:
        calls.append((target[:, :, high:].fill, (0,)))
    target = target[:, :, low:high]
    moved = x[:, :, :, top - front + low : top - front + high].swapaxes(2, 3)
    lead = (slice(None),) * 4
    for tap in _taps(problem):
        of_tap = target[lead + tap.tap]
        for edge in tap.zeros:
            calls.append((of_tap[lead + edge].fill, (0,)))
        copy(of_tap[lead + tap.inside], moved[lead + tap.read], calls)
