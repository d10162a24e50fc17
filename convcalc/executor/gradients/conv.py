"""Gradients of convolutions: of the input by the fast algorithms of the other direction, of the weight by products.

A convolution's input gradient is a transposed convolution of the output's, and the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np

from convcalc.executor.algorithms import algorithm_for, convolve, weights_once
from convcalc.executor.blocks import COPY, Block, Problem, copy, even_slices, least_work, rows_read, slab, taps_view
from convcalc.executor.conv import by_phases, convolved_columns, padded_problem
from convcalc.executor.kernels import Array, Gradients, Weights, gradient, weight_gradient
from convcalc.executor.subpixel import cut, subpixel
from convcalc.executor.threads import Calls, scratch, share_calls, thread_count
from convcalc.executor.windows import pad, unpad
from convcalc.layers.base import Pairs, Shape
from convcalc.layers.conv import Conv, ConvTranspose, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from convcalc.tracing import ceil_div, per_axis, product

_TRANSPOSED = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)


@gradient(Conv)
def conv_gradient(
    layer: Conv, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """The input's is the transposed convolution, the weight's a product of the output's gradient and the columns."""
    x, grad, weight = _alike(inputs[0], grads[0], weights["weight"])
    problem, _ = padded_problem(layer, x.shape, grad.shape)
    of_x = _input_gradient(problem, grad, weight)
    if layer.padding_mode != "zeros":
        of_x = unpad(of_x, layer.pads(x.shape[2:]), x.shape[2:], layer.padding_mode)
    _, learned = conv_weight_gradient(layer, inputs, outputs, weights, grads)
    return (of_x.astype(inputs[0].dtype, copy=False),), learned


@weight_gradient(Conv)
def conv_weight_gradient(
    layer: Conv, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Those of weight and bias alone."""
    x, grad, weight = _alike(inputs[0], grads[0], weights["weight"])
    problem, _ = padded_problem(layer, x.shape, grad.shape)
    padded = x if layer.padding_mode == "zeros" else pad(x, layer.pads(x.shape[2:]), layer.padding_mode)
    learned = {"weight": products_with_windows(problem, padded, grad).reshape(weight.shape)}
    return (None,), _with_bias_gradient(learned, grads[0], weights)


def _input_gradient(problem: Problem, grad: Array, weight: Array) -> Array:
    """The transposed convolution of the output's gradient."""
    back = input_back(problem)
    if by_phases(back, grad.shape, [grad.dtype]):
        with weights_once():
            return subpixel(back, grad, {"weight": weight}, problem.input)
    return convolved_columns(back, grad, weight, problem.input)


def input_back(problem: Problem) -> ConvTranspose:
    """The transposed convolution that takes a convolution's gradient back to its input."""
    return _TRANSPOSED[problem.rank - 1](
        problem.output[1],
        problem.input[1],
        problem.kernel_size,
        problem.stride,
        problem.pads,
        groups=problem.groups,
        bias=False,
        dilation=problem.dilation,
    )


@gradient(ConvTranspose)
def conv_transpose_gradient(
    layer: ConvTranspose,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """The input's is the convolution that the layer transposes, the weight's a product with its columns."""
    x, grad, weight = _alike(inputs[0], grads[0], weights["weight"])
    source, problem = read_problem(layer, x.shape, grad.shape)
    with weights_once():
        name = algorithm_for(problem, [grad.dtype])
    read = grad[(slice(None), slice(None), *source)]
    of_x = convolve("grouped" if name == "direct" else name, problem, read, {"weight": weight})
    _, learned = conv_transpose_weight_gradient(layer, inputs, outputs, weights, grads)
    return (of_x.astype(inputs[0].dtype, copy=False),), learned


@weight_gradient(ConvTranspose)
def conv_transpose_weight_gradient(
    layer: ConvTranspose,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """Those of weight and bias alone."""
    x, grad, weight = _alike(inputs[0], grads[0], weights["weight"])
    source, problem = read_problem(layer, x.shape, grad.shape)
    read = grad[(slice(None), slice(None), *source)]
    learned = {"weight": products_with_windows(problem, read, x).reshape(weight.shape)}
    return (None,), _with_bias_gradient(learned, grads[0], weights)


def read_problem(layer: ConvTranspose, x: Shape, y: Shape) -> tuple[tuple[slice, ...], Problem]:
    """The convolution that a layer transposes, from its output's gradient to its input's, and what it reads of that."""
    geometry = (layer.kernel_size, layer.stride, layer.dilation)
    before = [pair[0] for pair in cast("Pairs", layer.padding)]
    sizes = zip(before, per_axis(_read_by, x[2:], *geometry), y[2:], strict=True)
    source, pads = cut(y, [(front, whole - front - size) for front, whole, size in sizes])
    kept = per_axis(lambda part, size: len(range(*part.indices(size))), source, y[2:])
    return source, Problem(*geometry, pads, layer.bound[2], (*y[:2], *kept), x)


def _read_by(count: int, kernel: int, stride: int, dilation: int) -> int:
    """The elements of a padded axis from the first to the last that so many windows see."""
    return (count - 1) * stride + (kernel - 1) * dilation + 1


def _alike(*arrays: Array) -> tuple[Array, ...]:
    """The arrays in the type that holds all, float32 at least."""
    dtype = np.result_type(np.float32, *arrays)
    return tuple(array.astype(dtype, copy=False) for array in arrays)


def _with_bias_gradient(learned: dict[str, Array], grad: Array, weights: Weights) -> dict[str, Array]:
    if "bias" in weights:
        learned["bias"] = grad.reshape(*grad.shape[:2], -1).sum(axis=2).sum(axis=0)
    return learned


# --- the weight's gradient ------------------------------------------------------------------------------------------


class Laying(NamedTuple):
    """Some taps of the kernel's first axis, that see the same rows shifted: what is laid out for them.

    `problem` has the taps that are laid out; the rows are every stride-th from `first` on, `more` of them beyond those
    of the block. `shifts` are the row that each tap begins at.
    """

    problem: Problem
    first: int
    more: int
    shifts: tuple[int, ...]


class Way(NamedTuple):
    """How a weight's gradient is made: what is laid out, or the input `as_it_lies`; images `by_themselves` or joined.

    `order` says which tap of the first axis each product is of.
    """

    laid: tuple[Laying, ...]
    order: tuple[int, ...]
    by_themselves: bool = True
    as_it_lies: bool = False


ADD = 10
"""What a number costs that is added to a sum of products, in multiply-adds of a matrix product."""
LAID_ELEMENTS = 1 << 20
"""Numbers that are laid out at once."""


@lru_cache(maxsize=1024)
def way_of(problem: Problem) -> Way:
    """The columns of all taps, of many images; or of the taps along the other axes, of one image, if that costs less.

    The taps along the first axis are then shifts of whole rows, so that each product is of one image.
    """
    images, channels_out, rows, *_ = problem.output
    kernel, stride, dilation = problem.kernel_size[0], problem.stride[0], problem.dilation[0]
    places = images * product(problem.output[2:])
    numbers = places * problem.input[1] * problem.taps
    weights = channels_out * problem.depth
    joined = (numbers + places * channels_out) * COPY + ceil_div(numbers, LAID_ELEMENTS) * weights * ADD
    alone = images * weights * ADD
    whole = Way((Laying(problem, 0, 0, (0,)),), (0,), by_themselves=False)
    if problem.taps == 1 and set(problem.stride) == {1} and not any(map(any, problem.pads)):
        return whole._replace(by_themselves=True, as_it_lies=True) if alone <= joined else whole
    if kernel == 1 or joined <= numbers / kernel * (1 + (kernel - 1) * dilation / stride / rows) * COPY + alone:
        return whole
    one = problem._replace(kernel_size=(1, *problem.kernel_size[1:]))
    by_phase: dict[int, list[tuple[int, int]]] = {}
    for tap in range(kernel):
        start, phase = divmod(tap * dilation, stride)
        by_phase.setdefault(phase, []).append((tap, start))
    laid = (
        Laying(one, phase, max(start for _, start in taps), tuple(start for _, start in taps))
        for phase, taps in by_phase.items()
    )
    return Way(tuple(laid), tuple(tap for taps in by_phase.values() for tap, _ in taps))


def products_with_windows(problem: Problem, x: Array, grad: Array) -> Array:
    """(O, C / groups, *kernel_size): each output's gradient times what its window sees, added up over all windows."""
    groups, way = problem.groups, way_of(problem)
    taps = len(way.order)
    x, grad = np.ascontiguousarray(x), np.ascontiguousarray(grad)
    found = units(problem, way)
    # (units of other places, taps of the first axis, groups, C / groups · other taps, O / groups)
    depth = problem.depth // taps
    sums = np.empty((1 + max(unit.place for unit in found), taps, groups, depth, problem.output[1] // groups), x.dtype)

    def work(unit: Unit) -> Calls:
        calls: Calls = []
        many, channels = unit.groups.stop - unit.groups.start, unit.channels.stop - unit.channels.start
        part, total = x[:, unit.channels], sums[unit.place, :, unit.groups, unit.depth]
        rows = problem.output[1] // groups
        outputs = slice(unit.groups.start * rows, unit.groups.stop * rows)
        for index, block in enumerate(unit.blocks):
            shapes = _room(problem, way, block, channels)
            laid = [scratch(f"laid {place}", shape, x.dtype) for place, shape in enumerate(shapes)]
            _lay(way, part, block, laid, calls)
            columns = [array.reshape(many, -1, product(array.shape[2:])) for array in laid]
            if way.as_it_lies:
                columns = [part[block.first].reshape(many, channels // many, -1)]
            grads = _gradients(problem, block, outputs, grad, calls).reshape(many, rows, -1)
            _multiply(problem, way, block, grads, columns, total, calls, first=not index)
        return calls

    share_calls(work, found)
    total = sums.sum(axis=0) if len(sums) > 1 else sums[0]
    apart = total.reshape(taps, groups, problem.input[1] // groups, -1, problem.output[1] // groups)
    # The taps in their own order, behind the channels.
    turned: Array = apart[np.argsort(way.order)].transpose(1, 4, 2, 0, 3)
    return turned.reshape(problem.output[1], problem.input[1] // groups, *problem.kernel_size)


class Unit(NamedTuple):
    """What a thread does: some channels of the input, whole groups of them if there are groups, and some blocks.

    `depth` are the products with these channels. Units of the same `place` make different parts of the sums, those of
    others are added up.
    """

    channels: slice
    groups: slice
    depth: slice
    blocks: list[Block]
    place: int = 0


LEAST_CHANNELS = 8
"""Channels for each thread, below which threads share the places."""


def units(problem: Problem, way: Way) -> list[Unit]:
    """The channels or groups in parts for the threads; of few channels the blocks."""
    count = 1 if problem.macs < least_work() * thread_count() else thread_count()
    channels, groups, others = problem.input[1], problem.groups, problem.taps // len(way.order)
    if groups > 1:
        inside = channels // groups
        fitting = max(1, min(groups, LAID_ELEMENTS // 2 // max(inside * others * product(problem.output[2:]), 1)))
        return [
            Unit(
                slice(own.start * inside, own.stop * inside),
                own,
                slice(0, inside * others),
                _blocks(problem, way, (own.stop - own.start) * inside),
            )
            for own in even_slices(groups, max(ceil_div(groups, fitting), min(count, groups)))
        ]
    if channels >= LEAST_CHANNELS * count:
        return [
            Unit(
                own,
                slice(0, 1),
                slice(own.start * others, own.stop * others),
                _blocks(problem, way, own.stop - own.start),
            )
            for own in even_slices(channels, count)
        ]
    found = _blocks(problem, way, channels)
    whole = Unit(slice(0, channels), slice(0, 1), slice(0, channels * others), found)
    return [
        whole._replace(blocks=found[part], place=place) for place, part in enumerate(even_slices(len(found), count))
    ]


def _blocks(problem: Problem, way: Way, channels: int) -> list[Block]:
    """Rows of an image, or images, of which what is laid out for so many channels is as much as may be."""
    images, _, rows, *sizes = problem.output
    if way.as_it_lies:
        return [Block(image, image + 1, 0, rows) for image in range(images)]
    row = product(sizes) * channels * problem.taps // len(way.order)
    height = max(1, LAID_ELEMENTS // max(row, 1))
    if height >= rows:
        together = 1 if way.by_themselves else height // rows
        parts = even_slices(images, ceil_div(images, together))
        return [Block(part.start, part.stop, 0, rows) for part in parts]
    cuts = even_slices(rows, ceil_div(rows, height))
    return [Block(image, image + 1, part.start, part.stop) for image in range(images) for part in cuts]


def _room(problem: Problem, way: Way, block: Block, channels: int) -> list[tuple[int, ...]]:
    """The shapes of what is laid out for a block, of so many channels: (channels, taps, images, rows, others)."""
    across = product(problem.output[3:])
    return [
        (channels, each.problem.taps, block.many, block.height + each.more, across)
        for each in ([] if way.as_it_lies else way.laid)
    ]


def laid_out(problem: Problem) -> int:
    """The numbers that a weight's gradient holds besides itself: what is laid out, padded and gathered."""
    way = way_of(problem)
    found = units(problem, way)
    rooms = []
    for unit in found:
        block, channels = unit.blocks[0], unit.channels.stop - unit.channels.start
        top, bottom = rows_read(problem, block.start, block.stop)
        padded = block.many * channels * product(problem.widths) * (bottom - top)
        gathered = block.many * block.height * product(problem.output[3:]) * problem.output[1] * (block.many > 1)
        rooms.append(int(sum(map(product, _room(problem, way, block, channels))) + padded + gathered))
    sums = (1 + found[-1].place) * problem.output[1] * problem.depth
    return min(thread_count(), len(rooms)) * max(rooms) + int(sums)


def _lay(way: Way, x: Array, block: Block, targets: Sequence[Array], calls: Calls) -> None:
    """Call what lays out the windows of a block, for the channels of `x`."""
    if not targets:
        return
    problem = way.laid[0].problem
    whole = problem._replace(kernel_size=(len(way.order) if len(way.order) > 1 else problem.kernel_size[0],
                                          *problem.kernel_size[1:]))  # fmt: skip
    top, bottom = rows_read(whole, block.start, block.stop)
    padded = slab(x, problem.pads, block.first, block.last, top, bottom, calls)
    for each, target in zip(way.laid, targets, strict=True):
        view = taps_view(padded[:, :, each.first :], each.problem, (block.height + each.more, *problem.output[3:]))
        # (images, channels, taps, rows, others), the images behind the taps.
        moved = np.moveaxis(view, 0, 1 + problem.rank)
        copy(target.reshape(moved.shape), moved, calls)


def _multiply(
    problem: Problem,
    way: Way,
    block: Block,
    grads: Array,
    laid: Sequence[Array],
    total: Array,
    calls: Calls,
    *,
    first: bool,
) -> None:
    """Call the products of what is laid out (groups, channels · taps, ...) and gradients (groups, O / groups, places).

    They are added to `total`, (taps, groups, channels · taps, O / groups), or with `first` set there. This way round a
    product of few outputs takes three quarters of the time.
    """
    across = product(problem.output[3:])
    length = block.many * block.height * across
    place = 0
    for each, columns in zip(way.laid, laid, strict=True):
        for start in each.shifts:
            seen = columns[..., start * across : start * across + length]
            room = total[place] if first else scratch("part", total.shape[1:], total.dtype)
            calls.append((np.matmul, (seen, grads.swapaxes(-1, -2), room)))
            if not first:
                calls.append((np.add, (total[place], room, total[place])))
            place += 1


def _gradients(problem: Problem, block: Block, own: slice, grad: Array, calls: Calls) -> Array:
    """The output's gradients of a block, some channels, places side by side: a view of one image, a copy of several."""
    across = product(problem.output[3:])
    part = grad[block.first : block.last, own].reshape(block.many, own.stop - own.start, -1)
    part = part[:, :, block.start * across : block.stop * across]
    if block.many == 1:
        return cast("Array", part[0])
    found = scratch("gradients", (part.shape[1], block.many, part.shape[2]), grad.dtype)
    copy(found, part.swapaxes(0, 1), calls)
    return found.reshape(len(found), -1)
