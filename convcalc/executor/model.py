"""The arrays of a network from a model's file: inputs of the file's types, weights as they lie in the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from convcalc.analysis.shapes import Resolved, located
from convcalc.errors import ShapeError, UnsupportedOpError
from convcalc.executor.kernels import Array
from convcalc.layers.base import shape_text
from convcalc.narrow import FORMATS, converted, holder
from convcalc.network import Network, Node

_TYPES = frozenset(
    ("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
)


def is_model(network: Network) -> bool:
    """Whether a network comes from a file that says what its tensors are.

    Printed code may have numbers in it, but says nothing of types.
    """
    return bool(network.dtypes) or not network.nodes or any(node.op for node in network.nodes)


def typed_inputs(network: Network, arrays: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    """The inputs in the types that the file gives them."""
    return {name: _typed(np.asarray(array), network, name) for name, array in arrays.items()}


def _typed(array: Array, network: Network, name: str) -> Array:
    found = array.astype(dtype_of(network, name), copy=False)
    kind = network.dtypes.get(name, "float32")
    return converted(found, kind) if kind in FORMATS else found


def dtype_of(network: Network, name: str) -> np.dtype[Any]:
    """NumPy's type that holds a tensor. Raises `UnsupportedOpError` for what is no number."""
    kind = holder(network.dtypes.get(name, "float32"))
    if kind not in _TYPES:
        raise UnsupportedOpError(f"{name} is of type {kind}, which cannot be computed with")
    return np.dtype(kind)


def fixed_weights(network: Network, resolved: Sequence[Resolved], given: Mapping[str, Array]) -> dict[str, Array]:
    """Every weight that the file holds by "name.parameter", mapped and not copied; what is `given` takes its place.

    Raises `ShapeError` for a given weight of another shape, or of no layer.
    """
    result: dict[str, Array] = {}
    for item in resolved:
        for parameter, shape in {**item.layer.parameters(), **item.layer.buffers()}.items():
            key = f"{item.node.name}.{parameter}"
            constant = network.constants.get(item.node.weights.get(parameter, ""))
            if key in given:
                if given[key].shape != shape:
                    text = f"{parameter} is {shape_text(given[key].shape)}, but must be {shape_text(shape)}"
                    raise located(ShapeError(text, field=parameter, value=given[key].shape), item.node)
                result[key] = given[key]
            elif constant is not None:
                result[key] = constant.array().reshape(shape)
    return result


def computed_weights(network: Network, node: Node) -> dict[str, str]:
    """The parameters of a node that other nodes compute, or that come in, and their tensors.

    These stand at the end of the node's inputs, too.
    """
    return {key: tensor for key, tensor in node.weights.items() if tensor not in network.constants}


def constants(network: Network, given: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """The tensors of the file that nodes take as inputs, or that go out as they are; `given` parameters in their place.

    Raises `ShapeError` for a given one of another shape.
    """
    taken = {name for node in network.nodes for name in node.inputs} | set(network.outputs)
    result = {name: constant.array() for name, constant in network.constants.items() if name in taken}
    for name, array in (given or {}).items():
        if name in result and network.constants[name].parameter:
            if array.shape != result[name].shape:
                text = f"{name} is {shape_text(array.shape)}, but must be {shape_text(result[name].shape)}"
                raise ShapeError(text, value=array.shape)
            result[name] = array.astype(result[name].dtype, copy=False)
    return result


def numbers(network: Network, arrays: Iterable[Array]) -> dict[str, Array]:
    """The numbers that stand in printed code, as floats of the type that the arrays have, if they are floats."""
    floating = [array.dtype for array in arrays if array.dtype.kind == "f"]
    dtype = np.result_type(*floating) if floating else None
    return {name: np.asarray(constant.value, dtype) for name, constant in network.constants.items()}
