"""Merging: linear layers in a row and side by side as the one layer that equals them, weights included.

Each tensor that linear layers make is held as one `Map` from the last tensor that has to be there: the input, or what a
layer gives that is not linear. Only the tensors that something else needs become layers again, one each.

NumPy is imported only when there are weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from math import gcd
from typing import TYPE_CHECKING, Any

from convcalc import formulas as F
from convcalc.analysis.fields import Window
from convcalc.analysis.report import Value
from convcalc.analysis.shapes import Resolved, label, located
from convcalc.errors import ConvcalcError, ShapeError, UnsupportedOpError
from convcalc.expressions import expression_of
from convcalc.geometry import START, Composed, Link, aligned, followed
from convcalc.layers.base import Cost, Layer, Pairs, Shape, axis_name, shape_text
from convcalc.layers.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from convcalc.layers.linear import Linear
from convcalc.layers.reshape import Flatten
from convcalc.network import Constant, Node, tensor_names
from convcalc.records import dataclass
from convcalc.tracing import per_axis, product

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Kernel = tuple[Array, Array | None]
    """A weight with the channels that come out first, and a bias."""
    Given = Mapping[str, Array]

TRANSPARENT = ("dropout", "alphadropout", "featurealphadropout", "identity")
"""Kinds that at inference give back what came in."""
_CONVS: dict[int, type[Any]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
_TRANSPOSED: dict[int, type[Any]] = {1: ConvTranspose1d, 2: ConvTranspose2d, 3: ConvTranspose3d}


# --- layers as linear maps ------------------------------------------------------------------------------------------


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
                 partial(_own_weights, link))  # fmt: skip


def _transposed_piece(link: Link, layer: Any) -> Piece | None:
    if layer.output_size is not None and not link.item.inputs:
        return None
    extra = layer.output_paddings(link.item.inputs[0][2:]) if link.item.inputs else layer.output_padding
    windows = tuple(replace(window, after=window.after - more)
                    for window, more in zip(_windows(link), extra, strict=True))  # fmt: skip
    return Piece(windows, layer.bound[:2], layer.bound[2], layer.bias, "zeros", _none(link),
                 partial(_own_weights, link))  # fmt: skip


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
    return Piece(plain, (link.channels,) * 2, link.channels, True, "zeros", _none(link), partial(_norm_weights, link))


def _pad_piece(link: Link, layer: Any) -> Piece | None:
    """Zeros around the input are the padding of a convolution that copies."""
    if layer.mode != "constant" or layer.value or min(map(min, layer.padding)) < 0:
        return None
    return _per_channel(link, _windows(link), _none(link), 1.0)


def _per_channel(link: Link, windows: tuple[Window, ...], uneven: Pairs, value: float) -> Piece:
    """Every channel by itself, with a kernel of one value."""
    channels = link.channels
    shape = (channels, 1, *(window.kernel_size for window in windows))
    return Piece(windows, (channels, channels), channels, False, "zeros", uneven, partial(_full, shape, value))


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


def _constant_piece(link: Link, constant: Constant, rank: int) -> Piece | None:
    """A constant that is multiplied or added: a number, or one a channel."""
    shape = (1,) * (rank + 2 - len(constant.shape)) + tuple(constant.shape)
    if len(shape) != rank + 2 or set(shape) - {1} - {shape[1]} or shape[0] != 1 or set(shape[2:]) != {1}:
        return None
    if shape[1] not in (1, link.channels) or constant.dtype not in ("float32", "float64", "float16"):
        return None
    adds = link.item.layer.kind == "add"
    return Piece((Window(),) * rank, (link.channels,) * 2, link.channels, adds, "zeros", _none(link),
                 partial(_constant_weights, constant, link.channels, rank, adds))  # fmt: skip


# --- maps -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Map:
    """Linear layers as one, from the tensor `source`: what it does along each axis, its channels, and how its dense
    weights are made.

    `nodes` are the layers in it, in order, and `count` how many of them are more than handing on. `border` are the
    outputs (before and after, per axis) that may differ from the layers', at most; `fallback` the same if zeros take
    the place of the padding `mode`. `flat` are matrices behind a flatten, if any.
    """

    source: str
    axes: tuple[Composed, ...]
    channels: tuple[int, int]
    groups: int
    arrays: Callable[[Given], Kernel]
    nodes: tuple[Resolved, ...] = ()
    count: int = 0
    joins: int = 0
    bias: bool = False
    mode: str = "zeros"
    border: Pairs = ()
    fallback: Pairs = ()
    transposed: bool = False
    padded: bool = False

    @property
    def rank(self) -> int:
        """The spatial axes."""
        return len(self.axes)

    def handed_on(self, item: Resolved) -> Map:
        """The same, through a layer that does nothing."""
        return replace(self, nodes=(*self.nodes, item))

    def turned(self) -> Map:
        """A convolution of stride 1 as a transposed one, and the other way round."""
        return replace(self, axes=tuple(axis.turned() for axis in self.axes), transposed=not self.transposed,
                       arrays=partial(_flipped, self.arrays))  # fmt: skip

    def layer(self) -> Layer:
        """The one layer. Raises `UnsupportedOpError` when there is none."""
        windows = [axis.window or Window() for axis in self.axes]
        if not self.transposed or all(axis.stride == 1 for axis in self.axes):
            straight = self.turned() if self.transposed else self
            windows = [axis.window or Window() for axis in straight.axes]
            if min(min(window.before, window.after) for window in windows) >= 0:
                return self._made(_CONVS[self.rank], windows, padding_mode=self.mode,
                                  padding=tuple((window.before, window.after) for window in windows))  # fmt: skip
            if any(axis.stride > 1 for axis in self.axes):
                raise _no_layer()
        return (self if self.transposed else self.turned())._up()

    def _up(self) -> Layer:
        windows = [axis.window or Window() for axis in self.axes]
        extra = [max(-window.after, 0) for window in windows]
        fits = all(more < max(window.stride, window.dilation) for more, window in zip(extra, windows, strict=True))
        if min(window.before for window in windows) < 0 or not fits or self.mode != "zeros":
            raise _no_layer()
        return self._made(_TRANSPOSED[self.rank], windows, output_padding=tuple(extra),
                          padding=tuple((window.before, max(window.after, 0)) for window in windows))  # fmt: skip

    def _made(self, cls: type[Any], windows: Sequence[Window], **fields: Any) -> Layer:
        layer: Layer = cls(*self.channels, groups=self.groups, bias=self.bias, **fields,
                           kernel_size=tuple(window.kernel_size for window in windows),
                           stride=tuple(window.stride for window in windows),
                           dilation=tuple(window.dilation for window in windows))  # fmt: skip
        return layer

    def weights(self, layer: Layer, given: Given) -> dict[str, Array]:
        """The one layer's weight and bias, as the layer has them."""
        up = layer.kind == "convt"
        weight, bias = (self if up == self.transposed else self.turned()).arrays(given)
        every = tuple(slice(None, None, step) for step in layer.dilation)  # type: ignore[attr-defined]  # one of two classes
        weight = weight[(slice(None), slice(None), *every)]
        if up:
            weight = _swapped(weight, self.groups)
        return _state(weight, bias)


@dataclass(frozen=True, eq=False)
class Matrix:
    """Linear layers as one matrix product, after a flatten of the source or of what a `base` makes of it.

    `features` are those that come out; `product` is None before the first matrix.
    """

    source: str
    base: Map | None
    flatten: Resolved | None
    features: int
    came: int
    product: Callable[[Given], Kernel] | None = None
    nodes: tuple[Resolved, ...] = ()
    count: int = 0
    bias: bool = False
    joins: int = 0

    def handed_on(self, item: Resolved) -> Matrix:
        """The same, through a layer that does nothing."""
        return replace(self, nodes=(*self.nodes, item))

    def layer(self) -> Linear:
        """The one matrix product."""
        return Linear(self.came, self.features, self.bias)

    def weights(self, layer: Layer, given: Given) -> dict[str, Array]:
        """Its weight and bias."""
        assert self.product is not None
        return _state(*self.product(given))


def _no_layer() -> UnsupportedOpError:
    return UnsupportedOpError("the one layer would need a padding that there is not")


def start(source: str, channels: int, rank: int) -> Map:
    """The map that changes nothing."""
    none = ((0, 0),) * rank
    return Map(source, (START,) * rank, (channels, channels), channels,
               partial(_full, (channels, 1, *(1,) * rank), 1.0), border=none, fallback=none)  # fmt: skip


def joined(first: Map, then: Piece, item: Resolved) -> Map:
    """A map and a layer after it as one map. Raises `UnsupportedOpError` with the reason when they are none."""
    strided = [window.transposed and window.stride > 1 for window in then.windows]
    upwards = any(strided) or (first.transposed and any(axis.stride > 1 for axis in first.axes))
    if first.transposed != upwards:
        if any(axis.stride > 1 for axis in first.axes):
            raise UnsupportedOpError("downsampling and upsampling meet there")
        first = first.turned()
    if upwards and any(not window.transposed and window.stride > 1 for window in then.windows):
        raise UnsupportedOpError("upsampling and downsampling meet there")
    turns = [window.transposed != upwards for window in then.windows]
    weights: Callable[[Given], Kernel] = then.weights
    windows = then.windows
    if any(turns):
        windows = tuple(_turned(window) if turns[index] else window for index, window in enumerate(windows))
        weights = partial(_flipped, weights)
        if not all(turns):
            weights = partial(_flipped_some, then.weights, tuple(turns))
    if upwards and first.bias and any(window.stride > 1 for window in windows) and not then.even:
        raise UnsupportedOpError("the bias before it would come out as a pattern")
    pads = any(map(any, then.pads))
    if upwards and ((then.mode != "zeros" and pads) or first.mode != "zeros"):
        raise UnsupportedOpError("padding that is not zeros has no place in a transposed convolution")
    axes = tuple(followed(axis, window) or _lost() for axis, window in zip(first.axes, windows, strict=True))
    groups = gcd(first.groups, then.groups)
    mode = first.mode if first.padded and not pads else "zeros"
    if not first.padded and pads and _pointwise(first):
        mode = then.mode
    borders = [
        _border(first, then, windows, borders, mode, upwards=upwards) for borders in (first.border, first.fallback)
    ]
    made = replace(
        first,
        axes=axes,
        channels=(first.channels[0], then.channels[1]),
        groups=groups,
        arrays=partial(_in_a_row, first, windows, then, weights, groups),
        nodes=(*first.nodes, item),
        count=first.count + 1,
        bias=first.bias or then.bias,
        mode=mode,
        border=borders[1] if pads and first.mode != "zeros" else borders[0],
        fallback=_border(first, then, windows, first.fallback, "zeros", upwards=upwards),
        padded=first.padded or pads,
    )
    made.layer()
    return made


def _pointwise(first: Map) -> bool:
    """Whether each output reads its own place alone: then any padding may as well come before."""
    return all(axis.extent == axis.stride == 1 and not axis.before and not axis.after for axis in first.axes)


def _lost() -> Composed:
    raise UnsupportedOpError("upsampling and downsampling meet there")


def _turned(window: Window) -> Window:
    last = window.dilation * (window.kernel_size - 1)
    return replace(window, before=last - window.before, after=last - window.after, transposed=not window.transposed)


def _border(first: Map, then: Piece, windows: Sequence[Window], borders: Pairs, mode: str, *, upwards: bool) -> Pairs:
    """How many outputs at either end of each axis may differ between the layers and the one layer, at most."""
    result = []
    for axis, window in enumerate(windows):
        so_far, ends = first.axes[axis], borders[axis]
        if upwards:
            spread = F.kernel_extent(window.kernel_size, window.dilation) - window.stride
            crops = so_far.before > 0 or first.bias, so_far.after > 0 or first.bias
            pair = [
                max((end - 1) * window.stride + F.kernel_extent(window.kernel_size, window.dilation) - crop
                    if end else 0, spread - crop if cropped else 0, uneven, 0)
                for end, crop, cropped, uneven in zip(ends, (window.before, window.after), crops, then.uneven[axis],
                                                      strict=True)
            ]  # fmt: skip
            result.append((pair[0], pair[1]))
            continue
        padding = [window.before, window.after]
        same_mode = then.mode == mode
        # Where the layer pads with zeros, the one layer has what a window beyond the outputs before would give:
        # zero too, if there is no bias and such a window sees padding alone.
        if same_mode and _pointwise(first) and (mode != "zeros" or not first.bias):
            padding = [0, 0]
        elif then.mode == "zeros" and not first.bias:
            padding[0] *= ends[0] > 0 or so_far.extent > so_far.stride + so_far.before
            padding[1] *= ends[1] > 0 or so_far.extent > so_far.after + 1
        padding = [max(pair) for pair in zip(padding, then.uneven[axis], strict=True)]
        result.append((
            max(F.border_after(ends[0], padding[0], window.stride), 0),
            max(F.border_after(ends[1], padding[1], window.stride), 0),
        ))  # fmt: skip
    return tuple(result)


def summed(found: Sequence[Map | Matrix], item: Resolved) -> Map:
    """Maps side by side, added or their channels joined, as one. Raises `UnsupportedOpError` with the reason."""
    branches = [branch for branch in found if isinstance(branch, Map)]
    if len(branches) < len(found):
        raise UnsupportedOpError("its branches have no axes")
    if len({branch.source for branch in branches}) > 1:
        raise UnsupportedOpError("its branches do not begin at the same tensor")
    if item.layer.kind == "mul":
        raise UnsupportedOpError("its branches are multiplied")
    concat = item.layer.kind == "concat"
    if not concat and len({branch.channels[1] for branch in branches}) > 1:
        raise UnsupportedOpError("one of its branches is repeated")
    if item.inputs and len({shape[2:] for shape in item.inputs}) > 1:
        raise UnsupportedOpError("one of its branches is repeated")
    modes = {branch.mode for branch in branches if branch.padded} or {"zeros"}
    if len(modes) > 1:
        raise UnsupportedOpError(f"its branches pad in different ways ({', '.join(sorted(modes))})")
    upwards = any(branch.transposed and any(axis.stride > 1 for axis in branch.axes) for branch in branches)
    rank = branches[0].rank
    if any(branch.transposed != upwards and any(axis.stride > 1 for axis in branch.axes) for branch in branches):
        raise UnsupportedOpError("its branches move by different steps")
    branches = [branch if branch.transposed == upwards else branch.turned() for branch in branches]
    axes = tuple(aligned([branch.axes[axis] for branch in branches], axis_name(rank, axis)) for axis in range(rank))
    groups = 1 if concat else gcd(*(branch.groups for branch in branches))
    channels = sum(branch.channels[1] for branch in branches) if concat else branches[0].channels[1]

    def most(pick: Callable[[Map], Pairs]) -> Pairs:
        pairs = [pick(branch) for branch in branches]
        return tuple(
            (max(pair[axis][0] for pair in pairs), max(pair[axis][1] for pair in pairs)) for axis in range(rank)
        )

    nodes: dict[str, Resolved] = {each.node.name: each for branch in branches for each in branch.nodes}
    made = Map(
        branches[0].source,
        axes,
        (branches[0].channels[0], channels),
        groups,
        partial(_side_by_side, branches, axes, groups, concat),
        (*nodes.values(), item),
        count=len([each for each in nodes.values() if each.layer.kind not in TRANSPARENT]),
        joins=1,
        bias=any(branch.bias for branch in branches),
        mode=modes.pop(),
        border=most(lambda branch: branch.border),
        fallback=most(lambda branch: branch.fallback),
        transposed=upwards,
        padded=any(branch.padded for branch in branches),
    )
    made.layer()
    return made


def _flattened(first: Map | Matrix, source: str, item: Resolved) -> Matrix | None:
    """What a flatten of all axes but the batch begins; None for another flatten."""
    layer: Any = item.layer
    gone = item.outputs[0]
    if layer.kind != "flatten" or len(gone) != 2 or isinstance(first, Matrix):
        return None
    return Matrix(source, first, item, gone[1], 0, nodes=(*first.nodes, item), count=first.count, joins=first.joins)


# --- weights --------------------------------------------------------------------------------------------------------


def _state(weight: Array, bias: Array | None) -> dict[str, Array]:
    import numpy as np

    state = {"weight": np.ascontiguousarray(weight)}
    return state if bias is None else state | {"bias": bias}


def _full(shape: Shape, value: float, given: Given) -> Kernel:
    import numpy as np

    return np.full(shape, value), None


def _swapped(weight: Array, groups: int) -> Array:
    """The channels that come in and go out, exchanged within each group: how a transposed convolution has them."""
    first, second = weight.shape[0] // groups, weight.shape[1]
    parts = weight.reshape(groups, first, second, *weight.shape[2:]).swapaxes(1, 2)
    return parts.reshape(groups * second, first, *weight.shape[2:])


def _own_weights(link: Link, given: Given) -> Kernel:
    """The weights of a convolution, those of a transposed one with the channels exchanged."""
    item = link.item
    layer: Any = item.layer
    shapes = layer.parameters()
    weight, bias = (_parameter(item, name, shapes.get(name), given) for name in ("weight", "bias"))
    if weight is None:
        raise missing(item, "weight")
    if layer.bias and bias is None:
        import numpy as np

        bias = np.zeros(shapes["bias"])
    return (_swapped(weight, layer.bound[2]) if layer.kind == "convt" else weight), bias


def _norm_weights(link: Link, given: Given) -> Kernel:
    scale, shift = norm_parameters(link.item, link.channels, given)
    return scale.reshape(-1, 1, *(1,) * link.rank), shift


def norm_parameters(item: Resolved, count: int, given: Given) -> Kernel:
    """What batch norm at inference multiplies each channel by, and what it adds."""
    import numpy as np

    layer: Any = item.layer
    mean, variance = (_parameter(item, name, (count,), given) for name in ("running_mean", "running_var"))
    if mean is None or variance is None:
        raise missing(item, "running_mean" if mean is None else "running_var")
    if (variance < 0).any():
        raise located(ShapeError("running_var is negative, which no variance is"), item.node)
    if (variance + layer.eps <= 0).any():
        raise located(ShapeError("running_var + eps must be more than 0 to divide by its root"), item.node)
    weight, bias = (_parameter(item, name, (count,), given) for name in ("weight", "bias"))
    if layer.affine and weight is None:
        raise missing(item, "weight")
    # The formulas speak of numbers; arrays flow through them as well.
    scale_of: Callable[..., Any] = F.norm_scale
    shift_of: Callable[..., Any] = F.norm_shift
    scale = scale_of(np.ones(count) if weight is None else weight, variance, layer.eps)
    return scale, shift_of(np.zeros(count) if bias is None else bias, mean, scale)


def _constant_weights(constant: Constant, channels: int, rank: int, adds: bool, given: Given) -> Kernel:
    import numpy as np

    values = np.broadcast_to(np.asarray(constant.array(), np.float64).reshape(-1), (channels,)).copy()
    shape = (channels, 1, *(1,) * rank)
    return (np.ones(shape), values) if adds else (values.reshape(shape), None)


def _parameter(item: Resolved, name: str, wanted: tuple[int, ...] | None, given: Given) -> Array | None:
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


def _flipped(arrays: Callable[[Given], Kernel], given: Given) -> Kernel:
    """The kernel turned round along every axis."""
    import numpy as np

    weight, bias = arrays(given)
    return np.flip(weight, axis=tuple(range(2, weight.ndim))), bias


def _flipped_some(arrays: Callable[[Given], Kernel], turns: Sequence[bool], given: Given) -> Kernel:
    import numpy as np

    weight, bias = arrays(given)
    return np.flip(weight, axis=tuple(2 + axis for axis, turn in enumerate(turns) if turn)), bias


def _in_groups(weight: Array, groups: int, wanted: int) -> Array:
    """The same convolution in fewer groups, which divide `groups`: zeros stand where groups did not meet."""
    import numpy as np

    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    together = groups // wanted
    if together == 1:
        return weight
    result = np.zeros((weight.shape[0], inputs * together, *weight.shape[2:]))
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        first = group % together * inputs
        result[rows, first : first + inputs] = weight[rows]
    return result


def _in_a_row(
    first: Map,
    windows: Sequence[Window],
    then: Piece,
    weights: Callable[[Given], Kernel],
    groups: int,
    given: Given,
) -> Kernel:
    """One kernel from two.

    Of convolutions, the second one's taps stand the first one's stride apart; of transposed ones the first one's taps
    stand the second one's stride apart.
    """
    import numpy as np

    inner, first_bias = first.arrays(given)
    outer, bias = weights(given)
    strides = [axis.stride for axis in first.axes]
    if any(window.transposed for window in windows):
        inner = with_holes(inner, [window.stride for window in windows])
        strides = [1] * len(windows)
    steps = [window.dilation * stride for window, stride in zip(windows, strides, strict=True)]
    sizes, kernel = inner.shape[2:], outer.shape[2:]
    outputs = outer.shape[0]
    extents = [size + (count - 1) * step for size, count, step in zip(sizes, kernel, steps, strict=True)]
    rows = then.groups == then.channels[0] == outputs  # each channel is scaled by itself
    columns = first.groups == first.channels[0] == len(inner)
    inner = _in_groups(inner, first.groups, groups) if rows or not columns else inner
    outer = _in_groups(outer, then.groups, groups) if not rows else outer
    middle = first.channels[1] // groups
    parts = outer.reshape(groups, outputs // groups, -1, *kernel)
    result = np.zeros((outputs, first.channels[0] // groups, *extents))
    for taps in np.ndindex(*kernel):
        places = tuple(slice(tap * step, tap * step + size) for tap, step, size in zip(taps, steps, sizes, strict=True))
        tap = parts[:, :, :, *taps]
        if rows:
            more = outer[:, 0, *taps].reshape(-1, 1, *(1,) * len(sizes)) * inner
        elif columns:
            more = tap[..., *(None,) * len(sizes)] * inner.reshape(groups, 1, middle, *sizes)
        else:
            more = tap @ inner.reshape(groups, middle, -1)
        result[:, :, *places] += more.reshape(outputs, -1, *sizes)
    shift = bias
    if first_bias is not None:
        sums = parts.reshape(*parts.shape[:3], -1).sum(-1)
        if then.even:
            sums = sums / product([window.stride for window in windows])
        passed = sums.reshape(-1) * first_bias if rows else (sums @ first_bias.reshape(groups, middle, 1)).reshape(-1)
        shift = passed if bias is None else passed + bias
    return result, shift


def with_holes(weight: Array, steps: Sequence[int]) -> Array:
    """A kernel with its elements so many steps apart, zeros between."""
    import numpy as np

    extents = per_axis(F.kernel_extent, weight.shape[2:], tuple(steps))
    result = np.zeros((*weight.shape[:2], *extents))
    result[(slice(None), slice(None), *(slice(None, None, step) for step in steps))] = weight
    return result


def _side_by_side(branches: Sequence[Map], axes: Sequence[Composed], groups: int, concat: bool, given: Given) -> Kernel:
    """The kernels of branches at their places in one, added or one below the other."""
    import numpy as np

    weights, biases = [], []
    for branch in branches:
        weight, bias = branch.arrays(given)
        weight = _in_groups(weight, branch.groups, groups)
        result = np.zeros((*weight.shape[:2], *(axis.extent for axis in axes)))
        places = tuple(
            slice(axis.before - own.before, axis.before - own.before + own.extent)
            for axis, own in zip(axes, branch.axes, strict=True)
        )
        result[:, :, *places] = weight
        weights.append(result)
        biases.append(np.zeros(len(weight)) if bias is None else bias)
    biased = any(branch.bias for branch in branches)
    if concat:
        return np.concatenate(weights), np.concatenate(biases) if biased else None
    return sum(weights[1:], weights[0]), sum(biases[1:], biases[0]) if biased else None


# --- the network ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Made:
    """A layer of the merged network: one for the layers `merged`, or one that stays as it is (`kept`).

    `weights` and `macs` are the layer's, `was` those of the layers before. `border` are the outputs (before and after,
    per axis) that may differ, at most.
    """

    node: Node
    kept: Resolved | None
    map: Map | Matrix | None
    border: Pairs
    weights: Value
    macs: Value
    was: tuple[Value, Value]
    output: str

    @property
    def merges(self) -> bool:
        """Whether it stands for several layers."""
        return self.kept is None and self.map is not None

    @property
    def merged(self) -> list[Resolved]:
        """The layers that it stands for, without those that hand on."""
        nodes = () if self.map is None else self.map.nodes
        return [item for item in nodes if item.layer.kind not in (*TRANSPARENT, "flatten")]

    @property
    def expression(self) -> str:
        """The layer as it is written."""
        return expression_of(self.node.layer)

    @property
    def names(self) -> str:
        """What the layers are called that it stands for."""
        return ", ".join(label(item.node) for item in self.merged)

    def arrays(self, given: Given) -> dict[str, Array]:
        """Its weights by parameter."""
        assert self.map is not None
        return self.map.weights(self.node.layer, given)


class Merger:
    """The walk over the layers that merges them.

    `grids` gives for a tensor how many of its positions there are for each output of the network, where the input is
    left open. `constants` are tensors that layers take without computing them. `pays` merges only what makes the
    network cheaper, `exact` only what changes no output, and of linear layers only those that are `allowed`.
    """

    def __init__(
        self,
        links: Sequence[Link],
        sources: Sequence[str],
        outputs: Sequence[str],
        *,
        shapes: Mapping[str, Shape],
        grids: Callable[[str], Fraction],
        constants: Mapping[str, Constant] | None = None,
        pays: bool = False,
        exact: bool = False,
        allowed: Callable[[Resolved], bool] | None = None,
    ) -> None:
        self.links = links
        self.allowed = allowed
        self.sources = sources
        self.outputs = outputs
        self.shapes = shapes
        self.grids = grids
        self.constants = constants or {}
        self.pays = pays
        self.exact = exact
        self.costs = {link.item.node.name: _cost(link.item) for link in links}
        self.uses: dict[str, int] = {}
        for link in links:
            for name in link.item.node.inputs:
                self.uses[name] = self.uses.get(name, 0) + 1
        self.stays: set[str] = set()
        self.stops: dict[str, str] = {}
        self.maps: dict[str, Map | Matrix] = {}
        self.made: list[Made] = []
        self.names: dict[str, str] = {}

    def merge(self) -> list[Made]:
        """The layers of the merged network, in order."""
        while True:
            # What has to be there is found on the way; then all that comes after begins at it.
            before = len(self.stays)
            self._walk()
            if len(self.stays) == before:
                return self.made

    def _walk(self) -> None:
        link = self.links[0]
        self.made = []
        self.names = {name: name for name in self.sources}
        self.kept: set[str] = set()
        self.maps = {}
        for name in self.sources:
            self._begin(name, _channels_of(link, self.shapes.get(name)) if self.shapes else link.channels, link.rank)
        for link in self.links:
            item = link.item
            found = self._found(link)
            if found is None:
                for name in item.node.inputs:
                    self._need(name)
                self._keep(item)
                for name in item.node.outputs:
                    self._begin(name, _channels_of(link, self.shapes.get(name)), link.rank)
                continue
            name = item.node.outputs[0]
            self.maps[name] = found
            if name in self.stays or name in self.outputs:
                self._need(name)
        for name in self.outputs:
            self._need(name)

    def _begin(self, name: str, channels: int, rank: int) -> None:
        self.maps[name] = start(name, channels, rank)

    def _found(self, link: Link) -> Map | Matrix | None:
        """The map to what a layer gives; None when it is not linear."""
        item = link.item
        node = item.node
        here = [self.maps[name] for name in node.inputs if name in self.maps]
        if not here or len(node.outputs) != 1 or (self.allowed is not None and not self.allowed(item)):
            return None
        data = next(name for name in node.inputs if name in self.maps)
        if item.layer.kind in TRANSPARENT:
            return here[0].handed_on(item)
        try:
            if len(here) > 1:
                return self._worth(summed(here, item), here, item)
            if self.pays and self.uses.get(data, 0) > 1:
                self._need(data)
                here = [self.maps[data]]
            after = self._after(here[0], link)
            if after is not None:
                return self._worth(after, here, item)
            self.stops.setdefault(node.name, "")
        except UnsupportedOpError as error:
            self.stops.setdefault(node.name, error.message)
            if len(here) == 1:
                return self._anew(here[0], link, data)
        return None

    def _anew(self, first: Map | Matrix, link: Link, name: str) -> Map | Matrix | None:
        """A linear layer that does not merge with what comes before it: that is made, and the layer begins there."""
        try:
            if isinstance(first, Matrix) and first.product is None and first.flatten is not None:
                before = first.flatten.node.inputs[0]
                self._need(before)
                again = _flattened(self.maps[before], before, first.flatten)
                return None if again is None else self._after(again, link)
            self._need(name)
            return self._after(self.maps[name], link)
        except UnsupportedOpError:
            return None

    def _after(self, first: Map | Matrix, link: Link) -> Map | Matrix | None:
        """A map and a layer after it as one; None when the layer is not linear."""
        item = link.item
        kind = item.layer.kind
        if isinstance(first, Matrix):
            return self._through_matrix(first, item)
        constant = next((self.constants[name] for name in item.node.inputs if name in self.constants), None)
        if kind in ("add", "mul") and constant is not None and link.axes is not None:
            piece = _constant_piece(link, constant, link.rank)
            return None if piece is None else joined(first, piece, item)
        if kind == "flatten" and item.inputs:
            return _flattened(first, first.source, item)
        if kind == "linear" and item.inputs and not first.nodes:
            matrix = Matrix(first.source, None, None, item.inputs[0][-1], item.inputs[0][-1])
            return self._through_matrix(matrix, item)
        piece = piece_of(link)
        return None if piece is None else joined(first, piece, item)

    def _through_matrix(self, first: Matrix, item: Resolved) -> Matrix | None:
        layer: Any = item.layer
        if layer.kind == "linear":
            own = partial(_linear_weights, item)
            features, bias = layer.bound[1], layer.bias
        elif (
            layer.kind == "batchnorm"
            and first.product is not None
            and len(item.inputs[0]) == 2
            and (layer.track_running_stats)
        ):
            own = partial(norm_parameters, item, first.features)
            features, bias = first.features, True
        else:
            return None
        came = product(self.shapes[first.source][1:]) if first.base is not None else first.came
        return replace(first, features=features, came=came, bias=first.bias or bias, count=first.count + 1,
                       nodes=(*first.nodes, item),
                       product=partial(_matrix_product, first, own, self.shapes[first.source]))  # fmt: skip

    def macs_of(self, item: Resolved) -> Value:
        """The MACs of a layer as it is; where the input is left open, those of one output position of the network."""
        return self.costs[item.node.name].macs if item.inputs else _open_macs(item, self.grids)

    # --- whether it is worth it ---

    def _worth(self, found: Map | Matrix, before: Sequence[Map | Matrix], item: Resolved) -> Map | Matrix | None:
        """What was found, unless it is to be exact and is not, or is to pay and does not."""
        if self.exact and isinstance(found, Map) and any(map(any, found.border)):
            raise UnsupportedOpError("the border would differ")
        if not self.pays or (isinstance(found, Matrix) and found.product is None):
            return found
        was = sum((self._spent(each) for each in before), self.costs[item.node.name])
        now = self._spent(found)
        if (now.macs, now.flops) <= (was.macs, was.flops):
            return found
        raise UnsupportedOpError("merging it would cost more than it saves")

    def _spent(self, found: Map | Matrix) -> Cost:
        if found.count < 2 and not found.joins:
            return sum((self.costs[item.node.name] for item in found.nodes), Cost())
        if isinstance(found, Matrix) and found.product is None:
            return Cost() if found.base is None else self._spent(found.base)
        return self._cost_of(found, found.layer())

    def _cost_of(self, found: Map | Matrix, layer: Layer) -> Cost:
        shape = self.shapes[found.source]
        if isinstance(found, Matrix):
            shape = (*shape[:1], found.came) if found.base is not None else shape
        return layer.cost([shape], layer.infer(shape))

    # --- layers again ---

    def _need(self, name: str) -> None:
        """Have a tensor made, by one layer from where its map begins."""
        found = self.maps.get(name)
        if name in self.names or found is None:
            return
        self.stays.add(name)
        if isinstance(found, Matrix) and found.product is None:
            self._need(_before(found))
            for item in found.nodes[found.nodes.index(found.flatten) :] if found.flatten else ():
                self._keep(item)
        elif found.count < 2 and not found.joins:
            for item in found.nodes:
                self._keep(item)
        else:
            self._make(name, found)
        if isinstance(found, Map):
            self._begin(name, found.channels[1], found.rank)
        else:
            self.maps[name] = start(name, found.features, self.links[0].rank)

    def _keep(self, item: Resolved) -> None:
        if item.node.name in self.kept:
            return
        self.kept.add(item.node.name)
        weights = weights_of(item.layer)
        macs: Value = self.macs_of(item)
        inputs = tuple(self.names.get(name, name) for name in item.node.inputs)
        self._add(item.layer, inputs, item.node.outputs, item, None, (), weights, macs, (weights, macs))

    def _make(self, name: str, found: Map | Matrix) -> None:
        layer = found.layer()
        weights = int(product(layer.parameters()["weight"]))
        if self.shapes:
            macs: Value = self._cost_of(found, layer).macs
        else:
            macs = plain(weights * self.grids(found.source if layer.kind == "convt" else name))
        order = {link.item.node.name: place for place, link in enumerate(self.links)}
        items = sorted(found.nodes, key=lambda item: order[item.node.name])
        found = replace(found, nodes=tuple(items))
        was = (
            total([weights_of(item.layer) for item in items]),
            total([self.macs_of(item) for item in items]),
        )
        source = self.names[found.source]
        if isinstance(found, Matrix) and found.base is not None and len(self.shapes[found.source]) != 2:
            source = self._add(Flatten(), (source,), (f"{name}.flat",), None, None, (), 0, 0, (0, 0))
        border = found.border if isinstance(found, Map) else ()
        self._add(layer, (source,), (name,), None, found, border, weights, macs, was)

    def _add(
        self,
        layer: Layer,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        kept: Resolved | None,
        found: Map | Matrix | None,
        border: Pairs,
        weights: Value,
        macs: Value,
        was: tuple[Value, Value],
    ) -> str:
        name = str(len(self.made))
        names = tensor_names(name, layer)
        self.names.update(zip(outputs, names, strict=True))
        node = Node(name, layer, inputs, names)
        self.made.append(Made(node, kept, found, border, weights, macs, was, outputs[0]))
        return names[0]


def _before(matrix: Matrix) -> str:
    assert matrix.flatten is not None
    return matrix.flatten.node.inputs[0]


def _channels_of(link: Link, shape: Shape | None) -> int:
    if shape is not None:
        return shape[1] if len(shape) > 1 else 1
    return getattr(link.item.layer, "out_channels", None) or link.channels


def _cost(item: Resolved) -> Cost:
    if not item.inputs or item.unknown:
        return Cost()
    return item.layer.cost(item.inputs, item.outputs)


def _open_macs(item: Resolved, grids: Callable[[str], Fraction]) -> Value:
    """The MACs of a layer for each output position of the network, where the input is left open."""
    weights = weights_of(item.layer)
    if weights is None or not hasattr(item.layer, "in_channels"):
        return 0 if weights is not None else None
    # A convolution multiplies once for each of its outputs, a transposed one for each of its inputs.
    return plain(weights * grids(item.node.inputs[0] if item.layer.kind == "convt" else item.node.outputs[0]))


def weights_of(layer: Layer, *, bias: bool = False) -> int | None:
    """The weights, without the bias unless asked for; None when they depend on an input that is left open."""
    try:
        return sum(int(product(shape)) for name, shape in layer.parameters().items() if bias or name != "bias")
    except ShapeError:
        return None


def total(values: Sequence[Value]) -> Value:
    """The sum of numbers; unknown when one is."""
    numbers = [value for value in values if isinstance(value, int | float)]
    return sum(numbers) if len(numbers) == len(values) else None


def plain(number: Fraction) -> int | float:
    """An int where it is whole, else a float."""
    return int(number) if number.denominator == 1 else float(number)


def _linear_weights(item: Resolved, given: Given) -> Kernel:
    shapes = item.layer.parameters()
    weight, bias = (_parameter(item, name, shapes.get(name), given) for name in ("weight", "bias"))
    if weight is None:
        raise missing(item, "weight")
    return weight, bias


def _matrix_product(first: Matrix, own: Callable[[Given], Kernel], shape: Shape, given: Given) -> Kernel:
    """The matrix of everything to here: what batch norm gives is a diagonal, which scales the rows."""
    import numpy as np

    weight, bias = own(given)
    if first.product is not None:
        before, shift = first.product(given)
    elif first.base is not None and first.base.count:
        before, shift = _matrix_of(first.base, shape, given)
    else:
        return weight, bias
    if weight.ndim == 1:
        result, passed = weight[:, None] * before, None if shift is None else weight * shift
    else:
        result, passed = weight @ before, None if shift is None else weight @ shift
    if passed is not None:
        bias = passed if bias is None else np.asarray(bias) + passed
    return result, bias


def _matrix_of(base: Map, shape: Shape, given: Given) -> Kernel:
    """The matrix of the layers themselves, padding between them included, from what they make of each unit."""
    import numpy as np

    from convcalc.executor.run import compute_layer
    from convcalc.limits import need_memory

    count = int(product(shape[1:]))
    out = int(product(base.nodes[-1].outputs[0][1:]))
    need_memory(count * (out + 2 * count), "the matrix of the layers before a linear one")

    weights_by_name = {item.node.name: _complete(item, given) for item in base.nodes}

    def through(x: Array) -> Array:
        tensors = {base.source: x}
        for item in base.nodes:
            weights = weights_by_name[item.node.name]
            inputs = tuple(tensors[name] for name in item.node.inputs)
            tensors[item.node.outputs[0]] = compute_layer(item, inputs, weights)[0]
        return tensors[base.nodes[-1].node.outputs[0]].reshape(len(x), -1)

    shift = through(np.zeros((1, *shape[1:])))[0]
    columns = through(np.eye(count).reshape(count, *shape[1:]))
    return (columns - shift).T, shift if shift.any() else None


def own_arrays(item: Resolved, given: Given) -> dict[str, Array]:
    """The weights of a layer that stays as it is; a convolution needs its own."""
    if item.layer.kind in ("conv", "convt"):
        weight, bias = (_parameter(item, name, item.layer.parameters().get(name), given) for name in ("weight", "bias"))
        if weight is None:
            raise missing(item, "weight")
        return _state(weight, bias)
    start = f"{item.node.name}."
    return {key.removeprefix(start): value for key, value in given.items() if key.startswith(start)}


def _complete(item: Resolved, given: Given) -> dict[str, Array]:
    """All weights of a layer, a bias that is left out as zeros."""
    import numpy as np

    found = {}
    for name, shape in {**item.layer.parameters(), **item.layer.buffers()}.items():
        array = _parameter(item, name, shape, given)
        if array is None and name not in ("bias", "num_batches_tracked"):
            raise missing(item, name)
        found[name] = np.zeros(shape) if array is None else array
    return found


def stops_of(merger: Merger) -> Iterator[tuple[str, str]]:
    """The layers that nothing was merged across, and why ("" when they are not linear)."""
    by_name = {link.item.node.name: link for link in merger.links}
    for name, reason in merger.stops.items():
        yield by_name[name].name, reason
