"""Which layers take an input to the sizes wanted."""

from __future__ import annotations

import pytest

from convcalc.analysis.inverse import inverse
from convcalc.analysis.shapes import shapes
from convcalc.cli import run_command_line
from convcalc.errors import ConvcalcError, ExpressionError, ShapeError
from convcalc.expressions import parse_text
from convcalc.layers import LAYERS

QUESTIONS = (
    ("224 conv", (112,), "conv2d:k3,s2,p1"),
    ("3x224x224 conv:64,k7", (112,), "conv2d:64,k7,s2,p3"),
    ("28 convt", (56,), "convt2d:k2,s2"),
    ("28 convt:k4", (56,), "convt2d:k4,s2,p1"),
    ("28 convt:k3", (56,), "convt2d:k3,s2,p1,op1"),
    ("8x112x112 maxpool", (56,), "maxpool2d:2"),
    ("32 conv:s1", (32,), "conv2d:k3,p1"),
    ("32 conv:s1,p0", (28,), "conv2d:k5"),
    ("10x20 conv:k3", (5, 10), "conv2d:k3,s2,p1"),
    ("16x100 conv1d:k3,d4", (100,), "conv1d:k3,p4,d4"),
)


@pytest.mark.parametrize(("question", "sizes", "first"), QUESTIONS)
def test_the_usual_layer_comes_first_and_all_give_what_is_wanted(question, sizes, first):
    report = inverse(parse_text(question), sizes)
    assert report.answer == report.rows[0].layer == first
    given = question.split()[0]
    for row in report.rows:
        found = shapes(parse_text(f"{given} {row.layer}").network())
        assert found.rows[0].outputs == row.outputs
        assert row.outputs[0][-len(sizes) :] == sizes


def test_nothing_is_missed():
    """All 3x3 convolutions that take 10 to 4, found by trying them."""
    wanted = {
        (stride, padding, dilation)
        for stride in range(1, 9)
        for padding in range(6)
        for dilation in (1, 2, 3)
        if 10 + 2 * padding > 2 * dilation and (10 + 2 * padding - 2 * dilation - 1) // stride + 1 == 4
    }
    report = inverse(parse_text("10 conv:k3"), (4,))
    assert report.diagnostics[0].message.startswith(f"{len(wanted)} layers give 4x4")


def test_what_is_never_read_comes_after_what_reads_all():
    report = inverse(parse_text("221 conv:k2,p0,d1"), (74,))
    assert [(row.layer, row.values["unread"]) for row in report.rows] == [("conv2d:k2,s3", 0)]
    report = inverse(parse_text("225 conv:s3,p0,d1"), (74,))
    assert [row.values["unread"] for row in report.rows] == sorted(row.values["unread"] for row in report.rows)
    assert report.rows[-1].values["unread"] > 0


@pytest.mark.parametrize(
    ("question", "sizes", "error"),
    [
        ("224 conv:k3", (500,), ShapeError),
        ("224 conv relu", (112,), ExpressionError),
        ("224 relu", (112,), ExpressionError),
        ("224 conv", (112, 112, 112), ConvcalcError),
    ],
)
def test_what_there_is_none_of_is_refused(question, sizes, error):
    with pytest.raises(error):
        inverse(parse_text(question), sizes)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["224", "--to", "112"], "conv2d:k3,s2,p1"),
        (["224", "--to", "112x112", "-k", "7"], "conv2d:k7,s2,p3"),
        (["3x112x112", "maxpool", "--to", "56"], "maxpool2d:2"),
        (["conv:k4", "--input", "64", "--to", "32"], "conv2d:k4,s2,p1"),
        (["28", "--to", "56", "--kind", "convt", "-k", "4"], "convt2d:k4,s2,p1"),
    ],
)
def test_on_the_command_line(arguments, answer, capsys):
    assert run_command_line(["shape", *arguments, "-q"]) == 0
    assert capsys.readouterr().out == f"{answer}\n"


@pytest.mark.parametrize("arguments", [["--explain"], ["--receptive-field"], ["--lines"], ["-s", "9", "-k", "2"]])
def test_options_that_do_not_go_together(arguments, capsys):
    assert run_command_line(["shape", "224", "--to", "112", *arguments]) in (1, 2)
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_is_answered_or_refused_in_a_sentence(kind, capsys):
    status = run_command_line(["shape", "2x8x8", kind, "--to", "4", "-q"])
    out, err = capsys.readouterr()
    assert (status == 0) == bool(out)
    assert (status != 0) == err.startswith("error: ")
