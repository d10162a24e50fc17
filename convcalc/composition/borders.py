"""Borders: the outputs at the ends of the axes where a merged layer may differ from the layers, at most.

Zeros that stand between padded layers are not what the one layer sees there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from convcalc import formulas as F
from convcalc.analysis.fields import Window
from convcalc.layers.base import Pairs, axis_name

if TYPE_CHECKING:
    from convcalc.composition.geometry import Link
    from convcalc.composition.maps import Map
    from convcalc.composition.merging import Made
    from convcalc.composition.pieces import Piece


def pointwise(first: Map) -> bool:
    """Whether each output reads its own place alone: then any padding may as well come before."""
    return all(axis.extent == axis.stride == 1 and not axis.before and not axis.after for axis in first.axes)


def border_between(
    first: Map, then: Piece, windows: Sequence[Window], borders: Pairs, mode: str, *, upwards: bool
) -> Pairs:
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
        if same_mode and pointwise(first) and (mode != "zeros" or not first.bias):
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


# --- through a network ----------------------------------------------------------------------------------------------


def border_of(made: Sequence[Made], links: Sequence[Link], output: str) -> Pairs | None:
    """The border of what merged layers give one after the other; None where every output may differ.

    A border that one of them has grows in those after it.
    """
    by_name = {link.item.node.name: link for link in links}
    borders: dict[str, Pairs | None] = {}
    found: Pairs | None = ()
    for each in made:
        found = _wider([borders.get(name, ()) for name in each.node.inputs])
        if found:
            windows = _windows_of(each, by_name)
            found = None if windows is None else _through(found, windows, wraps=_wraps(each))
        found = _wider([found, each.border])
        borders.update(dict.fromkeys(each.node.outputs, found))
        if output == each.output:
            return found
    return found


def _wider(borders: Sequence[Pairs | None]) -> Pairs | None:
    """What holds all of these; of none at all there is ()."""
    known = [border for border in borders if border is not None and any(map(any, border))]
    if None in borders or len({len(border) for border in known}) > 1:
        return None
    return tuple((max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)) for pairs in zip(*known, strict=True))


def _windows_of(made: Made, links: Mapping[str, Link]) -> Sequence[Window] | None:
    """The windows of a layer that is left; None where they are not known or cover everything."""
    from convcalc.composition.maps import Map
    from convcalc.composition.pieces import piece_of

    if made.kept is not None:
        link = links[made.kept.node.name]
        piece = piece_of(link, {})
        axes = link.axes if piece is None else piece.windows
        if axes is None or made.kept.layer.kind in _WHOLE:
            return None
        return (
            [axis for axis in axes if isinstance(axis, Window)]
            if all(isinstance(axis, Window) for axis in axes)
            else None
        )
    return [axis.window or Window() for axis in made.map.axes] if isinstance(made.map, Map) else None


_WHOLE = ("instancenorm", "groupnorm", "layernorm", "softmax", "logsoftmax", "localresponsenorm")
"""Kinds whose outputs hang on more than their windows."""


def _wraps(made: Made) -> bool:
    """Whether a layer pads one end with what is at the other."""
    layer = made.node.layer
    return "circular" in (
        layer.kind.removesuffix("pad"),
        getattr(layer, "padding_mode", ""),
        getattr(layer, "mode", ""),
    )


def _through(border: Pairs, windows: Sequence[Window], *, wraps: bool) -> Pairs:
    pairs = []
    for ends, window in zip(border, windows, strict=True):
        extent = F.kernel_extent(window.kernel_size, window.dilation)
        pair = [
            0 if not end and not (wraps and any(ends))
            else (end - 1) * window.stride + extent - pad if window.transposed
            else F.border_after(end, pad, window.stride)
            for end, pad in zip(ends, (window.before, window.after), strict=True)
        ]  # fmt: skip
        pairs.append((max(pair[0], 0), max(pair[1], 0)))
    return tuple(pairs)


# --- in words --------------------------------------------------------------------------------------------------------

_ENDS = {
    "length": ("element", "elements", "at the start", "at the end"),
    "width": ("column", "columns", "on the left", "on the right"),
    "height": ("row", "rows", "at the top", "at the bottom"),
    "depth": ("slice", "slices", "at the front", "at the back"),
}


def end_names(rank: int) -> list[str]:
    """What the ends of the axes are called, two of each.

    >>> end_names(2)
    ['top', 'bottom', 'left', 'right']
    """
    return [end.split()[-1] for axis in range(rank) for end in _ENDS[axis_name(rank, axis)][2:]]


def border_words(border: Pairs) -> str:
    """The border in rows and columns.

    >>> border_words(((1, 1), (2, 0)))
    '1 row at the top, 1 row at the bottom, 2 columns on the left'
    """
    words = []
    for axis, pair in enumerate(border):
        one, many, *ends = _ENDS.get(axis_name(len(border), axis), ("element", "elements", "before", "after"))
        words += [
            f"{count} {one if count == 1 else many} {end}" for count, end in zip(pair, ends, strict=True) if count
        ]
    return ", ".join(words)
