"""Composition: a chain of windowed layers as one, and linear layers merged into one convolution, weights included.

NumPy is imported only when there are weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd
from typing import TYPE_CHECKING, Any

from convcalc import formulas as F
from convcalc.analysis.fields import WINDOWS, Reach, Window, axes_of, members, refuse_wide
from convcalc.analysis.report import Column, Diagnostic, Report, Value
from convcalc.analysis.shapes import Resolved, View, base_row, diagnose, located, need_layers, resolve
from convcalc.errors import ConvcalcError, ShapeError, UnsupportedOpError, did_you_mean
from convcalc.expressions import expression_of
from convcalc.layers.base import Layer, Pairs, axis_name, shape_text
from convcalc.layers.conv import Conv, Conv1d, Conv2d, Conv3d
from convcalc.network import Network, Node
from convcalc.tracing import Step, per_axis, product, recording

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]
    GivenWeights = Mapping[str, ArrayLike] | Sequence[ArrayLike]

_COLUMNS = (
    Column("kernel_size", "Kernel", "sizes"),
    Column("stride", "Stride", "sizes", wide=True),
    Column("padding", "Padding", "sizes", wide=True),
    Column("dilation", "Dilation", "sizes", wide=True),
    Column("receptive_field", "Field", "sizes"),
    Column("jump", "Jump", "sizes", wide=True),
    Column("weights", "Weights", wide=True),
    Column("macs", "MACs", wide=True),
)


def compose(network: Network, weights: GivenWeights | None = None, *, explain: bool = False) -> Report:
    """The chain as one: kernel, stride, padding, dilation and receptive field, per axis, layer by layer and in all.

    A network without inputs is answered as far as no size is needed; MACs are then those of one output position, all
    channels together. The totals also have the `taps` (elements of the kernel that are no holes) and, when there are
    linear layers to merge, the `merged` chain as expressions, its weights and its MACs; and when they are all one, how
    many outputs at the `border` may differ from the chain's, at most.

    `weights` are by "name.parameter" ("0.weight"), or in the order of the layers that have any; a weight without
    a bias has none. Then `arrays` holds the merged chain's, in float64, named in the same way. Raises
    `UnsupportedOpError` for a network that is no chain, for a layer whose windows are not known, and for weights
    without a linear layer.
    """
    need_layers(network)
    _need_chain(network)
    given = None
    if weights is not None:
        given = _named(network, weights)
        network = _informed(network, given)
    links = _links(network)
    view = View(network, [link.item for link in links])
    end = links[-1].after
    macs = [_macs(link, end) for link in links]
    rows = [
        replace(
            base_row(link.item, view),
            values={**_row_values(link), "weights": _weights_of(link.item.layer), "macs": cost},
            steps=link.steps if explain else (),
        )
        for link, cost in zip(links, macs, strict=True)
    ]
    totals: dict[str, Value] = {}
    diagnostics = [*diagnose(network, [link.item for link in links] if network.inputs else [])]
    diagnostics += [Diagnostic("note", note) for note in (*_geometry(totals, end), *_ended(links))]
    totals |= {key: _sum([row.values[key] for row in rows]) for key in ("weights", "macs")}
    totals["params"] = _sum([_weights_of(link.item.layer, bias=True) for link in links])
    runs = _runs(links, macs)
    diagnostics += [Diagnostic("note", note) for note in _merge_notes(runs)]
    if any(run.merges for run in runs):
        totals["merged"] = " ".join(run.expression for run in runs)
        totals["merged_params"] = _sum([_weights_of(run.layer, bias=True) for run in runs])
        totals["merged_weights"] = _sum([run.weights for run in runs])
        totals["merged_macs"] = _sum([run.macs for run in runs])
        if len(runs) == 1:
            totals["border"] = runs[0].border
    if not network.inputs:
        diagnostics.append(Diagnostic("note", "without an input, MACs are those of one output position, all channels"))
    arrays = {} if given is None else _merged_arrays(runs, given)
    return Report("compose", _COLUMNS, tuple(rows), totals, totals.get("kernel_size"), tuple(diagnostics), arrays)


@dataclass(frozen=True)
class _Composed:
    """Layers as one, along one axis.

    `taps` are the kernel's elements that are no holes: bit i is the one at offset i. `transposed` says whether the
    one layer is a transposed convolution. When there is no such layer, `taps` is None; `reach` is always what is read.
    """

    reach: Reach
    taps: int | None = 1
    extent: int = 1
    stride: int = 1
    before: int = 0
    after: int = 0
    transposed: bool = False

    def turned(self) -> _Composed:
        """A convolution of stride 1 as the transposed one that does the same, and the other way round."""
        last = self.extent - 1
        taps = None if self.taps is None else int(f"{self.taps:b}".zfill(self.extent)[::-1], 2)
        return replace(
            self, taps=taps, before=last - self.before, after=last - self.after, transposed=not self.transposed
        )

    @property
    def window(self) -> Window | None:
        """The one layer, holes filled where they do not follow a dilation; None when there is none."""
        if self.taps is None:
            return None
        dilation = gcd(*members((0, self.taps))) or 1
        kernel = (self.extent - 1) // dilation + 1
        return Window(kernel, self.stride, self.before, self.after, dilation, self.transposed)

    @property
    def holes(self) -> int:
        """The elements of the window that are never used."""
        return 0 if self.taps is None or self.window is None else self.window.kernel_size - self.taps.bit_count()


_START = _Composed(Reach())


def _joined(so_far: _Composed, axis: Window | Reach, size: int | None) -> _Composed:
    if isinstance(axis, Window):
        refuse_wide(so_far.extent * max(axis.stride if axis.transposed else 1, 1))
        refuse_wide(so_far.stride * axis.dilation * axis.kernel_size)
    if isinstance(axis, Reach):
        return replace(so_far, reach=so_far.reach.then(axis, size), taps=None)
    if axis.plain:
        return so_far
    so_far = replace(so_far, reach=so_far.reach.then(axis.reach(), size))
    if so_far.taps is None:
        return so_far
    if axis.transposed != so_far.transposed:
        # At stride 1 either is the other; else up- and downsampling meet, and no one layer does that.
        if so_far.stride == 1:
            so_far = so_far.turned()
        elif axis.stride == 1:
            last = axis.dilation * (axis.kernel_size - 1)
            axis = replace(axis, before=last - axis.before, after=last - axis.after, transposed=so_far.transposed)
        else:
            return replace(so_far, taps=None)
    return _spread(so_far, axis) if axis.transposed else _convolved(so_far, axis)


def _convolved(first: _Composed, then: Window) -> _Composed:
    assert first.taps is not None
    jump = first.stride
    return replace(
        first,
        taps=_repeated(first.taps, then.kernel_size, jump * then.dilation),
        extent=F.receptive_field(first.extent, jump, then.kernel_size, then.dilation),
        stride=F.composed_stride(jump, then.stride),
        before=F.composed_padding(first.before, jump, then.before),
        after=F.composed_padding(first.after, jump, then.after),
    )


def _repeated(taps: int, count: int, step: int) -> int:
    """The taps together with themselves a step further, two steps, and so on: so many in all."""
    have = 1
    while have < count:
        more = min(have, count - have)
        taps |= taps << more * step
        have += more
    return taps


def _spread(first: _Composed, then: Window) -> _Composed:
    assert first.taps is not None
    return replace(
        first,
        taps=_repeated(int(("0" * (then.stride - 1)).join(f"{first.taps:b}"), 2), then.kernel_size, then.dilation),
        extent=F.composed_transposed_extent(first.extent, then.kernel_size, then.stride, then.dilation),
        stride=F.composed_stride(first.stride, then.stride),
        before=F.composed_padding(then.before, then.stride, first.before),
        after=F.composed_padding(then.after, then.stride, first.after),
    )


# --- the chain ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Link:
    """A layer of the chain, its place in it, and the formulas that gave the composition.

    `axes` is what it does along each axis, None after the axes end; `before` and `after` are the chain without it and
    with it.
    """

    item: Resolved
    channels: int
    axes: Sequence[Window | Reach] | None
    before: Sequence[_Composed]
    after: Sequence[_Composed]
    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        return f"{self.item.node.name} ({self.item.layer.kind})"

    @property
    def rank(self) -> int:
        return len(self.before)


def _need_chain(network: Network) -> None:
    current = next(iter(network.inputs), network.nodes[0].inputs[0])
    for node in network.nodes:
        if node.inputs != (current,):
            error = UnsupportedOpError("compose takes layers in a row, but here a branch begins or is joined")
            raise located(error, node)
        current = node.outputs[0]


def _links(network: Network) -> list[_Link]:
    """The chain, composed layer by layer."""
    rank = next((node.layer.rank for node in network.nodes if node.layer.rank is not None), None)
    bound = _bound(network, rank or 2)
    if rank is None:
        shape = bound[0][0].inputs[0] if network.inputs else ()
        rank = max(len(shape) - 2, 1) if shape else 2
    here: Sequence[_Composed] = (_START,) * rank
    links: list[_Link] = []
    for item, channels in bound:
        before, after = (item.inputs[0], item.outputs[0]) if item.inputs else (None, None)
        axes = None
        if not links or links[-1].axes is not None:
            try:
                axes = axes_of(item.layer, rank, before, after)
            except ConvcalcError as error:
                raise located(error, item.node) from None
        steps: list[Step] = []
        composed = here
        if axes is not None:
            sizes = (None,) * rank if after is None else after[2:]
            try:
                with recording() as steps:
                    composed = per_axis(_joined, here, axes, sizes)
            except ConvcalcError as error:
                raise located(error, item.node) from None
        links.append(_Link(item, channels, axes, here, composed, tuple(steps)))
        here = composed
    return links


def _bound(network: Network, rank: int) -> list[tuple[Resolved, int]]:
    """The layers bound, with the channels that come in; with shapes where there is an input."""
    if network.inputs:
        return [(item, item.inputs[0][1]) for item in resolve(network)]
    channels = next(filter(None, map(_channels_said, network.nodes)), 1)
    bound = []
    for node in network.nodes:
        layer: Any = node.layer
        came = channels
        try:
            own = 2 if layer.kind in ("pixelshuffle", "pixelunshuffle") else layer.rank
            if own not in (None, rank):
                raise ShapeError(f"has {own} spatial axes, but the chain has {rank}")
            # Only the channels matter: no size is known.
            if any(hasattr(layer, field) for field in _CHANNEL_FIELDS):
                layer = layer.bind((1, channels, *(1,) * rank))
            channels = getattr(layer, "out_channels", channels)
            if layer.kind in _REGROUPING:
                channels = layer.infer((1, channels, *(_DIVISIBLE,) * rank))[0][1]
        except ConvcalcError as error:
            raise located(error, node) from None
        bound.append((Resolved(node, layer, (), ()), came))
    return bound


_CHANNEL_FIELDS = ("in_channels", "num_features", "num_channels")
"""The fields that say how many channels come in."""
_REGROUPING = ("pixelshuffle", "pixelunshuffle", "glu")
"""Kinds that turn channels into something else."""
_DIVISIBLE = 720_720
"""A size that any factor in use divides, where only the channels are wanted."""


def _channels_said(node: Node) -> int | None:
    """The channels that a layer must get, as far as it says so."""
    said = next((value for name in _CHANNEL_FIELDS if (value := getattr(node.layer, name, None))), None)
    groups = getattr(node.layer, "groups", None)
    return said if isinstance(said, int) else groups if isinstance(groups, int) and groups > 1 else None


# --- what is reported -----------------------------------------------------------------------------------------------


def _row_values(link: _Link) -> dict[str, Value]:
    if link.axes is None:
        return {}
    windows = [axis for axis in link.axes if isinstance(axis, Window)]
    windowed = link.item.layer.kind in WINDOWS and len(windows) == link.rank
    return (_window_values(windows) if windowed else {}) | _reach_values(link.after)


def _window_values(windows: Sequence[Window]) -> dict[str, Value]:
    return {
        "kernel_size": tuple(window.kernel_size for window in windows),
        "stride": tuple(window.stride for window in windows),
        "padding": tuple((window.before, window.after) for window in windows),
        "dilation": tuple(window.dilation for window in windows),
    }


def _reach_values(composed: Sequence[_Composed]) -> dict[str, Value]:
    values: dict[str, Value] = {"receptive_field": tuple(axis.reach.field for axis in composed)}
    jumps = [axis.reach.jump for axis in composed]
    if None not in jumps:
        values["jump"] = tuple(_plain(jump) for jump in jumps if jump is not None)
    return values


def _plain(number: Fraction) -> int | float:
    return int(number) if number.denominator == 1 else float(number)


def _weights_of(layer: Layer, *, bias: bool = False) -> int | None:
    """The weights, without the bias unless asked for; None when they depend on an input that is left open."""
    try:
        return sum(int(product(shape)) for name, shape in layer.parameters().items() if bias or name != "bias")
    except ShapeError:
        return None


def _sum(values: Sequence[Value]) -> Value:
    """The sum of numbers; unknown when one is."""
    numbers = [value for value in values if isinstance(value, int | float)]
    return sum(numbers) if len(numbers) == len(values) else None


def _macs(link: _Link, end: Sequence[_Composed]) -> Value:
    """The MACs for the input; where it is left open, those of one output position of the chain."""
    item = link.item
    if item.inputs:
        return item.layer.cost(item.inputs, item.outputs).macs
    weights = _weights_of(item.layer)
    if weights is None or not hasattr(item.layer, "in_channels"):
        return 0 if weights is not None else None
    # A convolution multiplies once for each of its outputs, a transposed one for each of its inputs.
    grid = link.before if item.layer.kind == "convt" else link.after
    return _plain(weights * _positions(grid, end))


def _positions(grid: Sequence[_Composed], end: Sequence[_Composed]) -> Fraction:
    """How many positions of a grid in the chain there are for each output position of it."""
    ratio = Fraction(1)
    for here, last in zip(grid, end, strict=True):
        # Without an input every reach is regular: layers whose windows are not have asked for one.
        ratio *= (last.reach.jump or 1) / (here.reach.jump or Fraction(1))
    return ratio


_MOST_OFFSETS = 20
"""Of a kernel with holes that are listed."""


def _geometry(totals: dict[str, Value], composed: Sequence[_Composed]) -> Iterator[str]:
    """Put the chain's geometry into the totals, and say what numbers do not."""
    windows = [axis.window for axis in composed]
    found = [window for window in windows if window is not None]
    if len(found) == len(windows) and len({window.transposed for window in found if window.stride > 1}) < 2:
        transposed = any(window.transposed and window.stride > 1 for window in found)
        composed = [axis.turned() if axis.transposed != transposed else axis for axis in composed]
        totals |= _window_values([axis.window or Window() for axis in composed])
        totals["taps"] = tuple((axis.taps or 0).bit_count() for axis in composed)
        for index, axis in enumerate(composed):
            if axis.holes:
                taps = members((0, axis.taps or 0))
                offsets = " ".join(map(str, taps[:_MOST_OFFSETS])) + (" ..." if len(taps) > _MOST_OFFSETS else "")
                yield (
                    f"the kernel has {axis.holes} {'hole' if axis.holes == 1 else 'holes'}"
                    f" ({axis_name(len(composed), index)}): it reads at {offsets}"
                )
        if transposed:
            yield "the chain is a transposed convolution: its kernel spreads an element over so many"
    else:
        yield "the chain is no one layer, because windows that spread and windows that skip meet in it"
    totals |= _reach_values(composed)
    least = tuple(axis.reach.least_field for axis in composed)
    if least != totals["receptive_field"]:
        yield f"the receptive field differs from place to place; the least is {shape_text(least)}, the largest is shown"


def _ended(links: Sequence[_Link]) -> Iterator[str]:
    """Say where the spatial axes end, if they do before the chain does."""
    for link in links:
        if link.axes is None:
            yield f"{link.name} ends the spatial axes; the geometry is that of the layers before it"
            return


# --- merging --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Part:
    """A linear layer as the convolution that equals it.

    `uneven` is the padding (before and after, per axis) over which it is none, because an average pool does not count
    it.
    """

    link: _Link
    conv: Conv
    uneven: Pairs


@dataclass(frozen=True, eq=False)
class _Run:
    """Linear layers in a row, and the one convolution that equals them; or one layer that stays as it is.

    `weights` and `macs` are the one layer's, `was` those of the layers before. `border` are the outputs (before and
    after, per axis) that may differ, at most.
    """

    links: Sequence[_Link]
    parts: Sequence[_Part]
    layer: Layer
    border: Pairs
    weights: Value
    macs: Value
    was: tuple[Value, Value]

    @property
    def merges(self) -> bool:
        return len(self.parts) > 1

    @property
    def expression(self) -> str:
        return expression_of(self.layer)

    @property
    def names(self) -> str:
        return ", ".join(part.link.name for part in self.parts)


_TRANSPARENT = ("dropout", "alphadropout", "featurealphadropout", "identity")
"""Kinds that at inference give back what came in."""
_CONVS: dict[int, type[Conv]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}


def _runs(links: Sequence[_Link], macs: Sequence[Value]) -> list[_Run]:
    """The chain with every run of linear layers as one."""
    runs: list[_Run] = []
    current: list[tuple[_Link, Value, _Part | None]] = []
    for link, cost in zip(links, macs, strict=True):
        part = _part(link)
        if part is not None or link.item.layer.kind in _TRANSPARENT:
            current.append((link, cost, part))
            continue
        runs += _closed(current, links[-1].after)
        runs += _closed([(link, cost, None)], links[-1].after)
        current = []
    return runs + _closed(current, links[-1].after)


def _closed(current: Sequence[tuple[_Link, Value, _Part | None]], end: Sequence[_Composed]) -> list[_Run]:
    """Layers in a row as one run if there are several to merge, else as they are."""
    parts = [part for _, _, part in current if part is not None]
    if len(parts) < 2:
        runs = []
        for link, cost, part in current:
            weights = _weights_of(link.item.layer)
            own = [] if part is None else [part]
            runs.append(_Run([link], own, link.item.layer, (), weights, cost, (weights, cost)))
        return runs
    links = [link for link, _, _ in current]
    conv = _merged_conv(parts)
    weights = product(conv.parameters()["weight"])
    if links[0].item.inputs:
        shape = links[0].item.inputs[0]
        macs: Value = conv.cost([shape], conv.infer(shape)).macs
    else:
        macs = _plain(weights * _positions(links[-1].after, end))
    was = _sum([_weights_of(link.item.layer) for link in links]), _sum([cost for _, cost, _ in current])
    return [_Run(links, parts, conv, _border(parts), weights, macs, was)]


def _part(link: _Link) -> _Part | None:
    """The convolution that a layer is, its padding in numbers; None for a layer that is none."""
    layer: Any = link.item.layer
    rule = _PARTS.get(layer.kind)
    if rule is None or link.axes is None:
        return None
    return rule(link, layer)


def _resolved_pads(link: _Link) -> Pairs:
    return tuple((axis.before, axis.after) for axis in link.axes or () if isinstance(axis, Window))


def _conv_part(link: _Link, layer: Any) -> _Part:
    cls = _CONVS[link.rank]
    conv = cls(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, _resolved_pads(link), layer.dilation,
        layer.groups, layer.bias, layer.padding_mode,
    )  # fmt: skip
    return _Part(link, conv, _no_padding(link))


def _no_padding(link: _Link) -> Pairs:
    return ((0, 0),) * link.rank


def _average_part(link: _Link, layer: Any) -> _Part:
    pads = _resolved_pads(link)
    conv = _per_channel(link, layer.kernel_size, layer.stride, pads)
    uneven = _no_padding(link) if layer.count_include_pad or layer.divisor_override else pads
    if layer.ceil_mode and not layer.divisor_override:
        # The last window may stick out by less than a stride; it is divided by what is left of it.
        overhang = [pair[1] + stride - 1 for pair, stride in zip(layer.padding, layer.stride, strict=True)]
        uneven = tuple((pair[0], most) for pair, most in zip(uneven, overhang, strict=True))
    return _Part(link, conv, uneven)


def _norm_part(link: _Link, layer: Any) -> _Part | None:
    """Batch norm at inference scales and moves each channel."""
    return _Part(link, _per_channel(link, bias=True), _no_padding(link)) if layer.track_running_stats else None


def _pad_part(link: _Link, layer: Any) -> _Part | None:
    """Zeros around the input are the padding of a convolution that copies."""
    if layer.mode != "constant" or layer.value or min(map(min, layer.padding)) < 0:
        return None
    return _Part(link, _per_channel(link, padding=layer.padding), _no_padding(link))


def _per_channel(link: _Link, kernel_size: Any = 1, stride: Any = 1, padding: Any = 0, *, bias: bool = False) -> Conv:
    cls = _CONVS[link.rank]
    return cls(link.channels, link.channels, kernel_size, stride, padding, groups=link.channels, bias=bias)


_PARTS: dict[str, Callable[[_Link, Any], _Part | None]] = {
    "conv": _conv_part,
    "avgpool": _average_part,
    "batchnorm": _norm_part,
    "syncbatchnorm": _norm_part,
    **dict.fromkeys(("pad", "constantpad", "zeropad"), _pad_part),
}
"""The kinds that are convolutions, and which one."""


def _merged_conv(parts: Sequence[_Part]) -> Conv:
    """The one convolution. Its groups are those into which the channels of all parts can be divided."""
    rank = parts[0].link.rank
    axes = _along_axes(parts)
    windows = [axis.window or Window() for axis in axes]
    values: dict[str, Any] = _window_values(windows)
    cls = _CONVS[rank]
    return cls(
        parts[0].conv.bound[0],
        parts[-1].conv.bound[1],
        groups=gcd(*(part.conv.bound[2] for part in parts)),
        bias=any(part.conv.bias for part in parts),
        padding_mode=_padding_mode(parts),
        **values,
    )


def _along_axes(parts: Sequence[_Part]) -> list[_Composed]:
    """The composition of these parts alone."""
    axes = [_START] * parts[0].link.rank
    for part in parts:
        axes = [_convolved(composed, _window(part.conv, axis)) for axis, composed in enumerate(axes)]
    return axes


def _window(conv: Conv, axis: int) -> Window:
    assert not isinstance(conv.padding, str)
    before, after = conv.padding[axis]
    return Window(conv.kernel_size[axis], conv.stride[axis], before, after, conv.dilation[axis])


def _padding_mode(parts: Sequence[_Part]) -> str:
    """The first layer's, when no other pads; else the border differs anyway."""
    alone = not any(any(map(any, _pads(part))) for part in parts[1:])
    return parts[0].conv.padding_mode if alone else "zeros"


def _pads(part: _Part) -> Pairs:
    assert not isinstance(part.conv.padding, str)
    return part.conv.padding


def _border(parts: Sequence[_Part]) -> Pairs:
    """How many outputs at either end of each axis may differ between the parts and the one layer, at most."""
    mode = _padding_mode(parts)
    borders = []
    for axis in range(parts[0].link.rank):
        before = after = 0
        biased = False
        composed = _START
        for index, part in enumerate(parts):
            conv = part.conv
            padding = list(_pads(part)[axis])
            same_mode = conv.padding_mode == ("zeros" if index else mode)
            # Where the layer pads with zeros, the one layer has what a window beyond the outputs before would give:
            # zero too, if there is no bias and such a window sees padding alone.
            if index == 0 and same_mode:
                padding = [0, 0]
            elif same_mode and not biased:
                padding[0] *= before > 0 or composed.extent > composed.stride + composed.before
                padding[1] *= after > 0 or composed.extent > composed.after + 1
            padding = [max(pair) for pair in zip(padding, part.uneven[axis], strict=True)]
            before = F.border_after(before, padding[0], conv.stride[axis])
            after = F.border_after(after, padding[1], conv.stride[axis])
            biased = biased or conv.bias
            composed = _convolved(composed, _window(conv, axis))
        borders.append((before, after))
    return tuple(borders)


def _merge_notes(runs: Sequence[_Run]) -> Iterator[str]:
    """What merges, what it saves or loses, where it is exact, and what stops it."""
    for run in runs:
        if not run.merges:
            continue
        yield (
            f"{run.names} merge into {run.expression}: {run.weights} weights against {run.was[0]}, {run.macs} MACs"
            f" against {run.was[1]}: {_verdict(run)}"
        )
        if any(map(any, run.border)):
            where = ", ".join(
                f"{before} before and {after} after ({axis_name(len(run.border), axis)})"
                for axis, (before, after) in enumerate(run.border)
                if before or after
            )
            yield (
                f"the merged layer is exact inside; at the border, outputs may differ, at most {where}, because padding"
                " stands between the layers"
            )
        else:
            yield "the merged layer is exact everywhere"
    if len(runs) > 1:
        stops = [
            run.links[0].name for run in runs if not run.parts and run.links[0].item.layer.kind not in _TRANSPARENT
        ]
        if stops:
            yield f"weights do not merge across {', '.join(stops)}"


def _verdict(run: _Run) -> str:
    was, now = run.was[1], run.macs
    assert isinstance(was, int | float)
    assert isinstance(now, int | float)
    return "merging loses" if now > was else "merging saves" if now < was else "merging costs the same"


# --- weights --------------------------------------------------------------------------------------------------------


def _named(network: Network, weights: GivenWeights) -> dict[str, Array]:
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


def _names(layer: Layer) -> Sequence[str]:
    """What a layer's parameters and buffers are called, before it is bound."""
    if layer.kind in ("batchnorm", "syncbatchnorm", "instancenorm"):
        return ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    fields = ("in_channels", "in_features", "num_channels", "normalized_shape", "num_parameters")
    return ("weight", "bias") if any(hasattr(layer, field) for field in fields) else ()


def _informed(network: Network, given: Mapping[str, Array]) -> Network:
    """The network with what the weights decide: channels, the bias, and a kernel that was not written."""
    nodes = []
    for node in network.nodes:
        layer: Any = node.layer
        weight = given.get(f"{node.name}.weight")
        if weight is not None and isinstance(layer, Conv):
            rank = layer.rank or 0
            if weight.ndim < rank:
                raise located(_misshaped("weight", weight, f"at least {rank} axes"), node)
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


def _misshaped(name: str, array: Array, right: str) -> ShapeError:
    return ShapeError(
        f"{name} is {shape_text(array.shape) or 'one number'}, but must be {right}", field=name, value=array.shape
    )


def _merged_arrays(runs: Sequence[_Run], given: Mapping[str, Array]) -> dict[str, Array]:
    """The weights of the merged chain, whose layers are named by their index."""
    arrays: dict[str, Array] = {}
    if not any(run.parts for run in runs):
        raise UnsupportedOpError(f"there are no linear layers to merge: {', '.join(run.links[0].name for run in runs)}")
    for index, run in enumerate(runs):
        if run.merges or isinstance(run.layer, Conv):
            pairs = [_part_arrays(part, given) for part in run.parts]
            weight, bias = _merged_weights(run, pairs) if run.merges else pairs[0]
            arrays |= {f"{index}.weight": weight} | ({} if bias is None else {f"{index}.bias": bias})
        else:
            name = run.links[0].item.node.name
            arrays |= {
                f"{index}.{parameter}": given[f"{name}.{parameter}"]
                for parameter in _names(run.layer)
                if f"{name}.{parameter}" in given
            }
    return arrays


def _part_arrays(part: _Part, given: Mapping[str, Array]) -> tuple[Array, Array | None]:
    """The weight and the bias of a part."""
    import numpy as np

    shapes = part.conv.parameters()
    layer: Any = part.link.item.layer
    if layer.kind == "avgpool":
        divisor = layer.divisor_override or product(layer.kernel_size)
        return np.full(shapes["weight"], 1 / divisor), None
    if layer.kind == "conv":
        weight, bias = (_parameter(part, name, shapes.get(name), given) for name in ("weight", "bias"))
        if weight is None:
            raise _missing(part, "weight")
        return weight, bias
    if not layer.parameters() and not layer.buffers():
        return np.ones(shapes["weight"]), None
    channels = (part.link.channels,)
    mean, variance = (_parameter(part, name, channels, given) for name in ("running_mean", "running_var"))
    if mean is None or variance is None:
        raise _missing(part, "running_mean" if mean is None else "running_var")
    if (variance + layer.eps <= 0).any():
        raise located(ShapeError("running_var + eps must be more than 0 to divide by its root"), part.link.item.node)
    scale = 1 / np.sqrt(variance + layer.eps)
    weight, bias = (_parameter(part, name, channels, given) for name in ("weight", "bias"))
    if layer.affine and weight is None:
        raise _missing(part, "weight")
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return scale.reshape(shapes["weight"]), shift if bias is None else shift + bias


def _parameter(part: _Part, name: str, wanted: tuple[int, ...] | None, given: Mapping[str, Array]) -> Array | None:
    """What is given for a parameter, with leading axes of one where they were left out."""
    array = given.get(f"{part.link.item.node.name}.{name}")
    if array is None or wanted is None:
        return None
    full = array.reshape((1,) * (len(wanted) - array.ndim) + array.shape)
    if full.shape != wanted:
        raise located(_misshaped(name, array, shape_text(wanted)), part.link.item.node)
    return full


def _missing(part: _Part, name: str) -> ConvcalcError:
    node = part.link.item.node
    return located(ShapeError(f"its {name} is not given; give {node.name}.{name}", field=name), node)


def _merged_weights(run: _Run, pairs: Sequence[tuple[Array, Array | None]]) -> tuple[Array, Array | None]:
    """The weight and the bias of the one convolution, from those of its parts."""
    import numpy as np

    conv = run.layer
    assert isinstance(conv, Conv)
    groups = conv.bound[2]
    total, shift = (
        _in_groups(_with_holes(pairs[0][0], run.parts[0].conv), run.parts[0].conv.bound[2], groups),
        pairs[0][1],
    )
    jump = run.parts[0].conv.stride
    for part, (weight, bias) in zip(run.parts[1:], pairs[1:], strict=True):
        taps = _in_groups(weight, part.conv.bound[2], groups)
        total, shift = _convolved_weights(total, shift, taps, bias, part.conv, jump, groups)
        jump = tuple(map(F.composed_stride, jump, part.conv.stride))
    every = tuple(slice(None, None, step) for step in conv.dilation)
    return np.ascontiguousarray(total[(slice(None), slice(None), *every)]), shift


def _with_holes(weight: Array, conv: Conv) -> Array:
    """A dilated kernel with its holes as zeros."""
    import numpy as np

    extents = per_axis(F.kernel_extent, conv.kernel_size, conv.dilation)
    result = np.zeros((*weight.shape[:2], *extents))
    result[(slice(None), slice(None), *(slice(None, None, step) for step in conv.dilation))] = weight
    return result


def _in_groups(weight: Array, groups: int, wanted: int) -> Array:
    """The same convolution in fewer groups, which divide `groups`: zeros stand where groups did not meet."""
    import numpy as np

    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    together = groups // wanted
    result = np.zeros((weight.shape[0], inputs * together, *weight.shape[2:]))
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        first = group % together * inputs
        result[rows, first : first + inputs] = weight[rows]
    return result


def _convolved_weights(
    first: Array,
    first_bias: Array | None,
    weight: Array,
    bias: Array | None,
    conv: Conv,
    jump: Sequence[int],
    groups: int,
) -> tuple[Array, Array | None]:
    """One convolution from two; the second one's taps stand `jump` input elements apart for each of its dilation."""
    import numpy as np

    middle = first.shape[0] // groups
    outputs = weight.shape[0]
    inner = first.reshape(groups, middle, first.shape[1], *first.shape[2:])
    outer = weight.reshape(groups, outputs // groups, middle, *weight.shape[2:])
    extents = per_axis(F.receptive_field, first.shape[2:], tuple(jump), conv.kernel_size, conv.dilation)
    result = np.zeros((groups, outputs // groups, first.shape[1], *extents))
    for taps in np.ndindex(*conv.kernel_size):
        starts = [tap * step * spread for tap, step, spread in zip(taps, jump, conv.dilation, strict=True)]
        places = tuple(slice(start, start + size) for start, size in zip(starts, first.shape[2:], strict=True))
        result[:, :, :, *places] += np.einsum("gom,gmi...->goi...", outer[:, :, :, *taps], inner)
    shift = bias
    if first_bias is not None:
        passed = outer.reshape(*outer.shape[:3], -1).sum(-1) @ first_bias.reshape(groups, middle, 1)
        shift = passed.reshape(-1) if bias is None else passed.reshape(-1) + bias
    return result.reshape(outputs, first.shape[1], *extents), shift
