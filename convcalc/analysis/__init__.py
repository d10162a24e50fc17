"""Analyses: a `Network` goes in, a frozen `Report` comes out. `analyse` gives all of them in one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convcalc.analysis.report import Report
    from convcalc.network import Network

__all__ = ["analyse"]


def analyse(
    network: Network,
    *,
    dtype: str = "float32",
    convention: str = "exact",
    backward: bool = False,
    train: bool = False,
    optimizer: str = "sgd",
    explain: bool = False,
) -> Report:
    """Shapes, costs and memory of every layer, and of all of them, in one report.

    Its columns are those of `costs` (counts) and then those of `memory` (bytes), and so are its totals; its answer is
    the final shape. With `explain` the steps of a row are the formulas of its shape and then those of its cost. Raises
    `ShapeError` for an input that a layer cannot take, `LayerError` for an unknown dtype, convention or optimizer.

    >>> from convcalc.layers.conv import Conv2d
    >>> from convcalc.network import Network
    >>> report = analyse(Network.chain(Conv2d(3, 64, 7, stride=2, padding=3, bias=False), input=(3, 224, 224)))
    >>> report.answer, report.totals["macs"], report.rows[0].values["output_bytes"]
    ((64, 112, 112), 118013952, 3211264)
    """
    from convcalc.analysis.costs import costs
    from convcalc.analysis.memory import memory
    from convcalc.analysis.shapes import shapes
    from convcalc.records import replace

    shaped = shapes(network, explain=explain)
    counted = costs(network, backward=backward, convention=convention, explain=explain)
    held = memory(network, dtype=dtype, train=train, optimizer=optimizer)
    rows = tuple(
        replace(
            shape,
            values={**cost.values, **size.values},
            reasons={**shape.reasons, **cost.reasons, **size.reasons},
            steps=(*shape.steps, *cost.steps),
        )
        for shape, cost, size in zip(shaped.rows, counted.rows, held.rows, strict=True)
    )
    # Each of the three says what it has to say about the network; once is enough.
    said = {
        (item.level, item.layer, item.message): item
        for report in (shaped, counted, held)
        for item in report.diagnostics
    }
    return replace(
        shaped,
        verb="analyse",
        columns=(*counted.columns, *held.columns),
        rows=rows,
        totals={**counted.totals, **held.totals},
        diagnostics=tuple(said.values()),
        partial=shaped.partial | counted.partial | held.partial,
    )
