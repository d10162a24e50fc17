"""Layers that give the same numbers other axes: unflatten, reshape, permute, the shuffles, and none at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convcalc.errors import ShapeError
from convcalc.layers.base import Shape, axis_of, flag, integer, refused, shape_text, whole
from convcalc.layers.reshape import Moved, View
from convcalc.records import dataclass
from convcalc.tracing import product


def _sizes(field: str, value: Any, least: int) -> tuple[int, ...]:
    """Sizes of which one may be -1, which stands for what is left."""
    sizes = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if not sizes:
        raise refused(field, value, "at least one size")
    for size in sizes:
        if integer(field, size) < least and size != -1:
            raise refused(field, value, f"sizes of at least {least}, and -1 for what is left")
    if sizes.count(-1) > 1:
        raise refused(field, value, "sizes with at most one -1")
    return sizes


def _fill(field: str, sizes: tuple[int, ...], elements: int) -> tuple[int, ...]:
    """The sizes with -1 replaced. Raises `ShapeError` when they do not hold so many elements."""
    known = product([size for size in sizes if size != -1])
    if elements % known or (-1 not in sizes and known != elements):
        raise ShapeError(f"{field} {shape_text(sizes)} does not hold {elements} elements", field=field, value=sizes)
    return tuple(elements // known if size == -1 else size for size in sizes)


@dataclass(frozen=True, eq=False, repr=False)
class Unflatten(View):
    """One axis as several. Fields as PyTorch's Unflatten; dim counts the batch, one size may be -1.

    >>> Unflatten(1, (16, 5, 5)).infer((1, 400))
    ((1, 16, 5, 5),)
    """

    kind = "unflatten"
    dim: int
    unflattened_size: tuple[int, ...]

    def __post_init__(self) -> None:
        integer("dim", self.dim)
        self._set(unflattened_size=_sizes("unflattened_size", self.unflattened_size, 1))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape with dim replaced. Raises `ShapeError` when the sizes do not multiply to it."""
        shape = inputs[0]
        axis = axis_of("dim", self.dim, shape)
        return ((*shape[:axis], *_fill("unflattened_size", self.unflattened_size, shape[axis]), *shape[axis + 1 :]),)


@dataclass(frozen=True, eq=False, repr=False)
class Reshape(View):
    """Another shape for the same numbers, such as torch.reshape and ONNX's Reshape give.

    `shape` is without the batch, which stays, unless `batch` is true: then it begins with the batch. -1 stands for what
    is left and 0 for the input's size at that place.

    >>> Reshape((16, 5, 5)).infer((2, 400)), Reshape((0, -1)).infer((2, 16, 5, 5))
    (((2, 16, 5, 5),), ((2, 16, 25),))
    """

    kind = "reshape"
    shape: tuple[int, ...]
    batch: bool = False

    def __post_init__(self) -> None:
        self._set(shape=_sizes("shape", self.shape, 0), batch=flag("batch", self.batch))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape. Raises `ShapeError` when it holds another number of elements."""
        kept = () if self.batch else inputs[0][:1]
        given = inputs[0][len(kept) :]
        if any(size == 0 and place >= len(given) for place, size in enumerate(self.shape)):
            raise ShapeError(
                f"shape {shape_text(self.shape)} copies a size with 0 where the input {shape_text(given)} has none",
                field="shape",
                value=self.shape,
            )
        sizes = tuple(given[place] if size == 0 else size for place, size in enumerate(self.shape))
        return ((*kept, *_fill("shape", sizes, product(given))),)


@dataclass(frozen=True, eq=False, repr=False)
class Permute(View):
    """The axes in another order, the batch counted, as torch.permute.

    >>> Permute((0, 2, 3, 1)).infer((1, 8, 5, 6))
    ((1, 5, 6, 8),)
    """

    kind = "permute"
    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        dims = tuple(self.dims) if isinstance(self.dims, Sequence) else (self.dims,)
        self._set(dims=tuple(integer("dims", dim) for dim in dims))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape in that order. Raises `ShapeError` unless each axis is named once."""
        shape = inputs[0]
        axes = [axis_of("dims", dim, shape) for dim in self.dims]
        if sorted(axes) != list(range(len(shape))):
            raise ShapeError(
                f"dims {'x'.join(map(str, self.dims))} must name each of the {len(shape)} axes once, the batch counted",
                field="dims",
                value=self.dims,
            )
        return (tuple(shape[axis] for axis in axes),)


@dataclass(frozen=True, eq=False, repr=False)
class ChannelShuffle(Moved):
    """Channels dealt out anew: channel g·n + i of groups of n goes to i·groups + g. Fields as PyTorch's ChannelShuffle.

    >>> ChannelShuffle(2).infer((1, 8, 5, 5))
    ((1, 8, 5, 5),)
    """

    kind = "channelshuffle"
    groups: int

    def __post_init__(self) -> None:
        whole("groups", self.groups)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape. Raises `ShapeError` when groups does not divide the channels."""
        shape = inputs[0]
        if len(shape) < 3:
            raise ShapeError(
                f"needs channels and spatial axes, but {shape_text(shape[1:]) or 'a scalar'} came in", value=shape
            )
        if shape[1] % self.groups:
            raise ShapeError(
                f"groups is {self.groups}, which does not divide the {shape[1]} channels",
                field="groups",
                value=self.groups,
            )
        return (shape,)


def _image(shape: Shape) -> None:
    if len(shape) < 4:
        raise ShapeError(
            f"needs channels, height and width, but {shape_text(shape[1:]) or 'a scalar'} came in", value=shape
        )


@dataclass(frozen=True, eq=False, repr=False)
class PixelShuffle(Moved):
    """Channels into pixels: (N, C·r², H, W) -> (N, C, H·r, W·r) for r = upscale_factor. Fields as PyTorch's.

    >>> PixelShuffle(2).infer((1, 8, 5, 6))
    ((1, 2, 10, 12),)
    """

    kind = "pixelshuffle"
    upscale_factor: int

    def __post_init__(self) -> None:
        whole("upscale_factor", self.upscale_factor)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C, H·r, W·r). Raises `ShapeError` when r² does not divide the channels."""
        _image(inputs[0])
        *outer, channels, height, width = inputs[0]
        factor = self.upscale_factor
        if channels % factor**2:
            raise ShapeError(
                f"upscale_factor is {factor}, but its square does not divide the {channels} channels",
                field="upscale_factor",
                value=factor,
            )
        return ((*outer, channels // factor**2, height * factor, width * factor),)


@dataclass(frozen=True, eq=False, repr=False)
class PixelUnshuffle(Moved):
    """Pixels into channels: (N, C, H·r, W·r) -> (N, C·r², H, W) for r = downscale_factor. Fields as PyTorch's.

    >>> PixelUnshuffle(2).infer((1, 2, 10, 12))
    ((1, 8, 5, 6),)
    """

    kind = "pixelunshuffle"
    downscale_factor: int

    def __post_init__(self) -> None:
        whole("downscale_factor", self.downscale_factor)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C·r², H, W). Raises `ShapeError` when r does not divide the height and the width."""
        _image(inputs[0])
        *outer, channels, height, width = inputs[0]
        factor = self.downscale_factor
        for what, size in (("height", height), ("width", width)):
            if size % factor:
                raise ShapeError(
                    f"downscale_factor is {factor}, which does not divide the {what} {size}",
                    field="downscale_factor",
                    value=factor,
                )
        return ((*outer, channels * factor**2, height // factor, width // factor),)


@dataclass(frozen=True, eq=False, repr=False)
class Identity(View):
    """The input, as it is. PyTorch's Identity takes any fields and uses none; here it has none."""

    kind = "identity"

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape."""
        return (inputs[0],)
