"""Pieces: linear layers as convolutions: what each does along the axes, and what its weights are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from convcalc.analysis.fields import Window
from convcalc.composition.geometry import Link
from convcalc.composition.kernels import filled
from convcalc.composition.parameters import constant_weights, norm_weights, own_weights
from convcalc.layers.base import Pairs
from convcalc.network import Constant
from convcalc.records import dataclass
from convcalc.tracing import product

if TYPE_CHECKING:
    from convcalc.composition.kernels import Given, Kernel


TRANSPARENT = ("dropout", "alphadropout", "featurealphadropout", "identity")
"""Kinds that at inference give back what came in."""


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


def piece_of(link: Link) -> Piece | None:
    """The convolution that a layer is; None for a layer that is none."""
    rule = _PIECES.get(link.item.layer.kind)
    if rule is None or link.axes is None or not all(isinstance(axis, Window) for axis in link.axes):
        return None
    return rule(link, link.item.layer)


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


def _norm_piece(link: Link, layer: Any) -> Piece | None:
    """Batch norm at inference scales and moves each channel."""
    if not layer.track_running_stats:
        return None
    plain = (Window(),) * link.rank
    return Piece(plain, (link.channels,) * 2, link.channels, True, "zeros", _none(link), partial(norm_weights, link))


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
    **dict.fromkeys(("batchnorm", "syncbatchnorm"), _norm_piece),
    **dict.fromkeys(("pad", "constantpad", "zeropad"), _pad_piece),
}
"""The kinds that are convolutions, and which one."""


def constant_piece(link: Link, constant: Constant, rank: int) -> Piece | None:
    """A constant that is multiplied or added: a number, or one a channel."""
    shape = (1,) * (rank + 2 - len(constant.shape)) + tuple(constant.shape)
    if len(shape) != rank + 2 or set(shape) - {1} - {shape[1]} or shape[0] != 1 or set(shape[2:]) != {1}:
        return None
    if shape[1] not in (1, link.channels) or constant.dtype not in ("float32", "float64", "float16"):
        return None
    adds = link.item.layer.kind == "add"
    return Piece((Window(),) * rank, (link.channels,) * 2, link.channels, adds, "zeros", _none(link),
                 partial(constant_weights, constant, link.channels, rank, adds))  # fmt: skip
