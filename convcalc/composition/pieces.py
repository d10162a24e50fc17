"""Pieces: linear layers as convolutions: what each does along the axes, and what its weights are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from convcalc.analysis.fields import Window
from convcalc.analysis.shapes import Resolved
from convcalc.composition.geometry import Link
from convcalc.composition.kernels import filled
from convcalc.composition.parameters import (
    as_pointwise,
    constant_values,
    constant_weights,
    linear_weights,
    norm_parameters,
    number_weights,
    own_weights,
    product_weights,
)
from convcalc.errors import UnsupportedOpError
from convcalc.layers.base import Pairs
from convcalc.network import Constant
from convcalc.records import dataclass
from convcalc.tracing import product

if TYPE_CHECKING:
    from convcalc.composition.kernels import Given, Kernel


TRANSPARENT = ("dropout", "alphadropout", "featurealphadropout", "identity")
"""Kinds that at inference give back what came in."""
VIEWS = ("flatten", "reshape", "shaped")
"""Kinds that may make features of what came in."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A linear layer as a convolution, or a transposed one: windows in numbers, channels, and its weights.

    `uneven` is the padding (before and after, per axis) over which it is none, because an average pool does not count
    it. `even` says that each output of a transposed one gets as much as any other, so that a constant stays one.
    """

    windows: tuple[Window, ...]
    channels: tuple[int, int]
    groups: int
    bias: bool
    mode: str
    uneven: Pairs
    weights: Callable[[Given], Kernel]
    even: bool = False

    @property
    def pads(self) -> Pairs:
        """The padding, (before, after) per axis; of a transposed one what it crops."""
        return tuple((window.before, window.after) for window in self.windows)


def piece_of(link: Link, constants: Mapping[str, Constant]) -> Piece | None:
    """The convolution that a layer is; None for a layer that is none."""
    if link.axes is None or not all(isinstance(axis, Window) for axis in link.axes):
        return None
    rule = _PIECES.get(link.item.layer.kind)
    if rule is not None:
        return rule(link, link.item.layer)
    affine = affine_of(link.item, link.channels, link.rank, constants)
    return None if affine is None else affine.piece(link)


def _windows(link: Link) -> tuple[Window, ...]:
    return tuple(axis for axis in link.axes or () if isinstance(axis, Window))


def _none(link: Link) -> Pairs:
    return ((0, 0),) * link.rank


def _conv_piece(link: Link, layer: Any) -> Piece:
    return Piece(_windows(link), layer.bound[:2], layer.bound[2], layer.bias, layer.padding_mode, _none(link),
                 partial(own_weights, link))  # fmt: skip


def _transposed_piece(link: Link, layer: Any) -> Piece | None:
    if layer.output_size is not None and not link.item.inputs:
        return None
    extra = layer.output_paddings(link.item.inputs[0][2:]) if link.item.inputs else layer.output_padding
    windows = tuple(replace(window, after=window.after - more)
                    for window, more in zip(_windows(link), extra, strict=True))  # fmt: skip
    return Piece(windows, layer.bound[:2], layer.bound[2], layer.bias, "zeros", _none(link),
                 partial(own_weights, link))  # fmt: skip


def _average_piece(link: Link, layer: Any) -> Piece:
    windows = _windows(link)
    pads = tuple((window.before, window.after) for window in windows)
    uneven = _none(link) if layer.count_include_pad or layer.divisor_override else pads
    if layer.ceil_mode and not layer.divisor_override:
        # The last window may stick out by less than a stride; it is divided by what is left of it.
        overhang = [pair[1] + stride - 1 for pair, stride in zip(layer.padding, layer.stride, strict=True)]
        uneven = tuple((pair[0], most) for pair, most in zip(uneven, overhang, strict=True))
    divisor = layer.divisor_override or product(layer.kernel_size)
    return _per_channel(link, windows, uneven, 1 / divisor)


def _mean_piece(link: Link, layer: Any) -> Piece:
    """An adaptive average of equal windows."""
    windows = _windows(link)
    return _per_channel(link, windows, _none(link), 1 / product([window.kernel_size for window in windows]))


def _copies_piece(link: Link, layer: Any) -> Piece | None:
    """Upsampling that repeats each element is a transposed convolution with ones."""
    windows = _windows(link)
    if any(window.kernel_size != window.stride or window.before or window.after for window in windows):
        return None
    return replace(_per_channel(link, windows, _none(link), 1.0), even=True)


def _pad_piece(link: Link, layer: Any) -> Piece | None:
    """Zeros around the input are the padding of a convolution that copies."""
    if layer.mode != "constant" or layer.value or min(map(min, layer.padding)) < 0:
        return None
    return _per_channel(link, _windows(link), _none(link), 1.0)


def _per_channel(link: Link, windows: tuple[Window, ...], uneven: Pairs, value: float) -> Piece:
    """Every channel by itself, with a kernel of one value."""
    channels = link.channels
    shape = (channels, 1, *(window.kernel_size for window in windows))
    return Piece(windows, (channels, channels), channels, False, "zeros", uneven, partial(filled, shape, value))


_PIECES: dict[str, Callable[[Link, Any], Piece | None]] = {
    "conv": _conv_piece,
    "convt": _transposed_piece,
    "avgpool": _average_piece,
    **dict.fromkeys(("adaptiveavgpool", "globalavgpool"), _mean_piece),
    **dict.fromkeys(("upsample", "upsamplingnearest"), _copies_piece),
    **dict.fromkeys(("pad", "constantpad", "zeropad"), _pad_piece),
}
"""The kinds that are convolutions, and which one; what only scales and shifts is found by `affine_of`."""


# --- scales, shifts, matrices ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Affine:
    """A layer that multiplies each channel by a number and adds one, if it `shifts`; `weights` gives both."""

    channels: int
    shifts: bool
    weights: Callable[[Given], Kernel]

    def piece(self, link: Link) -> Piece:
        """The same as a convolution of one element."""
        return Piece((Window(),) * link.rank, (self.channels,) * 2, self.channels, self.shifts, "zeros", _none(link),
                     partial(as_pointwise, self.weights, link.rank))  # fmt: skip

    def product(self) -> Product:
        """The same as a matrix, which is a diagonal."""
        return Product(self.channels, self.shifts, self.weights, diagonal=True)


@dataclass(frozen=True, eq=False)
class Product:
    """A layer that multiplies features by a matrix: how many come out, and the matrix, of a diagonal one the numbers on
    it.
    """

    features: int
    bias: bool
    weights: Callable[[Given], Kernel]
    diagonal: bool = False


def affine_of(item: Resolved, channels: int, rank: int, constants: Mapping[str, Constant]) -> Affine | None:
    """What a layer multiplies each channel by and adds: batch norm, or arithmetic with a constant of the model.

    None for a layer that is nothing of this. Raises `UnsupportedOpError` for a division by 0.
    """
    layer: Any = item.layer
    if layer.kind in ("batchnorm", "syncbatchnorm"):
        return Affine(channels, True, partial(norm_parameters, item, channels)) if layer.track_running_stats else None
    operation = getattr(layer, "function", layer.kind)
    if operation == "neg":
        return Affine(channels, False, partial(constant_weights, "neg", None, channels, False))
    if operation in ("scale", "shift"):
        return Affine(channels, operation == "shift", partial(number_weights, layer.arguments[0], operation, channels))
    constant = _by_channel(item, channels, rank, constants)
    first = item.node.inputs[0] in constants
    if operation not in ("add", "mul", "sub", "div") or constant is None or (operation == "div" and first):
        return None
    if operation == "div" and not constant_values(constant, channels).all():
        raise UnsupportedOpError("it divides by 0")
    return Affine(
        channels, operation in ("add", "sub"), partial(constant_weights, operation, constant, channels, first)
    )


def _by_channel(item: Resolved, channels: int, rank: int, constants: Mapping[str, Constant]) -> Constant | None:
    """The one other thing that a layer takes, if it is a number or one a channel."""
    known = [constants[name] for name in item.node.inputs if name in constants]
    if len(known) != 1 or len(item.node.inputs) != 2 or known[0].dtype not in ("float32", "float64", "float16"):
        return None
    shape = (1,) * (rank + 2 - len(known[0].shape)) + tuple(known[0].shape)
    fits = len(shape) == rank + 2 and shape[0] == 1 and shape[1] in (1, channels) and not {*shape[2:]} - {1}
    return known[0] if fits else None


def product_of(item: Resolved, features: int, constants: Mapping[str, Constant]) -> Product | None:
    """The matrix product that a layer is on features; None for a layer that is none."""
    layer: Any = item.layer
    if layer.kind == "linear":
        return Product(layer.bound[1], layer.bias, partial(linear_weights, item))
    if len(item.outputs[0]) != 2:
        return None
    if layer.kind in ("matmul", "gemm"):
        return _constant_product(item, layer, constants)
    affine = affine_of(item, features, 0, constants)
    return None if affine is None else affine.product()


def _constant_product(item: Resolved, layer: Any, constants: Mapping[str, Constant]) -> Product | None:
    """A product with a matrix of the model: x·W, or alpha·x·W + beta·b."""
    data, *known = item.node.inputs
    held = [constants.get(name) for name in known]
    if data in constants or None in held or len(item.inputs[0]) != 2 or getattr(layer, "transa", False):
        return None
    matrix, *rest = [constant for constant in held if constant is not None]
    features = item.outputs[0][-1]
    if len(matrix.shape) != 2 or any(product(each.shape) not in (1, features) or each.shape[:-1] not in ((), (1,))
                                     for each in rest):  # fmt: skip
        return None
    return Product(features, bool(rest), partial(product_weights, layer, matrix, rest, features))
