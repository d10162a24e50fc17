"""Layers that run as one: batch norm goes into the weights before it, and activations are done block by block.

A tensor that only the next layer reads is never made then. Nothing is joined where every layer's own output is wanted,
or the direct way is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from convcalc.analysis.memory import inputs_of
from convcalc.analysis.shapes import Resolved, located
from convcalc.errors import ConvcalcError
from convcalc.executor.activation import change
from convcalc.executor.affine import affine_into
from convcalc.executor.algorithms import direct_only
from convcalc.executor.blocks import Activation, add_up
from convcalc.executor.conv import convolution
from convcalc.executor.into import Into, activating, into_of
from convcalc.executor.kernels import Array, LayerWeights, Weights, derived, kernel_of
from convcalc.executor.linear import linear_into
from convcalc.executor.memory_format import empty
from convcalc.executor.onnx_nodes import NODES, computing
from convcalc.executor.threads import Calls, perform
from convcalc.layers.activation import Elementwise, ReLU
from convcalc.layers.base import Layer
from convcalc.layers.conv import Conv
from convcalc.layers.join import Add
from convcalc.layers.linear import Linear
from convcalc.layers.norm import BatchNorm
from convcalc.network import Network


class Step(NamedTuple):
    """Layers that run as one: what goes into the first, what comes out of the last, and the function between.

    `into` does the same into a given array, all by `share_calls`, where it can. What comes out has its `channels_last`
    in memory or lies as it is seen; what comes in may be either, where `format_choice` lets it.
    """

    items: tuple[Resolved, ...]
    compute: Callable[[tuple[Array, ...]], tuple[Array, ...]]
    into: Into | None = None
    channels_last: bool = False

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """What comes out of the last; an error names the first."""
        try:
            return self.compute(inputs)
        except ConvcalcError as error:
            raise located(error, self.items[0].node) from None

    @property
    def inputs(self) -> tuple[str, ...]:
        return inputs_of(self.items)

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.items[-1].node.outputs


def single_steps(resolved: Sequence[Resolved], weights_of: Callable[[str], LayerWeights]) -> list[Step]:
    """Every layer by itself."""
    return [_single(item, weights_of(item.node.name)) for item in resolved]


def can_join(dtypes: Sequence[np.dtype[Any]]) -> bool:
    """Whether layers of inputs of these types may run as one: not where everything is done directly, as it is written.

    And their weights must be there, not computed by layers before them.
    """
    return bool(dtypes) and not direct_only(dtypes)


def joined_runs(network: Network, resolved: Sequence[Resolved]) -> list[tuple[Resolved, ...]]:
    """The layers that run as one: a convolution and what follows it of a batch norm, a sum and an activation.

    A sum or a batch norm by itself has its activation, too.
    """
    makers = {name: index for index, item in enumerate(resolved) for name in item.node.outputs}
    uses = Counter(name for item in resolved for name in item.node.inputs) + Counter(network.outputs)
    readers = {name: item for item in resolved for name in item.node.inputs}
    done: set[str] = set()
    runs = []
    for index, item in enumerate(resolved):
        if item.node.name not in done:
            joins = (isinstance(item.layer, Conv | Add) or _is_line(item.layer)) and item.node.op not in NODES
            later = partial(_is_made_after, makers, index)
            runs.append(tuple(_run(item, uses, readers, later)) if joins else (item,))
            done |= {joined.node.name for joined in runs[-1]}
    return runs


def joined_steps(
    network: Network,
    resolved: Sequence[Resolved],
    weights_of: Callable[[str], LayerWeights],
    channels_last: Collection[str] = (),
) -> list[Step]:
    """What is computed for each of the `joined_runs`, the tensors of these names with their channels last."""
    steps = _joined_steps(network, resolved, weights_of)
    return [_with_channels_last(step) if {*step.outputs} & {*channels_last} else step for step in steps]


def _with_channels_last(step: Step) -> Step:
    given, shape, into = step.items[0].inputs[0], step.items[-1].outputs[0], step.into
    assert into is not None

    def compute(inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        if inputs[0].shape != given:  # of other sizes than were planned all lies as it is seen
            return step.compute(inputs)
        out = empty(shape, inputs[0].dtype)
        into(inputs, out)
        return (out,)

    return step._replace(compute=compute, channels_last=True)


def _joined_steps(
    network: Network, resolved: Sequence[Resolved], weights_of: Callable[[str], LayerWeights]
) -> list[Step]:
    steps = []
    for run in joined_runs(network, resolved):
        item = run[0]
        weights = weights_of(item.node.name)
        activation = in_place(run[-1].layer) if isinstance(run[-1].layer, Elementwise) else None
        if _is_line(item.layer) and item.node.op not in NODES:
            steps.append(_normalising(run, weights, activation))
            continue
        if len(run) == 1:
            steps.append(_single(item, weights))
            continue
        norms = [joined for joined in run if isinstance(joined.layer, BatchNorm)]
        for norm in norms:
            weights = _with_norm(norm.layer, weights, weights_of(norm.node.name))  # type: ignore[arg-type]  # is one
        if isinstance(item.layer, Conv):
            steps.append(_convolving(run, weights, activation))
        elif activation is not None:
            steps.append(_adding(run, activation))
    return steps


def _is_line(layer: Layer) -> bool:
    """Whether a layer is a batch norm that does not work with the statistics of what comes in."""
    return isinstance(layer, BatchNorm) and "running_mean" in layer.buffers()


def _is_made_after(makers: Mapping[str, int], index: int, name: str) -> bool:
    return makers.get(name, -1) > index


def _run(
    item: Resolved, uses: Mapping[str, int], readers: Mapping[str, Resolved], later: Callable[[str], bool]
) -> Iterator[Resolved]:
    """The layer and those after it that can be done with it; not what needs a tensor that is made later."""
    yield item
    allowed: tuple[type, ...] = (BatchNorm, Add, Elementwise) if isinstance(item.layer, Conv) else (Elementwise,)
    while allowed:
        (name,) = item.node.outputs
        following = readers.get(name)
        if uses[name] != 1 or following is None or not isinstance(following.layer, allowed):
            return
        if following.node.op in NODES:
            return
        if isinstance(following.layer, BatchNorm) and not _is_line(following.layer):
            return
        if isinstance(following.layer, Elementwise) and following.layer.parameters():
            return
        if isinstance(following.layer, Add):
            others = [other for other in following.node.inputs if other != name]
            if len(others) != 1 or later(others[0]) or len(set(following.inputs)) != 1:
                return
        rest: dict[type, tuple[type, ...]] = {BatchNorm: (Add, Elementwise), Add: (Elementwise,)}
        allowed = next((kinds for kind, kinds in rest.items() if isinstance(following.layer, kind)), ())
        item = following
        yield item


def _single(item: Resolved, weights: LayerWeights) -> Step:
    compute = computing(item)
    step = Step((item,), lambda inputs: compute(inputs, weights))
    if isinstance(item.layer, Conv) and item.node.op not in NODES:
        return step._replace(into=_convolving((item,), weights, None).into)
    if isinstance(item.layer, Linear) and item.node.op not in NODES:
        return step._replace(into=lambda inputs, out: linear_into(inputs[0], weights, out))
    if isinstance(item.layer, Elementwise) and not item.layer.parameters() and item.node.op not in NODES:
        return step._replace(into=activating(in_place(item.layer)))
    return step._replace(into=into_of(item))


class _Scaled(LayerWeights):
    """Weights whose `weight` is scaled when it is read: of the scaled one only what is derived from it stays."""

    def __init__(self, weights: Weights, scale: Array) -> None:
        super().__init__(weights)
        self._scale = scale

    def __getitem__(self, name: str) -> Array:
        array = super().__getitem__(name)
        return (array * self._scale).astype(array.dtype) if name == "weight" else array


def _line(layer: BatchNorm, norm: Weights, bias: Array | float = 0.0) -> tuple[Array, Array]:
    """What a batch norm multiplies each channel by and adds, where a bias was added before: in double precision."""
    wide = {name: array.astype(np.float64) for name, array in norm.items()}
    with np.errstate(all="ignore"):  # of a variance that is none nan comes, as in PyTorch
        scale = wide.get("weight", 1.0) / np.sqrt(wide["running_var"] + layer.eps)
        return scale, (bias - wide["running_mean"]) * scale + wide.get("bias", 0.0)


def _with_norm(layer: BatchNorm, weights: Weights, norm: Weights) -> LayerWeights:
    """The weights of the convolution and the batch norm after it: weight·scale, and (bias - mean)·scale + bias."""
    weight = weights["weight"]
    scale, bias = _line(layer, norm, weights["bias"].astype(np.float64) if "bias" in weights else 0.0)
    scale = scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return _Scaled({"weight": weight, "bias": bias.astype(weight.dtype)}, scale)


def in_place(layer: Elementwise) -> Activation:
    """What to call to do the activation where an array stands."""
    kernel_of(layer)  # which loads what its family has
    return _relu if isinstance(layer, ReLU) else lambda part: [(change, (layer, part))]


ROW = 4096
"""How many zeros `_relu` compares with at once."""


@cache
def _zeros(dtype: np.dtype[Any]) -> Array:
    return np.zeros(ROW, dtype)


def _relu(part: Array) -> Calls:
    """The larger of each number and 0, in place. NumPy compares five times as fast with an array as with a number."""
    zeros = _zeros(part.dtype)
    axis, together = part.ndim, 1
    while axis and part.strides[axis - 1] == together * part.itemsize and together * part.shape[axis - 1] <= ROW:
        axis -= 1
        together *= part.shape[axis]
    if part.flags.c_contiguous:
        flat = part.reshape(-1)
        length = _row_length(flat.size)
        whole = flat.size // length * length
        rows = [some for some in (flat[:whole].reshape(-1, length), flat[whole:]) if some.size]
    elif together > 1:
        # What lies together of the last axes is a view.
        rows = [part.reshape(*part.shape[:axis], together)]
    else:
        return [(partial(np.maximum, out=part), (part, zeros[0]))]
    return [(partial(np.maximum, out=some), (some, zeros[: some.shape[-1]])) for some in rows]


@lru_cache(maxsize=1024)
def _row_length(size: int) -> int:
    """How many numbers to compare at once: nearly as many as there are zeros, which divide all evenly if possible."""
    return next((length for length in range(min(ROW, size), ROW // 4, -1) if size % length == 0), ROW)


def _convolving(run: tuple[Resolved, ...], weights: LayerWeights, activation: Activation | None) -> Step:
    layer = run[0].layer
    assert isinstance(layer, Conv)

    def compute(inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        return (convolution(layer, inputs[0], weights, activation, added=inputs[1:]),)

    def into(inputs: tuple[Array, ...], out: Array) -> None:
        convolution(layer, inputs[0], weights, activation, out, inputs[1:])

    return Step(run, compute, into if layer.padding_mode == "zeros" else None)


def _normalising(run: tuple[Resolved, ...], weights: LayerWeights, activation: Activation | None) -> Step:
    """A batch norm by itself, and its activation."""
    layer = run[0].layer
    assert isinstance(layer, BatchNorm)

    def into(inputs: tuple[Array, ...], out: Array) -> None:
        dtype = out.dtype
        line = derived(weights, f"line {dtype}", lambda: [each.astype(dtype) for each in _line(layer, weights)])
        scale, move = line
        affine_into(inputs[0], scale, move, activation, out)

    def compute(inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        out = np.empty(inputs[0].shape, inputs[0].dtype)
        into(inputs, out)
        return (out,)

    return Step(run, compute, into)


def _adding(run: tuple[Resolved, ...], activation: Activation) -> Step:
    """Arrays of one shape, added block by block; or of several, which are stretched."""
    same = len(set(run[0].inputs)) == 1 < len(run[0].inputs)

    def into(inputs: tuple[Array, ...], out: Array) -> None:
        add_up(inputs, out, activation)

    def compute(inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        if not same:
            total = np.asarray(sum(inputs[1:], inputs[0]))
            result = total.copy() if total is inputs[0] else total
            perform(activation(result))
        else:
            result = np.empty(inputs[0].shape, np.result_type(*inputs))
            into(inputs, result)
        return (result,)

    return Step(run, compute, into if same else None)
