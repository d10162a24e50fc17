"""Fourier transforms, of whole axes and of frames of a signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from convcalc import formulas as F
from convcalc.errors import ShapeError
from convcalc.layers.base import Cost, Layer, Saved, Shape, axis_of, flag, integer, shape_text, whole
from convcalc.records import dataclass
from convcalc.tracing import product


def _parts(shape: Shape, *, onesided: bool, inverse: bool = False) -> int:
    """How many numbers stand for one: 1, or 2 of a real and an imaginary part. Raises `ShapeError` for any other."""
    parts = shape[-1] if shape else 0
    if parts not in (1, 2):
        raise ShapeError(
            f"needs a last axis of 1, or of 2 for real and imaginary parts, but {shape_text(shape) or 'a scalar'}"
            " came in",
            value=shape,
        )
    if onesided and parts != (2 if inverse else 1):
        wanted = "complex numbers, 2 in the last axis," if inverse else "real numbers, 1 in the last axis,"
        raise ShapeError(f"onesided takes {wanted} but {parts} came in", field="onesided", value=shape)
    return parts


@dataclass(frozen=True, eq=False, repr=False)
class DFT(Layer):
    """The discrete Fourier transform along dim of numbers whose parts stand in the last axis. Fields as ONNX's DFT.

    Σ x[t]·exp(-2πi·k·t / n) for each k, or with `inverse` of +2πi and divided by n; n is `length`, to which the axis
    is cut or filled up with zeros, or its own size. `onesided` gives the first n // 2 + 1 of real numbers alone, and
    inverse takes these and gives real ones.

    >>> DFT(1, onesided=True).infer((1, 10, 1)), DFT(1, inverse=True, onesided=True).infer((1, 6, 2))
    (((1, 6, 2),), ((1, 10, 1),))
    """

    kind = "dft"
    dim: int = -2
    length: int | None = None
    inverse: bool = False
    onesided: bool = False

    def __post_init__(self) -> None:
        integer("dim", self.dim)
        if self.length is not None:
            whole("length", self.length)
        flag("inverse", self.inverse)
        flag("onesided", self.onesided)

    def axis(self, shape: Shape) -> int:
        """The axis that is transformed. Raises `ShapeError` where there is none, or it is that of the parts."""
        axis = axis_of("dim", self.dim, shape)
        if axis == len(shape) - 1:
            raise ShapeError(
                f"dim is {self.dim}, the axis of real and imaginary parts; any other can be transformed",
                field="dim",
                value=self.dim,
            )
        return axis

    def terms(self, shape: Shape) -> int:
        """The n of the sum."""
        size = shape[self.axis(shape)]
        return self.length or (2 * (size - 1) if self.inverse and self.onesided else size)

    def read(self, shape: Shape) -> int:
        """How many numbers along the axis are read."""
        terms = self.terms(shape)
        return min(shape[self.axis(shape)], terms // 2 + 1 if self.inverse and self.onesided else terms)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The axis as long as the transform, 2 for the last axis; 1 of real numbers. Raises `ShapeError`."""
        shape = inputs[0]
        _parts(shape, onesided=self.onesided, inverse=self.inverse)
        axis, terms = self.axis(shape), self.terms(shape)
        if terms < 1:
            raise ShapeError(f"1 of {shape_text(shape)} tells no length to transform back to; length says one",
                             field="length", value=shape)  # fmt: skip
        real = self.onesided and self.inverse
        size = terms // 2 + 1 if self.onesided and not real else terms
        return ((*shape[:axis], size, *shape[axis + 1 : -1], 1 if real else 2),)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """A dot product for each number that comes out, with all that it is a sum of; inverse, a division besides."""
        macs = product(outputs[0]) * self.read(inputs[0]) * inputs[0][-1]
        additions = F.sum_additions(macs, product(outputs[0]))
        return Cost(macs, macs, additions, product(outputs[0]) if self.inverse else 0)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The transform the other way round: as many products, for each number that was read."""
        cost = self.cost(inputs, outputs)
        size = inputs[0][self.axis(inputs[0])]
        read = product(inputs[0]) // size * self.read(inputs[0])
        return {"input": Cost(cost.macs, cost.macs, F.sum_additions(cost.macs, read), read if self.inverse else 0)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """Nothing."""
        return ()


@dataclass(frozen=True, eq=False, repr=False)
class STFT(Layer):
    """The Fourier transforms of frames of a signal, `step` apart: (N, length, 1 or 2) -> (N, frames, bins, 2).

    A real signal may leave its last axis out, as PyTorch writes it.
    A frame is `length` long, or as long as the window that comes in beside the signal and is multiplied with it, or as
    the signal. `onesided` gives the first half of the bins alone, n // 2 + 1, of real signals. Fields as ONNX's STFT.

    >>> STFT(8, 16).infer((1, 128, 1)), STFT(8).infer((1, 128, 1), (16,))
    (((1, 15, 9, 2),), ((1, 15, 9, 2),))
    """

    kind = "stft"
    inputs: ClassVar[tuple[int, int | None]] = (1, 2)
    step: int
    length: int | None = None
    onesided: bool = True

    def __post_init__(self) -> None:
        whole("step", self.step)
        if self.length is not None:
            whole("length", self.length)
        flag("onesided", self.onesided)

    def terms(self, inputs: Sequence[Shape]) -> int:
        """How long a frame is. Raises `ShapeError` where the window says otherwise."""
        window = inputs[1] if len(inputs) > 1 else None
        if window is not None and len(window) != 1:
            raise ShapeError(f"the window is {shape_text(window) or 'a scalar'}, but must have one axis", value=window)
        if self.length is None:
            return inputs[0][1] if window is None else window[0]
        if window is not None and window[0] != self.length:
            raise ShapeError(
                f"length is {self.length}, but the window has {window[0]} numbers", field="length", value=self.length
            )
        return self.length

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, frames, bins, 2). Raises `ShapeError` for a signal of other axes, or one shorter than a frame."""
        signal = inputs[0]
        if len(signal) not in (2, 3):
            raise ShapeError(f"needs a signal (N, length, 1 or 2), but {shape_text(signal) or 'a scalar'} came in",
                             value=signal)  # fmt: skip
        if len(signal) == 3:
            _parts(signal, onesided=self.onesided)
        terms = self.terms(inputs)
        if not 1 <= terms <= signal[1]:
            raise ShapeError(f"a frame of {terms} does not fit into a signal of {signal[1]}",
                             field="length", value=terms)  # fmt: skip
        frames = F.window_count(signal[1], terms, self.step, 0, 0, 1)
        return ((signal[0], frames, terms // 2 + 1 if self.onesided else terms, 2),)

    @staticmethod
    def _each(inputs: Sequence[Shape]) -> int:
        """How many numbers stand for one of the signal."""
        return inputs[0][2] if len(inputs[0]) == 3 else 1

    def framed(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
        """The numbers of all frames."""
        return int(product(outputs[0][:2])) * self.terms(inputs) * self._each(inputs)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """A dot product with a frame for each number that comes out, and the window's multiplications before."""
        macs = product(outputs[0]) * self.terms(inputs) * self._each(inputs)
        windowed = self.framed(inputs, outputs) * (len(inputs) > 1)
        return Cost(macs, macs + windowed, F.sum_additions(macs, product(outputs[0])))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The transform the other way round, the window's multiplications, and what the frames share added up.

        The window's own gradient is a dot product with all frames for each of its numbers.
        """
        terms, frames = self.terms(inputs), self.framed(inputs, outputs)
        macs = self.cost(inputs, outputs).macs
        touched = inputs[0][0] * self._each(inputs) * F.reached(outputs[0][1], terms, self.step, 1)
        additions = F.sum_additions(macs, frames) + F.sum_additions(frames, touched)
        if len(inputs) < 2:
            return {"input": Cost(macs, macs, additions)}
        return {"input": Cost(macs + frames, macs + 2 * frames, additions + F.sum_additions(frames, terms))}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The signal and the window, where there is one."""
        return ("input0", "input1") if len(inputs) > 1 else ()
