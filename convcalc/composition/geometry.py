"""Geometry: what layers in a row and side by side do along the axes, as one layer, tensor by tensor.

No NumPy here: a geometry is numbers of the layers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Any

from convcalc import formulas as F
from convcalc.analysis.fields import Reach, Window, axes_of, members, refuse_wide
from convcalc.analysis.shapes import Resolved, located, resolve
from convcalc.errors import ConvcalcError, ShapeError, UnsupportedOpError
from convcalc.layers.base import axis_name
from convcalc.network import Network, Node
from convcalc.tracing import Step, per_axis, recording

_ITSELF = Reach()


@dataclass(frozen=True)
class Composed:
    """Layers as one, along one axis.

    `taps` are the kernel's elements that are no holes: bit i is the one at offset i. `transposed` says whether the
    one layer is a transposed convolution. When there is no such layer, `taps` is None; `reach` is always what is read.
    """

    reach: Reach = _ITSELF
    taps: int | None = 1
    extent: int = 1
    stride: int = 1
    before: int = 0
    after: int = 0
    transposed: bool = False

    def turned(self) -> Composed:
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
        kernel = F.composed_kernel_size(self.extent, dilation)
        return Window(kernel, self.stride, self.before, self.after, dilation, self.transposed)

    @property
    def holes(self) -> int:
        """The elements of the window that are never used."""
        return 0 if self.taps is None or self.window is None else self.window.kernel_size - self.taps.bit_count()

    @property
    def tail(self) -> int:
        """How much larger the output is than the strides alone make it: what layers side by side must agree on."""
        return self.extent - self.before - self.after


START = Composed()
"""Before the first layer."""


def followed(first: Composed, then: Window) -> Composed | None:
    """Two layers in a row as one, the reach left as it is; None when there is no such layer."""
    if first.taps is None:
        return None
    if then.transposed != first.transposed:
        if first.stride == 1:
            first = first.turned()
        elif then.stride == 1:
            last = then.dilation * (then.kernel_size - 1)
            then = replace(then, before=last - then.before, after=last - then.after, transposed=first.transposed)
        else:
            return None
    return _spread(first, then) if then.transposed else _convolved(first, then)


def _convolved(first: Composed, then: Window) -> Composed:
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


def _spread(first: Composed, then: Window) -> Composed:
    assert first.taps is not None
    return replace(
        first,
        taps=_repeated(int(("0" * (then.stride - 1)).join(f"{first.taps:b}"), 2), then.kernel_size, then.dilation),
        extent=F.composed_transposed_extent(first.extent, then.kernel_size, then.stride, then.dilation),
        stride=F.composed_stride(first.stride, then.stride),
        before=F.composed_padding(then.before, then.stride, first.before),
        after=F.composed_padding(then.after, then.stride, first.after),
    )


def _joined(so_far: Composed, axis: Window | Reach, size: int | None) -> Composed:
    if isinstance(axis, Window):
        refuse_wide(so_far.extent * max(axis.stride if axis.transposed else 1, 1))
        refuse_wide(so_far.stride * axis.dilation * axis.kernel_size)
    if isinstance(axis, Reach):
        return replace(so_far, reach=so_far.reach.then(axis, size), taps=None)
    if axis.plain:
        return so_far
    so_far = replace(so_far, reach=so_far.reach.then(axis.reach(), size))
    return followed(so_far, axis) or replace(so_far, taps=None)


# --- side by side ---------------------------------------------------------------------------------------------------


def aligned(branches: Sequence[Composed], name: str) -> Composed:
    """Layers side by side on one axis as the one window that holds all of theirs, each at its place.

    Raises `UnsupportedOpError` with the reason when their windows cannot lie over one another.
    """
    upwards = any(branch.transposed and branch.stride > 1 for branch in branches)
    if any(branch.taps is None for branch in branches):
        raise UnsupportedOpError(f"one of them is no one layer ({name})")
    branches = [branch.turned() if branch.stride == 1 and branch.transposed != upwards else branch
                for branch in branches]  # fmt: skip
    if len({branch.stride for branch in branches}) > 1 or len({branch.transposed for branch in branches}) > 1:
        steps = ", ".join(f"1/{branch.stride}" if branch.transposed else str(branch.stride) for branch in branches)
        raise UnsupportedOpError(f"they move by different steps ({name}: {steps})")
    tails = [branch.tail for branch in branches]
    if branches[0].stride == 1 and len(set(tails)) > 1:
        raise UnsupportedOpError(f"their outputs differ in size, by {max(tails) - min(tails)} ({name})")
    if upwards and len(set(tails)) > 1:
        raise UnsupportedOpError(f"their outputs differ in size ({name})")
    before = max(branch.before for branch in branches)
    extent = max(branch.extent - branch.before for branch in branches) + before
    taps = 0
    for branch in branches:
        taps |= (branch.taps or 0) << (before - branch.before)
    # With a stride the sizes may agree although the rest that is never read differs: the largest tail reads least.
    return Composed(_ITSELF, taps, extent, branches[0].stride, before, extent - before - max(tails), upwards)


def _side_by_side(branches: Sequence[Composed], size: int | None, name: str) -> Composed:
    """Branches joined: what any of them reads, and their one window if there is one."""
    reach = branches[0].reach
    for branch in branches[1:]:
        reach = reach.beside(branch.reach, size)
    try:
        return replace(aligned(branches, name), reach=reach)
    except UnsupportedOpError:
        if size is None:
            raise
        return replace(branches[0], reach=reach, taps=None)


# --- the network ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Link:
    """A layer at its place, and the formulas that gave the composition.

    `axes` is what it does along each axis, None after the axes end; `before` and `after` are all layers to here,
    without it and with it.
    """

    item: Resolved
    channels: int
    axes: Sequence[Window | Reach] | None
    before: Sequence[Composed]
    after: Sequence[Composed]
    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.item.node.name} ({self.item.layer.kind})"

    @property
    def rank(self) -> int:
        """The spatial axes."""
        return len(self.before)


JOINS = ("add", "mul", "concat")
"""The kinds that join branches."""


def source_of(network: Network) -> str:
    """The tensor that comes in. Raises `UnsupportedOpError` when several do."""
    if len(network.inputs) > 1:
        raise UnsupportedOpError(f"compose takes one input, but there are {', '.join(network.inputs)}")
    return next(iter(network.inputs), network.nodes[0].inputs[0])


def links_of(network: Network) -> list[Link]:
    """The layers, composed one after the other."""
    rank = next((node.layer.rank for node in network.nodes if node.layer.rank is not None), None)
    bound = _bound(network, rank or 2)
    if rank is None:
        shape = bound[0][0].inputs[0] if network.inputs else ()
        rank = max(len(shape) - 2, 1) if shape else 2
    here: dict[str, Sequence[Composed]] = {source_of(network): (START,) * rank}
    ended: set[str] = set()
    links: list[Link] = []
    for item, channels in bound:
        node = item.node
        steps: list[Step] = []
        axes: Sequence[Window | Reach] | None = None
        try:
            with recording() as steps:
                if any(name not in here for name in node.inputs):
                    raise UnsupportedOpError("what comes into it is no layer's output, which compose does not merge")
                if len(node.inputs) > 1:
                    composed: Sequence[Composed] = _join(item, [here[name] for name in node.inputs])
                    axes = (Window(),) * rank
                elif ended.isdisjoint(node.inputs):
                    axes, composed = _step(item, here[node.inputs[0]])
                else:
                    composed = here[node.inputs[0]]
        except ConvcalcError as error:
            raise located(error, node) from None
        if axes is None or not ended.isdisjoint(node.inputs):
            axes = None
            ended.update(node.outputs)
        links.append(Link(item, channels, axes, here[node.inputs[0]], composed, tuple(steps)))
        here.update(dict.fromkeys(node.outputs, composed))
    return links


def _step(item: Resolved, here: Sequence[Composed]) -> tuple[Sequence[Window | Reach] | None, Sequence[Composed]]:
    rank = len(here)
    before, after = (item.inputs[0], item.outputs[0]) if item.inputs else (None, None)
    # Features have no axes to begin with.
    axes = None if before is not None and len(before) == 2 else axes_of(item.layer, rank, before, after)
    if axes is None:
        return None, here
    sizes = (None,) * rank if after is None else after[2:]
    return axes, per_axis(_joined, here, axes, sizes)


def _join(item: Resolved, branches: Sequence[Sequence[Composed]]) -> Sequence[Composed]:
    layer: Any = item.layer
    if layer.kind not in JOINS:
        raise UnsupportedOpError(
            f"which elements {layer.kind} reads is not known, so nothing can be composed across it"
        )
    if layer.kind == "concat" and layer.dim != 1 and (not item.inputs or layer.dim % len(item.inputs[0]) != 1):
        raise UnsupportedOpError(
            f"joins along dim {layer.dim}; branches are composed where channels are joined (dim 1)"
        )
    rank = len(branches[0])
    sizes = (None,) * rank if not item.outputs or len(item.outputs[0]) != rank + 2 else item.outputs[0][2:]
    columns = zip(*branches, strict=True)
    return [_side_by_side(column, size, axis_name(rank, axis))
            for axis, (column, size) in enumerate(zip(columns, sizes, strict=True))]  # fmt: skip


def _bound(network: Network, rank: int) -> list[tuple[Resolved, int]]:
    """The layers bound, with the channels that come in; with shapes where there is an input."""
    if network.inputs:
        return [(item, item.inputs[0][1] if len(item.inputs[0]) > 1 else 1) for item in resolve(network)]
    start = next(filter(None, map(_channels_said, network.nodes)), 1)
    channels = {source_of(network): start}
    bound = []
    for node in network.nodes:
        layer: Any = node.layer
        came = channels[node.inputs[0]]
        try:
            own = 2 if layer.kind in ("pixelshuffle", "pixelunshuffle") else layer.rank
            if own not in (None, rank):
                raise ShapeError(f"has {own} spatial axes, but the chain has {rank}")
            # Only the channels matter: no size is known.
            if any(hasattr(layer, field) for field in _CHANNEL_FIELDS):
                layer = layer.bind((1, came, *(1,) * rank))
            gone = getattr(layer, "out_channels", came)
            if layer.kind in _REGROUPING or len(node.inputs) > 1:
                shapes = [(1, channels[name], *(_DIVISIBLE,) * rank) for name in node.inputs]
                gone = layer.infer(*shapes)[0][1]
        except ConvcalcError as error:
            raise located(error, node) from None
        bound.append((Resolved(node, layer, (), ()), came))
        channels.update(dict.fromkeys(node.outputs, gone))
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
