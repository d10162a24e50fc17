"""Gradients of recurrent layers: back through the steps, each from a record of itself.

Source: Werbos, Backpropagation through time, 1990.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convcalc.executor.gradients.tape import Taped, pull
from convcalc.executor.kernels import Array, Gradients, Weights, gradient, kernel_of
from convcalc.executor.recurrent import by_names, gates_of, level_of, levels_of, side_by_side, step_of, turned
from convcalc.layers.recurrent import GRU, LSTM, RNN, OnnxGRU, OnnxLSTM, OnnxRNN


@gradient(OnnxLSTM, OnnxGRU, OnnxRNN)
def recurrent_gradient(
    layer: OnnxLSTM | OnnxGRU | OnnxRNN,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """Those of the input, the first states and every weight; of half floats in float32."""
    wide = np.result_type(inputs[0].dtype, np.float32)
    given = dict(zip(layer.given, inputs[1:], strict=True))
    lengths = given.get("sequence_lens")
    x, grad_outputs, *grad_lasts = (array.astype(wide, copy=False) for array in (inputs[0], *grads))
    if layer.batch_first:
        # (N, length, directions, hidden) as (length, directions, N, hidden); the last states likewise.
        x, grad_outputs = x.swapaxes(0, 1), grad_outputs.transpose(1, 2, 0, 3)
        grad_lasts = [grad.swapaxes(0, 1) for grad in grad_lasts]
    found: dict[str, Array] = {name: np.zeros(array.shape, wide) for name, array in weights.items()}
    grad_x = np.zeros_like(x)
    names = ("initial_h", "initial_c")[: layer.states]
    sizes = (layer.proj_size or layer.hidden_size, layer.hidden_size)
    grad_starts = [np.zeros((layer.directions, x.shape[1], size), wide) for size in sizes[: layer.states]]
    for direction in range(layer.directions):
        starts = []
        for name, grad_start in zip(names, grad_starts, strict=True):
            start = given.get(name)
            if start is None:
                start = np.zeros_like(grad_start)
            elif layer.batch_first:
                start = start.swapaxes(0, 1)
            starts.append(start[direction].astype(wide, copy=False))
        back = layer.reverse or direction == 1
        grad_out = grad_outputs[:, direction]
        came, first, learned = _one_direction(
            layer,
            turned(x, lengths) if back else x,
            turned(grad_out, lengths) if back else grad_out,
            [grad[direction] for grad in grad_lasts],
            starts,
            weights,
            direction,
            lengths,
        )
        grad_x += turned(came, lengths) if back else came
        for grad_start, grad in zip(grad_starts, first, strict=True):
            grad_start[direction] = grad
        for name, array in learned.items():
            found[name][direction] = array
    results: dict[str, Array | None] = {"sequence_lens": None}
    results |= zip(names, grad_starts, strict=True)
    if layer.batch_first:
        grad_x = grad_x.swapaxes(0, 1)
        results = {name: array if array is None else array.swapaxes(0, 1) for name, array in results.items()}
    return (grad_x, *(results[name] for name in layer.given)), found


_MORE: dict[str, Any] = {"peephole": None, "projection": None}


def _one_direction(
    layer: Any,
    x: Array,
    grad_outputs: Array,
    grad_lasts: list[Array],
    starts: list[Array],
    weights: Weights,
    direction: int,
    lengths: Array | None,
) -> tuple[Array, list[Array], dict[str, Array]]:
    """The gradients of x, (length, N, input), of the first states, and of this direction's weights."""
    weight, own, bias, own_bias = _weights(layer, weights, direction, x.dtype)
    more = {name: weights[name][direction] for name in ("peephole", "projection") if name in weights}
    into = x @ weight.T + bias
    step = step_of(layer, gates_of(layer, own, own_bias, direction), **_MORE | more)
    states = [tuple(starts)]
    for place in range(len(x)):
        new = step(into[place], states[-1])
        on = None if lengths is None else (place < lengths)[:, None]
        states.append(new if on is None else tuple(np.where(on, a, b) for a, b in zip(new, states[-1], strict=True)))
    leaves = [Taped(array) for array in (own, own_bias, *more.values())]
    spares: Any = dict(zip(more, leaves[2:], strict=True))
    taped: Any = step_of(layer, gates_of(layer, leaves[0], leaves[1], direction), **_MORE | spares)
    learned = [np.zeros_like(leaf.value) for leaf in leaves]
    grad_into = np.zeros_like(into)
    grad_states = list(grad_lasts)
    for place in reversed(range(len(x))):
        sources = [Taped(into[place]), *map(Taped, states[place])]
        results = taped(sources[0], tuple(sources[1:]))
        reached = [grad_states[0] + grad_outputs[place], *grad_states[1:]]
        if lengths is not None:
            # Past its end a sequence's states go through as they are.
            on = (place < lengths)[:, None]
            through = [np.where(on, 0, grad) for grad in grad_states]
            reached = [np.where(on, grad, 0) for grad in reached]
        grad_into[place], *rest = pull(results, reached, [*sources, *leaves])
        grad_states = rest[: len(grad_states)]
        if lengths is not None:
            grad_states = [a + b for a, b in zip(grad_states, through, strict=True)]
        learned = [a + b for a, b in zip(learned, rest[len(grad_states) :], strict=True)]
    rows = grad_into.reshape(-1, grad_into.shape[2])
    found = {"weight_ih": rows.T @ x.reshape(-1, x.shape[2]), "weight_hh": learned[0]}
    if layer.bias:
        found["bias"] = np.concatenate([rows.sum(axis=0), learned[1]])
    found |= zip(more, learned[2:], strict=True)
    return grad_into @ weight, grad_states, found


def _weights(layer: Any, weights: Weights, direction: int, dtype: np.dtype[Any]) -> tuple[Array, Array, Array, Array]:
    """Of the input and of the state: the weights, and the biases, 0 where there are none."""
    weight, own = weights["weight_ih"][direction], weights["weight_hh"][direction]
    bias, own_bias = np.split(weights["bias"][direction], 2) if layer.bias else np.zeros((2, len(weight)), dtype)
    return weight, own, bias, own_bias


@gradient(LSTM, GRU, RNN)
def stacked_gradient(
    layer: LSTM | GRU | RNN,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """Layer by layer from the last, each from what came into it."""
    x = inputs[0].swapaxes(0, 1) if layer.batch_first else inputs[0]
    steps = []
    for level, own in enumerate(levels_of(layer, weights)):
        one, states = level_of(layer, level, inputs[1:])
        found = kernel_of(one)(one, (x, *states), own)
        steps.append((one, (x, *states), own, found))
        x = side_by_side(found[0])
    grad = grads[0].swapaxes(0, 1) if layer.batch_first else grads[0]
    learned: dict[str, Array] = {}
    of_states: list[tuple[Array | None, ...]] = []
    for level, (one, came, own, found) in reversed(list(enumerate(steps))):
        length, batch, _ = grad.shape
        begin = level * one.directions
        lasts = tuple(last[begin : begin + one.directions] for last in grads[1:])
        apart = grad.reshape(length, batch, one.directions, -1).swapaxes(1, 2)
        (of_x, *of), own_learned = recurrent_gradient(one, came, found, own, (apart, *lasts))
        learned |= by_names(layer, level, own_learned)
        of_states.insert(0, tuple(of))
        grad = np.asarray(of_x)
    starts = (np.concatenate(states) for states in zip(*of_states, strict=True))
    return (grad.swapaxes(0, 1) if layer.batch_first else grad, *starts), learned
