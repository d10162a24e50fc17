"""Recurrent layers: a product of the whole input with the weights, then one of the state with its own at each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from convcalc.errors import ShapeError
from convcalc.executor.kernels import Array, LayerWeights, Weights, derived, kernel, kernel_of
from convcalc.executor.products import rows_times
from convcalc.executor.threads import share, thread_count
from convcalc.layers.base import shape_text
from convcalc.layers.recurrent import GRU, LSTM, RNN, OnnxGRU, OnnxLSTM, OnnxRNN
from convcalc.records import replace
from convcalc.tracing import ceil_div

States = tuple[Array, ...]
"""What goes from step to step, (N, hidden) each: the state, and of an LSTM the cell."""
Step = Callable[[Array, States], States]
"""From what the input adds to each gate, (N, gates·hidden), and the last states to the next."""


def _sigmoid(x: Any) -> Any:
    # By the tangent, which does not overflow.
    return 0.5 * np.tanh(0.5 * x) + 0.5


CURVES: Mapping[str, Callable[[Array, float, float], Array]] = {
    "affine": lambda x, alpha, beta: alpha * x + beta,
    "elu": lambda x, alpha, beta: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x),
    "hardsigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "leakyrelu": lambda x, alpha, beta: np.where(x < 0, alpha * x, x),
    "relu": lambda x, alpha, beta: np.maximum(x, 0),
    "scaledtanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "sigmoid": lambda x, alpha, beta: _sigmoid(x),
    "softplus": lambda x, alpha, beta: np.logaddexp(x, 0),
    "softsign": lambda x, alpha, beta: x / (1 + abs(x)),
    "tanh": lambda x, alpha, beta: np.tanh(x),
    "thresholdedrelu": lambda x, alpha, beta: np.where(x > alpha, x, 0),
}
"""The activations by ONNX's names, of x, alpha and beta."""
Curve = Callable[[Array], Array]


class Gates(NamedTuple):
    """What a step is made of: the activations, the limit of what goes into them, and the states' weights and bias."""

    curves: Sequence[Curve]
    clip: float | None
    weight: Array
    bias: Array

    def into(self, x: Array) -> Array:
        """What an activation gets: the gate, limited."""
        return x if self.clip is None else np.clip(x, -self.clip, self.clip)


def rnn_step(gates: Gates, x: Array, states: States) -> States:
    """f(x + h·R + b)."""
    (h,) = states
    return (gates.curves[0](gates.into(x + (h @ gates.weight.T + gates.bias))),)


def gru_step(gates: Gates, linear_before_reset: bool, x: Array, states: States) -> States:
    """Gates z and r by f, the new state by g: (1 - z)·g(...) + z·h. The rows stand in ONNX's order z, r, h."""
    (h,) = states
    f, g = gates.curves
    size = h.shape[1]
    both = gates.into(x[:, : 2 * size] + (h @ gates.weight[: 2 * size].T + gates.bias[: 2 * size]))
    z, r = f(both[:, :size]), f(both[:, size:])
    rows, bias = gates.weight[2 * size :].T, gates.bias[2 * size :]
    recurrent = r * (h @ rows + bias) if linear_before_reset else (r * h) @ rows + bias
    new = g(gates.into(x[:, 2 * size :] + recurrent))
    return ((1 - z) * new + z * h,)


def lstm_step(
    gates: Gates, peephole: Array | None, input_forget: bool, projection: Array | None, x: Array, states: States
) -> States:
    """Gates i, o, f by f, the new cell by g: c = f·c + i·g(...), h = o·h(c). The rows stand in ONNX's order i, o, f, c.

    A projection, (projected, hidden), is what h is multiplied by at last.
    """
    h, cell = states
    f, g, last = gates.curves
    size = cell.shape[1]
    into = x + (h @ gates.weight.T + gates.bias)
    i, o, forget, new = (into[:, place * size : (place + 1) * size] for place in range(4))
    if peephole is None and not input_forget:
        # All three at once: calls take longer than numbers here.
        three = f(gates.into(into[:, : 3 * size]))
        cell = three[:, 2 * size :] * cell + three[:, :size] * g(gates.into(new))
        h = three[:, size : 2 * size] * last(cell)
        return (h if projection is None else h @ projection.T), cell
    if peephole is not None:
        i, forget = i + peephole[:size] * cell, forget + peephole[2 * size :] * cell
    i = f(gates.into(i))
    kept = 1 - i if input_forget else f(gates.into(forget))
    cell = kept * cell + i * g(gates.into(new))
    if peephole is not None:
        o = o + peephole[size : 2 * size] * cell
    h = f(gates.into(o)) * last(cell)
    return (h if projection is None else h @ projection.T), cell


def walk(
    x: Array, weight: Array, bias: Array, step: Step, states: States, lengths: Array | None
) -> tuple[Array, States]:
    """The state after each step of x, (length, N, input), and the last states. Past a sequence's end outputs are 0."""
    length, batch, _ = x.shape
    given = rows_times(x.reshape(length * batch, -1), weight.T)
    given += bias
    given = given.reshape(length, batch, -1)
    outputs = np.zeros((length, batch, states[0].shape[1]), x.dtype)
    for place in range(length):
        found = step(given[place], states)
        if lengths is None:
            outputs[place], states = found[0], found
            continue
        on = (place < lengths)[:, None]
        outputs[place] = np.where(on, found[0], 0)
        states = tuple(np.where(on, new, old) for new, old in zip(found, states, strict=True))
    return outputs, states


class _Ready(NamedTuple):
    """The weights of an LSTM's direction as `_lstm_walk` takes them, the gates on the first axis.

    (4, input, hidden), (4, 1, hidden) and (4, hidden, hidden).
    """

    into: Array
    bias: Array
    own: Array


def _lstm_ready(layer: OnnxLSTM, weights: Weights, direction: int, dtype: np.dtype[Any]) -> _Ready:
    """Gates apart, halved where the sigmoid is 1/2·tanh(x/2) + 1/2, and those of the state once more, which is doubled.

    Halves are exact.
    """
    half = np.array([0.5, 0.5, 0.5, 1], dtype)[:, None, None]
    into, own = (
        weights[name][direction].astype(dtype, copy=False).reshape(4, layer.hidden_size, -1).swapaxes(1, 2).copy("C")
        for name in ("weight_ih", "weight_hh")
    )
    into *= half
    own *= half * dtype.type(0.5)
    bias = np.zeros((4, 1, layer.hidden_size), dtype)
    if layer.bias:
        bias += weights["bias"][direction].reshape(2, 4, 1, layer.hidden_size).sum(axis=0) * half
    return _Ready(into, bias, own)


def _lstm_walk(
    x: Array, out: Array, ready: _Ready, states: tuple[Array, Array], lasts: tuple[Array, Array], *, back: bool
) -> None:
    """All steps of (length, N, input) into (length, N, hidden) and the last states, with no array made in a step."""
    length, batch, size = x.shape
    given = np.matmul(x.reshape(length * batch, size), ready.into)
    given += ready.bias
    h, cell = states[0] * 2, lasts[1]
    np.copyto(cell, states[1])
    gates, bent = np.empty((4, *cell.shape), x.dtype), np.empty_like(cell)
    first, last, forget, new = gates
    three = gates[:3]
    for place in range(length - 1, -1, -1) if back else range(length):
        np.matmul(h, ready.own, out=gates)
        gates += given[:, place * batch : (place + 1) * batch]
        np.tanh(gates, out=gates)
        three += 1
        # Sigmoids are doubled here: c = f·c + i·g, h = o·tanh(c).
        cell *= forget
        first *= new
        cell += first
        cell *= 0.5
        np.tanh(cell, out=bent)
        h = np.multiply(last, bent, out=out[place])
    out *= 0.5
    np.copyto(lasts[0], h if length else states[0])


def _lstm(layer: OnnxLSTM, x: Array, weights: Weights, starts: Sequence[Array]) -> tuple[Array, tuple[Array, Array]]:
    """The outputs (length, directions, N, hidden) and the last states of an LSTM with the usual activations.

    Sequences are independent: where there are threads to share the work, each takes some of them.
    """
    length, batch, _ = x.shape
    size = layer.hidden_size
    outputs = np.empty((length, layer.directions, batch, size), x.dtype)
    lasts = (np.empty((layer.directions, batch, size), x.dtype), np.empty((layer.directions, batch, size), x.dtype))
    ready = [
        derived(weights, f"direction {direction} {x.dtype}", partial(_lstm_ready, layer, weights, direction, x.dtype))
        for direction in range(layer.directions)
    ]
    work = length * layer.directions * batch * size * 4 * (x.shape[2] + size)
    parts = max(1, min(thread_count() // layer.directions, batch // LEAST_SEQUENCES)) if work > LEAST_WORK else 1
    many = max(1, ceil_div(batch, parts))

    def walk_part(job: tuple[int, int]) -> None:
        direction, first = job
        mine = (direction, slice(first, first + many))
        _lstm_walk(
            x[:, mine[1]],
            outputs[:, direction, mine[1]],
            ready[direction],
            (starts[0][mine], starts[1][mine]),
            (lasts[0][mine], lasts[1][mine]),
            back=layer.reverse or direction == 1,
        )

    jobs = [(direction, first) for direction in range(layer.directions) for first in range(0, batch, many)]
    if work > LEAST_WORK:
        share(walk_part, jobs)
    else:
        for job in jobs:
            walk_part(job)
    return outputs, lasts


LEAST_WORK = 1 << 24
"""Multiply-adds of an LSTM below which it is not worth waking a thread."""
LEAST_SEQUENCES = 8
"""How many sequences a thread takes at least: of fewer a product takes as long."""


def turned(x: Array, lengths: Array | None) -> Array:
    """Each sequence from its end to its start; what is past its end stays. Turned twice it is as it was."""
    if lengths is None:
        return x[::-1]
    places = np.arange(len(x))[:, None]
    order = np.where(places < lengths, lengths - 1 - places, places)
    return np.take_along_axis(x, order[:, :, None], axis=0)


def _curves(layer: OnnxLSTM | OnnxGRU | OnnxRNN, usual: Sequence[str], direction: int) -> list[Curve]:
    named = layer.activations or tuple((name, 0.0, 0.0) for name in usual) * layer.directions
    mine = named[direction * len(usual) : (direction + 1) * len(usual)]
    return [partial(_curve, *each) for each in mine]


def _curve(name: str, alpha: float, beta: float, x: Array) -> Array:
    return CURVES[name](x, alpha, beta)


_USUAL: Mapping[type, Sequence[str]] = {
    OnnxRNN: ("tanh",),
    OnnxGRU: ("sigmoid", "tanh"),
    OnnxLSTM: ("sigmoid", "tanh", "tanh"),
}


def gates_of(layer: OnnxLSTM | OnnxGRU | OnnxRNN, weight: Any, bias: Any, direction: int) -> Gates:
    """What a step of a direction is made of, with these weights and bias of the state."""
    return Gates(_curves(layer, _USUAL[type(layer)], direction), layer.clip, weight, bias)


def step_of(layer: OnnxLSTM | OnnxGRU | OnnxRNN, gates: Gates, peephole: Any, projection: Any = None) -> Step:
    """One step of a layer."""
    if isinstance(layer, OnnxRNN):
        return partial(rnn_step, gates)
    if isinstance(layer, OnnxGRU):
        return partial(gru_step, gates, layer.linear_before_reset)
    return partial(lstm_step, gates, peephole, layer.input_forget, projection)


@kernel(OnnxRNN, OnnxGRU, OnnxLSTM)
def recurrent(layer: OnnxLSTM | OnnxGRU | OnnxRNN, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """All directions of a layer: outputs (length, directions, N, hidden) and the last of each state."""
    x, given = inputs[0], dict(zip(layer.given, inputs[1:], strict=True))
    dtype = x.dtype
    wide = np.result_type(dtype, np.float32)
    if layer.batch_first:
        x = x.swapaxes(0, 1)
    length, batch, _ = x.shape
    x = x.astype(wide, copy=False)
    lengths = given.get("sequence_lens")
    if lengths is not None and (lengths.shape != (batch,) or lengths.min() < 0 or lengths.max() > length):
        raise ShapeError(f"sequence_lens must be {batch} numbers from 0 to {length}", field="sequence_lens")
    starts = []
    sizes = {"initial_h": layer.proj_size or layer.hidden_size, "initial_c": layer.hidden_size}
    for name, size in [*sizes.items()][: layer.states]:
        shape = (layer.directions, batch, size)
        start = given.get(name)
        if start is not None and layer.batch_first:
            start = start.swapaxes(0, 1)
        if start is not None and start.shape != shape:
            raise ShapeError(f"{name} is {shape_text(start.shape)}, but must be {shape_text(shape)}", field=name)
        starts.append(np.zeros(shape, wide) if start is None else start.astype(wide, copy=False))
    usual = not layer.activations and layer.clip is None and lengths is None and not layer.proj_size
    if isinstance(layer, OnnxLSTM) and usual and not layer.input_forget and "peephole" not in weights:
        made, states_made = _lstm(layer, x, weights, starts)
        return _laid_out(layer, made, list(states_made), dtype)
    outputs, lasts = [], []
    for direction in range(layer.directions):
        weight, own = weights["weight_ih"][direction], weights["weight_hh"][direction]
        bias, own_bias = np.zeros((2, len(weight)), wide) if not layer.bias else np.split(weights["bias"][direction], 2)
        peephole = weights["peephole"][direction] if "peephole" in weights else None
        projection = weights["projection"][direction] if "projection" in weights else None
        step = step_of(layer, gates_of(layer, own, own_bias, direction), peephole, projection)
        back = layer.reverse or direction == 1
        found, last = walk(turned(x, lengths) if back else x, weight, bias, step,
                           tuple(start[direction] for start in starts), lengths)  # fmt: skip
        outputs.append(turned(found, lengths) if back else found)
        lasts.append(last)
    return _laid_out(layer, np.stack(outputs, 1), [np.stack(state) for state in zip(*lasts, strict=True)], dtype)


def _laid_out(
    layer: OnnxLSTM | OnnxGRU | OnnxRNN, all_outputs: Array, states: list[Array], dtype: np.dtype[Any]
) -> tuple[Array, ...]:
    """Outputs and last states as the layer's axes stand, in a type."""
    if layer.batch_first:
        all_outputs, states = all_outputs.transpose(2, 0, 1, 3), [state.swapaxes(0, 1) for state in states]
    return tuple(array.astype(dtype, copy=False) for array in (all_outputs, *states))


_ONNX_ORDER = {OnnxLSTM: (0, 3, 1, 2), OnnxGRU: (1, 0, 2), OnnxRNN: (0,)}
"""PyTorch's gates i, f, g, o of an LSTM and r, z, n of a GRU in ONNX's order."""


def _in_onnx_order(gates: tuple[int, ...], weight: Array) -> Array:
    parts = np.split(weight, len(gates))
    return np.concatenate([parts[gate] for gate in gates])


def _in_torch_order(gates: tuple[int, ...], weight: Array) -> Array:
    parts = np.split(weight, len(gates))
    return np.concatenate([parts[gates.index(gate)] for gate in range(len(gates))])


Stacked = LSTM | GRU | RNN


def _ends(level: int, directions: int) -> list[str]:
    return [f"_l{level}{direction}" for direction in ("", "_reverse")[:directions]]


def levels_of(layer: Stacked, weights: Weights) -> Iterator[dict[str, Array]]:
    """The weights of each layer as one by itself has them: ONNX's order, directions in one array."""
    gates = _ONNX_ORDER[layer.layer]
    for level, single in enumerate(layer.levels()):
        ends = _ends(level, single.directions)
        own = {
            name: np.stack([_in_onnx_order(gates, weights[f"{name}{end}"]) for end in ends])
            for name in ("weight_ih", "weight_hh")
        }
        if layer.bias:
            own["bias"] = np.stack([
                np.concatenate([_in_onnx_order(gates, weights[f"bias_{part}{end}"]) for part in ("ih", "hh")])
                for end in ends
            ])  # fmt: skip
        if single.proj_size:
            own["projection"] = np.stack([weights[f"weight_hr{end}"] for end in ends])
        yield own


def by_names(layer: Stacked, level: int, own: Weights) -> dict[str, Array]:
    """What `levels_of` has of one layer, by PyTorch's names again."""
    gates = _ONNX_ORDER[layer.layer]
    found: dict[str, Array] = {}
    for direction, end in enumerate(_ends(level, layer.levels()[level].directions)):
        for name in ("weight_ih", "weight_hh"):
            found[f"{name}{end}"] = _in_torch_order(gates, own[name][direction])
        if layer.bias:
            for part, bias in zip(("ih", "hh"), np.split(own["bias"][direction], 2), strict=True):
                found[f"bias_{part}{end}"] = _in_torch_order(gates, bias)
        if "projection" in own:
            found[f"weight_hr{end}"] = own["projection"][direction]
    return found


def level_of(layer: Stacked, level: int, states: Sequence[Array]) -> tuple[Any, tuple[Array, ...]]:
    """One layer by itself, and its part of the first states."""
    single = layer.levels()[level]
    begin = level * single.directions
    own = tuple(state[begin : begin + single.directions] for state in states)
    return (single if own else replace(single, given=())), own


def side_by_side(outputs: Array) -> Array:
    """(length, directions, N, size) as (length, N, directions·size): what the next layer takes."""
    return outputs.swapaxes(1, 2).reshape(outputs.shape[0], outputs.shape[2], -1)


@kernel(LSTM, GRU, RNN)
def stacked(layer: Stacked, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Layer after layer, each on what the one before gives, its directions side by side."""
    x = inputs[0].swapaxes(0, 1) if layer.batch_first else inputs[0]
    last: list[tuple[Array, ...]] = []
    levels = derived(weights, "levels", lambda: [LayerWeights(own) for own in levels_of(layer, weights)])
    for level, own in enumerate(levels):
        one, states = level_of(layer, level, inputs[1:])
        found, *after = kernel_of(one)(one, (x, *states), own)
        last.append(tuple(after))
        x = side_by_side(found)
    ends_of = (np.concatenate(states) for states in zip(*last, strict=True))
    return (x.swapaxes(0, 1) if layer.batch_first else x, *ends_of)
