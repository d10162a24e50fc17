"""Maps: linear layers in a row and side by side as one layer, a convolution or a matrix, and where it is exact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import gcd
from typing import TYPE_CHECKING, Any

from convcalc.analysis.fields import Window
from convcalc.analysis.shapes import Resolved
from convcalc.composition.borders import border_between, pointwise
from convcalc.composition.geometry import START, Composed, aligned, followed
from convcalc.composition.kernels import (
    filled,
    flipped,
    flipped_some,
    in_a_row,
    matrices_in_a_row,
    rows_together,
    side_by_side,
    state,
    swapped,
)
from convcalc.composition.parameters import complete
from convcalc.composition.pieces import TRANSPARENT, VIEWS, Piece, Product
from convcalc.errors import UnsupportedOpError
from convcalc.layers.base import Layer, Pairs, Shape, axis_name
from convcalc.layers.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from convcalc.layers.linear import Linear
from convcalc.network import Constant
from convcalc.records import dataclass
from convcalc.tracing import product

if TYPE_CHECKING:
    from convcalc.composition.kernels import Array, Given, Kernel


_CONVS: dict[int, type[Any]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
_TRANSPOSED: dict[int, type[Any]] = {1: ConvTranspose1d, 2: ConvTranspose2d, 3: ConvTranspose3d}


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

    @property
    def is_themselves(self) -> bool:
        """Whether there is nothing to merge: the layers themselves are what makes the tensor."""
        return self.count < 2 and not self.joins

    @property
    def diagonal(self) -> bool:
        """Whether each channel is scaled and shifted, and nothing else."""
        return self.groups == self.channels[0] == self.channels[1] and pointwise(self)

    def handed_on(self, item: Resolved) -> Map:
        """The same, through a layer that does nothing."""
        return replace(self, nodes=(*self.nodes, item))

    def turned(self) -> Map:
        """A convolution of stride 1 as a transposed one, and the other way round."""
        return replace(self, axes=tuple(axis.turned() for axis in self.axes), transposed=not self.transposed,
                       arrays=partial(flipped, self.arrays))  # fmt: skip

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
            weight = swapped(weight, self.groups)
        return state(weight, bias)


@dataclass(frozen=True, eq=False)
class Matrix:
    """Linear layers as one matrix product, after a flatten of the source or of what a `base` makes of it.

    `features` are those that come out; `product` is None before the first matrix, and a `diagonal` one's numbers as
    long as each feature is scaled by itself.
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
    diagonal: bool = False

    @property
    def is_themselves(self) -> bool:
        """Whether there is nothing to merge: one layer, or scales and shifts that a matrix would only make large."""
        return self.diagonal or (self.count < 2 and not self.joins)

    def handed_on(self, item: Resolved) -> Matrix:
        """The same, through a layer that does nothing."""
        return replace(self, nodes=(*self.nodes, item))

    def layer(self) -> Linear:
        """The one matrix product."""
        return Linear(self.came, self.features, self.bias)

    def weights(self, layer: Layer, given: Given) -> dict[str, Array]:
        """Its weight and bias."""
        assert self.product is not None
        return state(*self.product(given))


def _no_layer() -> UnsupportedOpError:
    return UnsupportedOpError("the one layer would need a padding that there is not")


def start(source: str, channels: int, rank: int) -> Map:
    """The map that changes nothing."""
    none = ((0, 0),) * rank
    return Map(source, (START,) * rank, (channels, channels), channels,
               partial(filled, (channels, 1, *(1,) * rank), 1.0), border=none, fallback=none)  # fmt: skip


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
        weights = partial(flipped, weights)
        if not all(turns):
            weights = partial(flipped_some, then.weights, tuple(turns))
    if upwards and first.bias and any(window.stride > 1 for window in windows) and not then.even:
        raise UnsupportedOpError("the bias before it would come out as a pattern")
    # A transposed convolution that is turned round pads with zeros, where it did not crop.
    pads = any(map(any, then.pads)) if upwards else any(max(window.before, window.after) > 0 for window in windows)
    if upwards and ((then.mode != "zeros" and pads) or first.mode != "zeros"):
        raise UnsupportedOpError("padding that is not zeros has no place in a transposed convolution")
    axes = tuple(followed(axis, window) or _lost() for axis, window in zip(first.axes, windows, strict=True))
    groups = gcd(first.groups, then.groups)
    mode = first.mode if first.padded and not pads else "zeros"
    if not first.padded and pads and pointwise(first):
        mode = then.mode
    borders = [
        border_between(first, then, windows, borders, mode, upwards=upwards)
        for borders in (first.border, first.fallback)
    ]
    made = replace(
        first,
        axes=axes,
        channels=(first.channels[0], then.channels[1]),
        groups=groups,
        arrays=partial(in_a_row, first, windows, then, weights, groups),
        nodes=(*first.nodes, item),
        count=first.count + 1,
        bias=first.bias or then.bias,
        mode=mode,
        border=borders[1] if pads and first.mode != "zeros" else borders[0],
        fallback=border_between(first, then, windows, first.fallback, "zeros", upwards=upwards),
        padded=first.padded or pads,
    )
    made.layer()
    return made


def _lost() -> Composed:
    raise UnsupportedOpError("upsampling and downsampling meet there")


def _turned(window: Window) -> Window:
    last = window.dilation * (window.kernel_size - 1)
    return replace(window, before=last - window.before, after=last - window.after, transposed=not window.transposed)


def summed(found: Sequence[Map | Matrix], item: Resolved) -> Map | Matrix:
    """Maps side by side, added or their channels joined, as one. Raises `UnsupportedOpError` with the reason."""
    branches = [branch for branch in found if isinstance(branch, Map)]
    if len(branches) < len(found) or (item.inputs and len(item.inputs[0]) == 2):
        return _matrices_together(found, item)
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
        partial(side_by_side, branches, axes, groups, concat),
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


def flattened(first: Map | Matrix, source: str, item: Resolved) -> Matrix | None:
    """What a flatten of all axes but the batch begins; None for another flatten."""
    gone = item.outputs[0]
    if (
        item.layer.kind not in VIEWS
        or gone != (item.inputs[0][0], product(item.inputs[0][1:]))
        or isinstance(first, Matrix)
    ):
        return None
    return Matrix(source, first, item, gone[1], 0, nodes=(*first.nodes, item), count=first.count, joins=first.joins,
                  bias=first.bias)  # fmt: skip


def multiplied(first: Matrix, then: Product, item: Resolved, shape: Shape, constants: Mapping[str, Constant]) -> Matrix:
    """A matrix and a product after it as one; `shape` is the source's."""
    came = int(product(shape[1:])) if first.base is not None else first.came
    untouched = first.diagonal if first.product else not (first.base and first.base.count)
    return replace(first, features=then.features, came=came, bias=first.bias or then.bias, count=first.count + 1,
                   nodes=(*first.nodes, item), diagonal=then.diagonal and untouched,
                   product=partial(_matrix_product, first, then.weights, shape, constants))  # fmt: skip


def _matrices_together(found: Sequence[Map | Matrix], item: Resolved) -> Matrix:
    """Matrices side by side, added or joined, as one. Raises `UnsupportedOpError` with the reason."""
    branches = [_as_matrix(each) for each in found]
    if len({(each.source, each.flatten and each.flatten.node.name) for each in branches}) > 1:
        raise UnsupportedOpError("its branches do not begin at the same tensor")
    concat = item.layer.kind == "concat"
    if item.layer.kind not in ("add", "concat") or len(item.outputs[0]) != 2:
        raise UnsupportedOpError("its branches are neither added nor joined")
    features = [each.features for each in branches]
    if not concat and len(set(features)) > 1:
        raise UnsupportedOpError("one of its branches is repeated")
    nodes = {each.node.name: each for branch in branches for each in branch.nodes}
    products = [each.product for each in branches if each.product]
    return replace(branches[0], features=sum(features) if concat else features[0], nodes=(*nodes.values(), item),
                   came=max(each.came for each in branches), joins=1,
                   count=len([each for each in nodes.values() if each.layer.kind not in TRANSPARENT]),
                   bias=any(each.bias for each in branches), diagonal=False,
                   product=partial(rows_together, products, concat))  # fmt: skip


def _as_matrix(found: Map | Matrix) -> Matrix:
    if isinstance(found, Map):
        if found.count:
            raise UnsupportedOpError("its branches have no axes")
        features = found.channels[1]
        return Matrix(found.source, None, None, features, features, partial(filled, (features,), 1.0), found.nodes,
                      diagonal=True)  # fmt: skip
    if found.product is None:
        raise UnsupportedOpError("one of its branches is flattened and nothing else")
    return found


def _matrix_product(
    first: Matrix, own: Callable[[Given], Kernel], shape: Shape, constants: Mapping[str, Constant], given: Given
) -> Kernel:
    """The matrix of everything to here; where only a diagonal is known of one, its numbers alone."""
    weight, bias = own(given)
    if first.product is not None:
        before, shift = first.product(given)
    elif first.base is not None and first.base.count:
        before, shift = _matrix_of(first.base, shape, constants, given)
    else:
        return weight, bias
    return matrices_in_a_row(before, shift, weight, bias)


def _matrix_of(base: Map, shape: Shape, constants: Mapping[str, Constant], given: Given) -> Kernel:
    """The matrix of the layers themselves, padding between them included, from what they make of each unit."""
    import numpy as np

    from convcalc.executor.run import compute_layer
    from convcalc.limits import need_memory

    count = int(product(shape[1:]))
    out = int(product(base.nodes[-1].outputs[0][1:]))
    need_memory(count * (out + 2 * count), "the matrix of the layers before a linear one")

    weights_by_name = {item.node.name: complete(item, given) for item in base.nodes}
    taken = {name for item in base.nodes for name in item.node.inputs if name in constants}
    held = {name: np.asarray(constants[name].array(), np.float64) for name in taken}

    def through(x: Array) -> Array:
        tensors = {**held, base.source: x}
        for item in base.nodes:
            weights = weights_by_name[item.node.name]
            inputs = tuple(tensors[name] for name in item.node.inputs)
            tensors[item.node.outputs[0]] = compute_layer(item, inputs, weights)[0]
        return tensors[base.nodes[-1].node.outputs[0]].reshape(len(x), -1)

    shift = through(np.zeros((1, *shape[1:])))[0]
    columns = through(np.eye(count).reshape(count, *shape[1:]))
    return (columns - shift).T, shift if shift.any() else None
