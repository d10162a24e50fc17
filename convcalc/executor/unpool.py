"""Max unpooling: maxima back to where they stood."""

from __future__ import annotations

import numpy as np

from convcalc.errors import ShapeError
from convcalc.executor.kernels import Array, Gradients, Weights, gradient, kernel
from convcalc.layers.unpool import MaxUnpool
from convcalc.tracing import product


@kernel(MaxUnpool)
def max_unpool(layer: MaxUnpool, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Zeros with each value at its index; of several values for one place, the last.

    Raises `ShapeError` for an index that is outside of the output.
    """
    values, indices = inputs
    (shape,) = layer.infer(values.shape, indices.shape)
    places = indices.reshape(product(shape[:2]), -1).astype(np.int64)
    most = product(shape[2:])
    if places.min() < 0 or places.max() >= most:
        wrong = int(places.min()) if places.min() < 0 else int(places.max())
        raise ShapeError(
            f"an index is {wrong}, but the output has places 0 to {most - 1} in a channel; the second input is the"
            " pool's second output, @a.1 after maxpool:2,indices @a",
            field="input1",
            value=wrong,
        )
    result = np.zeros(shape, values.dtype)
    places = places + (np.arange(len(places)) * most)[:, None]
    result.reshape(-1)[places.reshape(-1)] = values.reshape(-1)
    return (result,)


@gradient(MaxUnpool)
def max_unpool_gradient(
    layer: MaxUnpool, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Each value's gradient is what stands at its index; indices have none."""
    values, indices = inputs
    planes = product(values.shape[:2])
    picked = np.take_along_axis(grads[0].reshape(planes, -1), indices.reshape(planes, -1).astype(np.int64), axis=1)
    return (picked.reshape(values.shape), None), {}
