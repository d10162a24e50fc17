"""Summaries: rows nested by name, sums of modules, shares, and how they look in narrow and wide terminals."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from convcalc.analysis.costs import costs
from convcalc.analysis.memory import memory
from convcalc.analysis.report import Report
from convcalc.analysis.summary import summary
from convcalc.cli import run_command_line
from convcalc.errors import LayerError
from convcalc.expressions import parse_text
from convcalc.nouns import read_network
from convcalc.render.document import document
from convcalc.render.explain import explanation
from convcalc.render.table import print_table
from convcalc.render.text import markdown, people_rows, plain
from convcalc.torch_text import parse_printed

NESTED = (
    "3x8x8 conv:4,k3,p1,name=a.conv relu:name=a.act conv:5,k3,p1,name=a.deep.conv tanh:name=a.deep.act"
    " conv:6,k3,p1,name=b.conv flatten:name=flat linear:10,name=fc"
)


def made(text: str, **options) -> Report:
    return summary(parse_text(text).network(), **options)


def shown(report: Report) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in people_rows(report)[1]]


def test_rows_nest_as_the_names_say() -> None:
    assert shown(made(NESTED)) == [
        ("a", "4 layers"),
        ("  conv", "conv2d:4,k3,p1"),
        ("  act", "relu"),
        ("  deep", "2 layers"),
        ("    conv", "conv2d:5,k3,p1"),
        ("    act", "tanh"),
        ("b", "1 layer"),
        ("  conv", "conv2d:6,k3,p1"),
        ("flat", "flatten"),
        ("fc", "linear:10"),
    ]


def test_depth_sums_up_what_is_deeper() -> None:
    assert shown(made(NESTED, depth=1)) == [
        ("a", "4 layers"), ("b", "1 layer"), ("flat", "flatten"), ("fc", "linear:10"),
    ]  # fmt: skip
    assert [name for name, _ in shown(made(NESTED, depth=2))][:4] == ["a", "  conv", "  act", "  deep"]
    assert shown(made(NESTED, depth=99)) == shown(made(NESTED))


@pytest.mark.parametrize("depth", [None, 1, 2, 3])
def test_sums_are_those_of_the_layers(depth: int | None) -> None:
    network = parse_text(NESTED).network()
    report = summary(network, depth=depth)
    layers = costs(network)
    rows = {row.name: row for row in report.rows}
    inside = [row for row in layers.rows if row.name.startswith("a.")]
    assert rows["a"].values["macs"] == sum(row.values["macs"] for row in inside)
    assert rows["a"].values["params"] == (3 * 9 * 4 + 4) + (4 * 9 * 5 + 5)
    assert (rows["a"].inputs, rows["a"].outputs) == (((3, 8, 8),), ((5, 8, 8),))
    # Every layer counts once, whatever is told apart.
    for key in ("params", "macs", "memory"):
        leaves = [row.values[key] for row in report.rows if not row.header]
        assert sum(leaves) == report.totals[key]
    assert report.totals["macs"] == layers.totals["macs"]
    shares = [row.values["share"] for row in report.rows if not row.header]
    assert sum(shares) == pytest.approx(1)


def test_memory_of_rows_and_of_the_whole() -> None:
    network = parse_text(NESTED).network()
    report = summary(network, dtype="float16")
    whole = memory(network, dtype="float16")
    rows = {row.name: row.values["memory"] for row in report.rows}
    assert rows["a.conv"] == 2 * (4 * 8 * 8 + 112)
    assert rows["flat"] == 0  # a view
    assert report.totals["memory"] == whole.totals["total"] - 2 * 3 * 8 * 8
    assert report.totals["peak"] == whole.totals["peak"]


def test_shares_of_something_else() -> None:
    report = made(NESTED, by="params")
    linear = report.rows[-1]
    assert linear.values["share"] == linear.values["params"] / report.totals["params"]
    assert people_rows(report)[0][-1] == "params share"
    with pytest.raises(LayerError, match="by is flops"):
        made(NESTED, by="flops")


def test_there_is_no_share_of_nothing_or_of_a_part() -> None:
    assert made("3x8x8 relu").rows[0].values["share"] is None
    text = "Net(\n  (a): Conv2d(3, 8, kernel_size=(1, 1), stride=(1, 1))\n)\n"
    report = summary(read_network(["3x8x8", text]), by="params")
    assert report.status == "partial"
    assert [row.values["share"] for row in report.rows] == [None]


def test_a_layer_whose_name_begins_others_stays_one() -> None:
    assert shown(made("3x8x8 repeat:3 relu:name=act end")) == [("act", "relu"), ("act.1", "relu"), ("act.2", "relu")]


def test_machines_get_each_layer_once() -> None:
    layers = document(made(NESTED))["layers"]
    assert [layer["name"] for layer in layers] == [
        "a.conv", "a.act", "a.deep.conv", "a.deep.act", "b.conv", "flat", "fc",
    ]  # fmt: skip
    assert [layer["name"] for layer in document(made(NESTED, depth=1))["layers"]] == ["a", "b", "flat", "fc"]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_table_fits_its_terminal(width: int) -> None:
    report = summary(read_network(["examples/resnet50.txt"]))
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_table(report, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    assert any("25.56 M" in line and "4.089 G" in line for line in lines)
    # The bar of the whole and of the first convolution, and nothing is cut.
    assert any("2.9 %" in line and "64x112x112" in line for line in lines)
    assert "…" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_verb(capsys) -> None:
    assert run_command_line(["summary", *NESTED.split(), "--depth", "1", "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["verb"] == "summary"
    assert content["layers"][0]["name"] == "a"
    assert run_command_line(["summary", *NESTED.split(), "-q"]) == 0
    assert capsys.readouterr().out == f"{content['totals']['params']}\n"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--by", "mac", "--by is mac, but must be one of macs, params, memory; did you mean 'macs'?"),
        ("--depth", "0", "--depth is 0, but must be at least 1"),
        ("--dtype", "float31", "--dtype is float31, but must be one of"),
    ],
)
def test_options_that_are_wrong(capsys, option: str, value: str, message: str) -> None:
    assert run_command_line(["summary", "3x8x8", "relu", option, value]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize("width", [36, 40, 46, 60, 80])
def test_what_a_narrow_table_shows_it_shows_whole(width) -> None:
    stream = io.StringIO()
    print_table(made("3x32x32 conv:16,k3,p1 relu flatten linear:10"), Console(file=stream, width=width))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    title = next(line for line in lines if line.startswith("Layer")).split()[-1]
    last = next(line for line in lines if "16x32x32" in line)
    assert title in ("Output", "Params", "MACs", "Memory", "share")
    assert last.endswith({"Output": "16x32x32", "Params": "448", "MACs": "442.4 k", "share": "%"}[title])


@pytest.mark.parametrize(
    ("width", "text", "said"),
    [
        (200, "", ""),
        (100, "relu", "3 columns do not fit"),  # the bias and two of three gradients; the input stands above
        (100, "@a relu add:@a", "4 columns do not fit"),
    ],
)
def test_columns_that_do_not_fit_are_counted(width: int, text: str, said: str) -> None:
    network = parse_text(f"3x32x32 conv:16,k3,p1 {text}").network()
    stream = io.StringIO()
    print_table(costs(network, backward=True), Console(file=stream, width=width))
    lines = [line.strip() for line in stream.getvalue().splitlines()]
    assert [line for line in lines if "fit" in line] == (
        [f"{said}; a wider terminal or --format plain shows all"] if said else []
    )


def test_shapes_that_are_not_known_do_fit() -> None:
    report = costs(parse_printed("Sequential(\n  (0): Linear(in_features=8, out_features=2, bias=True)\n)"))
    stream = io.StringIO()
    print_table(report, Console(file=stream, width=100))
    assert "fit" not in stream.getvalue()


def test_bars_give_way_to_columns() -> None:
    found = []
    for width in (100, 73, 69, 60):
        stream = io.StringIO()
        print_table(made("3x32x32 conv:16,k3,p1 relu flatten linear:10"), Console(file=stream, width=width))
        whole = next(line for line in stream.getvalue().splitlines() if "442.4 k" in line)
        found.append((whole.count("█"), "448" in whole))
    assert found == [(5, True), (2, True), (0, True), (0, False)]


@pytest.mark.parametrize("width", [10, 40, 60])
def test_long_names_leave_a_narrow_table_without_its_last_columns(width) -> None:
    network = parse_text(f"3x32x32 conv:16,k3,p1,name={'block' * 10} relu").network()
    stream = io.StringIO()
    print_table(costs(network), Console(file=stream, width=width))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith(("block" * 10)[:width]) for line in lines)


def test_a_name_cannot_steer_the_terminal() -> None:
    report = made("3x32x32 conv:16 relu")
    named = replace(report, rows=(replace(report.rows[0], name="a\x07b\rc\x1bd"), *report.rows[1:]))
    stream = io.StringIO()
    print_table(named, Console(file=stream, width=80))
    for text in (stream.getvalue(), *("\n".join(form(named)) for form in (plain, markdown, explanation))):
        assert "a·b·c·d" in text
        assert not {"\x07", "\r", "\x1b"} & set(text)
