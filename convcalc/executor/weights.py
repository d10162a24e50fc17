"""The weights of a network: as they are given, what they decide that a text leaves open, and what starts the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from math import sqrt
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from convcalc.analysis.shapes import Resolved, located, resolve
from convcalc.errors import ShapeError, did_you_mean
from convcalc.executor.inputs import as_array
from convcalc.executor.kernels import Array
from convcalc.expressions import parse_text
from convcalc.expressions.layer_text import LayerText
from convcalc.expressions.program import Program
from convcalc.expressions.writing import expression_of
from convcalc.layers.base import Layer, Shape, shape_text
from convcalc.network import Input, Network
from convcalc.records import replace
from convcalc.tracing import product

GivenWeights = Mapping[str, npt.ArrayLike] | npt.ArrayLike
"""Weights by "name.parameter", such as "0.weight"; or one array, the first layer's weight."""
WINDOWED = ("conv", "convt")
"""The kinds whose weights are kernels."""


def program_of(network: Layer | Sequence[Layer] | str) -> Program:
    """The program of a layer, of layers in a row, or of an expression."""
    if isinstance(network, Layer):
        network = [network]
    if not isinstance(network, str):
        network = " ".join(map(expression_of, network))
    return parse_text(network)


# --- what the weights decide ----------------------------------------------------------------------------------------

_FIRST_AXES = {"conv": 2, "convt": 2, "linear": 2}
"""How many axes a weight has besides the kernel's own, for the kinds that one bare array can be the weight of."""


def settle(
    program: Program, x: Array, weights: GivenWeights | None, bias: npt.ArrayLike | None
) -> tuple[Network, dict[str, Array], bool]:
    """The network of a program for this input and these weights, and the weights by name."""
    program = _copy(program)
    names = _names(program)
    given: dict[str, Array] = {}
    bare = None
    if isinstance(weights, Mapping):
        given = {key: as_array(value, f"weight {key}") for key, value in weights.items()}
    elif weights is not None:
        bare = as_array(weights, "the weight")
    first = next((name for name, item in names.items() if item.kind.name in _FIRST_AXES), None)
    if first is None and (bare is not None or bias is not None):
        raise ShapeError(f"no layer has a weight: {', '.join(item.kind.name for item in program.layers)}")
    rank = _rank(program, x, bare)
    for item in program.layers:
        if item.kind.ranked and item.implied_rank is None:
            item.rank = rank
    drop = False
    if bare is not None and first is not None:
        channels = _network(program, x).inputs["input"].shape[1]
        missing = _missing_axes(names[first], rank, bare)
        drop = missing == 1 and len(program.layers) == 1 and names[first].kind.name == "conv"
        given[f"{first}.weight"] = _completed(names[first], bare, missing, channels)
    if bias is not None and first is not None:
        given[f"{first}.bias"] = as_array(bias, "the bias").reshape(-1)
    for name, item in names.items():
        if f"{name}.weight" in given:
            _take_sizes(item, given[f"{name}.weight"], with_bias=f"{name}.bias" in given)
    network = _network(program, x)
    if bias is not None and first is not None and given[f"{first}.bias"].size == 1:
        given[f"{first}.bias"] = np.repeat(given[f"{first}.bias"], _bias_size(network, first))
    return network, given, drop and network.nodes[0].layer.out_channels == 1  # type: ignore[attr-defined]  # a conv


def _network(program: Program, x: Array) -> Network:
    """The network on an array. One axis is a row of numbers, where a shape of one number would be every side."""
    network = program.network(x.shape)
    if x.ndim > 1:
        return network
    if not any(item.kind.ranked for item in program.layers):
        return replace(network, inputs={"input": Input((1, *x.shape), batch_given=False)})
    return network if product(network.inputs["input"].shape) == x.size else program.network((1, *x.shape))


def _copy(program: Program) -> Program:
    """The program with layers that can be filled in, and a convolution if it has none."""
    copies = {id(item): item for item in program.items}
    for item in program.layers:
        copied = copies[id(item)] = copy(item)
        copied.fields = dict(item.fields)
    copied_program = copy(program)
    copied_program.items = [copies[id(item)] for item in program.items]
    if not program.layers:
        copied_program.items += parse_text("conv").layers
    return copied_program


def _bias_size(network: Network, name: str) -> int:
    layer = next(item.layer for item in resolve(network) if item.node.name == name)
    return int(product(layer.parameters().get("bias", (1,))))


def _names(program: Program) -> dict[str, LayerText]:
    """The layers by the names that their nodes will have; of a name given twice, the first."""
    result: dict[str, LayerText] = {}
    for index, item in enumerate(program.layers):
        result.setdefault(item.name or str(index), item)
    return result


def _rank(program: Program, x: Array, bare: Array | None) -> int:
    """The spatial axes of layers whose text leaves them open: the input decides, or else a weight of five axes."""
    fixed = program.rank()
    if fixed is not None:
        return fixed
    if x.ndim == 1:
        return 1
    if bare is not None and bare.ndim == 5:
        return 3
    return program.read_input(x.shape)[0]


def _missing_axes(item: LayerText, rank: int, bare: Array) -> int:
    """How many leading axes a bare weight leaves out. Raises `ShapeError` when it has too many."""
    full = 2 + (rank if item.kind.name in WINDOWED else 0)
    if bare.ndim > full:
        raise ShapeError(
            f"the weight {shape_text(bare.shape)} has {bare.ndim} axes, but {item.kind.name} takes at most {full}"
        )
    return full - bare.ndim


def _completed(item: LayerText, bare: Array, missing: int, channels: int) -> Array:
    """A bare weight with its leading axes; a kernel without channels is for every channel of its own."""
    weight = bare.reshape((1,) * missing + bare.shape)
    open_ = not {"groups", "out_channels"} & set(item.fields)
    if item.kind.name in WINDOWED and missing >= 2 and channels > 1 and open_:
        item.fields["groups"] = channels
        weight = np.repeat(weight, channels, axis=0)
    return weight


def _take_sizes(item: LayerText, weight: Array, *, with_bias: bool) -> None:
    """Fill the fields that the expression leaves open and the weight decides."""
    kind = item.kind.name
    if kind not in _FIRST_AXES or weight.ndim < 2:
        return
    groups = item.fields.get("groups", 1)
    if kind == "linear":
        decided: dict[str, Any] = {"out_features": weight.shape[0]}
    else:
        decided = {"kernel_size": weight.shape[2:]} if weight.ndim > 2 else {}
        if kind == "conv":
            decided["out_channels"] = weight.shape[0]
        elif isinstance(groups, int):
            decided["out_channels"] = weight.shape[1] * groups
    decided["bias"] = with_bias
    for name, value in decided.items():
        item.fields.setdefault(name, value)


# --- weights --------------------------------------------------------------------------------------------------------


def by_name(network: Network, weights: GivenWeights | None, bias: npt.ArrayLike | None) -> dict[str, Array]:
    """Weights as given to a network, by "name.parameter". Raises `ShapeError` where no layer has one."""
    given: dict[str, Array] = {}
    if isinstance(weights, Mapping):
        given = {key: as_array(value, f"weight {key}") for key, value in weights.items()}
        # An attention that is printed is several layers; the first has PyTorch's in_proj_weight and in_proj_bias.
        names = {node.name for node in network.nodes}
        for key in [key for key in given if key.rpartition("in_proj_")[0] + "in_proj" in names]:
            given[key.replace("in_proj_", "in_proj.")] = given.pop(key)
    elif weights is not None or bias is not None:
        first = next((item for item in resolve(network) if "weight" in item.layer.parameters()), None)
        if first is None:
            raise ShapeError("no layer has a weight")
        if weights is not None:
            array = as_array(weights, "the weight")
            wanted = first.layer.parameters()["weight"]
            given[f"{first.node.name}.weight"] = array.reshape((1,) * (len(wanted) - array.ndim) + array.shape)
        if bias is not None:
            given[f"{first.node.name}.bias"] = as_array(bias, "the bias").reshape(-1)
    return given


def all_weights(
    resolved: Sequence[Resolved], given: Mapping[str, Array], dtype: npt.DTypeLike, seed: int
) -> tuple[dict[str, Array], list[str]]:
    """Every weight by name: as given, else the usual start. Also the layers whose weights were drawn at random."""
    result: dict[str, Array] = {}
    drawn = []
    for item in resolved:
        name = item.node.name
        shapes = {**item.layer.parameters(), **item.layer.buffers()}
        has_weight = f"{name}.weight" in given
        for parameter, shape in shapes.items():
            key = f"{name}.{parameter}"
            if item.node.shares:
                result[key] = result[f"{item.node.shares}.{parameter}"]
            elif key in given:
                if given[key].shape != shape:
                    error = ShapeError(
                        f"{parameter} is {shape_text(given[key].shape) or 'one number'}, but must be"
                        f" {shape_text(shape)}",
                        field=parameter,
                        value=given[key].shape,
                    )
                    raise located(error, item.node)
                result[key] = given[key]
            elif parameter == "bias" and has_weight:
                result[key] = np.zeros(shape, dtype)
            else:
                result[key], random = _start(item.layer, parameter, shape, dtype, seed, key)
                if random and name not in drawn:
                    drawn.append(name)
    unknown = [key for key in given if key not in result and not key.endswith(".num_batches_tracked")]
    if unknown:
        raise ShapeError(
            f"no layer has a weight {unknown[0]}{did_you_mean(unknown[0], result)}"
            + ("" if did_you_mean(unknown[0], result) else f"; the weights are {', '.join(list(result)[:6]) or 'none'}")
        )
    return result, drawn


def _bound_of_rows(layer: Any, shape: Shape) -> float:
    return 1 / sqrt(max(product(layer.parameters()["weight"][1:]), 1))


def _bound_of_states(layer: Any, shape: Shape) -> float:
    return 1 / sqrt(layer.hidden_size)


def _bound_of_projections(layer: Any, shape: Shape) -> float:
    # Weights by Xavier's rule; biases begin as 0.
    return sqrt(6 / sum(shape)) if len(shape) > 1 else 0.0


_BOUNDS = {
    **dict.fromkeys(_FIRST_AXES, _bound_of_rows),
    **dict.fromkeys(("lstm", "gru", "rnn"), _bound_of_states),
    "multiheadattention": _bound_of_projections,
}
"""Within which bounds PyTorch draws the parameters of a kind, uniformly."""


_MOST_NAMES = 6
"""How many layers a note names."""


def drawn_note(names: Sequence[str], seed: int) -> str:
    """What is said of layers whose weights are random."""
    said = ", ".join(names[:_MOST_NAMES]) + (
        f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    )
    return f"the weights of {said} are random, drawn from seed {seed}"


def _start(layer: Layer, parameter: str, shape: Shape, dtype: npt.DTypeLike, seed: int, key: str) -> tuple[Array, bool]:
    """What PyTorch starts this parameter with, and whether that is random."""
    if layer.kind in _BOUNDS:
        bound = _BOUNDS[layer.kind](layer, shape)
        # Each has a stream of its own, so that another layer before it changes nothing.
        stream = np.random.default_rng((seed, crc32(key.encode())))
        return stream.uniform(-bound, bound, shape).astype(dtype), True
    if layer.kind == "prelu":
        return np.full(shape, getattr(layer, "init", 0.25), dtype), False
    value = 1 if parameter in ("weight", "running_var") else 0
    return np.full(shape, value, dtype), False
