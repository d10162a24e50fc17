"""Fourier transforms, of whole axes and of frames of a signal, by NumPy's fast one."""

from __future__ import annotations

from typing import Any

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, gradient, kernel
from convcalc.layers.spectral import DFT, STFT


def _complex(x: Array) -> Array:
    """The numbers whose parts stand in the last axis; real ones stay real."""
    return x[..., 0] if x.shape[-1] == 1 else x[..., 0] + 1j * x[..., 1]


def _parts(z: Any, like: Array, parts: int = 2) -> Array:
    """The parts of numbers in a last axis, in the type of another array."""
    result = np.empty((*z.shape, parts), like.dtype)
    result[..., 0] = z.real
    if parts == 2:
        result[..., 1] = z.imag
    return result


@kernel(DFT)
def dft(layer: DFT, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Σ x·exp(∓2πi·k·t / n)."""
    (x,) = inputs
    axis, terms = layer.axis(x.shape), layer.terms(x.shape)
    z = _complex(x)
    if layer.onesided and layer.inverse:
        return (_parts(np.fft.irfft(z, terms, axis), x, 1),)
    if layer.onesided:
        return (_parts(np.fft.rfft(z, terms, axis), x),)
    return (_parts((np.fft.ifft if layer.inverse else np.fft.fft)(z, terms, axis), x),)


@gradient(DFT)
def dft_gradient(
    layer: DFT, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """The transform with the other sign of the gradient, which is what the conjugate matrix turned over does."""
    (x,), grad = inputs, _complex(grads[0])
    axis, terms, read = layer.axis(x.shape), layer.terms(x.shape), layer.read(x.shape)
    if layer.onesided and layer.inverse:
        found = np.fft.rfft(grad, terms, axis) / terms
        # All but the first, and the last of an even length, stand for two.
        twice = np.full(terms // 2 + 1, 2.0)
        twice[:: max(terms // 2, 1) if terms % 2 == 0 else len(twice)] = 1
        found *= twice.reshape(-1, *(1,) * (found.ndim - axis - 1))
    elif layer.inverse:
        found = np.fft.fft(grad, terms, axis) / terms
    else:
        found = np.fft.ifft(grad, terms, axis) * terms
    result = np.zeros_like(x)
    part = (*(slice(None),) * axis, slice(read))
    result[part] = _parts(found[part], x, x.shape[-1])
    return (result,), {}


def _frames(layer: STFT, inputs: tuple[Array, ...]) -> Array:
    """(N, frames, length): every frame of the signal, a view of it where it is real."""
    terms = layer.terms([x.shape for x in inputs])
    signal = inputs[0] if inputs[0].ndim == 2 else _complex(inputs[0])
    return np.lib.stride_tricks.sliding_window_view(signal, terms, axis=1)[:, :: layer.step]


@kernel(STFT)
def stft(layer: STFT, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The transform of every frame, times the window."""
    frames = _frames(layer, inputs)
    if len(inputs) > 1:
        frames = frames * inputs[1]
    return (_parts((np.fft.rfft if layer.onesided else np.fft.fft)(frames, axis=-1), inputs[0]),)


@gradient(STFT)
def stft_gradient(
    layer: STFT, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Each frame's gradient, as `DFT` has it, times the window, added up where frames share the signal."""
    x = inputs[0] if inputs[0].ndim == 3 else inputs[0][..., None]
    frames = _frames(layer, inputs)
    terms = frames.shape[-1]
    of_frames = _parts(np.fft.ifft(_complex(grads[0]), terms, -1) * terms, x, x.shape[-1])
    result = np.zeros_like(x)
    windowed = of_frames * inputs[1][:, None] if len(inputs) > 1 else of_frames
    for index in range(frames.shape[1]):
        start = index * layer.step
        result[:, start : start + terms] += windowed[:, index]
    result = result.reshape(inputs[0].shape)
    if len(inputs) < 2:
        return (result,), {}
    return (result, (_parts(frames, x, x.shape[-1]) * of_frames).sum((0, 1, 3)).astype(inputs[1].dtype)), {}
