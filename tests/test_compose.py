"""Composition against walking positions through the layers, and merged weights against running both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from convcalc.analysis.fields import Reach, Window, members
from convcalc.composition import compose
from convcalc.errors import ConvcalcError, ExpressionError, ShapeError, UnsupportedOpError
from convcalc.executor.run import run
from convcalc.expressions import parse_text
from convcalc.layers.conv import Conv2d
from convcalc.network import Network


def of(text, weights=None, **options):
    return compose(parse_text(text).network(open_input=True), weights, **options)


def notes(report):
    return "\n".join(item.message for item in report.diagnostics)


# --- geometry -------------------------------------------------------------------------------------------------------

CASES = [
    ("conv:k3 conv:k3", (5, 5), (1, 1), 0, (1, 1), (5, 5)),
    ("conv:k3,s2,p1 conv:k3,s2,p1", (7, 7), (4, 4), 3, (1, 1), (7, 7)),
    ("conv:k1,s2 conv:k3", (3, 3), (2, 2), 0, (2, 2), (5, 5)),
    ("conv:k3,d2 conv:k3,d2", (5, 5), (1, 1), 0, (2, 2), (9, 9)),
    ("conv1d:k2,s4 conv1d:k2", (6,), (4,), 0, (1,), (6,)),
    ("conv:k3x7", (3, 7), (1, 1), 0, (1, 1), (3, 7)),
    ("conv3d:k3 maxpool:k2 relu conv:k3", (8, 8, 8), (2, 2, 2), 0, (1, 1, 1), (8, 8, 8)),
    ("conv:k5,p2 maxpool:k2 conv:k5,p2 maxpool:k2", (16, 16), (4, 4), 6, (1, 1), (16, 16)),
    ("convt:k4,s2,p1 convt:k4,s2,p1", (10, 10), (4, 4), 3, (1, 1), (3, 3)),
    ("conv:k4,psame conv:k2,pcausal", (5, 5), (1, 1), (2, 2), (1, 1), (5, 5)),
]


@pytest.mark.parametrize(("text", "kernel", "stride", "padding", "dilation", "field"), CASES)
def test_the_one_layer(text, kernel, stride, padding, dilation, field):
    totals = of(text).totals
    pair = (padding, padding) if isinstance(padding, int) else padding
    assert totals["kernel_size"] == kernel
    assert totals["stride"] == stride
    assert totals["padding"] == (pair,) * len(kernel)
    assert totals["dilation"] == dilation
    assert totals["receptive_field"] == field


def test_fields_grow_row_by_row():
    report = of("conv:k7,s2,p3 maxpool:k3,s2,p1 conv:k3,p1 conv:k3,p1")
    assert [row.values["receptive_field"] for row in report.rows] == [(7, 7), (11, 11), (19, 19), (27, 27)]
    assert [row.values["jump"] for row in report.rows] == [(2, 2), (4, 4), (4, 4), (4, 4)]


def test_holes_are_said():
    report = of("conv1d:k2,s3 conv1d:k3,d2")
    assert report.totals["kernel_size"] == (14,)
    assert report.totals["taps"] == (6,)
    assert "8 holes (length): it reads at 0 1 6 7 12 13" in notes(report)


def test_a_chain_that_goes_down_and_up_is_no_one_layer():
    report = of("conv:k3,s2 convt:k4,s2 conv:k3")
    assert report.totals["receptive_field"] == (7, 7)
    assert report.answer is None
    assert "kernel_size" not in report.totals
    assert report.status == "complete"


windows = st.builds(
    Window,
    kernel_size=st.integers(1, 4),
    stride=st.integers(1, 3),
    before=st.integers(0, 3),
    dilation=st.integers(1, 3),
    transposed=st.booleans(),
)


def walked(chain, reach):
    """What each position reads on an axis from -reach to reach, by walking; positions near the ends are left out."""
    signal = {position: {position} for position in range(-reach, reach + 1)}
    for window in chain:
        low, high = min(signal), max(signal)
        taps = [window.dilation * index for index in range(window.kernel_size)]
        new = {}
        if window.transposed:
            for position, read in signal.items():
                for tap in taps:
                    new.setdefault(position * window.stride + tap - window.before, set()).update(read)
            # A position that an element beyond the ends would reach is not known.
            first = (low - 1) * window.stride + taps[-1] - window.before
            last = (high + 1) * window.stride - window.before
            signal = {position: new.get(position, set()) for position in range(first + 1, last)}
        else:
            for position in range(-2 * reach, 2 * reach):
                places = [position * window.stride + tap - window.before for tap in taps]
                if places[0] >= low and places[-1] <= high:
                    new[position] = set().union(*(signal[place] for place in places))
            signal = new
        if not signal:
            return {}
    return signal


@given(st.lists(windows, min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_reach_is_what_walking_finds(chain):
    reach = Reach()
    for window in chain:
        reach = reach.then(window.reach())
    signal = walked(chain, 150)
    assume(len(signal) >= len(reach.sets))
    for position, read in signal.items():
        assert set(members(reach.of(position))) == read
    widths = [max(read) - min(read) + 1 for read in signal.values() if read]
    assert reach.field == max(widths, default=0)
    assert reach.least_field == min(widths, default=0)


convs = st.tuples(*(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(0, 2), st.integers(1, 2)))


@given(st.lists(convs, min_size=1, max_size=4), st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_the_one_layer_has_the_chains_size_and_reads_the_same(chain, size):
    text = " ".join(f"conv1d:k{k},s{s},p{p}+{q},d{d}" for k, s, p, q, d in chain)
    try:
        report = of(f"1x{size} {text}")
    except ShapeError:
        assume(False)
    totals = report.totals
    (kernel,), (stride,), (pads,), (dilation,) = (
        totals[key] for key in ("kernel_size", "stride", "padding", "dilation")
    )
    one = of(f"1x{size} conv1d:k{kernel},s{stride},p{pads[0]}+{pads[1]},d{dilation}")
    assert one.rows[-1].outputs == report.rows[-1].outputs
    assert one.totals["receptive_field"] == totals["receptive_field"]
    read = walked([Window(k, s, p, q, d) for k, s, p, q, d in chain], 400)[0]
    assert totals["taps"] == (len(read),)
    assert {(place + pads[0]) % dilation for place in read} == {0}
    assert (min(read), max(read)) == (-pads[0], -pads[0] + dilation * (kernel - 1))


@pytest.mark.parametrize("text", ["conv1d:k3,s2 convt1d:k4,s2 conv1d:k3", "convt1d:k3,s2 conv1d:k2,s3 convt1d:k3"])
def test_the_field_is_what_impulses_show(text):
    size = 24
    network = parse_text(f"1x{size} {text}").network()
    ones = {f"{node.name}.weight": np.ones((1, 1, *node.layer.kernel_size)) for node in network.nodes}
    seen = np.stack([run(network, row[None], ones).output[0] for row in np.eye(size)])
    inside = [np.flatnonzero(column) for column in seen.T]
    widths = [read[-1] - read[0] + 1 for read in inside if len(read) and read[0] > 6 and read[-1] < size - 6]
    assert of(text).totals["receptive_field"] == (max(widths),)


# --- what needs the input -------------------------------------------------------------------------------------------


def test_same_upper_needs_the_input():
    with pytest.raises(
        ExpressionError, match=r"layer 0 \(conv\): padding same_upper .* depends on the size of the input"
    ):
        of("conv:k3,s2,psame_upper conv:k3")
    assert of("conv:k3,psame_upper").totals["padding"] == ((1, 1), (1, 1))
    report = of("10 conv:k3,s2,psame_upper conv:k3")
    assert report.totals["padding"] == ((0, 1), (0, 1))
    assert report.rows[-1].outputs == ((3, 3),)


def test_ceil_mode_pads_as_much_as_its_last_window_needs():
    assert of("1x10 maxpool1d:k3,s2,ceil").totals["padding"] == ((0, 1),)
    assert of("1x10 maxpool1d:k3,s2").totals["padding"] == ((0, 0),)


def test_other_verbs_say_that_the_input_is_missing():
    from convcalc.analysis.shapes import shapes

    with pytest.raises(ExpressionError, match="there is no input"):
        shapes(Network.chain(Conv2d(1, 1, 3), input=None))


def test_branches_are_refused():
    from convcalc.network import Input, Node

    nodes = (Node("a", Conv2d(1, 1, 3), ("x",), ("a",)), Node("b", Conv2d(1, 1, 3), ("x",), ("b",)))
    with pytest.raises(UnsupportedOpError, match=r"layer b \(conv\): compose takes layers in a row"):
        compose(Network({"x": Input((1, 1, 8, 8))}, nodes, ("b",)))


def test_the_axes_end_at_flatten():
    report = of("3x32x32 conv:6,k5 relu maxpool:k2 conv:16,k5 relu maxpool:k2 flatten linear:120 linear:84 linear:10")
    assert report.totals["receptive_field"] == (16, 16)
    assert "6 (flatten) ends the spatial axes" in notes(report)
    assert report.totals["macs"] == 352_800 + 240_000 + 48_000 + 10_080 + 840


def test_open_linear_layers_are_unknown_not_zero():
    report = of("conv:k3 flatten linear:10")
    assert report.status == "partial"
    assert report.totals["macs"] is None


# --- what merging costs ---------------------------------------------------------------------------------------------


def test_two_3x3_against_one_5x5():
    report = of("conv:k3 conv:k3")
    assert (report.totals["weights"], report.totals["merged_weights"]) == (18, 25)
    assert (report.totals["macs"], report.totals["merged_macs"]) == (18, 25)
    assert "25 weights against 18" in notes(report)
    assert "merging loses" in notes(report)
    assert report.totals["merged"] == "conv2d:1,i1,k5"


def test_costs_with_an_input_and_channels():
    totals = of("3x32x32 conv:16,k1 conv:8,k3").totals
    assert totals["merged"] == "conv2d:8,i3,k3"
    assert totals["weights"] == 48 + 1152
    assert totals["macs"] == 48 * 32 * 32 + 1152 * 30 * 30
    assert (totals["merged_weights"], totals["merged_macs"]) == (216, 216 * 30 * 30)


def test_without_an_input_macs_are_those_of_one_output():
    # Each output of the second layer reads a grid on which the first has four times as many.
    totals = of("conv:8,i3,k3 conv:8,k2,s2").totals
    assert totals["macs"] == 4 * 216 + 256


def test_non_linear_layers_stop_the_merge_and_are_named():
    report = of("conv:k3 relu conv:k3 conv:k1 maxpool:k2")
    assert report.totals["kernel_size"] == (6, 6)
    assert report.totals["merged"] == "conv2d:1,i1,k3 relu conv2d:1,i1,k3 maxpool2d:2"
    assert "weights do not merge across 1 (relu), 4 (maxpool)" in notes(report)
    assert "merged" not in of("conv:k3 relu conv:k3").totals


def test_where_the_one_layer_is_exact():
    assert "exact everywhere" in notes(of("conv:k3,p1 conv:k3"))
    assert "exact everywhere" in notes(of("conv:k1,nobias conv:k3,p1"))
    assert "1 before and 1 after" in notes(of("conv:k3,p1 conv:k3,p1"))
    assert "1 before and 1 after" in notes(of("conv:k1 conv:k3,p1"))


# --- merged weights -------------------------------------------------------------------------------------------------


@st.composite
def linear_chains(draw):
    """An input and linear layers on it, as a text, small enough to run."""
    rank = draw(st.integers(1, 3))
    channels = draw(st.integers(1, 4))
    shape = [channels, *(draw(st.integers(4, (24, 12, 7)[rank - 1])) for _ in range(rank))]
    texts = []
    for _ in range(draw(st.integers(2, 3))):
        kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
        sizes = f"k{'x'.join(map(str, kernel))},s{'x'.join(str(draw(st.integers(1, 2))) for _ in range(rank))}"
        if draw(st.integers(0, 3)) == 0:
            pads = "x".join(f"{draw(st.integers(0, k // 2))}+{draw(st.integers(0, k // 2))}" for k in kernel)
            words = draw(st.lists(st.sampled_from(["nopad", "ceil", "divisor_override=3"]), unique=True))
            texts.append(",".join([f"avgpool{rank}d:{sizes},p{pads}", *words]))
        else:
            groups = draw(st.sampled_from([g for g in (1, 2, 4) if channels % g == 0]))
            channels = groups * draw(st.integers(1, 2))
            pads = "x".join(f"{draw(st.integers(0, 2))}+{draw(st.integers(0, 1))}" for _ in range(rank))
            pads = draw(st.sampled_from(["0", pads, "same_upper", "full"]))
            dilation = "x".join(str(draw(st.integers(1, 2))) for _ in range(rank))
            bias = draw(st.sampled_from(["", ",nobias"]))
            texts.append(f"conv{rank}d:{channels},{sizes},p{pads},d{dilation},g{groups}{bias}")
    return "x".join(map(str, shape)) + " " + " ".join(texts)


def random_weights(network, seed):
    from convcalc.analysis.shapes import resolve

    random = np.random.default_rng(seed)
    return {
        f"{item.node.name}.{name}": random.normal(size=shape)
        for item in resolve(network)
        for name, shape in item.layer.parameters().items()
    }


@given(linear_chains(), st.integers(0, 1000))
@settings(max_examples=250, deadline=None)
def test_merged_weights_give_what_the_chain_gives(text, seed):
    try:
        network = parse_text(text).network()
        weights = random_weights(network, seed)
    except ConvcalcError:
        assume(False)
    report = compose(network, weights)
    one = parse_text(f"{text.split()[0]} {report.totals['merged']}").network()
    x = np.random.default_rng(seed).normal(size=network.inputs["input"].shape[1:])
    expected = run(network, x, weights).output
    merged = run(one, x, dict(report.arrays)).output
    assert merged.shape == expected.shape
    inside = tuple(
        slice(before, max(size - after, before))
        for (before, after), size in zip(report.totals["border"], expected.shape[1:], strict=True)
    )
    np.testing.assert_allclose(merged[:, *inside], expected[:, *inside], rtol=1e-9, atol=1e-9)


def test_the_border_is_not_larger_than_it_must_be():
    text = "1x9 conv1d:1,k3,p1 conv1d:1,k3,p1 conv1d:1,k3,p1"
    network = parse_text(text).network()
    weights = random_weights(network, 0)
    report = compose(network, weights)
    x = np.random.default_rng(0).normal(size=(1, 9))
    one = parse_text(f"1x9 {report.totals['merged']}").network()
    differs = ~np.isclose(run(network, x, weights).output, run(one, x, dict(report.arrays)).output)[0]
    assert differs.tolist() == [True, True, False, False, False, False, False, True, True]
    assert "2 before and 2 after (length)" in notes(report)


def test_merged_weights_by_hand():
    report = of("conv1d:k2 conv1d:k2", [[1.0, 2.0], [3.0, 5.0]])
    # [1, 2] correlated after [3, 5]: 3·1, 3·2 + 5·1, 5·2
    assert report.arrays["0.weight"].tolist() == [[[3.0, 11.0, 10.0]]]
    assert report.arrays["0.weight"].dtype == np.float64
    assert set(report.arrays) == {"0.weight"}


def test_weights_decide_what_is_left_open():
    weights = {"0.weight": np.ones((4, 3, 3, 3)), "1.weight": np.ones((2, 4, 1, 1)), "1.bias": np.ones(2)}
    report = of("conv conv:k1", weights)
    assert report.totals["merged"] == "conv2d:2,i3,k3"
    assert report.arrays["0.weight"].shape == (2, 3, 3, 3)
    assert report.arrays["0.bias"].tolist() == [1.0, 1.0]


def test_weights_of_layers_that_stay_are_kept():
    report = of("conv:k1 relu conv:k2 conv:k2", [[[2.0]], np.ones((2, 2)), np.ones((2, 2))])
    assert {key: value.shape for key, value in report.arrays.items()} == {
        "0.weight": (1, 1, 1, 1),
        "2.weight": (1, 1, 3, 3),
    }


@pytest.mark.parametrize(
    ("text", "weights", "message"),
    [
        ("conv:k2 conv:k2", [np.ones((2, 2))], r"layer 1 \(conv\): its weights are not given; give 1.weight"),
        ("conv:k2 conv:k2", [np.ones((2, 2))] * 3, "3 weights are given, but 2 layers have any"),
        ("conv:k2", {"0.wieght": np.ones((2, 2))}, "no layer has a weight 0.wieght; did you mean '0.weight'"),
        (
            "conv:k2 conv:k2",
            [np.ones((3, 3)), np.ones((2, 2))],
            r"layer 0 \(conv\): weight is 3x3, but must be 1x1x2x2",
        ),
        ("conv:k1", [[[float("nan")]]], "0.weight holds NaN or infinity"),
        ("relu maxpool:k2", [], r"there are no linear layers to merge: 0 \(relu\), 1 \(maxpool\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(text, weights, message):
    with pytest.raises(ConvcalcError, match=message):
        of(text, weights)


def test_explanations_are_the_formulas_that_ran():
    steps = of("conv1d:k3,s2 conv1d:k3", explain=True).rows[1].steps
    assert [(step.axis, step.formula.result, step.value) for step in steps] == [
        ("length", "receptive field", 7),
        ("length", "stride", 2),
        ("length", "padding", 0),
        ("length", "padding", 0),
    ]
    assert of("conv1d:k3,s2").rows[0].steps == ()
