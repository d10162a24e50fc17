"""What a run will hold in memory at once, and whether the machine has it.

The tensors are those that `memory` counts as alive while a layer runs; weights are there all the time. What a kernel
holds besides, such as the columns of a convolution, is in `WORKING`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from convcalc.analysis.memory import Tensors
from convcalc.analysis.shapes import Resolved, label
from convcalc.errors import ResourceError
from convcalc.executor.algorithms import algorithm_for
from convcalc.executor.blocks import BLOCK_ELEMENTS, Problem
from convcalc.executor.columns import GROUPED_ELEMENTS
from convcalc.executor.conv import COLUMN_LIMIT, problem_of
from convcalc.executor.fourier import lengths, spectrum_elements
from convcalc.executor.threads import thread_count
from convcalc.executor.winograd import tiles_of
from convcalc.layers.base import Shape
from convcalc.limits import available_memory
from convcalc.network import Network
from convcalc.render.units import bytes_text
from convcalc.tracing import per_axis, product


class Plan(NamedTuple):
    """The bytes at the worst layer: tensors alive, weights of the whole network, and what the kernel holds besides."""

    layer: str
    tensors: int
    weights: int
    working: int

    @property
    def total(self) -> int:
        return self.tensors + self.weights + self.working


Working = Callable[[Any, Sequence[Shape], Sequence[Shape], "np.dtype[Any]"], int]


def _conv(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> int:
    """Blocks of each thread; done directly, the columns of as many images as are laid out at once, and products."""
    problem, padded = padded_problem(layer, inputs[0], outputs[0])
    name = algorithm_for(problem, [dtype])
    if name == "direct":
        columns = problem.input[1] * problem.taps * product(problem.output[2:])
        padded = padded or product(problem.input) * any(map(any, problem.pads))
        return int(padded + max(min(problem.input[0] * columns, COLUMN_LIMIT), columns) + product(problem.output))
    busy = min(thread_count(), problem.output[0] * problem.output[2])
    if name == "fft":
        # Of an image both transforms in and out, each laid out a second time, in double precision or less.
        return int(padded + busy * product(lengths(problem)) * 4 * (problem.input[1] + problem.output[1]))
    if name == "grouped":
        # The columns of as many groups as are taken together, their part of the padded input, and what comes of them.
        columns = min(
            GROUPED_ELEMENTS, problem.groups * problem.depth * problem.output[0] * product(problem.output[2:])
        )
        each = 1 + 1 / problem.taps + problem.output[1] / problem.groups / problem.depth
        return int(padded + busy * columns * each)
    row = product(problem.output[3:]) * max(problem.depth * problem.groups, problem.output[1])
    return int(padded + busy * 4 * max(BLOCK_ELEMENTS, row))


def padded_problem(layer: Any, x: Shape, y: Shape) -> tuple[Problem, int]:
    """The convolution in numbers, and the elements of the copy that other padding than zeros takes."""
    if layer.padding_mode == "zeros":
        return problem_of(layer, x, y), 0
    pads = layer.pads(x[2:])
    x = (*x[:2], *(size + before + after for size, (before, after) in zip(x[2:], pads, strict=True)))
    return problem_of(layer, x, y), int(product(x))


def algorithm_of(item: Resolved, dtype: np.dtype[Any]) -> str:
    """By which algorithm a layer is computed: "direct" where there is no choice."""
    if item.layer.kind != "conv":
        return "direct"
    return algorithm_for(padded_problem(item.layer, item.inputs[0], item.outputs[0])[0], [dtype])


def _derived(item: Resolved, dtype: np.dtype[Any]) -> int:
    """The numbers that are worked out once from a layer's weights and kept: Winograd's transforms, spectra, or a copy.

    The copy has the bias beside the weights, or the scale of a batch norm in them.
    """
    name = algorithm_of(item, dtype)
    if name == "direct":
        return 0
    problem, _ = padded_problem(item.layer, item.inputs[0], item.outputs[0])
    if name == "fft":
        return 2 * spectrum_elements(problem)
    if not name.startswith("winograd"):
        return problem.output[1] * (problem.depth + 1)
    tiles = tiles_of(problem.kernel_size, int(name.removeprefix("winograd")))
    points = product(per_axis(lambda outputs, taps: outputs + taps - 1, tiles, problem.kernel_size))
    return int(points * product(problem.output[1:2]) * problem.input[1] // problem.groups)


def _conv_transpose(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> int:
    """The columns of every image, and the output before it is cropped and after."""
    x, y = inputs[0], outputs[0]
    return int(x[0] * y[1] * product(layer.kernel_size) * product(x[2:]) + 2 * product(y))


def _pool(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> int:
    """The padded input and every window."""
    return int(product(inputs[0]) + product(layer.kernel_size) * product(outputs[0]))


def _other(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> int:
    """A formula makes an array for each of its steps, and two are there at a time."""
    return 0 if layer.view else int(2 * max(map(product, (*inputs, *outputs)), default=0))


WORKING: dict[str, Working] = {
    "conv": _conv,
    "convt": _conv_transpose,
    **dict.fromkeys(("maxpool", "avgpool", "lppool"), _pool),
}
"""The numbers that the kernel of a kind of layer holds besides what comes in and goes out; `_other` for the rest."""


def _gradients(item: Resolved) -> int:
    """What the gradient of a layer holds: of a convolution the columns of the whole batch, and their gradient."""
    if item.layer.kind in ("conv", "convt"):
        many, few = (
            (item.outputs[0], item.inputs[0]) if item.layer.kind == "conv" else (item.inputs[0], item.outputs[0])
        )
        columns = many[0] * few[1] * product(item.layer.kernel_size) * product(many[2:])  # type: ignore[attr-defined]  # a conv
        return int(2 * columns + 2 * product(few))
    return 2 * _other(item.layer, item.inputs, item.outputs, np.dtype(np.float64))


def plan(
    network: Network, resolved: Sequence[Resolved], dtype: str, *, keep: bool = False, copies: int | None = None
) -> Plan:
    """The worst moment of a run, as `moments` has them."""
    found = moments(network, resolved, dtype, keep=keep, copies=copies)
    return max(found, key=lambda moment: moment.total, default=Plan("", 0, 0, 0))


def moments(
    network: Network, resolved: Sequence[Resolved], dtype: str, *, keep: bool = False, copies: int | None = None
) -> list[Plan]:
    """What is alive while each layer runs in numbers of this type. With `keep` no tensor is let go.

    With `copies` it is a step of training: every tensor is kept, has a gradient, and there are so many arrays of the
    size of each weight besides the weights themselves.
    """
    tensors = Tensors(network, resolved, dtype)
    kind = np.dtype(dtype)
    item_bytes = kind.itemsize
    weights = sum(
        item_bytes * int(product(shape))
        for item in resolved
        for shape in (*item.layer.parameters().values(), *item.layer.buffers().values())
    )
    reads = {
        name: max(
            (
                index
                for index, item in enumerate(resolved)
                if name in [tensors.storage.get(tensor) for tensor in (*item.node.inputs, *item.node.outputs)]
            ),
            default=-1,
        )
        for name in network.inputs
    }
    training = copies is not None
    living = tensors.alive()
    if keep or training:
        living = [tensors.activations * (1 + training)] * len(resolved)
    weights = weights * (1 + (copies or 0)) + item_bytes * sum(_derived(item, kind) for item in resolved)
    found, blocks = [], 0
    for index, (item, alive) in enumerate(zip(resolved, living, strict=True)):
        working = WORKING.get(item.layer.kind, _other)(item.layer, item.inputs, item.outputs, kind)
        if algorithm_of(item, kind) != "direct":
            # Blocks are kept for the next layer that works so; transforms of weights are made in double precision.
            blocks = max(blocks, working)
            working = 2 * _derived(item, kind) * 8 // item_bytes
        working = max(working + blocks, _gradients(item) if training else 0)
        # Who runs the network holds its inputs all the time.
        held = 0 if keep or training else sum(tensors.sizes[name] for name, last in reads.items() if last < index)
        found.append(Plan(label(item.node), alive + held, weights, item_bytes * working))
    return found


def need(planned: Plan, there: int = 0) -> None:
    """Raise `ResourceError` when a plan is more than the memory that is free, `there` of its bytes being held already.

    A system promises memory that it does not have, and ends whoever then uses it.
    """
    free = available_memory() + there
    if planned.total > free:
        raise ResourceError(
            f"running this needs {bytes_text(planned.total)} at layer {planned.layer}: {bytes_text(planned.tensors)}"
            f" of tensors, {bytes_text(planned.weights)} of weights and {bytes_text(planned.working)} to work in;"
            f" {bytes_text(free)} are free",
            value=planned.total,
        )
