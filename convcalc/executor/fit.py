"""Learning weights by gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convcalc.analysis.shapes import Resolved, located
from convcalc.errors import ConvcalcError, LayerError, ShapeError
from convcalc.executor.algorithms import weights_once
from convcalc.executor.inputs import as_array, same_floats
from convcalc.executor.kernels import Array, Gradients, Weights
from convcalc.executor.model import computed_weights, is_model
from convcalc.executor.onnx_nodes import differentiating
from convcalc.executor.optimizers import OPTIMIZERS
from convcalc.executor.plan import need, plan
from convcalc.executor.run import Prepared, Result, compute, compute_layer, refuse_decided, with_computed_weights
from convcalc.executor.training import Back, Trained, trained
from convcalc.executor.weights import WINDOWED
from convcalc.layers.base import choice, shape_text
from convcalc.records import dataclass, replace

RATE, STEPS = 0.03, 20
"""The rate of learning and the number of steps where none are said."""


@dataclass(frozen=True, eq=False)
class Fit:
    """What was learned: the loss before every step and after the last, and the run with the weights that came out.

    `interrupted`: an interrupt came before all steps were done.
    """

    losses: Sequence[float]
    result: Result
    interrupted: bool = False


def fit(
    prepared: Prepared,
    target: npt.ArrayLike,
    *,
    lr: float = RATE,
    steps: int = STEPS,
    optimizer: str = "sgd",
    on_step: Callable[[int, float], None] | None = None,
    keep_interrupted: bool = False,
    train: bool = False,
    seed: int = 0,
) -> Fit:
    """Learn every parameter by descent on the squared error, summed over the output.

    Layers are as at inference; with `train` batch norms take the statistics of the batch, and bring their running ones
    up to date, and dropouts drop at random, from `seed`. The last loss and the result are as at inference even then.
    The weights of `prepared` are the start; what several layers share stays shared, and of a model's file the scales
    and biases that stand beside its layers are learned too. The optimizer is one of `OPTIMIZERS`. `on_step` gets the
    number of each step, from 1, and the loss before it. With `keep_interrupted` an interrupt after the first step ends
    the learning, and what was learned by then is kept. Raises `ShapeError` for a target of another shape than the
    output, `ResourceError` when memory cannot hold what training keeps, `ConvcalcError` when the loss grows beyond all
    bounds.
    """
    choice("optimizer", optimizer, tuple(OPTIMIZERS))
    if not 0 <= lr < np.inf:
        raise LayerError(f"lr is {lr:g}, but must be a number that is not below 0", field="lr", value=lr)
    states, update = OPTIMIZERS[optimizer]
    refuse_decided(prepared.network, "while the weights learn they would be others")
    if not is_model(prepared.network):
        inputs, weights = same_floats(prepared.network, prepared.inputs, prepared.weights, whole=False)
        prepared = replace(prepared, inputs=inputs, weights=weights)
    wanted = _target(prepared, target)
    slots, everything = _slots(prepared), _slots(prepared, buffers=True)
    if not slots:
        raise ShapeError("there is nothing to learn: no layer has parameters")
    dtype = str(wanted.dtype)
    # Besides the weights: gradients, new weights, what an update makes on its way, and what the optimizer keeps.
    there = sum(array.nbytes for array in (*prepared.inputs.values(), *prepared.weights.values()))
    with weights_once():
        need(plan(prepared.network, prepared.resolved, dtype, copies=4 + states), there)
    kept = {name: [np.zeros_like(_value(prepared, name)) for _ in range(states)] for name in slots}
    losses: list[float] = []
    interrupted = False
    for step in range(1, steps + 1):
        try:
            stream = np.random.default_rng((seed, step)) if train else None
            loss, gradients, buffers = _step(prepared, wanted, slots, stream)
            if not np.isfinite(loss):
                raise _beyond_bounds(prepared, step, lr)
            with np.errstate(all="ignore"):
                new = {
                    name: update(_value(prepared, name), gradient, kept[name], step, lr)
                    for name, gradient in gradients.items()
                }
            prepared = _with_values(prepared, {**new, **buffers}, everything)
            losses.append(loss)
            if on_step is not None:
                on_step(step, loss)
        except KeyboardInterrupt:
            if not (keep_interrupted and losses):
                raise
            interrupted = True
            break
    result = compute(prepared)
    with np.errstate(all="ignore"):
        losses.append(float(((result.output - prepared.shown(wanted)) ** 2).sum()))
    learned = {name: prepared.constants[name] for name in slots if name not in prepared.weights}
    return Fit(losses, replace(result, weights={**result.weights, **learned}), interrupted)


def _target(prepared: Prepared, target: npt.ArrayLike) -> Array:
    """The target in the output's shape and type. Raises `ShapeError` for another shape, or what is no number."""
    name = prepared.network.outputs[0]
    output = next(item for item in prepared.resolved if name in item.node.outputs)
    shape = output.outputs[output.node.outputs.index(name)]
    wanted = as_array(target, "the target")
    shown = prepared.shown(np.empty(shape, np.int8)).shape
    if wanted.shape not in (shape, shown):
        raise ShapeError(f"the target is {shape_text(wanted.shape)}, but the output is {shape_text(shown)}")
    odd = np.argwhere(~np.isfinite(wanted))
    if len(odd):
        place, value = ",".join(map(str, odd[0])), wanted[tuple(odd[0])]
        raise ShapeError(f"the target has {value} at [{place}], which nothing can come near to")
    floating = [
        array.dtype for array in (*prepared.inputs.values(), *prepared.weights.values()) if array.dtype.kind == "f"
    ]
    return wanted.reshape(shape).astype(np.result_type(*floating, np.float32) if floating else np.float64, copy=False)


def _beyond_bounds(prepared: Prepared, step: int, lr: float) -> ConvcalcError:
    """What is wrong when a loss is no number: something that came in, or the rate."""
    for name, array in (*prepared.inputs.items(), *(prepared.weights.items() if step == 1 else ())):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return ShapeError(f"{name} has numbers that are not finite, so that there is nothing to learn from")
    if step == 1:
        return ConvcalcError("the loss is not finite before anything is learned; smaller weights or inputs are needed")
    return ConvcalcError(
        f"the loss grew beyond all bounds by step {step}; a smaller rate than {lr:g} is needed", field="lr", value=lr
    )


Slots = dict[str, list[str]]
"""What is learned: an array's name, and under which names layers have it."""


def _slots(prepared: Prepared, *, buffers: bool = False) -> Slots:
    """The parameters, those that are one array in one place, and the floats of a file that serve as scale or bias.

    With `buffers` these too, such as running means, though nothing learns them.
    """
    found: Slots = {}
    constants = prepared.network.constants
    first: dict[str, str] = {}  # the first parameter that is a file's tensor
    for item in prepared.resolved:
        for parameter in (*item.layer.parameters(), *(item.layer.buffers() if buffers else ())):
            key = f"{item.node.name}.{parameter}"
            tensor = item.node.weights.get(parameter)
            if tensor is not None and tensor not in constants:
                continue  # another node computes it, or it comes in
            owner = f"{item.node.shares}.{parameter}" if item.node.shares else key
            if tensor is not None:
                owner = first.setdefault(tensor, key)
            found.setdefault(owner, []).append(key)
    for name, array in prepared.constants.items():
        if name in constants and constants[name].parameter and array.dtype.kind == "f":
            found.setdefault(first.get(name, name), []).append(name)
    return found


def _value(prepared: Prepared, name: str) -> Array:
    return prepared.weights[name] if name in prepared.weights else prepared.constants[name]


def _with_values(prepared: Prepared, new: Mapping[str, Array], slots: Slots) -> Prepared:
    """What is prepared with other arrays, wherever layers have them."""
    weights, constants = dict(prepared.weights), dict(prepared.constants)
    for owner, array in new.items():
        for name in slots[owner]:
            held = weights if name in weights else constants
            held[name] = array.reshape(held[name].shape).astype(held[name].dtype, copy=False)
    return replace(prepared, weights=weights, constants=constants)


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


def _step(
    prepared: Prepared, wanted: Array, slots: Slots, stream: np.random.Generator | None
) -> tuple[float, dict[str, Array], dict[str, Array]]:
    """The summed squared error, its gradient for everything that is learned, and buffers that have changed, by name."""
    owners = {name: owner for owner, names in slots.items() for name in names}
    with weights_once():
        passed = _forward(prepared, owners, stream)
    last = prepared.network.outputs[0]
    with np.errstate(all="ignore"):
        error = passed.tensors[last] - wanted
        loss = float((error * error).sum())
        return loss, _gradients(prepared, passed, {last: 2 * error}, owners), passed.buffers


class Passed(NamedTuple):
    """A pass through the network: every tensor, and which of them something that is learned has a part in.

    Of layers that are others in training `backs` are the ways back, and `buffers` what they have changed.
    """

    tensors: dict[str, Array]
    changing: set[str]
    backs: dict[str, Back]
    buffers: dict[str, Array]


def _forward(prepared: Prepared, learned: Collection[str], stream: np.random.Generator | None) -> Passed:
    """All layers one after the other; those that draw or keep statistics as in training, if there is a stream."""
    tensors = {**prepared.constants, **prepared.inputs}
    passed = Passed(tensors, {name for name in prepared.constants if name in learned}, {}, {})
    for item in prepared.resolved:
        node = item.node
        inputs = tuple(tensors[name] for name in node.inputs)
        computed = computed_weights(prepared.network, node)
        found = None
        if stream is not None and not computed:
            found = _trained(item, inputs, prepared.weights_of(node.name), stream)
        if found is not None:
            outputs = found.outputs
            passed.backs[node.name] = found.back
            passed.buffers.update({f"{node.shares or node.name}.{key}": array for key, array in found.buffers.items()})
        elif computed:
            outputs = with_computed_weights(prepared, item, inputs, tensors)
        else:
            outputs = compute_layer(item, inputs, prepared.weights_of(node.name))
        tensors.update(zip(node.outputs, outputs, strict=True))
        if item.layer.parameters() or passed.changing.intersection(node.inputs):
            passed.changing.update(node.outputs)
    return passed


def _trained(
    item: Resolved, inputs: tuple[Array, ...], weights: Weights, stream: np.random.Generator
) -> Trained | None:
    try:
        with np.errstate(all="ignore"):
            return trained(item.layer, inputs, weights, stream)
    except ConvcalcError as problem:
        raise located(problem, item.node) from None


def _gradients(
    prepared: Prepared, passed: Passed, grads: dict[str, Array], owners: Mapping[str, str]
) -> dict[str, Array]:
    """The gradient of everything that is learned, from that of the output: layer by layer from the last."""
    tensors, changing = passed.tensors, passed.changing
    found: dict[str, Array] = {}

    def learn(name: str, grad: Array) -> None:
        """Add up what reaches an array, of all the layers that have it."""
        owner = owners[name]
        grad = grad.reshape(_value(prepared, owner).shape)
        found[owner] = found[owner] + grad if owner in found else grad

    def reach(name: str, grad: Array | None) -> None:
        """Add up what reaches a tensor."""
        if grad is not None and name in changing:
            grad = grad.reshape(tensors[name].shape)
            grads[name] = grads[name] + grad if name in grads else grad

    for item in reversed(prepared.resolved):
        node = item.node
        if not any(name in grads for name in node.outputs) or changing.isdisjoint(node.outputs):
            continue
        computed = computed_weights(prepared.network, node)
        own = node.inputs[: len(node.inputs) - len(computed)]
        of_inputs, of_weights = _layer_gradients(prepared, item, passed, grads, needed=not changing.isdisjoint(own))
        for parameter, grad in of_weights.items():
            if parameter in computed:
                reach(computed[parameter], grad)
            else:
                learn(f"{node.name}.{parameter}", grad)
        for name, of_input in zip(own, of_inputs, strict=True):
            reach(name, of_input)
    for name in owners.keys() & grads.keys():
        learn(name, grads[name])
    return found


def _layer_gradients(
    prepared: Prepared, item: Resolved, passed: Passed, grads: Mapping[str, Array], *, needed: bool
) -> Gradients:
    """The gradients of a layer's inputs, if they are `needed`, and weights, from those that reach its outputs."""
    node, tensors = item.node, passed.tensors
    outputs = tuple(tensors[name] for name in node.outputs)
    of_outputs = tuple(
        grads[name] if name in grads else np.zeros_like(tensor)
        for name, tensor in zip(node.outputs, outputs, strict=True)
    )
    if node.name in passed.backs:
        return passed.backs[node.name](of_outputs)
    computed = computed_weights(prepared.network, node)
    inputs = tuple(tensors[name] for name in node.inputs[: len(node.inputs) - len(computed)])
    weights: Weights = prepared.weights_of(node.name)
    if computed:
        shapes = {**item.layer.parameters(), **item.layer.buffers()}
        weights = {**weights, **{key: tensors[name].reshape(shapes[key]) for key, name in computed.items()}}
    try:
        return differentiating(item, of_inputs=needed)(inputs, outputs, weights, of_outputs)
    except ConvcalcError as problem:
        raise located(problem, node) from None
