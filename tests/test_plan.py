"""What a run will hold, beside what it does hold, and the refusal of what the machine has not."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from convcalc import limits
from convcalc.analysis.shapes import resolve
from convcalc.errors import ConvcalcError, ResourceError
from convcalc.executor import plan as plans
from convcalc.executor.fit import fit
from convcalc.executor.kernels import kernel_of
from convcalc.executor.plan import plan
from convcalc.executor.profile import profile
from convcalc.executor.run import compute, prepare
from convcalc.executor.threads import _scratch as scratches, threads
from convcalc.expressions import parse_text
from convcalc.layers.matmul import Det
from convcalc.layers.spectral import DFT, STFT
from convcalc.nouns import read_program

CHAINS = (
    ("conv:16,k3,p1 relu maxpool:2 conv:32,k3 relu", (3, 64, 64)),
    ("conv:32,k5,s2,p2 batchnorm gelu", (8, 3, 48, 48)),
    ("convt:16,k4,s2,p1 sigmoid avgpool:3", (4, 16, 24, 24)),
    ("@a conv:16,k3,p1 add:@a softmax", (16, 64, 64)),
    ("conv:64,k3,p1 conv:64,k3,p1", (2, 32, 56, 56)),
    ("conv:64,k3,p1,groups=32,padding_mode=reflect", (2, 32, 56, 56)),
    ("conv:16,k31,p15", (2, 16, 64, 64)),
    ("conv:256,k1", (2, 128, 56, 56)),
    ("flatten linear:500 relu linear:10", (16, 3, 32, 32)),
)


def peak_of(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def planned_and_measured(chain, shape, count):
    """The plan of a run that nothing was kept for, and the most that it held, inputs and weights included."""
    with threads(count):
        prepared = prepare(chain, np.ones(shape, np.float32))
        for item in prepared.resolved:
            kernel_of(item.layer)  # what is loaded at the first use is no part of it
        for name in list(vars(scratches)):
            delattr(scratches, name)
        planned = plan(prepared.network, prepared.resolved, "float32")
        there = sum(array.nbytes for array in (*prepared.inputs.values(), *prepared.weights.values()))
        return planned, there + peak_of(lambda: compute(prepared))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("chain", "shape"), CHAINS)
def test_the_measured_peak_is_near_the_plan(chain, shape, count):
    planned, measured = planned_and_measured(chain, shape, count)
    assert planned.total / 2 <= measured <= 1.1 * planned.total


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (DFT(1), [(4, 512, 64, 1)]),
        (DFT(1), [(4, 512, 64, 2)]),
        (DFT(1, inverse=True), [(4, 512, 64, 2)]),
        (DFT(1, onesided=True), [(4, 512, 64, 1)]),
        (DFT(1, inverse=True, onesided=True), [(4, 257, 64, 2)]),
        (STFT(64, 256), [(2, 65536, 1)]),
        (STFT(64), [(2, 65536), (256,)]),
        (STFT(64, onesided=False), [(2, 65536, 2), (256,)]),
        (Det(), [(4096, 16, 16)]),
    ],
    ids=str,
)
def test_transforms_hold_no_more_than_is_planned(layer, shapes):
    inputs = tuple(np.ones(shape, np.float32) for shape in shapes)
    kernel = kernel_of(layer)
    kernel(layer, inputs, {})
    tracemalloc.start()
    outputs = kernel(layer, inputs, {})
    measured = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    room = plans.WORKING.get(layer.kind, plans._other)(layer, shapes, layer.infer(*shapes), np.dtype("float32"))
    planned = 4 * sum(room) + sum(array.nbytes for array in outputs)
    assert planned / 2 <= measured <= 1.1 * planned


PIECES = (
    "conv:{c},k3,p1", "conv:{c},k1", "conv:{c},k3,s2", "conv:{c},k5,p2", "conv:{c},k7,s2,p3,nobias", "conv:{c},k3,d2",
    "conv:{c},k3,p1,padding_mode=reflect", "conv:k3,p1,depthwise", "conv:{c},k13,p6", "convt:{c},k4,s2,p1",
    "convt:{c},k3,s2", "convt:{c},k2,s2", "maxpool:2", "maxpool:3,s1,p1", "avgpool:3,s1,p1", "lppool:3,p2", "bn",
    "relu", "gelu", "silu", "sigmoid", "softmax", "leakyrelu", "prelu", "groupnorm:4", "instancenorm", "glu", "elu",
    "mish", "dropout", "upsample:scale_factor=2", "upsample:scale_factor=2,mode=bilinear", "pixelshuffle:2",
    "zeropad:1", "adaptiveavgpool:7", "globalavgpool", "localresponsenorm:5", "unfold:k3", "flatten linear:100 relu",
    "@a relu add:@a", "@a conv:{c},k1 concat:@a",
)  # fmt: skip
OBJECTS = 1 << 19
"""Bytes that Python's own objects and what is said in code may take."""


def random_chains(seed, count):
    draw = random.Random(seed)
    while count:
        shape = (draw.choice([1, 2, 8]), draw.choice([4, 16, 32, 64]), *[draw.choice([16, 33, 64])] * 2)
        pieces = (draw.choice(PIECES).format(c=draw.choice([4, 16, 32, 64, 128])) for _ in range(draw.randint(1, 5)))
        chain = " ".join(pieces)
        try:
            _, resolved = network_of(chain, shape)
        except ConvcalcError:
            continue
        largest = max(np.prod(item.outputs[0]) for item in resolved)
        if largest < 1 << 21 and sum(item.layer.cost(item.inputs, item.outputs).macs for item in resolved) < 1 << 29:
            count -= 1
            yield chain, shape


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_no_random_chain_holds_more_than_is_planned(seed):
    for chain, shape in random_chains(seed, 40):
        for count in (1, 2):
            planned, measured = planned_and_measured(chain, shape, count)
            assert measured <= 1.5 * planned.total + OBJECTS, (chain, shape, count)
            assert planned.total <= 2 * measured + 4 * (1 << 20), (chain, shape, count)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parent.parent.glob("examples/*.txt")), ids=lambda path: path.stem
)
def test_the_examples_hold_what_is_planned(path, count):
    program = read_program([str(path)])
    shape, program.given = program.given, None
    for batch in (1, 4):
        planned, measured = planned_and_measured(program, (batch, *shape), count)
        assert planned.total / 2 - (1 << 20) <= measured <= 1.1 * planned.total + OBJECTS


@pytest.mark.parametrize(("chain", "shape"), CHAINS[:2])
def test_training_stays_near_the_plan(chain, shape):
    chain = chain.replace("gelu", "relu")
    prepared = prepare(chain, np.ones(shape, np.float32))
    target = np.zeros_like(compute(prepared).output)
    fit(prepared, target, steps=1, lr=0)
    planned = plan(prepared.network, prepared.resolved, "float32", copies=2)
    there = sum(array.nbytes for array in (*prepared.inputs.values(), *prepared.weights.values()))
    measured = there + peak_of(lambda: fit(prepared, target, steps=2, lr=0))
    assert planned.tensors / 2 <= measured <= 1.1 * planned.total


def network_of(chain, shape):
    network = parse_text(chain).network(shape)
    return network, resolve(network)


def test_the_worst_layer_is_named_with_its_numbers(monkeypatch):
    network, resolved = network_of("conv:8,k1,nobias relu conv:4,k1,nobias", (1, 2, 16, 16))
    planned = plan(network, resolved, "float64")
    # conv: 8 channels in, 4 out, 2 of the input that is held; its columns are as many as come in; weights 2·8 + 8·4.
    assert planned == ("2 (conv)", 14 * 256 * 8, 48 * 8, 8 * 256 * 8)
    monkeypatch.setattr(plans, "available_memory", lambda: planned.total - 1)
    with pytest.raises(ResourceError, match=r"needs 44\.38 KiB at layer 2 \(conv\): 28\.00 KiB of tensors, 384 B of w"):
        plans.need(planned)
    plans.need(planned, 1)


def test_keeping_every_tensor_takes_more(monkeypatch):
    network, resolved = network_of("relu relu relu", (1, 2, 16, 16))
    assert plan(network, resolved, "float32").tensors == 3 * 2048, "the input is held"
    assert plan(network, resolved, "float32", keep=True).tensors == 4 * 2048
    prepared = prepare("relu relu relu", np.ones((1, 2, 16, 16), np.float32))
    monkeypatch.setattr(plans, "available_memory", lambda: 4 * 2048 - 2048 - 1)
    compute(prepared)
    with pytest.raises(ResourceError, match=r"needs 8\.000 KiB"):
        compute(prepared, keep=True)


def test_too_much_is_refused_before_anything_is_made():
    command = [sys.executable, "-m", "convcalc", "run", "--input", "64x100000x100000", "conv:64,k3", "relu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "more than this machine's memory holds" in done.stderr


def test_a_limit_of_the_shell_is_known():
    program = "from convcalc.limits import available_memory; print(available_memory())"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -v 500000; {sys.executable} -c '{program}'"], capture_output=True, text=True, check=True
    )
    assert 0 < int(done.stdout) < 500_000 * 1024


def test_control_groups_of_both_versions(tmp_path):
    membership = tmp_path / "cgroup"

    def group(place, limit, used, files):
        place.mkdir(parents=True, exist_ok=True)
        (place / limit[0]).write_text(limit[1])
        (place / used[0]).write_text(used[1])
        (place / "memory.stat").write_text(files)

    two = tmp_path / "two"
    group(two / "outer", ("memory.max", "5000\n"), ("memory.current", "1000\n"), "anon 7\ninactive_file 300\n")
    group(two / "outer" / "inner", ("memory.max", "max\n"), ("memory.current", "900\n"), "inactive_file 0\n")
    membership.write_text("0::/outer/inner\n")
    assert list(limits._control_groups(membership, two)) == [5000 - 1000 + 300]
    one = tmp_path / "one"
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    group(one / "memory", (names[0], "8000"), (names[1], "2000"), "inactive_file 1\ntotal_inactive_file 50\n")
    group(one / "memory" / "job", (names[0], str(2**63 - 4096)), (names[1], "10"), "total_inactive_file 0\n")
    membership.write_text("5:cpuset:/\n4:memory:/job\n0::/\n")
    assert list(limits._control_groups(membership, one)) == [8000 - 2000 + 50]
    assert list(limits._control_groups(tmp_path / "none", one)) == []


def test_a_profile_has_the_plan_beside_what_was_measured():
    x = np.random.default_rng(0).normal(size=(4, 3, 56, 56)).astype(np.float32)
    chain = "conv:64,k7,s2,p3 batchnorm relu maxpool:3,s2,p1 conv:64,k3,p1 relu conv:64,k3,p1 flatten linear:10"
    report = profile(prepare(chain, x), repeats=2)
    assert report.totals["measured_peak"] <= 1.5 * report.totals["planned_peak"]
    # Layers that run as one make fewer tensors, and blocks may be there from a run before.
    assert report.totals["measured_peak"] >= report.totals["planned_peak"] / 4
    first, flat = report.rows[0].values, report.rows[-2].values
    assert [row.layer.partition(" ")[2] for row in report.rows] == ["batchnorm relu", "", "relu", "", "", ""]
    assert first["algorithm"] == "im2col"
    assert first["bytes"] == 4 * (x.size + 64 * 3 * 49 + 5 * 64 + 1 + 4 * 64 * 28 * 28)
    flops = 4 * 64 * 28 * 28 * (2 * 3 * 49 + 2 + 1)
    assert first["intensity"] == pytest.approx(flops / first["bytes"])
    assert first["gflops"] == pytest.approx(flops / first["seconds"] / 1e9)
    assert first["of_matmul"] == pytest.approx(first["gflops"] / report.totals["matmul_gflops"])
    assert (flat["bytes"], flat["gflops"]) == (0, 0)
    assert report.totals["seconds"] <= 1.5 * sum(row.values["seconds"] for row in report.rows) + 0.1
    assert 0.1 < report.totals["matmul_gflops"] < 1e5
