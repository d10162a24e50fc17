"""--layer, --sort and --top: which rows are shown, in which order; totals are those of all."""

from __future__ import annotations

import json

import pytest

from convcalc.analysis.costs import costs
from convcalc.analysis.selection import selected
from convcalc.cli import run_command_line
from convcalc.expressions import parse_network

CHAIN = ["3x32x32", "conv:16,k3,name=a.stem", "relu:name=a.act", "conv:32,k3,s2,name=b", "flatten", "linear:10"]


def rows(capsys, *arguments, verb="flops"):
    """The names of the rows, the totals and the diagnostics of a question about the chain."""
    assert run_command_line([verb, *CHAIN, *arguments, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return [row["name"] for row in found["layers"]], found["totals"], [item["message"] for item in found["diagnostics"]]


@pytest.mark.parametrize(
    ("arguments", "names", "note"),
    [
        (["--top", "2"], ["b", "a.stem"], "2 of 5 rows, with the most MACs"),
        (["--top", "9"], ["b", "a.stem", "4", "a.act", "3"], None),
        (["--sort", "params"], ["4", "b", "a.stem", "a.act", "3"], None),
        (["--sort", "Add", "--top", "1"], ["b"], "1 of 5 rows, with the most Add"),
        (["--layer", "b"], ["b"], None),
        (["--layer", "a"], ["a.stem", "a.act"], None),
        (["--layer", "a", "--sort", "flops"], ["a.stem", "a.act"], None),
        (["--by", "kind", "--top", "1"], ["conv"], "1 of 4 rows, with the most MACs"),
    ],
)
def test_rows(capsys, arguments, names, note):
    totals = rows(capsys)[1]
    assert rows(capsys, *arguments) == (names, totals, [note] if note else [])


def test_each_verb_sorts_by_what_it_is_about(capsys):
    assert rows(capsys, "--top", "1", "--by", "params", verb="summary")[0] == ["4"]
    assert rows(capsys, "--top", "1", verb="summary")[0] == ["b"]
    assert rows(capsys, "--top", "1", verb="memory")[2] == ["1 of 5 rows, with the most Alive"]
    assert rows(capsys, "--top", "1", "--train", verb="memory")[2] == ["1 of 5 rows, with the most Kept"]
    assert rows(capsys, "--top", "1", "--receptive-field", verb="shape")[0] == ["b"]


def test_a_module_of_the_summary_is_no_row_of_a_sorted_one(capsys):
    assert run_command_line(["summary", *CHAIN, "--sort", "macs", "--format", "plain"]) == 0
    first = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:6]]
    assert first == ["b", "a.stem", "4", "a.act", "3"]


def test_what_is_unknown_is_last():
    report = costs(parse_network("3x8x8 conv:4,k3 conv:4,k3"))
    unknown = report.rows[0].values | {"macs": None}
    first = type(report.rows[0])(**{**vars_of(report.rows[0]), "values": unknown})
    report = type(report)(**{**vars_of(report), "rows": (first, *report.rows[1:])})
    assert [row.name for row in selected(report, sort="macs").rows] == ["1", "0"]


def vars_of(record):
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["flops", "--top", "0"], "--top is 0, but must be at least 1"),
        (["flops", "--top", "x"], "--top is x, but must be a whole number"),
        (["shape", "--top", "2"], "--top needs a column to sort by, and shape has none here"),
        (["shape", "--sort", "macs"], "--sort macs: shape has no such column"),
        (["flops", "--sort", "mac"], "--sort mac: flops has no such column; there is params, macs, flops,"
                                     " multiplications, additions; did you mean 'macs'?"),
        (["flops", "--layer", "c"], "--layer c: there is no such layer; the layers are a.stem, a.act, b, 3, 4"),
        (["flops", "--layer", "stem"], "--layer stem: there is no such layer; did you mean 'a.stem'?"),
        (["flops", "--layer", "b", "-q"],
         "-q prints one value of the whole network; --get layers.NAME.output or another key asks for a layer's"),
    ],
)  # fmt: skip
def test_refusals(capsys, arguments, sentence):
    assert run_command_line([arguments[0], *CHAIN, *arguments[1:]]) == 2
    assert capsys.readouterr() == ("", f"error: {sentence}\n")


def test_of_many_layers_an_error_names_some(capsys):
    assert run_command_line(["shape", "3x8x8", "repeat:30", "relu", "end", "--layer", "none"]) == 2
    first = ", ".join(map(str, range(20)))
    assert capsys.readouterr().err.endswith(f"; the layers are {first}, ...\n")
