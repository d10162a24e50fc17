"""Power-average pooling, over 1, 2 or 3 axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc import formulas as F
from convcalc.layers.base import Cost, Saved, Shape, Sizes, number, refused, spatial_input
from convcalc.layers.pool import WindowPool
from convcalc.records import dataclass
from convcalc.tracing import product


@dataclass(frozen=True, init=False, eq=False, repr=False)
class LPPool(WindowPool):
    """(Σ x^p)^(1/p) of each window, p being norm_type. Fields as PyTorch's LPPool1d, 2d, 3d.

    (N, C, *sizes) -> (N, C, *sizes); stride None is the kernel_size. There is no padding.

    >>> LPPool2d(2, 3, stride=2).infer((1, 8, 9, 9))
    ((1, 8, 4, 4),)
    """

    kind = "lppool"
    norm_type: float
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    ceil_mode: bool

    def __init__(
        self, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
    ) -> None:
        if number("norm_type", norm_type) == 0:
            raise refused("norm_type", norm_type, "other than 0")
        self._window(kernel_size, stride, 0, ceil_mode)
        self._set(norm_type=norm_type)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C, *sizes)."""
        batch, channels, sizes = spatial_input(self, inputs[0])
        return ((batch, channels, *self._output(sizes)),)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """A power of each input element, K - 1 additions and a root for each window of K."""
        elements = product(outputs[0])
        return Cost(additions=F.window_comparisons(elements, self.kernel_size), other=product(inputs[0]) + elements)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """A power and a product for each window, added to its K elements, and again for each input element."""
        read, elements = product(inputs[0]), product(outputs[0])
        return {"input": Cost(0, read + elements, elements * product(self.kernel_size), read + elements)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input, its powers, and four tensors of the output's size: PyTorch computes it in steps."""
        return ("input0", (inputs[0], None), *((outputs[0], None),) * 4)


class LPPool1d(LPPool):
    """`LPPool` over one axis: (N, C, L)."""

    rank = 1


class LPPool2d(LPPool):
    """`LPPool` over two axes: (N, C, H, W)."""

    rank = 2


class LPPool3d(LPPool):
    """`LPPool` over three axes: (N, C, D, H, W). Refuses a kernel larger than the input, ceil_mode or not."""

    rank = 3
    fits_unpadded = True
