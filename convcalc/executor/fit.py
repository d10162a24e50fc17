"""Learning weights by gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from convcalc.analysis.shapes import located
from convcalc.errors import ConvcalcError, ShapeError
from convcalc.executor.kernels import Array, Weights, floats
from convcalc.executor.model import computed_weights
from convcalc.executor.onnx_nodes import differentiating
from convcalc.executor.optimizers import OPTIMIZERS
from convcalc.executor.plan import need, plan
from convcalc.executor.run import (
    WINDOWED,
    Prepared,
    Result,
    as_array,
    compute,
    compute_layer,
    refuse_decided,
    with_computed_weights,
)
from convcalc.layers.base import choice, shape_text
from convcalc.records import dataclass, replace

RATE, STEPS = 0.03, 20
"""The rate of learning and the number of steps where none are said."""


@dataclass(frozen=True, eq=False)
class Fit:
    """What was learned: the loss before every step and after the last, and the run with the weights that came out."""

    losses: Sequence[float]
    result: Result


def fit(
    prepared: Prepared,
    target: npt.ArrayLike,
    *,
    lr: float = RATE,
    steps: int = STEPS,
    optimizer: str = "sgd",
    on_step: Callable[[int, float], None] | None = None,
) -> Fit:
    """Learn every parameter by descent on the squared error, summed over the output. Layers are as at inference.

    The weights of `prepared` are the start; the optimizer is one of `OPTIMIZERS`. `on_step` gets the number of each
    step, from 1, and the loss before it. Raises `ShapeError` for a target of another shape than the output,
    `ResourceError` when memory cannot hold what training keeps, `ConvcalcError` when the loss grows beyond all bounds.
    """
    choice("optimizer", optimizer, tuple(OPTIMIZERS))
    states, update = OPTIMIZERS[optimizer]
    refuse_decided(prepared.network, "while the weights learn they would be others")
    prepared = replace(
        prepared,
        inputs={name: floats(array) for name, array in prepared.inputs.items()},
        weights={name: floats(array) for name, array in prepared.weights.items()},
    )
    output = next(item for item in prepared.resolved if prepared.network.outputs[0] in item.node.outputs)
    shape = output.outputs[output.node.outputs.index(prepared.network.outputs[0])]
    wanted = as_array(target, "the target")
    shown = prepared.shown(np.empty(shape, np.int8)).shape
    if wanted.shape not in (shape, shown):
        raise ShapeError(f"the target is {shape_text(wanted.shape)}, but the output is {shape_text(shown)}")
    wanted = wanted.reshape(shape)
    learned = {f"{item.node.name}.{parameter}" for item in prepared.resolved for parameter in item.layer.parameters()}
    if not learned:
        raise ShapeError("there is nothing to learn: no layer has parameters")
    dtype = str(next(iter(prepared.inputs.values())).dtype)
    # Besides the weights: gradients, new weights, what an update makes on its way, and what the optimizer keeps.
    there = sum(array.nbytes for array in (*prepared.inputs.values(), *prepared.weights.values()))
    need(plan(prepared.network, prepared.resolved, dtype, copies=4 + states), there)
    kept = {key: [np.zeros_like(prepared.weights[key]) for _ in range(states)] for key in learned}
    losses: list[float] = []
    for step in range(1, steps + 1):
        loss, gradients = _loss_and_gradients(prepared, wanted)
        if not np.isfinite(loss):
            raise ConvcalcError(
                f"the loss grew beyond all bounds by step {step}; a smaller rate than {lr:g} is needed",
                field="lr",
                value=lr,
            )
        losses.append(loss)
        if on_step is not None:
            on_step(step, loss)
        with np.errstate(all="ignore"):
            weights = {
                key: update(array, gradients[key], kept[key], step, lr)
                if key in learned and key in gradients
                else array
                for key, array in prepared.weights.items()
            }
        prepared = replace(
            prepared,
            weights={key: array.astype(prepared.weights[key].dtype, copy=False) for key, array in weights.items()},
        )
    result = compute(prepared)
    losses.append(float(((result.output - prepared.shown(wanted)) ** 2).sum()))
    return Fit(losses, result)


def learned_weight(prepared: Prepared, learned: Fit) -> tuple[str, Array]:
    """The first weight that was learned, by name, without leading axes of size 1: as `run` reads it."""
    item = next(item for item in prepared.resolved if item.layer.parameters())
    parameter = next(iter(item.layer.parameters()))
    name = f"{item.node.name}.{parameter}"
    weight = learned.result.weights[name]
    lead = 2 if item.layer.kind in WINDOWED else 0
    while lead and weight.shape[0] == 1:
        weight, lead = weight[0], lead - 1
    return name, weight


def _loss_and_gradients(prepared: Prepared, wanted: Array) -> tuple[float, dict[str, Array]]:
    """The summed squared error, and its gradient for every parameter, by name."""
    tensors = {**prepared.constants, **prepared.inputs}
    network = prepared.network
    changing: set[str] = set()  # the tensors that a parameter has a part in: only these have gradients
    for item in prepared.resolved:
        node = item.node
        inputs = tuple(tensors[name] for name in node.inputs)
        if computed_weights(network, node):
            outputs = with_computed_weights(prepared, item, inputs, tensors)
        else:
            outputs = compute_layer(item, inputs, prepared.weights_of(node.name))
        tensors.update(zip(node.outputs, outputs, strict=True))
        if item.layer.parameters() or changing.intersection(node.inputs):
            changing.update(node.outputs)
    last = network.outputs[0]
    with np.errstate(all="ignore"):
        error = tensors[last] - wanted
        loss = float((error * error).sum())
    grads: dict[str, Array] = {last: 2 * error}
    gradients: dict[str, Array] = {}
    for item in reversed(prepared.resolved):
        node = item.node
        if not any(name in grads for name in node.outputs) or not changing.intersection(node.outputs):
            continue
        outputs = tuple(tensors[name] for name in node.outputs)
        grad_outputs = tuple(
            grads.get(name, np.zeros_like(tensor)) for name, tensor in zip(node.outputs, outputs, strict=True)
        )
        computed = computed_weights(network, node)
        own = node.inputs[: len(node.inputs) - len(computed)]
        shapes = {**item.layer.parameters(), **item.layer.buffers()}
        weights: Weights = prepared.weights_of(node.name)
        if computed:
            weights = {**weights, **{key: tensors[name].reshape(shapes[key]) for key, name in computed.items()}}
        try:
            with np.errstate(all="ignore"):
                grad_inputs, grad_weights = differentiating(item)(
                    tuple(tensors[name] for name in own), outputs, weights, grad_outputs
                )
        except ConvcalcError as problem:
            raise located(problem, node) from None
        pairs = list(zip(own, grad_inputs, strict=True))
        pairs += [(name, grad_weights.pop(key).reshape(tensors[name].shape)) for key, name in computed.items()]
        for name, grad in pairs:
            if grad is not None and name in changing:
                grads[name] = grads[name] + grad if name in grads else grad
        gradients.update({f"{node.name}.{parameter}": grad for parameter, grad in grad_weights.items()})
    return loss, gradients
