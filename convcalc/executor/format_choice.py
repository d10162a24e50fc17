"""Which tensors of a network lie with their channels last.

That is of use to convolutions: windows and tiles are laid out by rows of channels, and products of few places are small
ones. But a 1x1 convolution of few places that is a large product is faster with its weights first. What reads or makes
a tensor must be able to; the tensors of a sum, an activation or a pool are of one order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convcalc.analysis.memory import inputs_of
from convcalc.analysis.shapes import Resolved
from convcalc.executor.algorithms import algorithm_for, forced_name
from convcalc.executor.channel_products import parts_at_once
from convcalc.executor.channels_last import VARIANTS
from convcalc.executor.conv import padded_problem
from convcalc.executor.onnx_nodes import NODES
from convcalc.layers.activation import Elementwise
from convcalc.layers.adaptive import AdaptiveAvgPool, GlobalAvgPool
from convcalc.layers.base import Shape
from convcalc.layers.conv import Conv
from convcalc.layers.join import Add, Concat
from convcalc.layers.norm import BatchNorm
from convcalc.layers.pool import MaxPool
from convcalc.network import Network
from convcalc.tracing import product

MANY_PLACES = 512
"""Places of all images, from which on a 1x1 convolution is faster with the channels last."""


def tensors_of_type(network: Network, resolved: Sequence[Resolved], dtype: np.dtype[Any]) -> dict[str, Shape]:
    """The shapes of the tensors that are of this type, which is that of the inputs; weights and constants apart."""
    types, own = network.dtypes, str(dtype)
    shapes = {name: given.shape for name, given in network.inputs.items()}
    for item in resolved:
        made = zip(item.node.outputs, item.outputs, item.layer.output_dtypes(own), strict=False)
        shapes |= {name: shape for name, shape, kind in made if (kind or own) == own}
    return {name: shape for name, shape in shapes.items() if types.get(name, own) == own}


def channels_last_tensors(
    network: Network, runs: Sequence[tuple[Resolved, ...]], dtype: np.dtype[Any]
) -> frozenset[str]:
    """The names of the tensors, of this type, where layers run as one as these do.

    None where an algorithm is forced, whose numbers are wanted.
    """
    if forced_name() not in (None, "auto") or "bfloat16" in network.dtypes.values():
        return frozenset()
    shapes = tensors_of_type(network, [item for run in runs for item in run], dtype)
    outside = {*network.inputs, *network.outputs}
    made = {name for run in runs for name in run[-1].node.outputs}
    able = {
        name
        for name, shape in shapes.items()
        if name in made - outside and len(shape) > 2 and shape[1] > 1 and product(shape[2:]) > 1
    }
    groups: dict[str, set[str]] = {name: {name} for name in able}
    votes = dict.fromkeys(able, 0)
    for run in runs:
        free, tied = _ports(run, dtype)
        able -= {*inputs_of(run), *run[-1].node.outputs} - {*free, *tied}
        _tie(groups, tied)
        if isinstance(run[0].layer, Conv):
            _vote(votes, run)
    chosen: set[str] = set()
    for name in able:
        group = groups[name]
        if group <= able and sum(votes[member] for member in group) > 0:
            chosen |= group
    return frozenset(chosen)


def _ports(run: tuple[Resolved, ...], dtype: np.dtype[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tensors that may be of any order, and those that must be of one."""
    item, output = run[0], run[-1].node.outputs
    layer = item.layer
    if len(output) != 1 or (item.node.op in NODES and not isinstance(layer, MaxPool)):
        return (), ()
    if isinstance(layer, Conv):
        problem, copied = padded_problem(layer, item.inputs[0], item.outputs[0])
        able = problem.groups == 1 and not copied and algorithm_for(problem, [dtype]) in VARIANTS
        first, *added = inputs_of(run)
        return ((first,), (*added, *output)) if able else ((), ())
    if isinstance(layer, AdaptiveAvgPool | GlobalAvgPool) and product(item.outputs[0][2:]) == 1:
        return item.node.inputs, ()
    return (), (*inputs_of(run), *output) if _takes_either(item) else ()


def _takes_either(item: Resolved) -> bool:
    """Whether all tensors of a layer may lie with their channels last, or all as they are seen."""
    match item.layer:
        case Elementwise():
            return not item.layer.parameters()
        case BatchNorm():
            return "running_mean" in item.layer.buffers()
        case Add():
            return len(set(item.inputs)) == 1
        case Concat():
            return item.layer.dim % len(item.outputs[0]) == 1
        case MaxPool():
            return len(item.layer.kernel_size) == 2 and set(item.layer.dilation) == {1}
        case _:
            return False


def _tie(groups: dict[str, set[str]], names: Sequence[str]) -> None:
    """Make one group of the groups of these tensors; one that cannot have its channels last is in none."""
    together = set().union(*(groups.get(name, {name}) for name in names))
    for name in together & groups.keys():
        groups[name] = together


def _vote(votes: dict[str, int], run: tuple[Resolved, ...]) -> None:
    """What a convolution gains, by the numbers of its tensors: for one order, or below 0 for the other."""
    item = run[0]
    assert isinstance(item.layer, Conv)
    channels_out, *sizes = item.outputs[0][1:]
    places, taps = item.outputs[0][0] * product(sizes), product(item.layer.kernel_size)
    gains = taps > 1 or places >= MANY_PLACES or parts_at_once(places, item.inputs[0][1], channels_out) > 0
    for name, shape in ((item.node.inputs[0], item.inputs[0]), (run[-1].node.outputs[0], item.outputs[0])):
        if name in votes:
            votes[name] += product(shape) if gains else -product(shape)
