"""`OPTIMIZERS`: how a weight changes by its gradient, step by step, with PyTorch's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from convcalc.executor.kernels import Array


class Optimizer(NamedTuple):
    """`states` are arrays of a weight's size that are kept between steps, zeros before the first.

    `step` takes the weight, its gradient, the states (which it changes), the number of the step from 1, and the rate,
    and gives the new weight.
    """

    states: int
    step: Callable[[Array, Array, list[Array], int, float], Array]


def sgd(weight: Array, gradient: Array, states: list[Array], number: int, rate: float) -> Array:
    """Down the gradient. Source: PyTorch, SGD.

    >>> sgd(np.array(1.0), np.array(2.0), [], 1, 0.25)
    np.float64(0.5)
    """
    result: Array = weight - rate * gradient
    return result


MOMENTUM = 0.9


def momentum(weight: Array, gradient: Array, states: list[Array], number: int, rate: float) -> Array:
    """Down a velocity, 0.9 of the one before and the gradient. Source: PyTorch, SGD with momentum=0.9.

    >>> state = [np.zeros(1)]
    >>> momentum(momentum(np.ones(1), np.ones(1), state, 1, 0.1), np.ones(1), state, 2, 0.1)
    array([0.71])
    """
    states[0] *= MOMENTUM
    states[0] += gradient
    return sgd(weight, states[0], [], number, rate)


FIRST, SECOND, TINY = 0.9, 0.999, 1e-8
DECAY = 0.01


def adam(weight: Array, gradient: Array, states: list[Array], number: int, rate: float) -> Array:
    """Down the gradient's mean, divided by the root of its square's, both moving and freed of their start at 0.

    Source: Kingma and Ba, Adam, 2015, algorithm 1; PyTorch, Adam, for the settings.

    >>> adam(np.ones(1), np.full(1, 5.0), [np.zeros(1), np.zeros(1)], 1, 0.25).round(6)
    array([0.75])
    """
    mean, square = states
    mean += (1 - FIRST) * (gradient - mean)
    square += (1 - SECOND) * (gradient * gradient - square)
    root = np.sqrt(square / (1 - SECOND**number)) + TINY
    return sgd(weight, mean / (1 - FIRST**number) / root, [], number, rate)


def adamw(weight: Array, gradient: Array, states: list[Array], number: int, rate: float) -> Array:
    """Adam, after the weight has lost 0.01 of itself times the rate. Source: PyTorch, AdamW.

    >>> adamw(np.ones(1), np.full(1, 5.0), [np.zeros(1), np.zeros(1)], 1, 0.25).round(6)
    array([0.7475])
    """
    return adam(weight * (1 - rate * DECAY), gradient, states, number, rate)


OPTIMIZERS: Mapping[str, Optimizer] = {
    "sgd": Optimizer(0, sgd),
    "momentum": Optimizer(1, momentum),
    "adam": Optimizer(2, adam),
    "adamw": Optimizer(2, adamw),
}
"""What `fit` and `--optimizer` name."""
