"""PyTorch's functions and methods as layers, and the values of code that they are called with.

A function of one tensor, and what follows that in a call, becomes a layer; what is called in no known way raises
`LayerError`, or what Python raises for arguments that do not fit.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from convcalc.errors import LayerError
from convcalc.layers import find_kind
from convcalc.layers.base import Layer, Shape, whole
from convcalc.layers.elementwise import Clip, Combine, Function
from convcalc.layers.join import Add, Mul
from convcalc.layers.matmul import MatMul
from convcalc.layers.norm import BatchNorm, GroupNorm, LayerNorm
from convcalc.layers.rearrange import Permute, Reshape
from convcalc.layers.reduce import Reduce
from convcalc.layers.reshape import Flatten
from convcalc.layers.tensor import PadAxes, Slice, Split
from convcalc.torch_wiring import UNKNOWN

_RANKS = (1, 2, 3)
_IN_PLACE = ("inplace",)
_POOL = ("kernel_size", "stride", "padding")
_CLASSES: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name.lower(): (name, _IN_PLACE) for name in
       ("ReLU", "ReLU6", "Hardswish", "Hardsigmoid", "SELU", "SiLU", "Mish")},
    **{name.lower(): (name, ()) for name in
       ("Sigmoid", "Tanh", "LogSigmoid", "Softsign", "Tanhshrink", "GELU", "Identity")},
    "leaky_relu": ("LeakyReLU", ("negative_slope", *_IN_PLACE)),
    "elu": ("ELU", ("alpha", *_IN_PLACE)),
    "celu": ("CELU", ("alpha", *_IN_PLACE)),
    "hardtanh": ("Hardtanh", ("min_val", "max_val", *_IN_PLACE)),
    "softplus": ("Softplus", ("beta", "threshold")),
    "softmax": ("Softmax", ("dim",)),
    "log_softmax": ("LogSoftmax", ("dim",)),
    "glu": ("GLU", ("dim",)),
    "interpolate": ("Upsample", ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")),
    "pixel_shuffle": ("PixelShuffle", ("upscale_factor",)),
    "pixel_unshuffle": ("PixelUnshuffle", ("downscale_factor",)),
    "channel_shuffle": ("ChannelShuffle", ("groups",)),
    **{f"dropout{end}": (f"Dropout{end}", ("p", "training", *_IN_PLACE)) for end in ("", "1d", "2d", "3d")},
    **{f"max_pool{rank}d": (f"MaxPool{rank}d", (*_POOL, "dilation", "ceil_mode", "return_indices")) for rank in _RANKS},
    **{f"avg_pool{rank}d": (f"AvgPool{rank}d", (*_POOL, "ceil_mode", "count_include_pad", "divisor_override"))
       for rank in _RANKS},
    **{f"adaptive_{what.lower()}_pool{rank}d": (f"Adaptive{what}Pool{rank}d", ("output_size",))
       for what in ("Avg", "Max") for rank in _RANKS},
}  # fmt: skip
"""Functions of torch.nn.functional and methods that are a layer: its class, and what follows the tensor in a call."""

_NO_FIELDS = ("training", "antialias", "dtype", "memory_format", "_stacklevel", "copy", "non_blocking")
"""Arguments that change neither shape nor cost."""

SAME = ("contiguous", "clone", "detach", "to", "float", "half", "cuda", "cpu", "type", "type_as", "requires_grad_")
"""Methods that give the tensor itself, or a copy."""

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "eq", "ne", "lt", "gt")
}
JOINS: dict[str, Callable[[], Layer]] = {
    "add": Add,
    "mul": Mul,
    "sub": lambda: Combine("sub"),
    "truediv": lambda: Combine("div"),
    "div": lambda: Combine("div"),
    "matmul": MatMul,
    "bmm": MatMul,
}
"""Functions of two tensors."""

_MOST_PARTS = 10_000
"""Parts that a tensor is cut into at most."""
_LARGEST = 2**63
"""Whole numbers of the code beyond this are not computed."""


class Tensor:
    """A tensor of the code: the name that nodes know it by, and its shape where that is known."""

    __slots__ = ("name", "shape")

    def __init__(self, name: str, shape: Shape | None) -> None:
        self.name = name
        self.shape = shape


class Loose(Tensor):
    """A tensor of the model that is in no module: a parameter of unknown size."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        super().__init__(UNKNOWN, None)
        self.path = path


class _Unknown:
    """A value that is no tensor and not known."""


NOTHING = _Unknown()
"""The value of what is not known, and may be no tensor."""
LOST = Tensor(UNKNOWN, None)
"""A tensor that comes from nobody knows where."""


def norm_of(what: str, arguments: Sequence[Any], loose: int) -> Layer | None:
    """The norm that is called with so many tensors of the model's own, all of which it tells the sizes of."""
    first = arguments[0]
    channels = first.shape[1] if isinstance(first, Tensor) and first.shape and len(first.shape) > 1 else None
    if what == "layer_norm" and loose == 2:  # weight and bias
        return LayerNorm(_whole(arguments[1]))
    if what == "group_norm" and loose == 2 and channels:
        return GroupNorm(arguments[1], channels)
    if what == "batch_norm" and loose in (2, 4) and channels:  # mean and variance before them
        return BatchNorm(channels, affine=loose == 4)
    return None


def computed(what: str, arguments: Sequence[Any]) -> Any:
    """Arithmetic on whole numbers; nothing for what is not known."""
    rule = _ARITHMETIC.get(what)
    if rule is None or len(arguments) != 2 or not all(isinstance(value, int) for value in arguments):
        return NOTHING
    try:
        value = rule(*arguments)
    except ArithmeticError:
        return NOTHING
    return value if abs(value) < _LARGEST else NOTHING


def measured(what: str, tensor: Any, arguments: Sequence[Any]) -> Any:
    """What x.size(), x.size(0) and x.dim() give."""
    if not isinstance(tensor, Tensor) or tensor.shape is None:
        return NOTHING
    if what == "dim":
        return len(tensor.shape)
    return tensor.shape[arguments[0]] if arguments else tensor.shape


def argument_of(arguments: Sequence[Any], named: Mapping[str, Any], place: int, name: str, plain: Any) -> Any:
    """An argument by its place or its name, or what it is when it is not given."""
    return arguments[place] if len(arguments) > place else named.get(name, plain)


def layer_of(what: str, tensor: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    """The layer that a function of one tensor is. Raises `LayerError` for one that is not known."""
    if not isinstance(tensor, Tensor):
        raise LayerError("what comes in is no tensor")
    made = _SHAPED.get(what)
    if made is not None:
        return made(tensor.shape, arguments, named)
    cls, order_of = _CLASSES.get(what.rstrip("_"), ("", ()))
    found = find_kind(cls)
    fields = dict(zip(order_of, arguments, strict=False)) | dict(named)
    fields = {name: value for name, value in fields.items() if value is not None and name not in _NO_FIELDS}
    if what.endswith("_"):
        fields["inplace"] = True
    if found is None or any(isinstance(value, _Unknown | Tensor) for value in fields.values()):
        raise LayerError(f"{what} is not known")
    kind, rank = found
    made_of: Any = kind.layer_class(rank)
    layer: Layer = made_of(**fields)
    return layer


def _sizes(arguments: Sequence[Any]) -> tuple[int, ...]:
    """Sizes that are given as one tuple, or as arguments of their own."""
    return _whole(arguments[0] if arguments and isinstance(arguments[0], tuple) else arguments)


def _whole(sizes: Sequence[Any]) -> tuple[int, ...]:
    """Sizes that are all known."""
    if not all(isinstance(size, int) for size in sizes):
        raise LayerError("a size is not known")
    return tuple(sizes)


def _flat(shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    return Flatten(argument_of(arguments, named, 0, "start_dim", 0), argument_of(arguments, named, 1, "end_dim", -1))


def _reduced(what: str, shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    dims = argument_of(arguments, named, 0, "dim", None)
    return Reduce(what, dims, argument_of(arguments, named, 1, "keepdim", False))


def _turned(shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    """Two axes changed for each other."""
    order = list(range(len(known_shape(shape))))
    one, other = _whole(arguments[:2])
    order[one], order[other] = order[other], order[one]
    return Permute(tuple(order))


def _with_axis(shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    dim = argument_of(arguments, named, 0, "dim", None)
    sizes = list(known_shape(shape))
    sizes.insert(dim if dim >= 0 else dim + len(sizes) + 1, 1)
    return Reshape(tuple(sizes), batch=True)


def _without_axis(shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    dim = argument_of(arguments, named, 0, "dim", None)
    sizes = list(known_shape(shape))
    if dim is None:
        sizes = [size for size in sizes if size != 1]
    elif sizes[dim] == 1:
        del sizes[dim]
    return Reshape(tuple(sizes), batch=True)


def _cut(each_of: str, shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    """The sizes that chunk and split give."""
    count = argument_of(arguments, named, 0, each_of, None)
    dim = argument_of(arguments, named, 1, "dim", 0)
    size = known_shape(shape)[dim]
    if isinstance(count, tuple):
        return Split(_whole(count), dim)
    each = -(-size // whole(each_of, count)) if each_of == "chunks" else whole(each_of, count)
    if size // each > _MOST_PARTS:
        raise LayerError("there are too many parts", field=each_of, value=count)
    return Split(tuple(min(each, size - start) for start in range(0, size, each)), dim)


def cuts(shape: Shape, index: Sequence[Any]) -> Iterator[Layer]:
    """What x[:, 0, 2:9] is: slices of axes, and then the axes gone of which one place is taken."""
    if len(index) > len(shape) or not all(isinstance(at, int | slice) for at in index):
        raise LayerError("the places are not known")
    places = [slice(at, at + 1 or None) if isinstance(at, int) else at for at in index]
    cuts = [(axis, *at.indices(shape[axis])) for axis, at in enumerate(places)]
    kept = [cut for cut in cuts if cut[1:] != (0, shape[cut[0]], 1)]
    if kept:
        dims, starts, ends, steps = zip(*kept, strict=True)
        yield Slice(starts, ends, dims, steps)
    if any(isinstance(at, int) for at in index):
        sizes = [len(range(*cut[1:])) for cut in cuts if not isinstance(index[cut[0]], int)]
        yield Reshape((*sizes, *shape[len(index) :]), batch=True)


def _padded(shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    """Pairs for the last axes, the last one first, as in torch.nn.functional.pad."""
    numbers = _whole(argument_of(arguments, named, 0, "pad", ()))
    pairs = [*zip(numbers[::2], numbers[1::2], strict=True)][::-1]
    mode = argument_of(arguments, named, 1, "mode", "constant")
    value = argument_of(arguments, named, 2, "value", None)
    whole_shape = ((0, 0),) * (len(known_shape(shape)) - len(pairs))
    return PadAxes((*whole_shape, *pairs), mode, 0.0 if value is None else value)


def _clamped(shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    return Clip(argument_of(arguments, named, 0, "min", None), argument_of(arguments, named, 1, "max", None))


def _function_of(what: str, shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    return Function(what)


def known_shape(shape: Shape | None) -> Shape:
    """The shape. Raises `LayerError` for one that is not known."""
    if shape is None:
        raise LayerError("the shape is not known")
    return shape


_SHAPED: dict[str, Callable[[Shape | None, Sequence[Any], Mapping[str, Any]], Layer]] = {
    **dict.fromkeys(("view", "reshape"), lambda shape, arguments, named: Reshape(_sizes(arguments), batch=True)),
    "permute": lambda shape, arguments, named: Permute(_sizes(arguments)),
    "flatten": _flat,
    "mean": partial(_reduced, "mean"),
    "sum": partial(_reduced, "sum"),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _turned),
    "pad": _padded,
    **dict.fromkeys(("clamp", "clip"), _clamped),
    **{
        what: partial(_function_of, what)
        for what in (
            "abs",
            "ceil",
            "cos",
            "erf",
            "exp",
            "floor",
            "log",
            "neg",
            "reciprocal",
            "round",
            "sign",
            "sin",
            "sqrt",
            "tan",
        )
    },
    "unsqueeze": _with_axis,
    "squeeze": _without_axis,
    "chunk": partial(_cut, "chunks"),
    "split": partial(_cut, "split_size_or_sections"),
}
"""Functions of a tensor that need its shape, or give it another."""
