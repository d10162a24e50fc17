"""Windows as columns, and columns added up again."""

from __future__ import annotations

from convcalc.executor.kernels import Array, Gradients, Weights, gradient, kernel
from convcalc.executor.windows import add_columns, columns, pad, unpad, window_grid
from convcalc.layers.unfold import Fold, Unfold


def _columns(layer: Fold | Unfold, image: Array) -> Array:
    padded = pad(image, layer.padding)
    geometry = (layer.kernel_size, layer.stride, layer.dilation)
    return columns(padded, 1, *geometry, window_grid(padded.shape[2:], *geometry))[:, 0]


def _image(layer: Fold | Unfold, cols: Array, channels: int, sizes: tuple[int, ...]) -> Array:
    padded = [size + sum(pair) for size, pair in zip(sizes, layer.padding, strict=True)]
    geometry = (layer.kernel_size, layer.stride, layer.dilation)
    return unpad(add_columns(cols, channels, padded, *geometry, window_grid(padded, *geometry)), layer.padding, sizes)


@kernel(Unfold)
def unfold(layer: Unfold, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """im2col."""
    return (_columns(layer, inputs[0]),)


@gradient(Unfold)
def unfold_gradient(
    layer: Unfold, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """col2im of the gradient."""
    (x,) = inputs
    return (_image(layer, grads[0], x.shape[1], x.shape[2:]),), {}


@kernel(Fold)
def fold(layer: Fold, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """col2im."""
    (shape,) = layer.infer(inputs[0].shape)
    return (_image(layer, inputs[0], shape[1], shape[2:]),)


@gradient(Fold)
def fold_gradient(
    layer: Fold, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """im2col of the gradient."""
    return (_columns(layer, grads[0]),), {}
