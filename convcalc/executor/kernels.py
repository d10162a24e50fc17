"""`KERNELS`, the one table from a class of layer to the function that computes it.

A kernel takes the bound layer, the arrays that come in (batch first) and the layer's weights by name, and gives the
arrays that go out. It repeats no formula: sizes are what `layer.infer` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from convcalc.layers.activation import ReLU
from convcalc.layers.base import Layer

Array = npt.NDArray[Any]
Weights = Mapping[str, Array]
Kernel = Callable[[Any, tuple[Array, ...], Weights], tuple[Array, ...]]
K = TypeVar("K", bound=Kernel)

KERNELS: dict[type[Layer], Kernel] = {}
"""What computes each class of layer; a subclass for one rank finds its base's."""


def kernel(*classes: type[Layer]) -> Callable[[K], K]:
    """Register a function as the kernel of these classes."""

    def register(function: K) -> K:
        for cls in classes:
            KERNELS[cls] = function
        return function

    return register


@kernel(ReLU)
def relu(layer: ReLU, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """max(0, x)."""
    return (np.maximum(inputs[0], 0),)
