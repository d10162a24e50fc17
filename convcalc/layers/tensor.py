"""Layers that pick, repeat, join and spread the elements of tensors, without arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from convcalc.errors import ShapeError
from convcalc.layers.base import Cost, Saved, Shape, axis_of, choice, integer, number, refused, shape_text, whole
from convcalc.layers.join import broadcast
from convcalc.layers.reshape import Moved, View
from convcalc.records import dataclass
from convcalc.tracing import product


def _integers(field: str, value: Any, least: int | None = None) -> tuple[int, ...]:
    numbers = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    return tuple(integer(field, number) if least is None else whole(field, number, least) for number in numbers)


@dataclass(frozen=True, eq=False, repr=False)
class Shaped(View):
    """The same elements under a shape that is given whole, the batch included: what squeezing and reshaping leave."""

    kind = "shaped"
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        self._set(shape=_integers("shape", self.shape, 0) if self.shape != () else ())

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape. Raises `ShapeError` when it holds another number of elements."""
        if product(inputs[0]) != product(self.shape):
            raise ShapeError(f"{shape_text(self.shape)} does not hold the {product(inputs[0])} elements that come in",
                             field="shape", value=self.shape)  # fmt: skip
        return (self.shape,)


@dataclass(frozen=True, eq=False, repr=False)
class Slice(Moved):
    """Every step-th element from start to end along some axes, which count the batch, as in x[:, start:end:step].

    >>> Slice((0,), (5,), (2,), (2,)).infer((1, 8, 10, 10))
    ((1, 8, 3, 10),)
    """

    kind = "slice"
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    dims: tuple[int, ...]
    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        for field in ("starts", "ends", "dims", "steps"):
            self._set(**{field: _integers(field, getattr(self, field))})
            if len(getattr(self, field)) != len(self.starts):
                raise refused(field, getattr(self, field), f"as many numbers as starts has, {len(self.starts)}")
        if 0 in self.steps:
            raise refused("steps", self.steps, "other than 0")

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape with these axes cut. Raises `ShapeError` when there is no such axis."""
        shape = list(inputs[0])
        for start, end, dim, step in zip(self.starts, self.ends, self.dims, self.steps, strict=True):
            axis = axis_of("dims", dim, inputs[0])
            shape[axis] = len(range(inputs[0][axis])[start:end:step])
        return (tuple(shape),)


@dataclass(frozen=True, eq=False, repr=False)
class Split(Moved):
    """Parts of these sizes along dim, an output each; dim counts the batch. As torch.split.

    >>> Split((2, 6)).infer((1, 8, 5, 5))
    ((1, 2, 5, 5), (1, 6, 5, 5))
    """

    kind = "split"
    sizes: tuple[int, ...]
    dim: int = 1

    def __post_init__(self) -> None:
        self._set(sizes=_integers("sizes", self.sizes, 0))
        integer("dim", self.dim)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """A shape for each part. Raises `ShapeError` when the sizes do not add up to the axis."""
        shape = inputs[0]
        axis = axis_of("dim", self.dim, shape)
        if sum(self.sizes) != shape[axis]:
            raise ShapeError(f"sizes {shape_text(self.sizes)} add up to {sum(self.sizes)}, but dim {self.dim} has"
                             f" {shape[axis]} elements", field="sizes", value=self.sizes)  # fmt: skip
        return tuple((*shape[:axis], size, *shape[axis + 1 :]) for size in self.sizes)

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The input's type for each part."""
        return (dtype,) * len(self.sizes)


@dataclass(frozen=True, eq=False, repr=False)
class Gather(Moved):
    """The slices along dim that the second input names, such as rows of an embedding: `gather:0,@indices`.

    >>> Gather(0).infer((1000, 64), (1, 12))
    ((1, 12, 64),)
    """

    kind = "gather"
    inputs = (2, 2)
    dim: int = 0

    def __post_init__(self) -> None:
        integer("dim", self.dim)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The first shape with the second in the place of dim."""
        shape, indices = inputs
        axis = axis_of("dim", self.dim, shape)
        return ((*shape[:axis], *indices, *shape[axis + 1 :]),)

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The indices."""
        return ("input1",)


@dataclass(frozen=True, eq=False, repr=False)
class GatherElements(Moved):
    """For each element of the second input, the element of the first that it names along dim. As torch.gather."""

    kind = "gatherelements"
    inputs = (2, 2)
    dim: int = 0

    def __post_init__(self) -> None:
        integer("dim", self.dim)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The second input's shape. Raises `ShapeError` for another number of axes."""
        axis_of("dim", self.dim, inputs[0])
        if len(inputs[0]) != len(inputs[1]):
            raise ShapeError(f"the indices {shape_text(inputs[1])} must have as many axes as {shape_text(inputs[0])}")
        return (inputs[1],)

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The indices."""
        return ("input1",)


@dataclass(frozen=True, eq=False, repr=False)
class GatherND(Moved):
    """The parts of the first input whose first places the last axis of the second names; ONNX's GatherND."""

    kind = "gathernd"
    inputs = (2, 2)
    batch_dims: int = 0

    def __post_init__(self) -> None:
        whole("batch_dims", self.batch_dims, 0)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The places' shape without its last axis, then what is left of the first. Raises `ShapeError` for too many."""
        data, places = inputs
        if not places or self.batch_dims + places[-1] > len(data):
            raise ShapeError(f"places {shape_text(places)} name more axes than {shape_text(data)} has", value=places)
        return ((*places[:-1], *data[self.batch_dims + places[-1] :]),)

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The places."""
        return ("input1",)


REDUCTIONS = ("none", "add", "mul", "max", "min")


@dataclass(frozen=True, eq=False, repr=False)
class Scatter(Moved):
    """The first input with elements replaced by the third's where the second says; ScatterElements and ScatterND.

    `reduction` joins old and new instead of replacing; dim None is ScatterND.
    """

    kind = "scatter"
    inputs = (3, 3)
    dim: int | None = None
    reduction: str = "none"

    def __post_init__(self) -> None:
        if self.dim is not None:
            integer("dim", self.dim)
        self._set(reduction=choice("reduction", self.reduction or "none", REDUCTIONS))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The first input's shape. Raises `ShapeError` when the updates do not fit the places."""
        data, places, updates = inputs
        if self.dim is not None:
            axis_of("dim", self.dim, data)
            fits = places == updates and len(places) == len(data)
        else:
            fits = bool(places) and updates == (*places[:-1], *data[places[-1] :])
        if not fits:
            raise ShapeError(f"updates {shape_text(updates)} do not fit places {shape_text(places)}", value=updates)
        return (data,)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Nothing when elements are replaced, else one operation for each."""
        elements = product(inputs[2])
        return {"add": Cost(additions=elements), "mul": Cost(multiplications=elements), "none": Cost()}.get(
            self.reduction, Cost(other=elements)
        )

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The places."""
        return ("input1",)


@dataclass(frozen=True, eq=False, repr=False)
class Expand(Moved):
    """Axes of 1 repeated until the tensor has this shape, the batch included, as torch.Tensor.expand.

    >>> Expand((2, 8, 5)).infer((8, 1))
    ((2, 8, 5),)
    """

    kind = "expand"
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        self._set(shape=_integers("shape", self.shape, 0))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape that both grow to. Raises `ShapeError` when they do not match."""
        return (broadcast(inputs[0], self.shape),)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The gradients of the copies are added up."""
        return {"input": Cost(additions=product(outputs[0]) - product(inputs[0]))}


@dataclass(frozen=True, eq=False, repr=False)
class Tile(Moved):
    """The whole tensor repeated so often along each axis, the batch included, as torch.Tensor.repeat.

    >>> Tile((1, 2, 1, 1)).infer((1, 8, 5, 5))
    ((1, 16, 5, 5),)
    """

    kind = "tile"
    repeats: tuple[int, ...]

    def __post_init__(self) -> None:
        self._set(repeats=_integers("repeats", self.repeats, 0))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """Each axis times its number. Raises `ShapeError` unless there is one for each axis."""
        if len(self.repeats) != len(inputs[0]):
            raise ShapeError(f"repeats {shape_text(self.repeats)} must be one number for each of {len(inputs[0])} axes",
                             field="repeats", value=self.repeats)  # fmt: skip
        return (tuple(size * times for size, times in zip(inputs[0], self.repeats, strict=True)),)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The gradients of the copies are added up."""
        return {"input": Cost(additions=product(outputs[0]) - product(inputs[0]))}


@dataclass(frozen=True, eq=False, repr=False)
class Cast(Moved):
    """The same numbers in another type; no arithmetic is counted.

    What is too large for a float of 8 bits is its largest, or without `saturate` infinite or nan; `rounding` (up, down,
    nearest) is for powers of two.
    """

    kind = "cast"
    dtype: str
    saturate: bool = True
    rounding: str = "up"

    def __post_init__(self) -> None:
        choice("rounding", self.rounding, ("up", "down", "nearest"))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape."""
        return (inputs[0],)

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The new type."""
        return (self.dtype,)


@dataclass(frozen=True, eq=False, repr=False)
class Fill(Moved):
    """A tensor of one value, which takes no input; ONNX's ConstantOfShape where the tensor is large."""

    kind = "fill"
    inputs = (0, None)
    shape: tuple[int, ...]
    dtype: str = "float32"
    value: float = 0.0

    def __post_init__(self) -> None:
        self._set(shape=tuple(whole("shape", size, 0) for size in self.shape))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape."""
        return (self.shape,)

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """Its own type."""
        return (self.dtype,)


@dataclass(frozen=True, eq=False, repr=False)
class PadAxes(Moved):
    """More elements around any axis, the batch included: (before, after) for each. Negative padding crops.

    >>> PadAxes(((0, 0), (1, 1), (0, 3))).infer((2, 3, 4))
    ((2, 5, 7),)
    """

    kind = "padaxes"
    padding: tuple[tuple[int, int], ...]
    mode: str = "constant"
    value: float = 0.0

    def __post_init__(self) -> None:
        self._set(padding=tuple((integer("padding", a), integer("padding", b)) for a, b in self.padding))
        choice("mode", self.mode, ("constant", "reflect", "replicate", "circular"))
        number("value", self.value)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """Each axis with its padding. Raises `ShapeError` unless there is a pair for each axis, and something left."""
        if len(self.padding) != len(inputs[0]):
            raise ShapeError(f"there are {len(self.padding)} pairs of padding for {len(inputs[0])} axes",
                             field="padding", value=self.padding)  # fmt: skip
        output = tuple(size + sum(pair) for size, pair in zip(inputs[0], self.padding, strict=True))
        if min(output, default=0) < 0:
            raise ShapeError(f"padding leaves {shape_text(output)}", field="padding", value=self.padding)
        return (output,)


@dataclass(frozen=True, eq=False, repr=False)
class DepthToSpace(Moved):
    """Channels into pixels, block by block (DCR) or channel by channel (CRD, which is `PixelShuffle`).

    >>> DepthToSpace(2).infer((1, 8, 5, 6))
    ((1, 2, 10, 12),)
    """

    kind = "depthtospace"
    blocksize: int
    mode: str = "DCR"

    def __post_init__(self) -> None:
        whole("blocksize", self.blocksize)
        choice("mode", self.mode, ("DCR", "CRD"))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C / b², H·b, W·b). Raises `ShapeError` when b² does not divide the channels."""
        if len(inputs[0]) != 4 or inputs[0][1] % self.blocksize**2:
            raise ShapeError(f"needs 4 axes and channels divisible by {self.blocksize**2}, but {shape_text(inputs[0])}"
                             " came in", field="blocksize", value=self.blocksize)  # fmt: skip
        batch, channels, height, width = inputs[0]
        return ((batch, channels // self.blocksize**2, height * self.blocksize, width * self.blocksize),)


@dataclass(frozen=True, eq=False, repr=False)
class SpaceToDepth(Moved):
    """Pixels into channels, block by block (DCR) or channel by channel (CRD): what undoes `DepthToSpace`.

    >>> SpaceToDepth(2).infer((1, 2, 10, 12))
    ((1, 8, 5, 6),)
    """

    kind = "spacetodepth"
    blocksize: int
    mode: str = "DCR"

    def __post_init__(self) -> None:
        whole("blocksize", self.blocksize)
        choice("mode", self.mode, ("DCR", "CRD"))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C·b², H / b, W / b). Raises `ShapeError` when b does not divide height and width."""
        if len(inputs[0]) != 4 or inputs[0][2] % self.blocksize or inputs[0][3] % self.blocksize:
            raise ShapeError(f"needs 4 axes and sizes divisible by {self.blocksize}, but {shape_text(inputs[0])}"
                             " came in", field="blocksize", value=self.blocksize)  # fmt: skip
        batch, channels, height, width = inputs[0]
        return ((batch, channels * self.blocksize**2, height // self.blocksize, width // self.blocksize),)


NEIGHBOURS = {"nearest": 0, "linear": 2, "cubic": 4}
COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
)  # fmt: skip
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True, eq=False, repr=False)
class Resize(Moved):
    """Any axes at other sizes: ONNX's Resize to `shape`, the batch included. mode is nearest, linear or cubic.

    An interpolated element is a weighted sum of 2 (linear) or 4 (cubic) neighbours along each axis that changes; with
    `antialias` of so many more as the axis shrinks. `coordinates` says which place of the input an output element is
    at, `nearest` which neighbour is next to it, `cubic` is a of Keys's cubic weights. `scales` are the factors that
    the sizes were rounded down from (None: the sizes decide). `region` is the part of each axis that is kept, from 0
    to 1, and `value` what stands outside of the input (tf_crop_and_resize). With `exclude_outside` neighbours outside
    weigh nothing; else they are as the edge.

    >>> Resize((1, 8, 10, 10), "linear").cost([(1, 8, 5, 5)], [(1, 8, 10, 10)]).macs
    3200
    """

    kind = "resize"
    shape: tuple[int, ...]
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    scales: tuple[float, ...] | None = None
    antialias: bool = False
    exclude_outside: bool = False
    cubic: float = -0.75
    region: tuple[tuple[float, float], ...] | None = None
    value: float = 0.0

    def __post_init__(self) -> None:
        self._set(shape=_integers("shape", self.shape, 0))
        choice("mode", self.mode, tuple(NEIGHBOURS))
        choice("coordinates", self.coordinates, COORDINATES)
        choice("nearest", self.nearest, NEAREST)
        for field in ("scales", "region"):
            given = getattr(self, field)
            if given is not None and len(given) != len(self.shape):
                raise refused(field, given, f"one for each of {len(self.shape)} axes")
        if self.scales is not None and not all(scale > 0 for scale in self.scales):
            raise refused("scales", self.scales, "larger than 0")

    def scale(self, axis: int, size: int) -> float:
        """Output elements for each of so many input elements of an axis."""
        return self.scales[axis] if self.scales is not None else self.shape[axis] / size

    def changes(self, axis: int, size: int) -> bool:
        """Whether anything is done along an axis of this size."""
        kept = self.region is None or self.region[axis] == (0, 1)
        return self.shape[axis] != size or not kept or self.scale(axis, size) != 1

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape. Raises `ShapeError` for another number of axes."""
        if len(self.shape) != len(inputs[0]):
            raise ShapeError(f"shape {shape_text(self.shape)} has other axes than the input {shape_text(inputs[0])}",
                             field="shape", value=self.shape)  # fmt: skip
        return (self.shape,)

    def _macs(self, before: Shape, after: Shape) -> int:
        reached = [self._reach(axis, size) for axis, size in enumerate(before) if after[axis] != size]
        return int(product((*after, *reached))) if NEIGHBOURS[self.mode] and reached else 0

    def _reach(self, axis: int, size: int) -> int:
        """How many neighbours an element is made of along an axis."""
        neighbours = NEIGHBOURS[self.mode]
        if not self.antialias or self.scale(axis, size) >= 1:
            return neighbours
        return 2 * ceil(neighbours / 2 / self.scale(axis, size))

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """A dot product of each output element's neighbours with their weights; nearest neighbours are copied."""
        macs = self._macs(inputs[0], outputs[0])
        return Cost(macs, macs, macs - product(outputs[0])) if macs else Cost()

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Each output's gradient is added to all of its neighbours, times their weights where it is interpolated."""
        macs = self._macs(inputs[0], outputs[0])
        return {"input": Cost(macs, macs, macs or product(outputs[0]))}
