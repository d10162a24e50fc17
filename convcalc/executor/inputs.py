"""Arrays as they come in: of which types, and of which shapes a network takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from convcalc.errors import ShapeError
from convcalc.executor.kernels import Array
from convcalc.layers.base import Shape, shape_text
from convcalc.limits import need_bytes
from convcalc.network import Network, no_input
from convcalc.records import replace


def as_array(value: npt.ArrayLike, what: str) -> Array:
    """An array of whole numbers (int64) or floats. Raises `ShapeError` for what is neither.

    Half floats are computed with as float32, and whole numbers that int64 cannot hold as float64.
    """
    try:
        array: Array = np.asarray(value)
    except ValueError:
        raise ShapeError(f"{what} is not an array: its rows differ in length") from None
    if array.size == 0:
        raise ShapeError(f"{what} is empty")
    wanted: np.dtype[Any]
    if array.dtype.kind in "biu":
        wanted = np.dtype(np.int64 if array.dtype != np.uint64 or array.max() < 2**63 else np.float64)
    elif array.dtype.kind == "f":
        wanted = np.dtype(np.float32 if array.dtype.itemsize <= 4 else np.float64)
    else:
        raise ShapeError(f"{what} holds {array.dtype}, but must hold whole or floating-point numbers")
    if array.dtype == wanted:
        return array
    need_bytes(array.size * wanted.itemsize, f"{what} as {wanted}")
    return array.astype(wanted)


def input_arrays(
    network: Network, given: npt.ArrayLike | Mapping[str, npt.ArrayLike], *, keep_types: bool = False
) -> dict[str, Array]:
    """The inputs of a network by name, in its shapes; with `keep_types` as they come. Raises `ShapeError`."""
    if not network.inputs:
        raise no_input()
    named: Mapping[str, npt.ArrayLike]
    if isinstance(given, Mapping):
        named = given
    elif len(network.inputs) == 1:
        named = {next(iter(network.inputs)): given}
    else:
        raise ShapeError(
            f"the network has {len(network.inputs)} inputs, {', '.join(network.inputs)}: give each by name"
        )
    arrays = {}
    for name, wanted in network.inputs.items():
        if name not in named:
            raise ShapeError(f"the input {name} is missing")
        array = np.asarray(named[name]) if keep_types else as_array(named[name], f"the input {name}")
        fitting = _stretched(array, wanted.shape, batch_open=not wanted.batch_given)
        if fitting is None:
            raise ShapeError(f"the input {name} is {shape_text(array.shape)}, but the network takes {_taken(wanted)}")
        arrays[name] = fitting
    return arrays


def _taken(wanted: Any) -> str:
    return shape_text(wanted.shape if wanted.batch_given else wanted.shape[1:])


def _stretched(array: Array, shape: Shape, *, batch_open: bool) -> Array | None:
    """The array with the leading axes of size 1 that are left out, or None if it is not of this shape.

    Where one number is wanted, an array of one may have any axes.
    """
    if not shape and array.size == 1:
        return array.reshape(())
    missing = len(shape) - array.ndim
    if missing >= 0 and shape[missing:] == array.shape and set(shape[:missing]) <= {1}:
        return array.reshape(shape)
    return array if batch_open and not missing and array.shape[1:] == shape[1:] else None


def with_batch_of(network: Network, arrays: Mapping[str, Array]) -> Network:
    """The network with inputs of the batch that these arrays have."""
    inputs = {
        name: replace(given, shape=arrays[name].shape, batch_given=True) if arrays[name].shape != given.shape else given
        for name, given in network.inputs.items()
    }
    return replace(network, inputs=inputs)


def bytes_there(arrays: Iterable[Array], dtype: npt.DTypeLike) -> int:
    """The bytes of those arrays that are computed with as they are; of all others there will be a copy."""
    return sum(array.nbytes for array in arrays if array.dtype == dtype)


def float_type(arrays: Any) -> npt.DTypeLike:
    """The type of the floats among these arrays together, float64 where there are none."""
    floating = [array.dtype for array in arrays if array.dtype.kind == "f"]
    return np.result_type(*floating) if floating else np.dtype(np.float64)


def same_floats(
    network: Network, inputs: Mapping[str, Array], weights: Mapping[str, Array], *, whole: bool = True
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Arrays of one type: whole numbers stay whole when all that is given is (and `whole`), else all become floats.

    What comes in decides which floats: float32 stays float32 even when weights come as float64. What only names rows of
    tables stays as it is.
    """
    counted = {name for node in network.nodes if node.layer.kind != "embedding" for name in node.inputs}
    numbers = [array for name, array in inputs.items() if name in counted]
    everything = [*numbers, *weights.values()]
    if whole and all(array.dtype.kind != "f" for array in everything):
        return dict(inputs), dict(weights)
    dtype = float_type(numbers if any(x.dtype.kind == "f" for x in numbers) else everything)
    return (
        {name: array.astype(dtype, copy=False) if name in counted else array for name, array in inputs.items()},
        {name: array.astype(dtype, copy=False) for name, array in weights.items()},
    )
