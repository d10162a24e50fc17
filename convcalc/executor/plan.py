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
from convcalc.executor.conv import COLUMN_LIMIT
from convcalc.layers.base import Shape
from convcalc.limits import available_memory
from convcalc.network import Network
from convcalc.render.units import bytes_text
from convcalc.tracing import product


class Plan(NamedTuple):
    """The bytes at the worst layer: tensors alive, weights of the whole network, and what the kernel holds besides."""

    layer: str
    tensors: int
    weights: int
    working: int

    @property
    def total(self) -> int:
        return self.tensors + self.weights + self.working


Working = Callable[[Any, Sequence[Shape], Sequence[Shape]], int]


def _conv(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """The padded input, the columns of as many images as are laid out at once, and their products before joining."""
    (x,), (y,) = inputs, outputs
    padded = product(x) if any(map(any, layer.pads(x[2:]))) else 0
    columns = x[1] * product(layer.kernel_size) * product(y[2:])
    return int(padded + max(min(x[0] * columns, COLUMN_LIMIT), columns) + product(y))


def _conv_transpose(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """The columns of every image, and the output before it is cropped and after."""
    (x,), (y,) = inputs, outputs
    return int(x[0] * y[1] * product(layer.kernel_size) * product(x[2:]) + 2 * product(y))


def _pool(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """The padded input and every window."""
    return int(product(inputs[0]) + product(layer.kernel_size) * product(outputs[0]))


def _other(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """A formula makes an array for each of its steps, and two are there at a time."""
    return 0 if layer.view else int(2 * max(map(product, (*inputs, *outputs)), default=0))


WORKING: dict[str, Working] = {
    "conv": _conv,
    "convt": _conv_transpose,
    **dict.fromkeys(("maxpool", "avgpool", "lppool"), _pool),
}
"""The numbers that the kernel of a kind of layer holds besides what comes in and goes out; `_other` for the rest."""


def plan(
    network: Network, resolved: Sequence[Resolved], dtype: str, *, keep: bool = False, copies: int | None = None
) -> Plan:
    """The worst moment of a run in numbers of this type. With `keep` no tensor is let go.

    With `copies` it is a step of training: every tensor is kept, has a gradient, and there are so many arrays of the
    size of each weight besides the weights themselves.
    """
    tensors = Tensors(network, resolved, dtype)
    item_bytes = np.dtype(dtype).itemsize
    weights = sum(
        item_bytes * int(product(shape))
        for item in resolved
        for shape in (*item.layer.parameters().values(), *item.layer.buffers().values())
    )
    training = copies is not None
    living = tensors.alive()
    if keep or training:
        living = [tensors.activations * (1 + training)] * len(resolved)
    weights *= 1 + (copies or 0)
    moments = [
        Plan(
            label(item.node),
            alive,
            weights,
            item_bytes * WORKING.get(item.layer.kind, _other)(item.layer, item.inputs, item.outputs) * (1 + training),
        )
        for item, alive in zip(resolved, living, strict=True)
    ]
    return max(moments, key=lambda moment: moment.total)


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
