"""The matrix of a network that is linear, such as a convolution: `output.ravel()` is `matrix @ input.ravel()`."""

from __future__ import annotations

import numpy as np

from convcalc.errors import ResourceError, UnsupportedOpError
from convcalc.executor.algorithms import forced
from convcalc.executor.conv import im2col
from convcalc.executor.kernels import Array
from convcalc.executor.run import Prepared, compute_layer
from convcalc.layers.base import shape_text
from convcalc.layers.conv import Conv
from convcalc.limits import need_bytes
from convcalc.records import replace
from convcalc.tracing import product

LINEAR = frozenset(
    ("conv", "convt", "linear", "avgpool", "adaptiveavgpool", "globalavgpool", "batchnorm", "dropout", "identity",
     "flatten", "unflatten", "reshape", "unfold", "fold", "pixelshuffle", "pixelunshuffle", "upsample", "pad", "add",
     "concat", "crop")
)  # fmt: skip
"""The kinds that are linear once what they add is left out. The matrix of a chain of them is the product of theirs."""
MOST_ELEMENTS = 1 << 27


def as_matrix(prepared: Prepared) -> Array:
    """The matrix (outputs, inputs) of one sample, with everything flattened; biases have no part in it.

    Column by column it is what the network makes of an input that is 1 in one place. Raises `UnsupportedOpError` for a
    network that is not linear, `ResourceError` for a matrix of more than `MOST_ELEMENTS` elements.
    """
    for item in prepared.resolved:
        if item.layer.kind not in LINEAR:
            raise UnsupportedOpError(f"{item.layer.kind} is not linear, so it has no matrix", layer=item.node.name)
    if len(prepared.inputs) != 1:
        raise UnsupportedOpError("a network with several inputs has no single matrix")
    ((name, given),) = prepared.inputs.items()
    shape = given.shape[1:]
    columns = product(shape)
    rows = product(prepared.resolved[-1].outputs[0][1:])
    if rows * columns > MOST_ELEMENTS:
        raise ResourceError(
            f"the matrix would be {shape_text((rows, columns))}; it is made up to {MOST_ELEMENTS} elements"
        )
    unbiased = replace(
        prepared,
        weights={key: array * 0 if key.endswith(".bias") else array for key, array in prepared.weights.items()},
    )
    # The last sample is zero: what comes out of it is what a layer adds besides its bias.
    basis = np.eye(columns + 1, columns, dtype=given.dtype).reshape(columns + 1, *shape)
    tensors = {name: basis}
    with forced("direct"):  # the weights themselves, without rounding
        for item in prepared.resolved:
            inputs = tuple(tensors[name] for name in item.node.inputs)
            outputs = compute_layer(item, inputs, unbiased.weights_of(item.node.name))
            tensors.update(zip(item.node.outputs, outputs, strict=True))
    images = tensors[prepared.network.outputs[0]].reshape(columns + 1, rows)
    result: Array = (images[:-1] - images[-1]).T
    return result


def windows_as_rows(prepared: Prepared) -> Array:
    """The windows of the first layer's input, one a row: what its convolution is the matrix product with.

    Raises `UnsupportedOpError` when the first layer is no convolution, `ResourceError` for more than memory holds.
    """
    first = prepared.resolved[0]
    if not isinstance(first.layer, Conv):
        raise UnsupportedOpError(f"{first.layer.kind} is no convolution, so it has no im2col", layer=first.node.name)
    x = prepared.inputs[first.node.inputs[0]]
    windows = product(first.outputs[0][2:]) * len(x)
    size = product(first.layer.kernel_size) * x.shape[1]
    # The windows as they are laid out, and their rows.
    need_bytes(
        2 * windows * size * x.itemsize, f"{windows:,} windows of {size:,} numbers", "; a smaller input shows as much"
    )
    return im2col(first.layer, x)
