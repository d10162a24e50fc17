"""Layers as ONNX has them and PyTorch has not: further outputs, and pools with any dilation and padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc import formulas as F
from convcalc.errors import ShapeError
from convcalc.layers.base import Cost, Layer, Pairs, Saved, Shape, choice, flag, shape_text, spatial_input, whole
from convcalc.layers.dropout import Dropout
from convcalc.layers.norm import BatchNorm, LayerNorm
from convcalc.records import dataclass
from convcalc.tracing import per_axis, product


class LayerNormStatistics(LayerNorm):
    """`LayerNorm` that gives the mean and the inverse deviation of each place too.

    >>> LayerNormStatistics((8,)).infer((2, 5, 8))
    ((2, 5, 8), (2, 5, 1), (2, 5, 1))
    """

    kind = "layernormstatistics"

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape, and twice that with 1 for what is normalised over."""
        outer = self._outer(inputs[0])
        return (inputs[0], outer, outer)

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The input's type, and float32 for the statistics."""
        return (dtype, "float32", "float32")


class BatchNormTraining(BatchNorm):
    """`BatchNorm` in training: the statistics of the batch, and the running ones brought up to date as outputs."""

    kind = "batchnormtraining"

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape, and twice (channels,)."""
        return (inputs[0], (inputs[0][1],), (inputs[0][1],))

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The input's type for all."""
        return (dtype,) * 3

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """The statistics of the input and the scaling; three operations a channel for each running number."""
        channels = inputs[0][1]
        return self._normalising(product(inputs[0]), channels) + Cost(0, 4 * channels, 2 * channels)


class DropoutMask(Dropout):
    """`Dropout` that gives its mask too."""

    kind = "dropoutmask"

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape, twice."""
        return (inputs[0], inputs[0])

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The input's type, and bool for the mask."""
        return (dtype, "bool")


@dataclass(frozen=True, eq=False, repr=False)
class WindowPool(Layer):
    """The mean of each window or (Σ |x|^p)^(1/p) ("lp", p being `power`), with dilation and padding for both.

    `count_include_pad` is the mean's, as in PyTorch's AvgPool.

    >>> WindowPool("mean", (2,), (1,), ((0, 0),), (2,)).infer((1, 8, 5))
    ((1, 8, 3),)
    """

    kind = "windowpool"
    function: str
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    ceil_mode: bool = False
    power: int = 2
    count_include_pad: bool = False

    def __post_init__(self) -> None:
        choice("function", self.function, ("mean", "lp"))
        flag("ceil_mode", self.ceil_mode)
        whole("power", self.power)
        flag("count_include_pad", self.count_include_pad)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C, *sizes). Raises `ShapeError` when no window fits."""
        batch, channels, sizes = spatial_input(self, inputs[0])
        before, after = zip(*self.padding, strict=True)
        count = F.window_count_ceil if self.ceil_mode else F.window_count
        output = per_axis(count, sizes, self.kernel_size, self.stride, before, after, self.dilation)
        if min(output) < 1:
            raise ShapeError(f"no window of {shape_text(self.kernel_size)} fits into {shape_text(sizes)}",
                             field="kernel_size", value=self.kernel_size)  # fmt: skip
        return ((batch, channels, *output),)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """K - 1 additions for a window of K, and a division; for lp a root, and a power of each input element."""
        elements = product(outputs[0])
        powers = product(inputs[0]) if self.function == "lp" else 0
        return Cost(additions=F.window_comparisons(elements, self.kernel_size), other=elements + powers)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Each output's gradient is divided once and added to its window; for lp with a power and a product each."""
        elements = product(outputs[0])
        powers = product(inputs[0]) + elements if self.function == "lp" else 0
        return {"input": Cost(0, powers, elements * product(self.kernel_size), elements + powers)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input, and for lp the output."""
        return ("input0", "output0") if self.function == "lp" else ("input0",)
