"""Every shape formula against windows that are found by walking, every cost against a loop that counts."""

from __future__ import annotations

from itertools import product as grid

import naive
import pytest
from hypothesis import assume, given, settings, strategies as st

from convcalc import formulas as F
from convcalc.errors import LayerError, ShapeError
from convcalc.layers import LAYERS
from convcalc.layers.base import Cost

sizes = st.integers(1, 20)
kernels = st.integers(1, 7)
small = st.integers(1, 5)
pads = st.integers(0, 6)


# --- windows --------------------------------------------------------------------------------------------------------


@given(sizes, kernels, small, pads, pads, small)
def test_window_count(size, kernel, stride, before, after, dilation):
    assume(F.kernel_extent(kernel, dilation) <= size + before + after)
    walked = naive.starts(size, kernel, stride, before, after, dilation)
    assert F.window_count(size, kernel, stride, before, after, dilation) == len(walked)
    end = walked[-1] + dilation * (kernel - 1)
    assert F.unread(size, kernel, stride, before, after, dilation) == size + after - 1 - end


@given(sizes, kernels, small, pads, pads, small)
def test_window_count_ceil(size, kernel, stride, before, after, dilation):
    walked = naive.starts(size, kernel, stride, before, after, dilation, ceil=True)
    assert max(F.window_count_ceil(size, kernel, stride, before, after, dilation), 0) == len(walked)


@given(kernels, small)
def test_kernel_extent(kernel, dilation):
    touched = [tap * dilation for tap in range(kernel)]
    assert F.kernel_extent(kernel, dilation) == max(touched) - min(touched) + 1


@given(sizes, kernels, small, pads, pads, small, pads)
def test_transposed_size(size, kernel, stride, before, after, dilation, extra):
    places = {i * stride + j * dilation for i in range(size) for j in range(kernel)}
    grid_length = max(places) + 1 + extra
    assert F.transposed_size(size, kernel, stride, before, after, dilation, extra) == grid_length - before - after


@given(sizes, kernels, small, small)
def test_reached(size, kernel, stride, dilation):
    places = {i * stride + j * dilation for i in range(size) for j in range(kernel)}
    assert F.reached(size, kernel, stride, dilation) == len(places)


@given(sizes, kernels, small)
def test_same_padding(size, kernel, dilation):
    wanted = next(p for p in range(100) if len(naive.starts(size, kernel, 1, 0, p, dilation)) == size)
    assert F.same_padding(kernel, dilation) == wanted


@given(sizes, kernels, small, small)
def test_same_padding_strided(size, kernel, stride, dilation):
    windows = len(range(0, size, stride))
    wanted = next(p for p in range(100) if len(naive.starts(size, kernel, stride, 0, p, dilation)) >= windows)
    assert F.same_padding_strided(size, kernel, stride, dilation) == wanted


@given(st.lists(st.tuples(kernels, small, small), min_size=1, max_size=4))
def test_receptive_field(layers):
    """Walk back from one output element through a chain of (kernel, stride, dilation) and span what is seen."""
    seen = {0}
    for kernel, stride, dilation in reversed(layers):
        seen = {place * stride + tap * dilation for place in seen for tap in range(kernel)}
    field, jump = 1, 1
    for kernel, stride, dilation in layers:
        field = F.receptive_field(field, jump, kernel, dilation)
        jump *= stride
    assert field == max(seen) - min(seen) + 1


# --- layers ---------------------------------------------------------------------------------------------------------


def per_axis(rank, numbers):
    return st.one_of(numbers, st.tuples(*[numbers] * rank))


@st.composite
def windowed(draw, kind):
    """A layer of a kind that has windows, and an input for it; perhaps one that it refuses."""
    rank = draw(st.integers(1, 3))
    most = {1: 7, 2: 5, 3: 3}[rank]
    tiny = st.integers(1, 3)
    fields = {"kernel_size": draw(per_axis(rank, tiny)), "stride": draw(per_axis(rank, tiny))}
    groups = draw(st.integers(1, 2))
    channels = groups * draw(st.integers(1, 2))
    before_after = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * rank)
    if kind in ("conv", "convt"):
        fields |= {
            "in_channels": channels,
            "out_channels": groups * draw(st.integers(1, 2)),
            "groups": groups,
            "bias": draw(st.booleans()),
            "dilation": draw(per_axis(rank, tiny)),
            "padding": draw(per_axis(rank, st.integers(0, 2)) | before_after),
        }
    if kind == "conv" and draw(st.booleans()):
        fields["padding"] = draw(st.sampled_from(["valid", "same", "same_upper", "same_lower", "causal", "full"]))
    if kind == "convt":
        fields["output_padding"] = draw(per_axis(rank, st.integers(0, 1)))
    if kind in ("maxpool", "avgpool"):
        fields |= {"ceil_mode": draw(st.booleans()), "padding": draw(per_axis(rank, st.integers(0, 1)))}
    if kind == "maxpool":
        fields["dilation"] = draw(per_axis(rank, tiny))
    shape = (draw(st.integers(1, 2)), channels, *draw(st.tuples(*[st.integers(1, most)] * rank)))
    try:
        layer = LAYERS[kind].layer_class(rank)(**fields)
    except LayerError:
        assume(False)
    return layer, shape


@st.composite
def of_features(draw, kind):
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    return LAYERS[kind].layer_class()(shape[-1], draw(st.integers(1, 4)), draw(st.booleans())), shape


@st.composite
def of_elements(draw, kind):
    return LAYERS[kind].layer_class()(), tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=5)))


CASES = {
    "conv": (windowed, naive.conv, naive.conv_backward),
    "convt": (windowed, naive.convt, naive.convt_backward),
    "linear": (of_features, naive.linear, naive.linear_backward),
    "maxpool": (windowed, naive.maxpool, naive.maxpool_backward),
    "avgpool": (windowed, naive.avgpool, naive.avgpool_backward),
    "relu": (of_elements, naive.relu, naive.relu_backward),
}


def counted(tally):
    return Cost(tally.macs, tally.multiplications, tally.additions, tally.other)


@pytest.mark.parametrize("kind", CASES)
def test_cost(kind):
    cases, forward, backward = CASES[kind]

    @settings(max_examples=60, deadline=None)
    @given(cases(kind))
    def check(case):
        layer, shape = case
        try:
            outputs = layer.infer(shape)
        except ShapeError:
            assume(False)
        x = naive.array(shape)
        weights = {name: naive.array(size, seed) for seed, (name, size) in enumerate(layer.parameters().items(), 1)}
        with naive.counting() as tally:
            y = forward(layer, x, **weights)
        assert y.shape == outputs[0]
        assert layer.cost((shape,), outputs) == counted(tally)
        weights.pop("bias", None)
        loops = backward(layer, x, **weights, y=y)
        gradients = layer.backward((shape,), outputs)
        assert set(gradients) == {"input", *layer.parameters()}
        for name, cost in gradients.items():
            with naive.counting() as tally:
                loops[name]()
            assert cost == counted(tally), name

    check()


@settings(max_examples=300, deadline=None)
@given(windowed("conv"))
def test_conv_is_refused_where_no_window_fits(case):
    layer, shape = case
    places = naive.window_starts(layer, shape[2:], naive.word_pads(layer, shape[2:]), dilation=layer.dilation)
    refused = not all(places)
    try:
        output = layer.infer(shape)[0]
    except ShapeError:
        assert refused
    else:
        assert output == (shape[0], layer.out_channels, *map(len, places))


@settings(max_examples=300, deadline=None)
@given(windowed("maxpool"))
def test_pool_is_refused_where_no_window_fits(case):
    layer, shape = case
    places = naive.window_starts(layer, shape[2:], layer.padding, layer.ceil_mode, layer.dilation)
    try:
        output = layer.infer(shape)[0]
    except ShapeError:
        assert not all(places)
    else:
        assert output == (*shape[:2], *map(len, places))


def test_the_loops_compute_the_layer():
    """A loop that computed something else would count something else: the worked examples by hand."""
    layer = LAYERS["conv"].layer_class(2)(1, 1, 2, bias=False)
    x = naive.Array((1, 1, 3, 3), lambda index: naive.Counting(3 * index[2] + index[3]))
    w = naive.Array((1, 1, 2, 2), lambda index: naive.Counting(2 * index[2] + index[3]))
    y = naive.conv(layer, x, w)
    assert [y[0, 0, *at].value for at in grid(range(2), range(2))] == [19, 25, 37, 43]
    layer = LAYERS["convt"].layer_class(2)(1, 1, 2, bias=False)
    y = naive.convt(layer, w, w)
    assert [y[0, 0, *at].value for at in grid(range(3), range(3))] == [0, 0, 1, 0, 4, 6, 4, 12, 9]
