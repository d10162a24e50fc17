"""What is not known: it is named, it makes the totals partial, and it is never a 0."""

from __future__ import annotations

import pytest

from convcalc.analysis.costs import costs
from convcalc.analysis.memory import memory
from convcalc.analysis.report import Report
from convcalc.analysis.shapes import resolve, shapes
from convcalc.errors import UnsupportedOpError
from convcalc.layers.activation import ReLU
from convcalc.layers.conv import Conv2d
from convcalc.layers.opaque import Opaque
from convcalc.network import Input, Network, Node
from convcalc.render.document import document
from convcalc.render.text import people_rows


def network(*, owns: bool = True, hidden: tuple[str, ...] = ()) -> Network:
    """A convolution, something unknown, and a convolution after it."""
    nodes = (
        Node("first", Conv2d(3, 4, 3), ("input",), ("first",)),
        Node("drop", Opaque("StochasticDepth", "StochasticDepth(p=0.1)", owns), ("first",), ("drop",)),
        Node("last", Conv2d(4, 5, 3), ("drop",), ("last",)),
    )
    return Network({"input": Input((1, 3, 8, 8), batch_given=False)}, nodes, ("last",), hidden=hidden)


def test_shapes_after_it_are_unknown() -> None:
    report = shapes(network())
    assert [row.outputs for row in report.rows] == [((4, 6, 6),), (), ()]
    assert (report.status, report.answer) == ("partial", None)
    assert report.rows[1].reasons["output"] == "StochasticDepth is not known"
    assert report.rows[2].reasons["output"] == "the shape that drop (unknown) gives is not known"
    assert [layer["output"] for layer in document(report)["layers"]] == [[4, 6, 6], None, None]


def test_costs_are_at_least_what_is_known() -> None:
    report = costs(network(), backward=True)
    first = 6 * 6 * 4 * 27
    assert report.totals["macs"] == first
    assert report.totals["params"] == (3 * 9 * 4 + 4) + (4 * 9 * 5 + 5)
    assert {"params", "macs", "flops", "backward_macs"} <= report.partial
    assert [row.values["macs"] for row in report.rows] == [first, None, None]
    assert [row.values["params"] for row in report.rows] == [112, None, 185]
    assert people_rows(report)[2][4] == "≥ 297"
    assert document(report)["partial"] == sorted(report.partial)


def test_parameters_are_exact_when_it_has_none() -> None:
    report = costs(network(owns=False))
    assert report.totals["params"] == 297
    assert "params" not in report.partial
    assert "macs" in report.partial


def test_hidden_parameters_make_them_at_least() -> None:
    report = costs(network(owns=False, hidden=("Block",)))
    assert "params" in report.partial
    chain = Network.chain(Conv2d(3, 4, 3), input=(3, 8, 8))
    assert costs(chain).partial == frozenset()


def test_memory_is_at_least_what_is_known() -> None:
    report = memory(network(owns=False), train=True)
    assert report.totals["parameters"] == 4 * 297
    assert report.totals["activations"] == 4 * (3 * 8 * 8 + 4 * 6 * 6)
    assert {"activations", "total", "peak", "training", "saved"} == report.partial
    assert [row.values["output_bytes"] for row in report.rows] == [4 * 4 * 6 * 6, None, None]
    hidden = memory(network(hidden=("Block",)))
    assert {"parameters", "weight", "bias", "total"} <= hidden.partial


def test_what_is_wired_to_nothing_is_unknown() -> None:
    nodes = (Node("a", ReLU(), ("nowhere",), ("a",)),)
    report = shapes(Network({"input": Input((1, 3, 8, 8))}, nodes, ("a",)))
    assert report.rows[0].reasons["output"] == "what comes into it is not known"


def test_an_open_layer_has_unknown_parameters() -> None:
    nodes = (Node("a", Conv2d(None, 4, 3), ("nowhere",), ("a",)),)
    report: Report = costs(Network({"input": Input((1, 3, 8, 8))}, nodes, ("a",)))
    assert report.totals["params"] is None


def test_who_needs_every_shape_is_told() -> None:
    with pytest.raises(UnsupportedOpError, match=r"layer drop \(unknown\): StochasticDepth is not known"):
        resolve(network())
