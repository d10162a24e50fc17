"""Merged layers against running the layers themselves: in a row, side by side, and through a flatten."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from convcalc.composition.compose import compose, padded_first
from convcalc.composition.geometry import links_of
from convcalc.composition.verification import random_weights
from convcalc.errors import ConvcalcError, ShapeError, UnsupportedOpError
from convcalc.executor.run import run
from convcalc.expressions import parse_text
from convcalc.layers.base import shape_text


def of(text, weights=None, **options):
    return compose(parse_text(text).network(open_input=True), weights, **options)


def notes(report):
    return "\n".join(item.message for item in report.diagnostics)


def both(text, seed=0):
    """The report of a text with random weights, and what the layers and the merged network give."""
    network = parse_text(text).network()
    weights = random_weights(links_of(network), seed)
    report = compose(network, weights)
    x = np.random.default_rng(seed).normal(size=network.inputs["input"].shape[1:])
    merged = parse_text(f"{text.split()[0]} {report.totals['merged']}").network()
    return report, run(network, x, weights).output, run(merged, x, dict(report.arrays)).output


def inside(array, border):
    """What is inside the border, of an array (channels, *sizes)."""
    places = tuple(slice(before, max(size - after, before))
                   for (before, after), size in zip(border, array.shape[1:], strict=False))  # fmt: skip
    return array[:, *places]


def agree(text, seed=0):
    report, expected, found = both(text, seed)
    assert found.shape == expected.shape
    border = report.totals.get("border", ())
    np.testing.assert_allclose(inside(found, border), inside(expected, border), rtol=1e-9, atol=1e-9)
    return report


# --- branches -------------------------------------------------------------------------------------------------------

BLOCKS = [
    # RepVGG: 3x3 + 1x1 + identity, each with its batch norm
    ("8x9x9 @x conv:8,k3,p1,nobias bn @a from:@x conv:8,k1,nobias bn @b from:@x bn add:@a,@b", "conv2d:8,i8,k3,p1"),
    ("6x9x9 @x conv:8,k3,s2,p1,nobias bn @a from:@x conv:8,k1,s2,nobias bn add:@a", "conv2d:8,i6,k3,s2,p1"),
    ("8x9x9 @x conv:8,k3,p1,g2 bn @a from:@x conv:8,k1,g2 bn @b from:@x bn add:@a,@b", "conv2d:8,i8,k3,p1,g2"),
    # ACNet: a square and its cross
    ("3x9x9 @x conv:4,k3,p1 bn @a from:@x conv:4,k1x3,p0x1 bn @b from:@x conv:4,k3x1,p1x0 bn add:@a,@b",
     "conv2d:4,i3,k3,p1"),
    # diverse branches: 1x1 then k x k, 1x1 then an average, without padding between
    ("4x9x9 @x conv:6,k1,nobias conv:4,k3,p1 bn @a from:@x conv:4,k1,nobias avgpool:3,s1,p1 bn @b from:@x conv:4,k3,p1"
     " bn add:@a,@b", "conv2d:4,i4,k3,p1"),
    # channels joined
    ("4x9x9 @x conv:3,k3,p1 @a from:@x conv:2,k5,p2 @b from:@x concat:@a,@b", "conv2d:9,i4,k5,p2"),
    # a kernel of even size beside one of odd size, at their places
    ("2x9x9 @x conv:2,k2,p0+1 @a from:@x conv:2,k3,p1 add:@a", "conv2d:2,i2,k3,p1"),
    ("2x9x9 @x conv:2,k3,p0+2 @a from:@x conv:2,k3,p1 add:@a", "conv2d:2,i2,k4,p1+2"),
    # dilated and plain
    ("2x12x12 @x conv:2,k3,p2,d2 @a from:@x conv:2,k3,p1 add:@a", "conv2d:2,i2,k5,p2"),
    # transposed
    ("4x5x5 @x convt:3,k4,s2,p1 @a from:@x convt:3,k2,s2 add:@a", "convt2d:3,i4,k4,s2,p1"),
    ("4x7 @x conv1d:4,k3,p1 @a from:@x add:@a conv1d:2,k1", "conv1d:2,i4,k3,p1"),
    ("2x5x5x5 @x conv3d:2,k3,p1 @a from:@x conv3d:2,k1 add:@a", "conv3d:2,i2,k3,p1"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "merged"), BLOCKS)
def test_branches_become_one_layer(text, merged):
    report = agree(text)
    assert report.totals["merged"] == merged
    assert not any(map(any, report.totals["border"]))


def test_what_follows_a_block_merges_too():
    report = agree("4x9x9 @x conv:4,k3,p1 @a from:@x conv:4,k1 add:@a relu @x conv:4,k3,p1 @a from:@x conv:4,k1 add:@a")
    assert report.totals["merged"] == "conv2d:4,i4,k3,p1 relu conv2d:4,i4,k3,p1"


def test_residual_blocks_stay_and_are_written_with_their_wiring():
    text = "4x9x9 conv:4,k3,p1 bn relu @x conv:4,k3,p1 bn relu conv:4,k3,p1 bn add:@x relu"
    report = agree(text)
    assert report.totals["merged"] == (
        "conv2d:4,i4,k3,p1 relu @t1 conv2d:4,i4,k3,p1 relu conv2d:4,i4,k3,p1 add:@t1 relu"
    )
    assert "8 (add) does not merge" in notes(report)
    assert "its branches do not begin at the same tensor" in notes(report)


def test_an_inner_tensor_that_something_else_needs_stays():
    assert "merged" not in of("4x9x9 conv:4,k1 @a conv:4,k3,p1 relu add:@a").totals


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("@x conv:8,i4,k3 @a from:@x conv:8,k1 add:@a", r"layer 2 \(add\): their outputs differ in size, by 2"),
        ("@x conv:8,i4,k3,s2,p1 @a from:@x conv:8,k3,p1 add:@a", "its branches do not move by the same steps"),
    ],
)  # fmt: skip
def test_branches_that_cannot_lie_over_one_another_are_refused(text, reason):
    with pytest.raises(UnsupportedOpError, match=reason):
        of(text)


def test_branches_that_pad_in_different_ways_stay():
    text = "2x9x9 @x conv:2,k3,p1 @a from:@x conv:2,k3,p1,padding_mode=reflect add:@a"
    assert "its branches pad in different ways (reflect, zeros)" in notes(of(text))
    agree("2x9x9 @x conv:2,k1 @a from:@x conv:2,k3,p1,padding_mode=reflect add:@a")


def test_products_of_branches_are_not_linear():
    assert "its branches are multiplied" in notes(of("2x9x9 @x conv:2,k1 @a from:@x conv:2,k1 mul:@a"))


# --- rows of every kind ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "merged"),
    [
        ("4x5x5 convt:6,k4,s2,p1,nobias convt:3,k4,s2,p1", "convt2d:3,i4,k10,s4,p3"),
        ("4x5x5 convt:6,k3,s2,p1,op1,nobias convt:3,k3,s2,p1,op1", "convt2d:3,i4,k7,s4,p3+0"),
        ("4x5x5 convt:6,k4,s2,p1,g2 bn", "convt2d:6,i4,k4,s2,p1,g2"),
        ("4x6x6 conv:6,k3,p1 convt:3,k2,s2,nobias", None),
        ("4x6x6 conv:6,k3,p1,nobias convt:3,k2,s2", "convt2d:3,i4,k6,s2,p2"),
        ("4x6x6 upsample:2 conv:3,k3,p1", "convt2d:3,i4,k4,s2,p1"),
        ("4x6x6 shift:-0.5 scale:4 conv:3,k3 scale:0.1 shift:2", "conv2d:3,i4,k3"),
        ("4x6x6 scale:-2 conv:3,k3,p1,nobias", "conv2d:3,i4,k3,p1,nobias"),
        ("20 scale:2 linear:10 shift:1 linear:5,nobias", "linear:5,i20"),
        ("4x8x8 conv:3,k3,p1 adaptiveavgpool:4", "conv2d:3,i4,k4,s2,p1"),
        ("4x8x8 conv:3,k3,p1 globalavgpool", "conv2d:3,i4,k10,s8,p1"),
        ("3x6x6 conv:4,k3,p1 flatten linear:5", "flatten linear:5,i108"),
        ("3x6x6 flatten linear:5 batchnorm linear:4,nobias", "flatten linear:4,i108"),
        ("3x6x6 conv:4,k3,p1,padding_mode=reflect avgpool:2,nopad flatten linear:5 relu", "flatten linear:5,i108 relu"),
        ("30 linear:20 linear:10 linear:5,nobias", "linear:5,i30"),
        ("4x9 conv1d:4,k1 conv1d:4,k3,p1,padding_mode=reflect", "conv1d:4,i4,k3,p1,padding_mode=reflect"),
        ("2x5x5x5 convt3d:2,k2,s2,nobias convt3d:2,k2,s2", "convt3d:2,i2,k4,s4"),
    ],
)
def test_rows_of_every_kind(text, merged):
    if merged is None:
        assert "the bias before it would come out as a pattern" in notes(of(text))
        return
    assert agree(text).totals["merged"] == merged


def test_a_transposed_convolution_after_other_padding_pads_with_zeros():
    report = agree("1x5 conv1d:1,k1,p0+1,nobias,padding_mode=replicate convt1d:1,k2")
    assert report.totals["merged"] == "conv1d:1,i1,k2,p1+2"
    assert report.totals["border"] == ((0, 2),)


def test_up_and_down_stay_apart():
    report = of("4x8x8 conv:4,k3,s2 convt:4,k2,s2,nobias conv:4,k3")
    assert "downsampling and upsampling meet" in notes(report)


KINDS = ("conv", "conv", "conv", "convt", "avgpool", "batchnorm", "zeropad", "upsample", "dropout", "relu")


@st.composite
def rows(draw, rank, channels, most=3):
    """Layers in a row as words, and the channels that come out."""
    words = []
    for _ in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(KINDS))
        if kind in ("batchnorm", "dropout"):
            words.append("batchnorm" if kind == "batchnorm" else kind)
        elif kind == "relu":
            words.append(
                draw(
                    st.sampled_from(
                        ["relu", "batchnorm", "scale:-0.5", "shift:2", f"maxpool{rank}d:2,s1", f"maxpool{rank}d:2"]
                    )
                )
            )
        elif kind == "upsample":
            words.append(draw(st.sampled_from(["upsample:2", "adaptiveavgpool:2", "batchnorm"])))
        elif kind == "zeropad":
            words.append(f"zeropad{rank}d:{draw(st.integers(0, 2))}+{draw(st.integers(0, 2))}"
                         + f"x{draw(st.integers(0, 1))}+0" * (rank - 1))  # fmt: skip
        elif kind == "avgpool":
            kernel = draw(st.integers(1, 3))
            word = draw(st.sampled_from(["", ",nopad", ",ceil", ",divisor_override=3"]))
            words.append(
                f"avgpool{rank}d:{kernel},s{draw(st.integers(1, 2))},p{draw(st.integers(0, kernel // 2))}{word}"
            )
        else:
            groups = draw(st.sampled_from([g for g in (1, 1, 2) if channels % g == 0]))
            channels = groups * draw(st.integers(1, 2))
            kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
            stride = draw(st.sampled_from([1, 1, 1, 2]))
            pads = [f"{draw(st.integers(0, 2))}+{draw(st.integers(0, 2))}" for _ in range(rank)]
            word = draw(st.sampled_from(["", ",nobias"]))
            word += (
                draw(st.sampled_from(["", "", ",padding_mode=replicate", ",padding_mode=circular"]))
                if kind == "conv"
                else ""
            )
            sizes = f"k{shape_text(kernel)},s{stride},p{'x'.join(pads)},d{draw(st.integers(1, 2))}"
            words.append(f"{kind}{rank}d:{channels},{sizes},g{groups}{word}")
    return words, channels


@st.composite
def networks(draw):
    """An input and layers on it: in a row, or branches that are joined, or a head behind a flatten."""
    rank = draw(st.integers(1, 3))
    channels = draw(st.integers(1, 4))
    shape = [channels, *(draw(st.integers(4, (14, 9, 6)[rank - 1])) for _ in range(rank))]
    words, channels = draw(rows(rank, channels))
    # The rank has to be said somewhere.
    words.insert(0, f"avgpool{rank}d:1")
    if draw(st.integers(0, 2)) == 0:
        words.append("@x")
        labels = []
        for index in range(draw(st.integers(1, 2))):
            kernel = [draw(st.sampled_from([1, 3])) for _ in range(rank)]
            pads = "x".join(str(size // 2) for size in kernel)
            words += [f"conv{rank}d:{channels},k{shape_text(kernel)},p{pads}",
                      *draw(st.sampled_from([[], ["batchnorm"]])), f"@b{index}", "from:@x"]  # fmt: skip
            labels.append(f"@b{index}")
        words.append(f"{draw(st.sampled_from(['add', 'concat']))}:{','.join(labels)}")
        if draw(st.booleans()):
            words.append("batchnorm")
    if draw(st.integers(0, 3)) == 0:
        words += ["flatten", "linear:4", *draw(st.sampled_from([[], ["linear:3"], ["batchnorm", "linear:2"]]))]
    return " ".join(["x".join(map(str, shape)), *words])


def prove(text, seed):
    """Both run on the same numbers; the merged layer's size, field and cost are those that the calculator gives."""
    try:
        network = parse_text(text).network()
        weights = random_weights(links_of(network), seed)
        report = compose(network, weights)
    except (ShapeError, UnsupportedOpError):
        assume(False)
    assume("merged" in report.totals)
    _, expected, found = both(text, seed)
    assert found.shape == expected.shape
    merged = of(f"{text.split()[0]} {report.totals['merged']}")
    assert merged.rows[-1].outputs == report.rows[-1].outputs
    for key in ("params", "weights", "macs"):
        assert merged.totals[key] == report.totals[f"merged_{key}"]
    border = report.totals.get("border")
    if border is None:
        assert "the border reaches every output" in notes(report)
        return
    if len(border) == expected.ndim - 1 and "taps" in report.totals:
        assert merged.totals["receptive_field"] == report.totals["receptive_field"]
    np.testing.assert_allclose(inside(found, border), inside(expected, border), rtol=1e-8, atol=1e-8)


@given(networks(), st.integers(0, 1000))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_random_networks(text, seed):
    prove(text, seed)


@pytest.mark.slow
@given(networks(), st.integers(0, 1000))
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_many_random_networks(text, seed):
    prove(text, seed)


# --- the border, measured -------------------------------------------------------------------------------------------


def test_verify_measures_the_border():
    report = of("1x9x9 conv:1,k3,p1 conv:1,k3,p1 conv:1,k3,p1", verify=True)
    assert report.totals["border_found"] == ((2, 2), (2, 2))
    assert report.totals["difference_inside"] < 1e-12 < report.totals["difference_border"]
    assert "2 rows at the top, 2 rows at the bottom, 2 columns on the left" in notes(report)


@pytest.mark.parametrize(
    ("text", "border"),
    [
        ("2x20x20 conv:2,k3,p1 conv:2,k3,p1 relu maxpool:2", ((1, 1), (1, 1))),
        ("2x20x20 conv:2,k3,p1 conv:2,k3,p1 relu conv:2,k5,p2", ((3, 3), (3, 3))),
        ("2x20x21 conv:2,k3,p1 conv:2,k3,p1 relu conv:2,k3,p1,s2 conv:2,k1 relu", ((1, 1), (1, 1))),
        ("2x9x9 conv:2,k3,p1 conv:2,k3,p1 relu convt:2,k4,s2,p1", ((3, 3), (3, 3))),
        ("2x9x9 conv:2,k3,p1 conv:2,k3,p1 relu convt:2,k3,s2,p1,op1", ((2, 3), (2, 3))),
        ("2x9x9 @x conv:2,k3,p1 conv:2,k3,p1 relu add:@x", ((1, 1), (1, 1))),
        ("2x9x9 conv:2,k3,p1 conv:2,k1 relu conv:2,k3,p1 conv:2,k1", ((0, 0), (0, 0))),
        ("2x9x9 conv:2,k3,p1+0 conv:2,k3,p1+0 relu conv:2,k3,p2,padding_mode=circular", ((3, 2), (3, 2))),
        ("2x9x9 conv:2,k3,p1+0 conv:2,k3,p1+0 relu circularpad2d:1", ((2, 1), (2, 1))),
        ("2x9x9 conv:2,k3,p1 conv:2,k3,p1 relu flatten linear:3", None),
        ("2x9x9 conv:2,k3,p1 conv:2,k3,p1 layernorm:9", None),
    ],
)
def test_a_border_grows_through_the_layers_after_it(text, border):
    report = of(text, verify=True)
    assert report.totals.get("border") == border
    if border:
        assert report.totals["border_found"] == border
        assert report.totals["difference_inside"] < 1e-12


def test_verify_finds_a_smaller_border_than_the_bound():
    # The average of 2 with stride 2 never reads the last of the rows that differ.
    report = of("1x8 conv1d:1,k3,p1 conv1d:1,k1,s1,p0+1", verify=True)
    assert all(found <= bound for found, bound in zip(report.totals["border_found"][0], report.totals["border"][0],
                                                      strict=True))  # fmt: skip


def test_verify_without_an_input_takes_one_that_has_an_inside():
    report = of("conv:k7,s2,p3 conv:k5,p2", verify=True)
    assert "both are run on one of" in notes(report)
    assert report.totals["difference_inside"] < 1e-12


def test_verify_says_that_the_input_is_too_small():
    report = of("1x3x3 conv:1,k3,p1 conv:1,k5,p2", verify=True)
    assert "too small to have an inside" in notes(report)


def test_verify_of_linear_layers_on_what_has_axes():
    report = of("3x8x8 linear:4 linear:2", verify=True)
    assert report.totals["merged"] == "linear:2,i8"
    assert report.totals["difference_inside"] < 1e-12


def test_verify_without_anything_to_merge():
    assert "nothing merges, so there is nothing to verify" in notes(of("conv:k3 relu", verify=True))


def test_all_padding_first_is_exact_everywhere():
    text = "3x11x9 conv:4,k3,s2,p1 conv:4,k3,p1+2 conv:2,k2,p1"
    report, _, found = both(text)
    assert "with all padding first, conv2d:4,i3,k3,s2,p5+7" in notes(report)
    network = parse_text(text).network()
    from convcalc.composition.compose import _merger

    (made,) = _merger(network, links_of(network)).merge()
    first = parse_text(f"3x11x9 {' '.join(padded_first(made))}").network()
    x = np.random.default_rng(0).normal(size=(3, 11, 9))
    weights = random_weights(links_of(parse_text(text).network()), 0)
    np.testing.assert_allclose(run(first, x, weights).output, found, rtol=1e-9, atol=1e-9)


# --- weights that hold no sensible numbers --------------------------------------------------------------------------


def test_a_negative_variance_is_refused():
    weights = {"0.weight": np.ones((1, 1, 1, 1)), "1.weight": np.ones(1), "1.bias": np.ones(1),
               "1.running_mean": np.zeros(1), "1.running_var": -np.ones(1)}  # fmt: skip
    with pytest.raises(ConvcalcError, match=r"layer 1 \(batchnorm\): running_var is negative"):
        of("conv:k1 bn", weights)


def test_weights_that_are_doubtful_are_said():
    weights = {"0.weight": np.concatenate([np.zeros((1, 1, 1, 1)), np.full((1, 1, 1, 1), 1e-40)]),
               "1.weight": np.ones(2), "1.bias": np.ones(2), "1.running_mean": np.zeros(2),
               "1.running_var": np.array([0.0, 1.0])}  # fmt: skip
    said = notes(of("conv:2,i2,k1,g2 bn", weights))
    assert "running_var is 0 in 1 channel: eps alone decides" in said
    assert "1 of its weights are denormal in float32" in said
    assert "the weights of 1 of its 2 groups are all zeros" in said


def test_weights_are_written_in_the_type_wanted(tmp_path, capsys):
    from convcalc.cli import run_command_line

    target = str(tmp_path / "merged.npz")
    question = ["compose", "conv", "conv", "-w", "sobel", "-w", "[[1e5]]", "-o", target]
    assert run_command_line([*question, "--dtype", "float32"]) == 0
    with np.load(target) as merged:
        assert merged["0.weight"].dtype == np.float32
    assert run_command_line([*question, "--dtype", "float16"]) == 1
    assert "0.weight has numbers that do not fit into float16; the largest is 2e+05" in capsys.readouterr().err
    assert run_command_line([*question, "--dtype", "int8"]) == 2
    assert run_command_line(["compose", "conv:k3", "--dtype", "float32"]) == 2


def test_explain_shows_how_batch_norm_folds():
    weights = {"0.weight": np.ones((1, 1, 1, 1)), "1.weight": np.full(1, 3.0), "1.bias": np.ones(1),
               "1.running_mean": np.full(1, 5.0), "1.running_var": np.full(1, 4.0)}  # fmt: skip
    steps = of("conv:k1 bn:eps=0", weights, explain=True).rows[1].steps
    assert [(step.traced().symbols, step.traced().numbers, step.value) for step in steps] == [
        ("weight / √(variance + eps)", "3.0 / √(4.0 + 0)", 1.5),
        ("bias − mean·scale", "1.0 − 5.0·1.5", -6.5),
    ]
