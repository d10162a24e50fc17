"""Splitting: the layers give what the kernel gives, as exactly as they say, and cost what the calculator says."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from convcalc.cli import run_command_line
from convcalc.composition.compose import compose
from convcalc.composition.factoring import Problem, _search, halves, two_kernels
from convcalc.composition.splitting import EXACT, WAYS, split
from convcalc.errors import ConvcalcError
from convcalc.executor.run import run
from convcalc.expressions import parse_text

RANDOM = np.random.default_rng(0)


def of(text, way, weights=None, **options):
    return split(parse_text(text).network(open_input=True), way, weights, **options)


def notes(report):
    return "\n".join(item.message for item in report.diagnostics)


@pytest.fixture
def hurried(monkeypatch):
    """A search with little time: what comes out is nearer or farther, and must agree with itself either way."""
    monkeypatch.setattr("convcalc.composition.factoring._WORK", 1e8)


CASES = [
    "4x12x12 conv:6,k3,p1",
    "4x13x12 conv:6,k3x5,s2,p1x2",
    "4x14x14 conv:6,k3,d2,p2+1,g2",
    "3x12x12 conv:3,k4,p1+2,g3,padding_mode=reflect",
    "2x6x6x6 conv3d:3,k2,p1",
]


@pytest.mark.parametrize("text", CASES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("hurried")
def test_an_exact_split_gives_what_the_layer_gives(text, way):
    network = parse_text(text).network()
    shape = network.inputs["input"].shape
    conv = network.nodes[0].layer.bind(shape)
    weights = {f"0.{name}": RANDOM.normal(size=shape) for name, shape in conv.parameters().items()}
    report = split(network, way, weights)
    assert report.totals["error"] <= EXACT
    x = RANDOM.normal(size=shape[1:])
    layers = parse_text(f"{text.split()[0]} {report.totals['split']}").network()
    np.testing.assert_allclose(
        run(layers, x, dict(report.arrays)).output, run(network, x, weights).output, rtol=1e-7, atol=1e-7
    )
    costs = compose(layers).totals
    assert (report.totals["params"], report.totals["macs"]) == (costs["params"], costs["macs"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("hurried")
def test_errors_fall_with_the_rank(way):
    errors = [row.values["error"] for row in of("conv:6,i4,k3", way).rows]
    assert len(errors) > 3
    assert all(after <= before + 1e-9 for before, after in pairwise(errors))
    assert errors[-1] <= EXACT < errors[0]


def test_the_error_of_column_and_row_is_that_of_the_singular_values():
    kernel = RANDOM.normal(size=(5, 7))
    values = np.linalg.svd(kernel, compute_uv=False)
    report = of("conv:k5x7", "rank", {"0.weight": kernel}, rank=2)
    assert report.totals["error"] == pytest.approx(np.linalg.norm(values[2:]) / np.linalg.norm(values))
    assert (report.totals["params"], report.totals["whole_params"]) == (24, 35)


def test_the_error_of_depthwise_is_that_of_the_singular_values():
    kernel = RANDOM.normal(size=(4, 3, 3, 3))
    lost = sum(
        (np.linalg.svd(kernel[:, channel].reshape(4, 9), compute_uv=False)[1:] ** 2).sum() for channel in range(3)
    )
    report = of("conv:k3", "depthwise", {"0.weight": kernel}, rank=1)
    assert report.totals["error"] == pytest.approx(np.sqrt(lost) / np.linalg.norm(kernel))
    assert report.totals["split"] == "conv2d:3,i3,k3,g3,nobias conv2d:4,i3,nobias"


def test_a_gaussian_is_a_column_and_a_row_and_a_laplacian_is_not():
    gaussian = np.outer([1, 2, 1], [1, 2, 1]) / 16
    assert of("conv:k3", "rank", {"0.weight": gaussian}).totals["rank"] == 1
    laplacian = np.array([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
    report = of("conv:k3", "rank", {"0.weight": laplacian})
    assert report.totals["rank"] == 2
    assert "saves no parameters" in notes(report)


def test_not_every_kernel_is_two_smaller_ones():
    # A product of two is found again; 7 free numbers cannot make 9.
    product = np.array([[1.0, 3, 2], [4, 10, 4], [3, 5, -2]])
    one, two = np.array([[1.0, 2], [3, -1]]), np.array([[1.0, 1], [1, 2]])
    made = np.zeros((3, 3))
    for row, column in np.ndindex(2, 2):
        made[row : row + 2, column : column + 2] += one[row, column] * two
    report = of("conv:k3", "two", {"0.weight": made}, rank=1)
    assert report.totals["error"] < 1e-8
    report = of("conv:k3", "two", {"0.weight": product})
    assert report.totals["rank"] > 1
    assert "not every kernel is two smaller ones" in notes(report)


@pytest.mark.parametrize("size", [4, 5, 6, 7, 8, 11])
def test_every_kernel_of_one_axis_with_four_elements_is_two_smaller_ones(size):
    # A real polynomial is a product of factors of degree 1 and 2; seven elements are five and three, not four and four.
    for _ in range(5):
        report = of(f"conv1d:k{size}", "two", {"0.weight": RANDOM.normal(size=(1, 1, size))}, rank=1)
        assert report.totals["error"] < EXACT
    text = report.totals["split"]
    assert text.count("conv1d") == 2
    report = of(f"conv:k{size}x1", "two", {"0.weight": RANDOM.normal(size=(1, 1, size, 1))}, rank=1)
    assert report.totals["error"] < EXACT


def test_three_elements_are_two_and_two_only_with_real_roots():
    assert of("conv1d:k3", "two", {"0.weight": np.array([1.0, -3, 2])}, rank=1).totals["error"] < EXACT
    # x² + 1 has none. Products are those with b² ≥ 4ac, a cone that stands at 45° to x² + 1: half of it is lost.
    report = of("conv1d:k3", "two", {"0.weight": np.array([1.0, 0, 1])}, rank=1)
    assert report.totals["error"] == pytest.approx(np.sqrt(1 / 2), abs=1e-6)


def made_of_two(random, outputs, rank, inputs, sizes):
    """A kernel that two smaller ones make."""
    one, two = random.normal(size=(rank, inputs, *sizes)), random.normal(size=(outputs, rank, *sizes))
    made = np.zeros((outputs, inputs, *(2 * size - 1 for size in sizes)))
    for taps in np.ndindex(*sizes):
        places = tuple(slice(tap, tap + size) for tap, size in zip(taps, sizes, strict=True))
        made[(..., *places)] += np.einsum("or,ri...->oi...", two[(..., *taps)], one)
    return made


@pytest.mark.parametrize(
    ("outputs", "rank", "inputs", "sizes"),
    [(1, 1, 1, (2, 2)), (4, 2, 3, (2, 2)), (8, 5, 8, (2, 2)), (16, 9, 16, (2, 2)), (6, 4, 5, (3,)), (4, 3, 4, (3, 3)),
     (3, 2, 3, (2, 2, 2))],
)  # fmt: skip
def test_kernels_that_two_made_are_two_again(outputs, rank, inputs, sizes):
    made = made_of_two(np.random.default_rng(7), outputs, rank, inputs, sizes)
    assert np.linalg.norm(lost_of(made, rank)) < EXACT * np.linalg.norm(made)
    noise = np.random.default_rng(8).normal(size=made.shape)
    noisy = made + noise * (0.01 * np.linalg.norm(made) / np.linalg.norm(noise))
    assert np.linalg.norm(lost_of(noisy, rank)) < 0.01 * np.linalg.norm(noisy)


def lost_of(weight, rank):
    """What two kernels of a rank leave of one."""
    problem = Problem(weight, *halves(weight.shape[2:]))
    one, two = two_kernels(weight, rank, 0)
    made = problem.design(one, problem.then).T @ two.reshape(len(weight), -1).T
    return made.T.reshape(weight.shape) - weight


def test_as_many_numbers_as_a_kernel_has_are_enough():
    """3x3 on 3 -> 8 channels has 216; two 2x2 with six channels between have 264, 36 of which only mix those."""
    weight = np.random.default_rng(0).normal(size=(8, 3, 3, 3))
    assert np.linalg.norm(lost_of(weight, 6)) < 1e-9
    # Four random starts of alternating least squares, 2,000 rounds each, come to 0.114.
    assert np.linalg.norm(lost_of(weight, 5)) < 0.092 * np.linalg.norm(weight)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "rank"), [((4, 4, 3, 3), 2), ((8, 3, 3, 3), 3), ((1, 1, 5, 5), 1), ((6, 6, 5), 4)])
def test_two_kernels_are_as_near_as_many_restarts_find(shape, rank):
    weight = np.random.default_rng(3).normal(size=shape)
    found = np.linalg.norm(lost_of(weight, rank))
    problem = Problem(weight, *halves(shape[2:]))
    random = np.random.default_rng(4)
    tries = [_search(problem, random.normal(size=(rank, shape[1], *problem.first)), 2000)[0] for _ in range(200)]
    assert found <= min(tries) * np.linalg.norm(weight) * 1.01


def test_an_error_chooses_the_smallest_rank():
    weights = {"0.weight": RANDOM.normal(size=(8, 8, 3, 3))}
    report = of("conv:k3", "rank", weights, error=0.5)
    rank = report.totals["rank"]
    assert report.totals["error"] <= 0.5
    assert of("conv:k3", "rank", weights, rank=rank - 1).totals["error"] > 0.5


@pytest.mark.parametrize(
    ("text", "way", "options", "message"),
    [
        ("conv:k3 conv:k3", "rank", {}, "one convolution is split at a time, but here is conv, conv"),
        ("conv:k3", "half", {}, "--split is half, but must be one of rank, two, depthwise, tucker"),
        ("conv:k1", "rank", {}, "a kernel of one element is not split"),
        ("conv1d:k3", "rank", {}, "a kernel of one axis has no columns and rows"),
        ("conv:k3", "rank", {"rank": 4}, "--rank is 4, but must be 1 to 3"),
        ("conv:k3", "rank", {"weights": {"0.weight": np.zeros((3, 3))}}, "the kernel is all zeros"),
        ("8x8 conv:k3,s2,psame_upper", "rank", {}, "depends on the input; write it in numbers"),
    ],
)
def test_what_cannot_be_split_is_refused(text, way, options, message):
    with pytest.raises(ConvcalcError, match=message):
        of(text, way, **options)


def test_the_command_line(capsys, tmp_path):
    target = str(tmp_path / "parts.npz")
    assert run_command_line(["compose", "conv", "-w", "gaussian", "--split", "rank", "--verify", "-o", target]) == 0
    done = capsys.readouterr()
    assert "6 parameters against 9" in done.err
    with np.load(target) as parts:
        np.testing.assert_allclose(parts["0.weight"][0, 0] @ parts["1.weight"][0, 0],
                                   np.outer([1, 2, 1], [1, 2, 1]) / 16)  # fmt: skip
    assert run_command_line(["compose", "conv:k3", "--rank", "1"]) == 2
    assert "--rank and --error are for --split" in capsys.readouterr().err
    assert run_command_line(["compose", "conv:k3", "--split", "rank", "--rank", "1", "--error", "0.1"]) == 2
