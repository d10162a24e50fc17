"""What every layer answers for itself, and how fields are normalised and refused.

Shapes inside convcalc are tuples of ints with the batch first: (batch, channels, *sizes) for what is spatial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from convcalc import formulas as F
from convcalc.errors import LayerError, ShapeError
from convcalc.tracing import AXES

Shape = tuple[int, ...]
Sizes = int | Sequence[int]
"""A number for every spatial axis, or one number for all of them."""
Pairs = tuple[tuple[int, int], ...]
"""(before, after) for every spatial axis."""
Saved = str | tuple[Shape, str | None]
"""A tensor that training keeps: "input0", "output0", or a parameter's or buffer's name; or the shape and type (None:
the layer's own) of a tensor that exists for this alone."""


class Cost:
    """What computing a layer once takes, in exact counts.

    `macs` are multiply-accumulates, the products of dot products; `multiplications` and `additions` are counted apart,
    and `other` are comparisons, divisions and function calls. All but `macs` add up to `flops`.
    """

    __slots__ = ("additions", "macs", "multiplications", "other")

    def __init__(self, macs: int = 0, multiplications: int = 0, additions: int = 0, other: int = 0) -> None:
        self.macs = macs
        self.multiplications = multiplications
        self.additions = additions
        self.other = other

    @property
    def flops(self) -> int:
        """Every floating-point operation: multiplications, additions and the others."""
        return F.operations(self.multiplications, self.additions, self.other)

    def __add__(self, more: Cost) -> Cost:
        return Cost(
            self.macs + more.macs,
            self.multiplications + more.multiplications,
            self.additions + more.additions,
            self.other + more.other,
        )

    def __eq__(self, more: object) -> bool:
        return isinstance(more, Cost) and all(getattr(self, name) == getattr(more, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return (
            f"Cost(macs={self.macs}, multiplications={self.multiplications}, additions={self.additions},"
            f" other={self.other})"
        )


class Layer:
    """One op. Subclasses are frozen dataclasses whose fields have PyTorch's names, order and defaults.

    Comparing, hashing and printing stand here once: generated for each class they take half of the time that making the
    classes takes, which every start pays. So each is a `dataclass(frozen=True, eq=False, repr=False)`.

    A field that the input decides (`in_channels`) may be None until `bind`. All other methods are for bound layers.
    """

    kind: ClassVar[str]
    """The name in expressions and reports, without the rank."""
    rank: ClassVar[int | None] = None
    """How many spatial axes the input has, where the class fixes it."""
    view: ClassVar[bool] = False
    """Whether the output is the input's memory under another shape."""
    printed: ClassVar[tuple[str, ...]] = ()
    """What PyTorch prints of it like fields, though its constructor does not take them."""
    batch_axes: ClassVar[tuple[int, ...]] = ()
    """Where the batch is in each output, if it is not the first axis of all."""
    idle_at_inference: ClassVar[bool] = False
    """Whether inference hands the input on as it is, though training makes a new tensor."""
    _fields: ClassVar[Mapping[str, Any]]
    inputs: ClassVar[tuple[int, int | None]] = (1, 1)
    """How many tensors come in: at least, and at most (None: any number)."""

    def __init_subclass__(cls) -> None:
        """Give a class for so many axes, whose docstring names the class for any, the text of that one too."""
        parent = cls.__mro__[1]
        words, more = cls.__doc__ or "", parent.__doc__ or ""
        if words.startswith((f"`{parent.__name__}` over ", f"`{parent.__name__}` of ")) and "\n" not in words:
            cls.__doc__ = f"{words}\n\n    {more}"

    def _values(self) -> dict[str, Any]:
        """The fields' values, in order."""
        return {name: getattr(self, name) for name in self._fields}

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), *self._values().values()))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self._values().items())
        return f"{type(self).__qualname__}({values})"

    def _set(self, **fields: Any) -> None:
        """Give fields of this frozen dataclass their values, in an `__init__` that normalises them."""
        self.__dict__.update(fields)

    def bind(self, *inputs: Shape) -> Self:
        """This layer with the fields filled that the input decides."""
        return self

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shapes of all outputs. Raises `ShapeError` for inputs that the layer cannot take."""
        raise NotImplementedError

    def reuses_input(self, *, training: bool) -> bool:
        """Whether the output lies in the input's memory: a view, written over it, or handed on as it is."""
        in_place: bool = getattr(self, "inplace", False)
        return self.view or in_place or (self.idle_at_inference and not training)

    def parameters(self) -> Mapping[str, Shape]:
        """The shapes of what is learned, by PyTorch's name, in PyTorch's order."""
        return {}

    def buffers(self) -> Mapping[str, Shape]:
        """The shapes of what is kept in the state but not learned, such as running means."""
        return {}

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """What the forward pass takes."""
        raise NotImplementedError

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """What each gradient takes: "input", and one for each parameter."""
        raise NotImplementedError

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """What PyTorch's autograd keeps of it for the backward pass in training mode."""
        raise NotImplementedError

    def saved_at_the_front(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """What it keeps where nothing before it learns: its input needs no gradient, so nothing without parameters."""
        return self.saved(inputs, outputs) if self.parameters() else ()

    def saved_for(self, inputs: Sequence[Shape], outputs: Sequence[Shape], needed: Sequence[bool]) -> Sequence[Saved]:
        """What it keeps where these of its inputs need a gradient."""
        return (self.saved if any(needed) else self.saved_at_the_front)(inputs, outputs)

    def warnings(self, *inputs: Shape) -> Sequence[str]:
        """What to know about this layer on such inputs, a sentence each without its subject."""
        return ()

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The types of the outputs for inputs of this type, where they are not all the same."""
        return (dtype,)


# --- normalising and refusing ---------------------------------------------------------------------------------------


def spatial(rank: int | None, field: str, value: Sizes, least: int = 1) -> tuple[int, ...]:
    """One int per spatial axis, each at least `least`.

    >>> spatial(2, "stride", 2), spatial(2, "kernel_size", (3, 5))
    ((2, 2), (3, 5))
    """
    if isinstance(value, int) and not isinstance(value, bool) and rank is not None:
        numbers: tuple[Any, ...] = (value,) * rank
    elif isinstance(value, int):
        numbers = (value,)
    else:
        numbers = tuple(value) if isinstance(value, tuple | list) else (value,)
        if rank is not None and len(numbers) == 1:
            numbers *= rank
        if rank is not None and len(numbers) != rank:
            raise refused(field, value, f"one number, or {rank}, one for each axis")
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool):
            raise refused(field, value, "whole numbers")
        if number < least:
            raise refused(field, value, f"at least {least}")
    return numbers


def pairs(rank: int, field: str, value: Any, *, least: int | None = 0) -> Pairs:
    """(before, after) per axis, from a number, numbers per axis, or pairs per axis.

    >>> pairs(2, "padding", 1), pairs(2, "padding", (0, (1, 2)))
    (((1, 1), (1, 1)), ((0, 0), (1, 2)))
    """
    per_axis = (value,) * rank if isinstance(value, int) else value
    if not isinstance(per_axis, (tuple, list)):
        raise refused(field, value, "an integer, one for each axis, or a (before, after) pair for each")
    if len(per_axis) == 1:
        per_axis = tuple(per_axis) * rank
    if len(per_axis) != rank:
        raise refused(field, value, f"one number, or {rank}, one for each axis")
    result = []
    for axis in per_axis:
        pair = (axis, axis) if isinstance(axis, int) else tuple(axis) if isinstance(axis, (tuple, list)) else ()
        if len(pair) != 2 or not all(isinstance(number, int) and not isinstance(number, bool) for number in pair):
            raise refused(field, value, "whole numbers, or (before, after) pairs of them")
        if least is not None and min(pair) < least:
            raise refused(field, value, f"at least {least}")
        result.append((pair[0], pair[1]))
    return tuple(result)


def whole(field: str, value: Any, least: int = 1) -> int:
    """An int of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise refused(field, value, "a whole number")
    if value < least:
        raise refused(field, value, f"at least {least}")
    return value


def integer(field: str, value: Any) -> int:
    """An int of either sign."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise refused(field, value, "a whole number")
    return value


def number(field: str, value: Any) -> float:
    """A float (or an int, kept as it is)."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise refused(field, value, "a number")
    return value


def flag(field: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise refused(field, value, "true or false")
    return value


def choice(field: str, value: Any, known: Sequence[str]) -> str:
    """One of the known words."""
    if value not in known:
        raise refused(field, value, "one of " + ", ".join(known))
    return str(value)


def exactly_one(first: str, value: Any, second: str, other: Any) -> None:
    """Of two fields one must be given, and not both."""
    if value is None and other is None:
        raise LayerError(f"needs {first} or {second}", field=second)
    if value is not None and other is not None:
        raise LayerError(f"{first} and {second} are both given; keep one of them", field=second, value=other)


def refused(field: str, value: Any, right: str) -> LayerError:
    """The error for a value that a field cannot have; `right` completes "it must be ..."."""
    return LayerError(f"{field} is {text_of(value)}, but must be {right}", field=field, value=value)


def text_of(value: Any) -> str:
    """A value as it is written in an expression.

    >>> text_of((3, 5)), text_of(((1, 2), (0, 0))), text_of(True), text_of(None)
    ('3x5', '1+2x0+0', 'true', 'none')
    """
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "x".join("+".join(map(str, item)) if isinstance(item, tuple | list) else text_of(item) for item in value)
    return str(value)


def shape_text(shape: Shape) -> str:
    """A shape as it is written: 3x224x224."""
    return "x".join(map(str, shape))


def spatial_input(layer: Layer, shape: Shape) -> tuple[int, int, tuple[int, ...]]:
    """Batch, channels and sizes of a (batch, channels, *sizes) input of the layer's rank.

    Raises `ShapeError` for another number of axes.
    """
    if len(shape) < 3 or (layer.rank is not None and len(shape) != layer.rank + 2):
        raise wrong_axes((layer.rank,) if layer.rank is not None else (1, 2, 3), shape)
    return shape[0], shape[1], shape[2:]


def wrong_axes(counts: Sequence[int], shape: Shape) -> ShapeError:
    """The error for an input without channels and one of these counts of spatial axes."""
    *most, last = map(str, counts)
    axes = f"{', '.join(most)} or {last}" if most else last
    came = shape_text(shape[1:]) or "a scalar"
    return ShapeError(
        f"needs channels and {axes} spatial {'axis' if axes == '1' else 'axes'}, but {came} came in", value=shape
    )


def axis_of(field: str, dim: int, shape: Shape) -> int:
    """The axis that a dim means, the batch counted and negative ones from the end.

    >>> axis_of("dim", -1, (1, 3, 8))
    2
    """
    if not -len(shape) <= dim < len(shape):
        raise ShapeError(
            f"{field} is {dim}, but the input {shape_text(shape[1:])} has axes {-len(shape)} to {len(shape) - 1},"
            " the batch counted",
            field=field,
            value=dim,
        )
    return dim % len(shape)


def large_kernel(kernel: int, dilation: int, extent: int, padded: int, axis: str) -> ShapeError:
    """The error for a window that does not fit into the padded input of its axis."""
    spans = f"kernel {kernel}" if dilation == 1 else f"kernel {kernel} with dilation {dilation} spans {extent}, which"
    return ShapeError(
        f"{spans} is larger than the padded input {padded} ({axis});"
        f" a kernel_size of at most {max((padded - 1) // dilation + 1, 1)} fits",
        field="kernel_size",
        value=kernel,
    )


def axis_name(rank: int, axis: int) -> str:
    """What a spatial axis is called: height, width, ..."""
    return AXES[rank][axis] if rank in AXES else f"axis {axis}"
