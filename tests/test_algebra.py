"""What `compose --explain` says of a merge and of a split, against the merge and the split themselves."""

from __future__ import annotations

import numpy as np
import pytest

from convcalc.cli import run_command_line
from convcalc.composition.borders import end_names
from convcalc.composition.compose import compose
from convcalc.composition.geometry import links_of
from convcalc.composition.splitting import WAYS, split
from convcalc.composition.verification import random_weights
from convcalc.errors import ShapeError
from convcalc.expressions import parse_text
from convcalc.render.explain import explanation, wrapped

BLOCK = """\
0 (conv), 1 (batchnorm), 2 (conv) merge into conv2d:8,i8,k5,p2  8x32x32 → 8x32x32
  W, b: weight and bias so far; W', b': with this layer; weight, bias: its own
  0 (conv): W = weight, b = bias
  1 (batchnorm): scale[o] = weight[o] / √(running_var[o] + eps)
  1 (batchnorm): W'[o,i,t] = W[o,i,t]·scale[o]
  1 (batchnorm): b'[o] = (b[o] − running_mean[o])·scale[o] + bias[o]
  2 (conv): W'[o,i,t] = Σ_m Σ_(u + v = t) weight[o,m,v]·W[m,i,u]
  2 (conv): b'[o] = bias[o] + Σ_m Σ_v weight[o,m,v]·b[m]
  height = width: extent = extent + (kernel_size − 1)·dilation·jump
                         = 3 + (3 − 1)·1·1
                         = 5
  height = width: stride = jump·stride
                         = 1·1
                         = 1
  height = width: padding = padding + jump·next_padding
                          = 1 + 1·1
                          = 2
  top = bottom = left = right: border = ⌈(border + padding) / stride⌉
                                      = ⌈(0 + 1) / 1⌉
                                      = 1
  height = width: kernel_size = ⌊(extent − 1) / dilation⌋ + 1
                              = ⌊(5 − 1) / 1⌋ + 1
                              = 5
  weights = out_channels·⌊in_channels / groups⌋·∏kernel_size
          = 8·⌊8 / 1⌋·5·5
          = 1600
  weights before: sum = Σcounts
                      = 576 + 8 + 576
                      = 1160
  MACs = batch·out_channels·∏output·⌊in_channels / groups⌋·∏kernel_size
       = 1·8·32·32·⌊8 / 1⌋·5·5
       = 1638400
  MACs before: sum = Σcounts
                   = 589824 + 589824
                   = 1179648
"""


def network_of(text):
    return parse_text(text).network(open_input=True)


def merged_of(text, weights=None):
    return compose(network_of(text), weights, explain=True).merged


def test_a_merge_is_explained_after_its_layers(capsys):
    assert run_command_line(["compose", "8x32x32", "conv:8,k3,p1", "bn", "conv:8,k3,p1", "--explain"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("\n\n" + BLOCK)
    assert "1  batchnorm  8x32x32 → 8x32x32\n  geometry unchanged\n" in out
    assert "no formula" not in out


@pytest.mark.parametrize("width", [80, 100])
def test_its_lines_fit_a_terminal(width):
    lines = explanation(compose(network_of("8x32x32 conv:8,k3,p1 bn conv:8,k3,p1"), explain=True))
    assert all(len(part) <= width for line in lines for part in wrapped(line, width))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("8x16x16 avgpool:2 scale:0.5 shift:1 conv:8,k3,p1 scale:-2", [
            "0 (avgpool): W[o,o,t] = 1/(2·2)",
            "1 (scale): W'[o,i,t] = 0.5·W[o,i,t], b'[o] = 0.5·b[o]",
            "2 (shift): W' = W, b'[o] = b[o] + 1",
            "3 (conv): W'[o,i,t] = Σ_m Σ_(u + 2·v = t) weight[o,m,v]·W[m,i,u]",
            "3 (conv): b'[o] = bias[o] + Σ_m Σ_v weight[o,m,v]·b[m]",
            "4 (scale): W'[o,i,t] = (−2)·W[o,i,t], b'[o] = (−2)·b[o]",
        ]),
        ("3x8 conv1d:4,k3,s2,p1 avgpool1d:2", [
            "0 (conv): W = weight, b = bias",
            "1 (avgpool): W'[o,i,t] = Σ_(u + 2·v = t) 1/2·W[o,i,u]",
            "1 (avgpool): b'[o] = Σ_v 1/2·b[o]",
        ]),
        ("8x9x9 @x conv:8,k3,p1 @a from:@x conv:8,k1 add:@a", [
            "0 (conv): W = weight, b = bias",
            "1 (conv): W = weight, b = bias",
            "2 (add): W'[o,i,t] = Σ_branches W[o,i,t − place], b'[o] = Σ_branches b[o]",
            "2 (add): place = largest padding − the branch's: 1x1 at place 1,1; 3x3 at place 0,0",
            "kernel_size = 3x3, stride = 1x1",
        ]),
        ("3x8x8 @x conv:4,k3,p1 @a from:@x conv:4,k1 concat:@a", [
            "0 (conv): W = weight, b = bias",
            "1 (conv): W = weight, b = bias",
            "2 (concat): W' = the branches' W, one below the other along o; b' likewise",
            "2 (concat): place = largest padding − the branch's: 1x1 at place 1,1; 3x3 at place 0,0",
            "kernel_size = 3x3, stride = 1x1",
        ]),
        ("8x8x8 convt:4,k4,s2,nobias convt:4,k4,s2,p1", [
            "0 (convt): W = weight",
            "1 (convt): W'[o,i,t] = Σ_m Σ_(2·u + v = t) weight[o,m,v]·W[m,i,u]",
            "1 (convt): b'[o] = bias[o]",
        ]),
        ("4x9x9 conv:4,k3,g4 conv:4,k3,g4,d2", [
            "0 (conv): W = weight, b = bias",
            "1 (conv): W'[o,i,t] = Σ_(u + 2·v = t) weight[o,v]·W[o,i,u]",
            "1 (conv): b'[o] = bias[o] + Σ_v weight[o,v]·b[o]",
        ]),
        ("3x8x8 conv:4,k3 flatten linear:10 linear:5", [
            "W[:,i] = the layers on a 1 at place i − the layers on zeros; b = the layers on zeros",
            "2 (linear): W'[o,i] = Σ_m weight[o,m]·W[m,i]",
            "2 (linear): b'[o] = bias[o] + Σ_m weight[o,m]·b[m]",
            "3 (linear): W'[o,i] = Σ_m weight[o,m]·W[m,i]",
            "3 (linear): b'[o] = bias[o] + Σ_m weight[o,m]·b[m]",
        ]),
    ],
)  # fmt: skip
def test_the_algebra_is_told_in_symbols(text, lines):
    (row,) = merged_of(text)
    assert list(row.algebra[1:]) == lines


@pytest.mark.parametrize(
    "text",
    [
        "3x20x21 conv:4,k3,p1 conv:5,k3,p1 conv:2,k3,s2,p1",
        "3x20x21 conv:4,k3,s2 conv:5,k3,d2,p1",
        "3x20x20 conv:4,k3,d2,p2 conv:5,k3,d2,p2",
        "3x20x20 conv:4,k3,padding_mode=reflect,p1 conv:5,k3 bn",
        "3x20x20 conv:4,k3x5,p1x2 avgpool:2,p1 conv:4,k1",
        "3x20x20 conv:4,k3,p1,nobias bn conv:4,k3,p1,nobias",
        "4x7x8x9 conv3d:4,k3,p1 conv3d:4,k3,p1",
        "4x9x9 convt:4,k3,s2,nobias convt:4,k3,s2,p1",
    ],
)
def test_the_formulas_give_what_the_merged_layer_has(text):
    (row,) = merged_of(text)
    layer = row.source
    last = {(step.formula.result, step.axis): step.value for step in row.steps}
    for step in row.steps:
        assert step.traced().value == step.value
    axes = {1: ["length"], 2: ["height", "width"], 3: ["depth", "height", "width"]}[len(layer.kernel_size)]
    assert [last["kernel_size", axis] for axis in axes] == list(layer.kernel_size)
    assert [last["stride", axis] for axis in axes] == list(layer.stride)
    if layer.kind == "conv":
        ends = [last.get(("border", end), 0) for end in end_names(len(axes))]
        assert ends == [end for pair in row.values["border"] for end in pair]
    assert (last["weights", ""], last["MACs", ""]) == (row.values["weights"], row.values["macs"])
    before = last["sum", "weights before"], last["sum", "MACs before"]
    assert before == (row.values["was_weights"], row.values["was_macs"])


@pytest.mark.parametrize("text", ["2x9x9 conv:3,k3,p1 bn conv:2,k3,p1", "2x9 conv1d:6,k3,g2 conv1d:6,k2 scale:-0.5"])
def test_an_element_is_worked_out_where_weights_are_given(text):
    network = network_of(text)
    report = compose(network, random_weights(links_of(network), 0), explain=True)
    worked = [line for line in report.merged[0].algebra if "W'[0,0,0" in line]
    value = float(worked[-1].rsplit(" = ", 1)[1].replace("−", "-"))
    assert value == pytest.approx(float(report.arrays["0.weight"].flat[0]), rel=1e-5)


def test_the_first_element_of_a_sum_is_written_with_its_terms():
    weights = {"0.weight": np.full((2, 1, 3), 0.5), "1.weight": np.full((1, 2, 3), -2.0)}
    lines = merged_of("1x9 conv1d:2,k3 conv1d:1,k3", weights)[0].algebra
    assert lines[-2:] == (
        "1 (conv): W'[o,i,t] = Σ_m Σ_(u + v = t) weight[o,m,v]·W[m,i,u]",
        "1 (conv): W'[0,0,0] = (−2)·0.5 + (−2)·0.5 = −2",
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_split_is_explained(way):
    report = split(network_of("4x9x9 conv:4,k3"), way, rank=2, explain=True)
    for row in report.rows:
        found = {(step.formula.result, step.axis): step.value for step in row.steps}
        assert found["error", ""] == pytest.approx(row.values["error"], rel=1e-5)
        assert found["sum", "params"] == row.values["params"]
        assert found["saved %", "params"] == pytest.approx(row.values["saved"], rel=1e-5)
        assert found["saved %", "MACs"] == pytest.approx(row.values["macs_saved"], rel=1e-5)
        assert row.algebra == (WAYS[way].algebra,)
    assert split(network_of("4x9x9 conv:4,k3"), way, rank=2).rows[0].algebra == ()


@pytest.mark.parametrize("variance", [0.0, -1.0])
def test_a_norm_that_divides_by_zero_is_refused_with_an_explanation_too(variance):
    weights = {"0.weight": np.ones((1, 1, 1, 1)), "1.running_mean": np.ones(1), "1.running_var": np.full(1, variance)}
    with pytest.raises(ShapeError, match="running_var"):
        compose(network_of("conv:k1 bn:eps=0,affine=false"), weights, explain=True)
