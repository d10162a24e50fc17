"""Every way to compute a convolution against the direct one, the rule that chooses, and threads."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from convcalc.errors import LayerError, ResourceError, ShapeError
from convcalc.executor.algorithms import ALGORITHMS, SMALL, algorithm_for, choose, forced, weights_once
from convcalc.executor.blocks import Block, Problem, blocks, shares
from convcalc.executor.kernels import LayerWeights, aligned, derived, kernel_of, parts_of
from convcalc.executor.processor import cores, keep_freed_memory, use_wide_matmul
from convcalc.executor.threads import in_a_row, scratch, share, thread_count, threads
from convcalc.executor.winograd import axis_transform
from convcalc.layers import LAYERS
from convcalc.layers.conv import Conv2d
from convcalc.layers.linear import Linear
from convcalc.limits import need_memory

BOUNDS = {"winograd2": 64, "winograd4": 128, "fft": 32}
"""Rounding errors in the type's epsilon, relative to what docs/performance.md says."""


def computed(layer, x, weights, algorithm):
    with forced(algorithm):
        (y,) = kernel_of(layer)(layer, (x,), weights)
    return y


@st.composite
def convolutions(draw):
    rank = draw(st.integers(1, 3))
    most = {1: 40, 2: 18, 3: 7}[rank]
    channels = draw(st.sampled_from([1, 2, 3, 8, 33]))
    shape = (draw(st.integers(1, 3)), channels, *(draw(st.integers(1, most)) for _ in range(rank)))
    groups = draw(st.sampled_from([1, 1, channels]))

    def per_axis(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    fields = {
        "out_channels": groups * draw(st.sampled_from([1, 2, 7])),
        "kernel_size": per_axis(1, draw(st.sampled_from([1, 3, 5, 7]))),
        "stride": per_axis(1, draw(st.sampled_from([1, 1, 3]))),
        "padding": tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(rank)),
        "dilation": per_axis(1, draw(st.sampled_from([1, 1, 2]))),
        "bias": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"])),
    }
    layer = LAYERS["conv"].layer_class(rank)(channels, groups=groups, **fields)
    try:
        layer.infer(shape)
    except (LayerError, ShapeError):
        assume(False)
    return layer, shape


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 2])
@settings(max_examples=40, deadline=None)
@given(case=convolutions(), seed=st.integers(0, 1000), positive=st.booleans())
def test_every_algorithm_gives_what_the_direct_way_gives(dtype, count, case, seed, positive):
    layer, shape = case
    stream = np.random.default_rng(seed)

    def numbers(size):
        drawn = stream.random(size, np.float32) if positive else stream.standard_normal(size, np.float32)
        return drawn.astype(np.float64)

    x, weights = numbers(shape), {name: numbers(size) for name, size in layer.parameters().items()}
    exact = computed(layer, x, weights, "direct")
    absolute = {name: abs(weight) for name, weight in weights.items()}
    scale = computed(layer, abs(x), absolute, "direct")
    everywhere = max(abs(weight).sum(axis=tuple(range(1, weight.ndim))).max() for weight in weights.values())
    beyond = everywhere * max(abs(x).max(), 1)  # a bias counts whole
    terms = int(np.prod(weights["weight"].shape[1:])) + 1
    deep = -(-terms // parts_of(terms)) + parts_of(terms)
    narrow = {name: weight.astype(dtype) for name, weight in weights.items()}
    problem = problem_of(layer, shape)
    for name in ("auto", "direct", *(name for name, algorithm in ALGORITHMS.items() if algorithm.fits(problem))):
        with threads(count):
            y = computed(layer, x.astype(dtype), narrow, name)
        assert y.dtype == dtype
        assert y.shape == exact.shape
        error = abs(y - exact) / np.finfo(dtype).eps
        if name in BOUNDS or name == "auto":
            bound = max(BOUNDS.values()) if name == "auto" else BOUNDS[name]
            assert (error <= bound * beyond).all(), name
        else:
            # Within a part any order of summing is within so many roundings; float64 is compared with itself.
            assert (error <= (deep + 1) * scale).all(), name


@st.composite
def transposed(draw):
    rank = draw(st.integers(1, 3))
    channels = draw(st.sampled_from([1, 2, 6]))
    shape = (draw(st.integers(1, 2)), channels, *(draw(st.integers(1, {1: 12, 2: 6, 3: 3}[rank])) for _ in range(rank)))
    groups = draw(st.sampled_from([1, channels]))

    def per_axis(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    fields = {
        "out_channels": groups * draw(st.integers(1, 3)),
        "kernel_size": per_axis(1, 5),
        "stride": per_axis(1, 4),
        "padding": tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(rank)),
        "output_padding": per_axis(0, 2),
        "dilation": per_axis(1, draw(st.sampled_from([1, 1, 3]))),
        "bias": draw(st.booleans()),
    }
    layer = LAYERS["convt"].layer_class(rank)(channels, groups=groups, **fields)
    try:
        layer.infer(shape)
    except (LayerError, ShapeError):
        assume(False)
    return layer, shape


@given(case=transposed(), seed=st.integers(0, 1000), name=st.sampled_from(["auto", "winograd4", "grouped"]))
def test_transposed_phases_give_what_the_direct_way_gives(case, seed, name):
    layer, shape = case
    stream = np.random.default_rng(seed)
    x, weights = stream.normal(size=shape), {k: stream.normal(size=size) for k, size in layer.parameters().items()}
    wanted = computed(layer, x, weights, "direct")
    with pytest.MonkeyPatch.context() as patch, threads(2):
        patch.setattr("convcalc.executor.conv.SMALL", 0)
        assert computed(layer, x, weights, name) == pytest.approx(wanted, abs=1e-11)


def test_large_transposed_convolutions_go_by_phases(monkeypatch):
    seen = []
    monkeypatch.setattr("convcalc.executor.conv.subpixel", lambda *given: seen.append(given) or given[1])
    layer = LAYERS["convt"].layer_class(2)(64, 64, 4, stride=2, bias=False)
    weights = {"weight": np.zeros((64, 64, 4, 4), np.float32)}
    x = np.zeros((1, 64, 8, 8), np.float32)
    computed(layer, x, weights, "auto")
    computed(layer, x, weights, "direct")
    computed(layer, x.astype(np.float64), weights, "auto")
    assert len(seen) == 1


def test_each_algorithm_is_taken_where_it_fits():
    taken = set()
    for layer, shape in (
        (Conv2d(64, 64, 1), (1, 64, 9, 9)),
        (Conv2d(64, 64, 3), (1, 64, 9, 9)),
        (Conv2d(64, 64, 3, groups=64), (1, 64, 9, 9)),
    ):
        problem = problem_of(layer, shape)
        for name, algorithm in ALGORITHMS.items():
            with forced(name):
                found = algorithm_for(problem, [np.dtype(np.float32)])
            assert found == (name if algorithm.fits(problem) else choose(problem))
            taken.add(found)
    assert taken >= set(ALGORITHMS)


def problem_of(layer, shape):
    (output,) = layer.infer(shape)
    pads = layer.pads(shape[2:])
    return Problem(layer.kernel_size, layer.stride, layer.dilation, pads, layer.groups, shape, output)


@pytest.mark.parametrize(
    ("layer", "shape", "wanted"),
    [
        (Conv2d(3, 4, 3), (1, 3, 9, 9), "direct"),
        (Conv2d(3, 64, 7, stride=2, padding=3), (1, 3, 224, 224), "rows"),
        (Conv2d(64, 64, 3, padding=1), (1, 64, 56, 56), "winograd4"),
        (Conv2d(128, 128, 3, padding=1), (8, 128, 28, 28), "winograd4"),
        (Conv2d(512, 512, 3, padding=1), (1, 512, 7, 7), "winograd2"),
        (Conv2d(512, 512, 3, padding=1), (8, 512, 7, 7), "winograd4"),
        (Conv2d(128, 128, 3, stride=2, padding=1), (1, 128, 56, 56), "im2col"),
        (Conv2d(128, 128, 3, dilation=2), (1, 128, 28, 28), "im2col"),
        (Conv2d(256, 64, 1), (1, 256, 56, 56), "pointwise"),
        (Conv2d(256, 512, 1, stride=2), (1, 256, 56, 56), "im2col"),
        (Conv2d(512, 64, 1), (8, 512, 7, 7), "im2col"),
        (Conv2d(144, 144, 3, padding=1, groups=144), (1, 144, 56, 56), "rows"),
        (Conv2d(256, 256, 3, padding=1, groups=32), (1, 256, 28, 28), "grouped"),
        (Conv2d(128, 128, 3, padding=1, groups=2), (1, 128, 56, 56), "winograd4"),
        (Conv2d(100, 100, 5, padding=2), (1, 100, 64, 64), "winograd4"),
        (Conv2d(16, 16, 31, padding=15), (1, 16, 64, 64), "fft"),
        (Conv2d(64, 16, 3, padding=2, dilation=2), (1, 64, 56, 56), "kn2row"),
        (Conv2d(64, 3, 3, padding=1), (1, 64, 64, 64), "kn2row"),
        (Conv2d(32, 3, 9, padding=4), (1, 32, 64, 64), "fft"),
        (Conv2d(128, 32, 3, padding=2, dilation=2), (1, 128, 7, 7), "kn2row"),
        (Conv2d(128, 32, 3, padding=2, dilation=2), (8, 128, 7, 7), "im2col"),
    ],
)
def test_the_rule(layer, shape, wanted):
    problem = problem_of(layer, shape)
    assert choose(problem) == wanted
    assert (problem.macs < SMALL) is (wanted == "direct")


def test_weights_that_are_used_once_are_not_worth_a_long_transform():
    problem = Problem((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 1, (8, 512, 7, 7), (8, 512, 7, 7))
    assert choose(problem) == "winograd4"
    with weights_once():
        assert choose(problem) == "winograd2"
        assert choose(problem._replace(input=(8, 512, 28, 28), output=(8, 512, 28, 28))) == "winograd4"
    assert choose(problem) == "winograd4"


def test_whole_numbers_and_mixed_types_are_done_directly():
    problem = problem_of(Conv2d(64, 64, 3), (1, 64, 56, 56))
    assert algorithm_for(problem, [np.dtype(np.int64)] * 2) == "direct"
    assert algorithm_for(problem, [np.dtype(np.float32), np.dtype(np.float64)]) == "direct"
    with forced("direct"):
        assert algorithm_for(problem, [np.dtype(np.float32)]) == "direct"


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(LayerError, match="unknown algorithm winograd; did you mean 'winograd4'"), forced("winograd"):
        pass


# --- Winograd -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tile", "taps"), [(2, 3), (4, 3), (2, 5), (4, 5), (4, 2), (1, 1)])
def test_the_transforms_filter_exactly(tile, taps):
    f = axis_transform(tile, taps)
    stream = np.random.default_rng(tile * 10 + taps)
    x, weight = stream.integers(-9, 9, tile + taps - 1), stream.integers(-9, 9, taps)
    wanted = [int(x[i : i + taps] @ weight) for i in range(tile)]
    assert f.output @ ((f.weight @ weight) * (f.input @ x)) == pytest.approx(wanted, abs=1e-9)


def test_what_is_derived_from_weights_is_made_once():
    weights = LayerWeights({"weight": np.ones(3)})
    made = []
    for _ in range(2):
        assert derived(weights, "twice", lambda: made.append(1) or weights["weight"] * 2).tolist() == [2, 2, 2]
    assert made == [1]
    assert derived({"weight": np.ones(1)}, "twice", lambda: 5) == 5


# --- blocks and threads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 10**6), st.floats(0, 1e9))
def test_blocks_cover_every_row_once(count, images, rows, elements, work):
    with threads(count):
        made = blocks(images, rows, elements, work)
    covered = [(image, row) for b in made for image in range(b.first, b.last) for row in range(b.start, b.stop)]
    assert sorted(covered) == [(image, row) for image in range(images) for row in range(rows)]
    assert all(block.height * block.many * elements <= max(elements, 1 << 17) for block in made)


def test_a_block_for_each_thread_when_there_is_work():
    with threads(4):
        assert len(blocks(1, 100, 1, 1e9)) == 4
        assert blocks(1, 100, 1, 1) == [Block(0, 1, 0, 100)]


def test_every_task_is_done_once_and_errors_come_back():
    done = []
    with threads(3):
        assert thread_count() == 3
        with threads():
            assert thread_count() == 3
            share(done.append, range(100))
        with pytest.raises(ShapeError, match="the 7th"):
            share(lambda n: need_memory(1, "") if n != 7 else fail(), range(20))
    assert thread_count() == 1
    assert sorted(done) == list(range(100))


def test_more_threads_than_the_system_starts_are_refused(monkeypatch):
    start, started = threading.Thread.start, []

    def few(thread):
        if len(started) == 3:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", few)
    with pytest.raises(ResourceError, match="no more than 4 threads"), threads(10):
        pass
    assert thread_count() == 1
    assert not any(thread.is_alive() for thread in started)


def test_work_that_is_shared_inside_of_shared_work_is_done():
    done = []
    with threads(2):
        share(lambda outer: share(lambda inner: done.append((outer, inner)), range(3)), range(4))
    assert sorted(done) == [(outer, inner) for outer in range(4) for inner in range(3)]


def test_an_interrupt_comes_after_what_other_threads_do():
    main, began, done = threading.get_ident(), threading.Event(), []

    def work(task):
        if threading.get_ident() == main:
            assert began.wait(10)
            raise KeyboardInterrupt
        began.set()
        done.append(task)

    with threads(2):
        with pytest.raises(KeyboardInterrupt):
            share(work, range(50))
        assert len(done) == 49
        share(done.append, range(50, 60))
    assert len(done) == 59


@pytest.mark.skipif(not cores(), reason="this system has no affinity")
def test_threads_may_run_wherever_the_process_may():
    seen = []
    with threads(3):
        for _ in range(5):
            share(lambda _: seen.append(os.sched_getaffinity(0)), range(6))
    assert all(allowed == os.sched_getaffinity(0) for allowed in seen)


def test_scratch_arrays_have_the_size_that_is_asked_for():
    for size in range(1, 400):
        array = scratch("test", (size, 1), np.dtype(np.uint8))
        assert array.shape == (size, 1)
        assert array.ctypes.data % 64 == 0


def test_weights_that_lie_anywhere_in_a_file_are_copied_once():
    lying = np.zeros(4 * 6 + 1, np.uint8)[1:].view(np.float32).reshape(2, 3)
    weights = LayerWeights({"weight": lying})
    layer = Linear(3, 2, bias=False)
    assert not lying.flags.aligned
    assert computed(layer, np.ones((1, 3), np.float32), weights, None).tolist() == [[0, 0]]
    assert weights.derived["aligned"].flags.aligned
    fitting = np.zeros((2, 3), np.float32)
    assert aligned(fitting) is fitting


def fail():
    raise ShapeError("the 7th")


def test_warnings_of_other_threads_are_answers_too():
    layer = Conv2d(64, 64, 3, padding=1, bias=False)
    x = np.full((4, 64, 20, 20), 3e38, np.float32)
    with threads(2), np.errstate(all="ignore"):
        y = computed(layer, x, {"weight": np.ones((64, 64, 3, 3), np.float32)}, "im2col")
    assert np.isinf(y).all()


# --- the processor --------------------------------------------------------------------------------------------------

AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx512f avx512cd avx512bw avx512dq avx512vl sse\n"


@pytest.mark.parametrize(
    ("text", "before", "wanted"),
    [
        (AMD, None, "SkylakeX"),
        (AMD, "Zen", "Zen"),
        (AMD.replace("AuthenticAMD", "GenuineIntel"), None, None),
        (AMD.replace("avx512vl", ""), None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_wide_kernels_are_asked_for_where_openblas_does_not_know(monkeypatch, tmp_path, text, before, wanted):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    if before is not None:
        monkeypatch.setenv("OPENBLAS_CORETYPE", before)
    monkeypatch.delitem(sys.modules, "numpy")
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text + "\nprocessor\t: 1\nvendor_id\t: other\n")
    use_wide_matmul(path)
    assert os.environ.get("OPENBLAS_CORETYPE") == wanted
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)


@pytest.mark.parametrize("set_before", [None, "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
@pytest.mark.parametrize("library", ["GNU", "other", "none"])
def test_freed_memory_is_kept_unless_somebody_has_settings(monkeypatch, set_before, library):
    changed = []
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    if set_before is not None:
        monkeypatch.setenv(set_before, "1")

    def load(name):
        if library == "none":
            raise TypeError("a name is needed")
        found = types.SimpleNamespace()
        if library == "GNU":
            found.mallopt = lambda key, value: changed.append((key, value))
        return found

    monkeypatch.setattr(ctypes, "CDLL", load)
    keep_freed_memory()
    assert changed == ([(-1, 1 << 29), (-3, 1 << 25)] if library == "GNU" and set_before is None else [])


def test_the_command_line_asks_before_numpy_is_loaded():
    program = (
        "import sys\n"
        "import convcalc.executor.processor as processor\n"
        "asked = []\n"
        "sys.modules.pop('convcalc.executor')\n"
        "processor.use_wide_matmul = lambda: asked.append('numpy' in sys.modules)\n"
        "from convcalc.cli import run_command_line\n"
        "status = run_command_line(['run', '[[0,1],[2,3]]', '-w', '[[1]]', '-q'])\n"
        "print(status, asked, 'numpy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 [False] True", done.stderr


@pytest.mark.parametrize("row", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 33])
def test_shares_are_all_there_is(count, row):
    with threads(count), in_a_row(row):
        for size in (1, 5, 16, 63, 64, 65, 100, 256, 1000):
            for work in (1, 1e6, 1e7, 1e9):
                found = shares(size, work)
                assert [part.start for part in found] == [0, *(part.stop for part in found[:-1])]
                assert found[-1].stop == size
                assert all(part.start < part.stop for part in found)
                assert len(found) <= count
