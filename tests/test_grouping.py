"""Rows of costs added up by kind of layer and by module."""

from __future__ import annotations

import json

import pytest
from onnx import helper
from onnx_models import initializer, model

from convcalc.analysis.costs import costs
from convcalc.cli import run_command_line
from convcalc.errors import LayerError
from convcalc.expressions import parse_text
from convcalc.onnx.file import read_onnx

NESTED = (
    "3x8x8 conv:4,k3,p1,name=a.conv relu:name=a.act conv:5,k3,p1,name=a.deep.conv tanh:name=a.deep.act"
    " conv:6,k3,p1,name=b.conv flatten:name=flat linear:10,name=fc"
)
COLUMNS = ("params", "macs", "flops", "backward_macs", "backward_flops")


def made(**options):
    return costs(parse_text(NESTED).network(), backward=True, **options)


def test_kinds_stand_with_the_most_macs_first() -> None:
    report = made(by="kind")
    assert [(row.name, row.layer) for row in report.rows] == [
        ("conv", "3 layers"),
        ("linear", "1 layer"),
        ("tanh", "1 layer"),
        ("relu", "1 layer"),
        ("flatten", "1 layer"),
    ]
    by_hand = 64 * 9 * (3 * 4 + 4 * 5 + 5 * 6)
    assert report.rows[0].values["macs"] == by_hand
    assert report.rows[1].values["macs"] == 6 * 64 * 10


@pytest.mark.parametrize("options", [{"by": "kind"}, {"by": "module"}, {"by": "module", "depth": 2}])
def test_sums_are_those_of_the_layers(options) -> None:
    whole, report = made(), made(**options)
    assert report.totals == whole.totals
    for column in COLUMNS:
        assert sum(row.values[column] for row in report.rows if not row.header) == whole.totals[column]


def test_modules_down_to_a_depth() -> None:
    assert [row.name for row in made(by="module").rows] == ["a", "b", "flat", "fc"]
    deeper = made(by="module", depth=2).rows
    assert [(row.name, row.level, row.header) for row in deeper[:4]] == [
        ("a", 0, True),
        ("a.conv", 1, False),
        ("a.act", 1, False),
        ("a.deep", 1, False),
    ]
    assert deeper[3].layers == 2
    assert deeper[3].outputs == ((5, 8, 8),)


def test_names_with_slashes_nest_by_them() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="/body/body.0/conv/Conv", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="/body/body.0/act/Relu"),
        helper.make_node("Conv", ["b", "w"], ["c"], name="/body/body.1/conv/Conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["y"], name="/Relu"),
    ]
    weights = [initializer("w", 4, 4, 3, 3)]
    network = read_onnx(model(nodes, {"x": [1, 4, 8, 8]}, {"y": None}, weights).SerializeToString())
    assert [row.name for row in costs(network, by="module").rows] == ["/body", "/Relu"]
    assert [(row.name, row.level) for row in costs(network, by="module", depth=3).rows] == [
        ("/body", 0),
        ("/body/body.0", 1),
        ("/body/body.0/conv/Conv", 2),
        ("/body/body.0/act/Relu", 2),
        ("/body/body.1/conv/Conv", 1),
        ("/Relu", 0),
    ]


def test_a_part_that_is_unknown_makes_the_sum_unknown(capsys) -> None:
    text = "Net(\n  (a): Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))\n  (b): ReLU()\n)"
    assert run_command_line(["flops", text, "--input", "3x8x8", "--by", "kind", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["layers"]
    assert [(row["name"], row["params"], row["macs"]) for row in rows] == [("conv", 112, None), ("relu", 0, None)]


def test_on_the_command_line(capsys) -> None:
    assert run_command_line(["flops", *NESTED.split(), "--by", "module", "--format", "plain"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:6] == ["a", "4", "layers", "3x8x8", "5x8x8", "297"]
    assert run_command_line(["flops", *NESTED.split(), "--by", "kind", "--format", "plain"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["conv", "3", "layers", "573"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "kinds"], "error: --by is kinds, but must be one of layer, kind, module; did you mean 'kind'?"),
        (["--depth", "2"], "error: --depth has a meaning with --by module only"),
        (["--by", "module", "--depth", "0"], "error: --depth is 0, but must be at least 1"),
        (["--by", "kind", "--explain"], "error: --explain has a meaning by layer only; leave --by out"),
    ],
)
def test_options_that_are_wrong(capsys, words, message) -> None:
    assert run_command_line(["flops", "3x8x8", "conv:4", *words]) == 2
    assert capsys.readouterr().err.splitlines()[0] == message


def test_an_unknown_grouping_from_python() -> None:
    with pytest.raises(LayerError, match="by"):
        made(by="size")
