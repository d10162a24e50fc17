"""Composition against walking positions through the layers, and merged weights against running both."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from convcalc.analysis.fields import Reach, Window, members
from convcalc.composition.compose import compose
from convcalc.errors import ConvcalcError, ExpressionError, ResourceError, ShapeError, UnsupportedOpError
from convcalc.executor.run import run
from convcalc.expressions import parse_text
from convcalc.layers.conv import Conv2d
from convcalc.network import Network


def of(text, weights=None, **options):
    return compose(parse_text(text).network(open_input=True), weights, **options)


def computed(network, x, weights):
    """The chain on one array (channels, *sizes), layer by layer: the executor, or what a layer's definition says."""
    for node in network.nodes:
        layer, own = node.layer, {key.partition(".")[2]: value for key, value in weights.items() if key[0] == node.name}
        if layer.kind == "batchnorm":
            mean, variance, weight, bias = (
                own[key].reshape(-1, *(1,) * (x.ndim - 1)) for key in ("running_mean", "running_var", "weight", "bias")
            )
            x = (x - mean) / np.sqrt(variance + layer.eps) * weight + bias
        elif layer.kind == "zeropad":
            x = np.pad(x, ((0, 0), *layer.padding))
        elif layer.kind in RESAMPLED:
            x = np.stack([RESAMPLED[layer.kind](layer, row) for row in x])
        elif layer.kind != "dropout":
            step = Network.chain(layer, input=x.shape)
            x = run(step, x, {f"0.{key}": value for key, value in own.items()}).output
    return x


def upsampled(layer, row):
    """Upsampling of one axis by the definition of its mode."""
    size = len(row)
    factor = None if layer.scale_factor is None else layer.scale_factor[0]
    out = layer.size[0] if factor is None else int(size * factor)
    ratio = size / out if factor is None else 1 / factor
    if layer.mode == "nearest":
        return row[(np.arange(out) * ratio).astype(int)]
    if layer.mode == "area":
        return averaged(out, row)
    places = np.linspace(0, size - 1, out) if layer.align_corners else (np.arange(out) + 0.5) * ratio - 0.5
    return np.interp(places, np.arange(size), row)


def averaged(out, row):
    size = len(row)
    return np.array([row[index * size // out : -(-(index + 1) * size // out)].mean() for index in range(out)])


RESAMPLED = {
    "upsample": upsampled,
    "adaptiveavgpool": lambda layer, row: averaged(layer.output_size[0], row),
    "globalavgpool": lambda layer, row: averaged(1, row),
}


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


IMPULSES = [
    "conv1d:k3,s2 convt1d:k4,s2 conv1d:k3",
    "convt1d:k3,s2 conv1d:k2,s3 convt1d:k3",
    "conv1d:k3 upsample:2 conv1d:k3",
    "conv1d:k3,s3 upsample:scale_factor=3,mode=linear",
    "upsample:scale_factor=4,mode=linear conv1d:k3,s2",
    "convt1d:k2,s3,p1 avgpool1d:3,s2 conv1d:k2,d3",
    "upsample:size=31 conv1d:k3",
    "upsample:size=31,mode=linear,align_corners=true conv1d:k3",
    "adaptiveavgpool1d:7 conv1d:k2",
    "adaptiveavgpool1d:6 conv1d:k2",
    "upsample:scale_factor=1.5 conv1d:k2",
    "conv1d:k1 upsample:size=10,mode=area",
    "conv1d:k3 conv1d:k3,s2 globalavgpool",
]


@pytest.mark.parametrize("text", IMPULSES)
def test_the_field_is_what_impulses_show(text):
    size = 24
    network = parse_text(f"1x{size} {text}").network()
    convolutions = [node for node in network.nodes if node.layer.kind in ("conv", "convt")]
    ones = {f"{node.name}.weight": np.ones((1, 1, *node.layer.kernel_size)) for node in convolutions}
    seen = np.stack([computed(network, row[None], ones)[0] for row in np.eye(size)]) > 1e-9
    widths = [read[-1] - read[0] + 1 for read in map(np.flatnonzero, seen.T) if len(read)]
    assert of(f"1x{size} {text}").totals["receptive_field"] == (max(widths),)


def test_layers_that_need_the_input_say_so():
    for text in ("conv:k3 adaptiveavgpool:2", "globalavgpool", "upsample:size=9 conv:k3"):
        with pytest.raises(ExpressionError, match="depends on the size of the input"):
            of(text)
    assert of("8x16x16 conv:k3 globalavgpool").totals["receptive_field"] == (16, 16)


def test_copies_and_shuffles_are_windows():
    assert of("upsample:2 conv:k3,p1").totals["kernel_size"] == (4, 4)
    report = of("conv:12,i3,k3,p1 pixelshuffle:2 conv:k3")
    assert report.rows[-1].values["weights"] == 3 * 3 * 9
    # Three neighbours come from two places before the shuffle.
    assert report.totals["receptive_field"] == (4, 4)
    assert of("pixelunshuffle:4 conv:k2").totals["kernel_size"] == (8, 8)


def test_wide_windows_are_composed_or_refused_at_once():
    assert of("conv1d:k100000 conv1d:k100000").totals["receptive_field"] == (199_999,)
    assert of("conv1d:k3 repeat:300 conv1d:k3 end").totals["kernel_size"] == (603,)
    for text in (
        "conv:k100000000000",
        "conv:s1000000000 conv:k3",
        "convt:k3,s100000000000",
        "conv:k900000 conv:k900000",
    ):
        with pytest.raises(ResourceError, match=r"layer \d \(convt?\): it"):
            of(text)


def test_axes_must_agree():
    with pytest.raises(ShapeError, match=r"layer 1 \(pixelshuffle\): has 2 spatial axes, but the chain has 1"):
        of("conv1d:4,i4,k3 pixelshuffle:2")
    with pytest.raises(ShapeError, match=r"layer 1 \(conv\): has 2 spatial axes, but the chain has 1"):
        of("conv1d:k3 conv2d:k3")
    assert of("conv1d:k3 upsample:2 conv1d:k3").totals["receptive_field"] == (4,)


def test_what_cannot_be_composed_is_refused():
    with pytest.raises(UnsupportedOpError, match=r"layer 1 \(fractionalmaxpool\): which elements"):
        of("8x16x16 conv:k3 fractionalmaxpool:2,output_size=4")


def test_every_kind_of_one_input_is_known_or_refused_on_purpose():
    from convcalc.analysis.fields import ELEMENTWISE, ENDS, PASSES, WINDOWS
    from convcalc.layers import LAYERS, SEQUENCES

    known = {*WINDOWS, *PASSES, *ENDS}
    unknown = {name for name, kind in LAYERS.items() if name not in known and kind.module not in ELEMENTWISE}
    assert unknown == {"fractionalmaxpool", "maxunpool", "crop", "add", "mul", "concat", *SEQUENCES}


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


def test_several_inputs_are_refused():
    from convcalc.network import Input, Node

    nodes = (Node("a", Conv2d(1, 1, 3), ("x",), ("a",)), Node("b", Conv2d(1, 1, 3), ("y",), ("b",)))
    given = Input((1, 1, 8, 8))
    with pytest.raises(UnsupportedOpError, match="compose takes one input, but there are x, y"):
        compose(Network({"x": given, "y": given}, nodes, ("b",)))


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
    assert (report.totals["params"], report.totals["merged_params"]) == (20, 26)
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
    assert "1 row at the top, 1 row at the bottom" in notes(of("conv:k3,p1 conv:k3,p1"))
    assert "1 row at the top, 1 row at the bottom" in notes(of("conv:k1 conv:k3,p1"))


# --- merged weights -------------------------------------------------------------------------------------------------


@st.composite
def linear_chains(draw):
    """An input and linear layers on it, as a text, small enough to run."""
    rank = draw(st.integers(1, 3))
    channels = draw(st.integers(1, 4))
    shape = [channels, *(draw(st.integers(4, (24, 12, 7)[rank - 1])) for _ in range(rank))]
    texts = []
    for _ in range(draw(st.integers(2, 3))):
        other = draw(st.sampled_from([None, None, None, f"batchnorm{rank}d", f"zeropad{rank}d:1", "dropout"]))
        if other:
            texts.append(other)
            continue
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
        f"{item.node.name}.{name}": random.uniform(0.5, 2, shape)
        if name == "running_var"
        else random.normal(size=shape)
        for item in resolve(network)
        for name, shape in {**item.layer.parameters(), **item.layer.buffers()}.items()
        if name != "num_batches_tracked"
    }


@given(linear_chains(), st.integers(0, 1000))
@settings(max_examples=250, deadline=None)
def test_merged_weights_give_what_the_chain_gives(text, seed):
    try:
        network = parse_text(text).network()
        weights = random_weights(network, seed)
    except ConvcalcError:
        assume(False)
    assume(sum("dropout" not in word for word in text.split()[1:]) > 1)
    report = compose(network, weights)
    one = parse_text(f"{text.split()[0]} {report.totals['merged']}").network()
    x = np.random.default_rng(seed).normal(size=network.inputs["input"].shape[1:])
    expected = computed(network, x, weights)
    merged = computed(one, x, report.arrays)
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
    assert "2 elements at the start, 2 elements at the end" in notes(report)


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
        ("conv:k2 conv:k2", [np.ones((2, 2))], r"layer 1 \(conv\): its weight is not given; give 1.weight"),
        ("conv:k2 conv:k2", [np.ones((2, 2))] * 3, "3 weights are given, but 2 convolutions take one"),
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


def test_batch_norm_folds_into_the_convolution():
    weights = {
        "0.weight": np.array([[[[3.0]]]]),
        "1.weight": np.array([2.0]),
        "1.bias": np.array([1.0]),
        "1.running_mean": np.array([5.0]),
        "1.running_var": np.array([4.0]),
    }
    report = of("conv:k1 bn:eps=0", weights)
    assert report.totals["merged"] == "conv2d:1,i1"
    assert report.arrays["0.weight"].tolist() == [[[[3.0]]]]
    assert report.arrays["0.bias"].tolist() == [-4.0]
    with pytest.raises(ShapeError, match=r"layer 1 \(batchnorm\): running_var \+ eps must be more than 0"):
        of("conv:k1 bn:eps=0", {**weights, "1.running_var": np.zeros(1)})
    del weights["1.running_mean"]
    with pytest.raises(ShapeError, match=r"give 1\.running_mean"):
        of("conv:k1 bn:eps=0", weights)


# --- the command line -----------------------------------------------------------------------------------------------


def test_the_command_line(capsys, tmp_path):
    from convcalc.cli import run_command_line

    def answer(*arguments):
        status = run_command_line(["compose", *arguments])
        done = capsys.readouterr()
        return status, done.out, done.err

    status, out, err = answer("conv:k3", "conv:k3")
    assert (status, "5x5" in out) == (0, True)
    assert "25 weights against 18" in err
    assert answer("conv:k3", "conv:k3", "-q")[:2] == (0, "5x5\n")
    assert answer("-k", "3x7", "-q")[:2] == (0, "3x7\n")
    assert answer("conv:k3,p1+2", "--get", "totals.padding")[1] == "1+2x1+2\n"
    totals = json.loads(answer("3x32x32", "conv:8,k3,s2", "conv:k3", "--format", "json")[1])["totals"]
    assert (totals["kernel_size"], totals["receptive_field"]) == ([7, 7], [7, 7])
    _, out, _ = answer("conv", "conv", "-w", "[[1,1]]", "-w", "[[1],[2]]", "--format", "plain")
    assert "0.weight: [[1,1],[2,2]]" in out
    target = str(tmp_path / "merged.npz")
    status, out, _ = answer("conv", "conv", "-w", "sobel", "-w", "gaussian", "-q", "-o", target)
    assert (status, out) == (0, "5x5\n")
    with np.load(target) as merged:
        assert merged["0.weight"].shape == (1, 1, 5, 5)
    sharp = "[[0.0,-1.0,0.0],[-1.0,5.0,-1.0],[0.0,-1.0,0.0]]"
    assert answer("conv:k3", "-w", sharp, "-q")[:2] == (0, f"{sharp}\n")
    assert json.loads(answer("conv:k3", "-w", sharp, "-q", "--format", "json")[1])["value"] == {
        "0.weight": [[json.loads(sharp)]]
    }
    lines = [line.split("\t") for line in answer("conv:k3", "conv:k3", "relu", "--format", "tsv")[1].splitlines()]
    assert (lines[-1][0], lines[-1][4], lines[-1][-2:]) == ("merged", "5x5", ["25", "25"])
    (merged,) = json.loads(answer("3x32x32", "conv:8,k3", "conv:4,k3,p1", "--format", "json")[1])["merged"]
    assert (merged["name"], merged["layer"]) == ("0 (conv), 1 (conv)", "conv2d:4,i3,k5,p1")
    assert (merged["output"], merged["border"]) == ([4, 30, 30], [[1, 1], [1, 1]])
    assert (merged["was_weights"], merged["weights"]) == (216 + 288, 300)
    status, _, err = answer("conv:k5", "-w", target, "-o", target)
    assert status == 1
    assert "the result would overwrite it" in err
    status, _, err = answer("conv", "conv", "-o", target)
    assert status == 2
    assert "give the layers' weights with -w" in err
    status, out, _ = answer("conv:k3,s2", "conv:k3", "--explain")
    assert "3 + 1·(3 − 1)·2" in out
    status, _, err = answer("conv:k3,s2,psame_upper")
    assert status == 2
    assert "depends on the size of the input" in err
    status, _, err = answer("conv:k3", "--batch", "3")
    assert (status, "there is no input" in err) == (2, True)


def test_geometry_loads_neither_numpy_nor_rich():
    program = (
        "import sys\n"
        "from convcalc.cli import run_command_line\n"
        "run_command_line(['compose', 'conv:k3', 'conv:k3'])\n"
        "sys.exit(sum(name in sys.modules for name in ('numpy', 'rich')))\n"
    )
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
