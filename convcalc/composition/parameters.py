"""Parameters: the weights that layers are given, named, checked, and as numbers in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convcalc import formulas as F
from convcalc.analysis.shapes import Resolved, located
from convcalc.composition.geometry import Link
from convcalc.composition.kernels import state, swapped
from convcalc.errors import ConvcalcError, ExpressionError, ShapeError, did_you_mean
from convcalc.layers.base import Layer, shape_text
from convcalc.layers.conv import Conv
from convcalc.network import Constant, Network

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from convcalc.composition.kernels import Array, Given, Kernel

    GivenWeights = Mapping[str, ArrayLike] | Sequence[ArrayLike]


def own_weights(link: Link, given: Given) -> Kernel:
    """The weights of a convolution, those of a transposed one with the channels exchanged."""
    item = link.item
    layer: Any = item.layer
    shapes = layer.parameters()
    weight, bias = (parameter_of(item, name, shapes.get(name), given) for name in ("weight", "bias"))
    if weight is None:
        raise missing(item, "weight")
    if layer.bias and bias is None:
        import numpy as np

        bias = np.zeros(shapes["bias"])
    return (swapped(weight, layer.bound[2]) if layer.kind == "convt" else weight), bias


def as_pointwise(affine: Callable[[Given], Kernel], rank: int, given: Given) -> Kernel:
    """A number for each channel as kernels of one element."""
    scale, shift = affine(given)
    return scale.reshape(-1, 1, *(1,) * rank), shift


def norm_parameters(item: Resolved, count: int, given: Given) -> Kernel:
    """What batch norm at inference multiplies each channel by, and what it adds."""
    import numpy as np

    layer: Any = item.layer
    mean, variance = (parameter_of(item, name, (count,), given) for name in ("running_mean", "running_var"))
    if mean is None or variance is None:
        raise missing(item, "running_mean" if mean is None else "running_var")
    if (variance < 0).any():
        raise located(ShapeError("running_var is negative, which no variance is"), item.node)
    if (variance + layer.eps <= 0).any():
        raise located(ShapeError("running_var + eps must be more than 0 to divide by its root"), item.node)
    weight, bias = (parameter_of(item, name, (count,), given) for name in ("weight", "bias"))
    if layer.affine and weight is None:
        raise missing(item, "weight")
    # The formulas speak of numbers; arrays flow through them as well.
    scale_of: Callable[..., Any] = F.norm_scale
    shift_of: Callable[..., Any] = F.norm_shift
    scale = scale_of(np.ones(count) if weight is None else weight, variance, layer.eps)
    return scale, shift_of(np.zeros(count) if bias is None else bias, mean, scale)


def constant_values(constant: Constant, count: int) -> Array:
    """A constant of the model in float64, one number a channel. Raises `ShapeError` for one that is not finite."""
    import numpy as np

    values = np.asarray(constant.array(), np.float64).reshape(-1)
    if not np.isfinite(values).all():
        raise ShapeError("the constant holds NaN or infinity, and merging would spread it")
    return np.broadcast_to(values, (count,)).copy()


def constant_weights(operation: str, constant: Constant | None, channels: int, first: bool, given: Given) -> Kernel:
    """What arithmetic with a constant multiplies each channel by, and what it adds; `first` says that it is c - x.

    Without a constant the sign is turned.
    """
    import numpy as np

    ones = np.ones(channels)
    if constant is None:
        return -ones, None
    values = constant_values(constant, channels)
    if operation in ("mul", "div"):
        return values if operation == "mul" else 1 / values, None
    if operation == "sub":
        return (-ones, values) if first else (ones, -values)
    return ones, values


def number_weights(number: float, operation: str, channels: int, given: Given) -> Kernel:
    """What a constant scale or shift multiplies each channel by, and what it adds."""
    import numpy as np

    values = np.full(channels, float(number))
    return (values, None) if operation == "scale" else (np.ones(channels), values)


def product_weights(layer: Any, matrix: Constant, rest: Sequence[Constant], features: int, given: Given) -> Kernel:
    """The matrix (features out, features in) that a product with a constant is, and what it adds."""
    import numpy as np

    weight = np.asarray(matrix.array(), np.float64)
    if not np.isfinite(weight).all():
        raise ShapeError("the matrix holds NaN or infinity, and merging would spread it")
    if layer.kind == "matmul":
        return weight.T, None
    weight = layer.alpha * (weight if layer.transb else weight.T)
    return weight, layer.beta * constant_values(rest[0], features) if rest else None


def linear_weights(item: Resolved, given: Given) -> Kernel:
    shapes = item.layer.parameters()
    weight, bias = (parameter_of(item, name, shapes.get(name), given) for name in ("weight", "bias"))
    if weight is None:
        raise missing(item, "weight")
    return weight, bias


def own_arrays(item: Resolved, given: Given) -> dict[str, Array]:
    """The weights of a layer that stays as it is; a convolution needs its own."""
    if item.layer.kind in ("conv", "convt"):
        weight, bias = (
            parameter_of(item, name, item.layer.parameters().get(name), given) for name in ("weight", "bias")
        )
        if weight is None:
            raise missing(item, "weight")
        return state(weight, bias)
    start = f"{item.node.name}."
    return {key.removeprefix(start): value for key, value in given.items() if key.startswith(start)}


def complete(item: Resolved, given: Given) -> dict[str, Array]:
    """All weights of a layer, a bias that is left out as zeros."""
    import numpy as np

    found = {}
    for name, shape in {**item.layer.parameters(), **item.layer.buffers()}.items():
        array = parameter_of(item, name, shape, given)
        if array is None and name not in ("bias", "num_batches_tracked"):
            raise missing(item, name)
        found[name] = np.zeros(shape) if array is None else array
    return found


def parameter_of(item: Resolved, name: str, wanted: tuple[int, ...] | None, given: Given) -> Array | None:
    """What is given for a parameter, with leading axes of one where they were left out."""
    array = given.get(f"{item.node.name}.{name}")
    if array is None or wanted is None:
        return None
    full = array.reshape((1,) * (len(wanted) - array.ndim) + array.shape)
    if full.shape != wanted:
        raise located(misshaped(name, array, shape_text(wanted)), item.node)
    return full


def misshaped(name: str, array: Array, right: str) -> ShapeError:
    """The error for a weight of the wrong shape."""
    return ShapeError(
        f"{name} is {shape_text(array.shape) or 'one number'}, but must be {right}", field=name, value=array.shape
    )


def missing(item: Resolved, name: str) -> ConvcalcError:
    """The error for a weight that is not given."""
    node = item.node
    return located(ShapeError(f"its {name} is not given; give {node.name}.{name}", field=name), node)


# --- what is given --------------------------------------------------------------------------------------------------


def named(network: Network, weights: GivenWeights) -> dict[str, Array]:
    """The weights by "name.parameter", in float64. Raises `ShapeError` for one that no layer has."""
    import numpy as np

    if not isinstance(weights, Mapping):
        takers = [node.name for node in network.nodes if isinstance(node.layer, Conv)]
        if len(weights) > len(takers):
            raise ShapeError(f"{len(weights)} weights are given, but {len(takers)} convolutions take one")
        weights = {f"{name}.weight": array for name, array in zip(takers, weights, strict=False)}
    known = [f"{node.name}.{name}" for node in network.nodes for name in _names(node.layer)]
    for key in weights:
        if key not in known:
            raise ShapeError(f"no layer has a weight {key}{did_you_mean(key, known)}")
    named = {}
    for key, value in weights.items():
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise ShapeError(f"the weight {key} holds {array.dtype}, but must hold numbers")
        if not np.isfinite(array).all():
            raise ShapeError(f"the weight {key} holds NaN or infinity, and merging would spread it")
        named[key] = array.astype(np.float64)
    return named


def doubts(links: Sequence[Link], given: Mapping[str, Array]) -> Iterator[tuple[str, str]]:
    """What to know about weights that hold no sensible numbers, as (layer, sentence)."""
    import numpy as np

    for link in links:
        layer: Any = link.item.layer
        start = f"{link.item.node.name}."
        own = {key.removeprefix(start): value for key, value in given.items() if key.startswith(start)}
        dead = int((own.get("running_var", np.ones(1)) == 0).sum())
        if dead:
            channels = "channel" if dead == 1 else "channels"
            yield link.name, f"running_var is 0 in {dead} {channels}: eps alone decides what they are multiplied by"
        least = float(np.finfo(np.float32).tiny)
        small = sum(int(((array != 0) & (np.abs(array) < least)).sum()) for array in own.values())
        if small:
            yield link.name, f"{small} of its weights are denormal in float32, where they lose digits or become 0"
        if layer.kind == "conv" and "weight" in own and own["weight"].ndim > link.rank + 1:
            groups = layer.bound[2]
            empty = sum(not part.any() for part in np.split(own["weight"], groups))
            if empty:
                what = f"{empty} of its {groups} groups" if groups > 1 else "its kernel"
                yield link.name, f"the weights of {what} are all zeros: nothing of what comes in there goes out"


def _names(layer: Layer) -> Sequence[str]:
    """What a layer's parameters and buffers are called, before it is bound."""
    if layer.kind in ("batchnorm", "syncbatchnorm", "instancenorm"):
        return ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    fields = ("in_channels", "in_features", "num_channels", "normalized_shape", "num_parameters")
    return ("weight", "bias") if any(hasattr(layer, field) for field in fields) else ()


def informed(network: Network, given: Mapping[str, Array]) -> Network:
    """The network with what the weights decide: channels, the bias, and a kernel that was not written."""
    nodes = []
    for node in network.nodes:
        layer: Any = node.layer
        weight = given.get(f"{node.name}.weight")
        if weight is not None and isinstance(layer, Conv):
            rank = layer.rank or 0
            if weight.ndim < rank:
                raise located(misshaped("weight", weight, f"at least {rank} axes"), node)
            shape = (1,) * (rank + 2 - weight.ndim) + weight.shape
            groups = layer.groups if isinstance(layer.groups, int) else shape[0]
            # A kernel is taken from the weight only when the text leaves it out.
            written = node.span is None or "kernel_size" in node.spans
            layer = replace(
                layer,
                in_channels=layer.in_channels or shape[1] * groups,
                out_channels=layer.out_channels or shape[0],
                kernel_size=layer.kernel_size if written else shape[2:],
                bias=f"{node.name}.bias" in given,
            )
        nodes.append(replace(node, layer=layer))
    return replace(network, nodes=tuple(nodes))


FLOATS = ("float64", "float32", "float16")


def as_type(arrays: Mapping[str, Array], dtype: str) -> dict[str, Array]:
    """The arrays in another type of `FLOATS`. Raises `ShapeError` where a number does not fit into it."""
    import numpy as np

    if dtype not in FLOATS:
        raise ExpressionError(f"--dtype is {dtype}, but must be one of {', '.join(FLOATS)}", value=dtype)
    found = {}
    for name, array in arrays.items():
        with np.errstate(over="ignore"):
            cast = array.astype(dtype)
        if not np.isfinite(cast).all():
            raise ShapeError(
                f"{name} has numbers that do not fit into {dtype}; the largest is {np.abs(array).max():.3g}"
            )
        found[name] = cast
    return found
