"""What layers do otherwise while they learn: norms by the statistics of the batch, dropouts at random.

`TRAINING` is the table from a class of layer to the function that computes it so. All others do the same as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from convcalc import formulas as F
from convcalc.errors import UnsupportedOpError
from convcalc.executor.kernels import Array, Gradients, Weights, gradient_of, kernel_of
from convcalc.executor.norm import channel_statistics
from convcalc.layers.base import Layer

Back = Callable[[tuple[Array, ...]], Gradients]
"""From the gradients of what goes out."""


class Trained(NamedTuple):
    """What a layer gives in training, the way back through that, and the buffers that it brings up to date."""

    outputs: tuple[Array, ...]
    back: Back
    buffers: Mapping[str, Array] = {}


def trained(layer: Layer, inputs: tuple[Array, ...], weights: Weights, stream: np.random.Generator) -> Trained | None:
    """The layer in training; None if it does the same as at inference.

    Raises `UnsupportedOpError` for dropout inside of a layer.
    """
    if layer.kind in TRAINING:
        return TRAINING[layer.kind](layer, inputs, weights, stream)
    if getattr(layer, "dropout", 0):
        raise UnsupportedOpError(f"dropout inside {layer.kind} is not drawn here; leave it out to train the layer")
    return None


def _norm(layer: Any, inputs: tuple[Array, ...], weights: Weights, stream: np.random.Generator) -> Trained | None:
    """By the statistics of the batch; running ones, where they are kept, move towards these.

    Source: PyTorch, BatchNorm: the running variance is that of n - 1 elements, and without a momentum all batches count
    the same. InstanceNorm takes the mean over the batch of what each sample has, and counts no batches.
    """
    if "running_mean" not in weights:
        return None
    own = {name: weights[name] for name in ("weight", "bias") if name in weights}
    outputs = kernel_of(layer)(layer, inputs, own)
    (x,) = inputs
    spatial = tuple(range(2, x.ndim))
    by_sample = layer.kind == "instancenorm"
    axes, count = (spatial, x[0, 0].size) if by_sample else ((0, *spatial), x.size // x.shape[1])
    buffers: dict[str, Array] = {}
    share = layer.momentum or 0.0
    if not by_sample and "num_batches_tracked" in weights:
        buffers["num_batches_tracked"] = batches = weights["num_batches_tracked"] + 1
        share = 1 / float(batches) if layer.momentum is None else share
    mean, variance = (x.mean(axis=axes), x.var(axis=axes)) if by_sample else channel_statistics(x)
    now = {"running_mean": mean, "running_var": variance * (count / max(count - 1, 1))}
    for name, array in now.items():
        buffers[name] = (1 - share) * weights[name] + share * (array.mean(axis=0) if by_sample else array)
    return Trained(outputs, lambda grads: gradient_of(layer)(layer, inputs, outputs, own, grads), buffers)


def _kept(layer: Any, x: Array, stream: np.random.Generator) -> Array:
    """1 for what is kept, 0 for what is dropped, in a shape that fits x."""
    kept: Array = (stream.random(layer.drawn(x.shape)) >= layer.p).astype(x.dtype)
    return kept


def _dropout(layer: Any, inputs: tuple[Array, ...], weights: Weights, stream: np.random.Generator) -> Trained:
    """What is kept grows by as much as is dropped."""
    scale = _kept(layer, inputs[0], stream) / inputs[0].dtype.type(1 - layer.p or 1)
    return Trained((inputs[0] * scale,), lambda grads: ((grads[0] * scale,), {}))


SATURATED = float(F.selu(-np.inf))
"""What SELU gives far below 0, in whose place what is dropped is."""


def _alpha_dropout(layer: Any, inputs: tuple[Array, ...], weights: Weights, stream: np.random.Generator) -> Trained:
    """What is dropped is as SELU's lowest, and all is scaled and moved so that mean and variance stay.

    Source: Klambauer et al., Self-normalizing neural networks, 2017.
    """
    (x,) = inputs
    kept = _kept(layer, x, stream)
    scale = x.dtype.type(((1 - layer.p) * (1 + layer.p * SATURATED**2)) ** -0.5 if layer.p < 1 else 0)
    shift = x.dtype.type(-SATURATED * layer.p)
    found = ((x * kept + (1 - kept) * x.dtype.type(SATURATED)) + shift) * scale
    return Trained((found,), lambda grads: ((grads[0] * kept * scale,), {}))


def _rrelu(layer: Any, inputs: tuple[Array, ...], weights: Weights, stream: np.random.Generator) -> Trained:
    """Each element below 0 has a slope of its own."""
    (x,) = inputs
    slopes = np.where(x > 0, 1, stream.uniform(layer.lower, layer.upper, x.shape)).astype(x.dtype)
    return Trained((x * slopes,), lambda grads: ((grads[0] * slopes,), {}))


TRAINING: Mapping[str, Callable[..., Trained | None]] = {
    **dict.fromkeys(("batchnorm", "syncbatchnorm", "instancenorm"), _norm),
    "dropout": _dropout,
    **dict.fromkeys(("alphadropout", "featurealphadropout"), _alpha_dropout),
    "rrelu": _rrelu,
}
"""The kinds that are others in training."""
