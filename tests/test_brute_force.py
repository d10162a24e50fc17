"""Every shape formula against windows that are found by walking, every cost against a loop that counts."""

from __future__ import annotations

from itertools import product as grid

import naive
import pytest
from hypothesis import assume, given, settings, strategies as st

from convcalc import formulas as F
from convcalc.errors import LayerError, ShapeError
from convcalc.layers import LAYERS, SEQUENCES
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
    if kind == "conv":
        fields["padding_mode"] = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    if kind == "convt":
        fields["output_padding"] = draw(per_axis(rank, st.integers(0, 1)))
    if kind in ("maxpool", "avgpool", "lppool"):
        fields["ceil_mode"] = draw(st.booleans())
    if kind in ("maxpool", "avgpool"):
        fields["padding"] = draw(per_axis(rank, st.integers(0, 1)))
    if kind == "lppool":
        fields["norm_type"] = 2
    if kind == "maxpool":
        fields["dilation"] = draw(per_axis(rank, tiny))
    shape = (draw(st.integers(1, 2)), channels, *draw(st.tuples(*[st.integers(1, most)] * rank)))
    try:
        layer = LAYERS[kind].layer_class(rank)(**fields)
    except LayerError:
        assume(False)
    return layer, shape


def rest(draw, least=1, most=3, top=3):
    return tuple(draw(st.lists(st.integers(1, top), min_size=least, max_size=most)))


def batch_and_channels(draw):
    return draw(st.integers(1, 2)), draw(st.integers(1, 4))


@st.composite
def of_features(draw, kind):
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    return LAYERS[kind].layer_class()(shape[-1], draw(st.integers(1, 4)), draw(st.booleans())), shape


ARGUMENTS = {
    "threshold": {"threshold": 1, "value": 2},
    "prelu": {"num_parameters": 1},
    "scale": {"factor": 2.0},
    "shift": {"amount": 2.0},
    "glu": {"dim": 1},
}
WORDS = {"gelu": {"approximate": ["none", "tanh"]}, "relu": {"inplace": [False, True]}}


@st.composite
def of_elements(draw, kind):
    shape = (*batch_and_channels(draw), *rest(draw, 0))
    fields = dict(ARGUMENTS.get(kind, {}))
    for field, values in WORDS.get(kind, {}).items():
        fields[field] = draw(st.sampled_from(values))
    if kind == "prelu" and draw(st.booleans()):
        fields["num_parameters"] = shape[1]
    if kind == "glu":
        shape = (shape[0], 2 * shape[1], *shape[2:])
    return LAYERS[kind].layer_class()(**fields), shape


@st.composite
def adaptive(draw, kind):
    rank = draw(st.integers(1, 3))
    shape = (*batch_and_channels(draw), *(draw(st.integers(1, 6 - rank)) for _ in range(rank)))
    wanted = tuple(draw(st.none() | st.integers(1, 6 - rank)) for _ in range(rank))
    fields = {} if kind.startswith("global") else {"output_size": wanted}
    return LAYERS[kind].layer_class(rank)(**fields), shape


@st.composite
def fractional(draw, kind):
    rank = draw(st.integers(2, 3))
    output = tuple(draw(st.integers(1, 2)) for _ in range(rank))
    kernel = tuple(draw(st.integers(1, 2)) for _ in range(rank))
    sizes = tuple(out + size - 1 for out, size in zip(output, kernel, strict=True))
    return LAYERS[kind].layer_class(rank)(kernel, output_size=output), (*batch_and_channels(draw), *sizes)


@st.composite
def norms(draw, kind):
    rank = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 2))
    channels = groups * draw(st.integers(1, 2))
    shape = (draw(st.integers(1, 2)), channels, *(draw(st.integers(1, 3)) for _ in range(rank)))
    affine = draw(st.booleans())
    fields = {"bias": draw(st.booleans())} if kind != "rmsnorm" else {}
    if kind in ("batchnorm", "instancenorm", "syncbatchnorm"):
        fields |= {"affine": affine, "track_running_stats": draw(st.booleans())}
    elif kind == "groupnorm":
        fields |= {"affine": affine, "num_groups": groups}
    else:
        fields |= {"elementwise_affine": affine, "normalized_shape": shape[-draw(st.integers(1, rank)) :]}
    return LAYERS[kind].layer_class(rank if LAYERS[kind].ranked else None)(**fields), shape


@st.composite
def response_norms(draw, kind):
    return LAYERS[kind].layer_class()(draw(st.integers(1, 4))), (*batch_and_channels(draw), *rest(draw))


@st.composite
def shares(draw, kind):
    shape = (*batch_and_channels(draw), *((2, 3) if kind == "softmax2d" else rest(draw, 0)))
    if kind == "softmax2d":
        return LAYERS[kind].layer_class()(), shape
    return LAYERS[kind].layer_class()(draw(st.none() | st.integers(-len(shape), len(shape) - 1))), shape


@st.composite
def upsampling(draw, kind):
    rank = draw(st.integers(1, 3)) if kind == "upsample" else 2
    shape = (*batch_and_channels(draw), *(draw(st.integers(1, 4 - rank + 1)) for _ in range(rank)))
    fields = draw(
        st.sampled_from([{"scale_factor": 2}, {"scale_factor": 1.5}, {"size": 3}, {"size": tuple(range(1, rank + 1))}])
    )
    if kind == "upsample":
        smooth = {1: ["linear"], 2: ["bilinear", "bicubic"], 3: ["trilinear"]}[rank]
        fields |= {"mode": draw(st.sampled_from(["nearest", "nearest-exact", "area", *smooth]))}
    return LAYERS[kind].layer_class()(**fields), shape


def columns_window(draw):
    two = st.tuples(st.integers(1, 2), st.integers(1, 2))
    return {"kernel_size": draw(two), "dilation": draw(two), "padding": draw(st.integers(0, 1)), "stride": draw(two)}


@st.composite
def columns(draw, kind):
    window = columns_window(draw)
    sizes = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    batch, channels = batch_and_channels(draw)
    if kind == "unfold":
        return LAYERS[kind].layer_class()(**window), (batch, channels, *sizes)
    pads = ((window["padding"],) * 2,) * 2
    along = [
        naive.starts(*each)
        for each in (
            (sizes[i], window["kernel_size"][i], window["stride"][i], *pads[i], window["dilation"][i]) for i in (0, 1)
        )
    ]
    assume(all(along))
    kernel = window["kernel_size"][0] * window["kernel_size"][1]
    return LAYERS[kind].layer_class()(sizes, **window), (batch, channels * kernel, len(along[0]) * len(along[1]))


@st.composite
def padding(draw, kind):
    rank = draw(st.integers(1, 3))
    shape = (*batch_and_channels(draw), *(draw(st.integers(1, 3)) for _ in range(rank)))
    pairs = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank))
    fields = {"padding": pairs}
    if kind == "pad":
        fields["mode"] = draw(st.sampled_from(["constant", "reflect", "replicate", "circular"]))
    if kind == "constantpad":
        fields["value"] = 1.5
    return LAYERS[kind].layer_class(rank)(**fields), shape


@st.composite
def joins(draw, kind):
    shape = (*batch_and_channels(draw), *rest(draw, 0))
    others = [tuple(1 if draw(st.booleans()) else size for size in shape) for _ in range(draw(st.integers(1, 2)))]
    return LAYERS[kind].layer_class()(), *draw(st.permutations([shape, *others]))


@st.composite
def recurrent(draw, kind):
    size, hidden, steps, batch = (draw(st.integers(1, 3)) for _ in range(4))
    fields = {name: draw(st.booleans()) for name in ("bias", "batch_first", "bidirectional")}
    if kind == "lstm" and hidden > 1:
        fields["proj_size"] = draw(st.integers(0, hidden - 1))
    if kind == "rnn":
        fields["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    layer = LAYERS[kind].layer_class()(size, hidden, draw(st.integers(1, 2)), **fields)
    return layer, ((batch, steps, size) if layer.batch_first else (steps, batch, size))


@st.composite
def attentions(draw, kind):
    heads, each, batch, length, keys = (draw(st.integers(1, 3)) for _ in range(5))
    fields = {name: draw(st.booleans()) for name in ("bias", "batch_first")}
    shapes = [(batch, steps, heads * each) for steps in (length, keys, keys)][: draw(st.sampled_from([1, 3]))]
    if not fields["batch_first"]:
        shapes = [(steps, count, size) for count, steps, size in shapes]
    return LAYERS[kind].layer_class()(heads * each, heads, **fields), *shapes


@st.composite
def scores(draw, kind):
    heads, shared, size, batch, length, keys = (draw(st.integers(1, 3)) for _ in range(6))
    layer = LAYERS[kind].layer_class()(heads * shared, shared, scale=draw(st.none() | st.just(0.5)))
    return layer, (batch, length, heads * shared * size), *[(batch, keys, shared * size)] * 2


@st.composite
def factors(draw, kind):
    rows, terms, columns, batch = (draw(st.integers(1, 3)) for _ in range(4))
    one, other = draw(st.sampled_from([((batch,), (batch,)), ((batch,), (1,)), ((1,), (batch,)), ((batch,), ())]))
    return LAYERS[kind].layer_class()(), (*one, rows, terms), (*other, terms, columns)


@st.composite
def tables(draw, kind):
    return LAYERS[kind].layer_class()(draw(st.integers(1, 9)), draw(st.integers(1, 3))), (2, *rest(draw, 0))


MOVED = {
    "flatten": ({}, (2, 3, 4)),
    "unflatten": ({"dim": 1, "unflattened_size": (2, 3)}, (2, 6)),
    "reshape": ({"shape": (3, -1)}, (2, 6)),
    "permute": ({"dims": (0, 2, 1)}, (2, 3, 4)),
    "identity": ({}, (2, 3)),
    "channelshuffle": ({"groups": 2}, (1, 4, 2, 2)),
    "pixelshuffle": ({"upscale_factor": 2}, (1, 4, 2, 2)),
    "pixelunshuffle": ({"downscale_factor": 2}, (1, 1, 4, 4)),
    "concat": ({}, (2, 3), (2, 4)),
    "crop": ({}, (1, 2, 5, 5), (1, 2, 3, 3)),
    "maxunpool": ({"kernel_size": 2}, (1, 2, 3, 3), (1, 2, 3, 3)),
}


def moved(kind):
    fields, *shapes = MOVED[kind]
    return st.just((LAYERS[kind].layer_class(2 if LAYERS[kind].ranked else None)(**fields), *shapes))


CASES = {
    kind: case
    for kinds, *case in (
        ("conv", windowed, naive.conv, naive.conv_backward),
        ("convt", windowed, naive.convt, naive.convt_backward),
        ("linear", of_features, naive.linear, naive.linear_backward),
        ("maxpool", windowed, naive.maxpool, naive.move_gradients),
        ("avgpool", windowed, naive.avgpool, naive.avgpool_backward),
        ("lppool", windowed, naive.lppool, naive.lppool_backward),
        ("fractionalmaxpool", fractional, naive.fractional, naive.move_gradients),
        ("adaptiveavgpool globalavgpool", adaptive, naive.adaptive_average, naive.adaptive_average_backward),
        ("adaptivemaxpool globalmaxpool", adaptive, naive.adaptive_maximum, naive.move_gradients),
        (" ".join(naive.FUNCTIONS), of_elements, naive.elementwise, naive.elementwise_backward),
        ("glu", of_elements, naive.glu, naive.glu_backward),
        ("dropout alphadropout featurealphadropout", of_elements, naive.dropout, naive.dropout_backward),
        ("batchnorm syncbatchnorm instancenorm groupnorm layernorm rmsnorm", norms, naive.norm, naive.norm_backward),
        ("localresponsenorm", response_norms, naive.response_norm, naive.response_norm_backward),
        ("softmax softmin logsoftmax softmax2d", shares, naive.softmax, naive.softmax_backward),
        ("upsample upsamplingnearest upsamplingbilinear", upsampling, naive.upsample, naive.upsample_backward),
        ("unfold", columns, naive.unfold, naive.unfold_backward),
        ("fold", columns, naive.fold, naive.nothing_backward),
        ("pad constantpad zeropad reflectionpad replicationpad circularpad", padding, naive.pad, naive.pad_backward),
        ("add mul", joins, naive.join, naive.join_backward),
        ("lstm gru rnn", recurrent, naive.recurrent, naive.recurrent_backward),
        ("multiheadattention", attentions, naive.multihead, naive.multihead_backward),
        ("attention", scores, naive.attention, naive.nothing_backward),
        ("matmul", factors, naive.matmul, naive.matmul_backward),
        ("embedding", tables, naive.embedding, naive.embedding_backward),
        (" ".join(MOVED), moved, naive.nothing, naive.nothing_backward),
    )
    for kind in kinds.split()
}


def counted(tally):
    return Cost(tally.macs, tally.multiplications, tally.additions, tally.other)


def test_every_kind_has_a_loop():
    assert set(CASES) == set(LAYERS)


@pytest.mark.parametrize("kind", CASES)
def test_cost(kind):
    cases, forward, backward = CASES[kind]

    @settings(max_examples=60, deadline=None)
    @given(cases(kind))
    def check(case):
        layer, *shapes = case
        try:
            layer = layer.bind(*shapes)
            outputs = layer.infer(*shapes)
        except ShapeError:
            assume(False)
        arrays = [naive.array(shape) for shape in shapes]
        weights = {name: naive.array(size, seed) for seed, (name, size) in enumerate(layer.parameters().items(), 1)}
        with naive.counting() as tally:
            y = forward(layer, *arrays, **weights)
        if y is not None:
            assert y.shape == outputs[0]
        assert layer.cost(shapes, outputs) == counted(tally)
        weights.pop("bias", None)
        loops = backward(layer, *arrays, **weights, y=y)
        gradients = layer.backward(shapes, outputs)
        assert set(gradients) == {"input", *layer.parameters()}
        for name, cost in gradients.items():
            if name == "input" and kind in SEQUENCES and kind != "embedding":
                continue  # a rule of thumb: the gates' arithmetic twice, and no more of the softmax
            with naive.counting() as tally:
                loops[name]()
            assert cost == counted(tally), name

    check()


@settings(max_examples=300, deadline=None)
@given(windowed("conv"))
def test_conv_is_refused_where_no_window_fits(case):
    layer, shape = case
    pads = naive.word_pads(layer, shape[2:])
    places = naive.window_starts(layer, shape[2:], pads, dilation=layer.dilation)
    # A mirror image has no more than what stands before the edge, one time round no more than the axis.
    most = {"reflect": -1, "circular": 0}.get(layer.padding_mode, 99)
    refused = not all(places) or any(max(pair) > size + most for pair, size in zip(pads, shape[2:], strict=True))
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
