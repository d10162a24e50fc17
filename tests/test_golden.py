"""The golden table through the analyses and the kernels."""

from __future__ import annotations

import golden
import pytest

from convcalc.analysis.costs import costs
from convcalc.analysis.memory import memory
from convcalc.analysis.shapes import shapes
from convcalc.composition.compose import compose
from convcalc.errors import ConvcalcError
from convcalc.executor.run import run
from convcalc.expressions import parse_text
from convcalc.layers import LAYERS
from convcalc.layers.base import shape_text

EVERY = (
    golden.CASES,
    golden.REFUSALS,
    golden.GRADIENTS,
    golden.KEPT,
    golden.TIMES,
    golden.RUNS,
    golden.FIELDS,
    golden.ANSWERS,
)


def rows(table):
    return pytest.mark.parametrize("row", table, ids=lambda row: row.id)


def network(row):
    return parse_text(f"{row.input} {row.layers}").network()


@rows(golden.CASES)
def test_case(row):
    report = costs(network(row))
    wanted = row.shape.split()
    found = [shape_text(line.outputs[0]) for line in report.rows]
    assert found[-len(wanted) :] == wanted
    totals = report.totals
    assert (totals["params"], totals["macs"], totals["flops"]) == (row.params, row.macs, row.flops)
    assert shapes(network(row)).answer == report.rows[-1].outputs[0]


@rows(golden.REFUSALS)
def test_refusal(row):
    with pytest.raises(ConvcalcError) as caught:
        shapes(network(row))
    error = caught.value
    assert str(error) == row.sentence
    assert error.exit_status == row.status
    span = error.span
    assert (span.source.text[span.start : span.end] if span else None) == row.caret


@rows(golden.GRADIENTS)
def test_gradients(row):
    totals = costs(network(row), backward=True).totals
    assert (totals["macs"], totals["backward_macs"]) == (row.macs, row.backward)
    assert costs(network(row), backward=True, input_grad=True).totals["backward_macs"] == row.backward_with_input


@rows(golden.KEPT)
def test_kept(row):
    assert memory(network(row), train=True).totals["saved"] == row.saved
    assert memory(network(row)).totals["total"] == row.total


@rows(golden.TIMES)
def test_times(row):
    ten = parse_text(" ".join(golden.TEN_LAYERS)).network()
    totals = costs(ten, convention=row.convention, samples=10**6, speed=row.speed).totals
    assert totals["seconds"] / 3600 == pytest.approx(row.hours, abs=5e-4)


@rows(golden.RUNS)
def test_run(row):
    output = run(row.layers, row.input, row.weight, flip=row.flip).output
    assert output.tolist() == row.answer


@rows(golden.FIELDS)
def test_receptive_field(row):
    totals = compose(parse_text(row.layers).network(open_input=True)).totals
    assert shape_text(totals["receptive_field"]) == row.field


def test_the_table_is_large_and_its_names_are_its_own():
    assert sum(map(len, EVERY)) >= 350
    for table in EVERY:
        assert len({row.id for row in table}) == len(table)
        assert all(row.truth for row in table)


def test_every_kind_has_a_row():
    seen = {layer.kind.name for row in golden.CASES for layer in parse_text(f"{row.input} {row.layers}").layers}
    assert seen == set(LAYERS)
