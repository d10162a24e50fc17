"""How far two computations are apart: the measures, two algorithms layer by layer, and saved outputs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from convcalc.cli import run_command_line
from convcalc.executor.check import apart, check_algorithms
from convcalc.executor.run import prepare

ONE = np.float64(1)


@pytest.mark.parametrize(
    ("found", "wanted", "values"),
    [
        ([1.0, 2.0], [1.0, 2.0], (0, 0, 0, 0, 0)),
        ([1.0, 2.0 + 2**-51], [1.0, 2.0], (2**-51, 2**-52, 2**-52, 1, 1)),
        ([0.25, -8.0], [0.5, -8.0], (0.25, 0.25 / 8, 0.5, 0.25 / 2**-53, 1)),
        ([1e-300, 4.0], [0.0, 4.0], (1e-300, 2.5e-301, 0, 1e-300 / np.spacing(1e-300), 1)),
        ([np.nan, np.inf], [np.nan, np.inf], (0, 0, 0, 0, 0)),
        ([np.nan, 1.0], [0.0, 1.0], (np.inf, np.inf, 0, np.inf, 1)),
        ([np.inf, 1.0], [2.0, 1.0], (np.inf,) * 4 + (1,)),
        ([3, 4], [3, 5], (1, 0.2, 0.2, 1 / np.spacing(5.0), 1)),
        ([2**53, 2], [2**53 + 1, 2], (1, 2**-53, 2**-53, 0.5, 1)),
    ],
)
def test_how_far_arrays_are_apart(found, wanted, values):
    assert tuple(apart(np.array(found), np.array(wanted)).values()) == pytest.approx(values)


def test_the_coarser_type_decides_what_an_ulp_is():
    third = ONE / 3
    assert apart(np.array([third]).astype(np.float32), np.array([third]))["ulps"] <= 0.5
    assert apart(np.array([np.float32(1)]), np.array([1 + 2.0**-23]))["ulps"] == 1


def test_algorithms_differ_in_rounding_and_a_wrong_one_is_seen(monkeypatch):
    x = np.random.default_rng(0).normal(size=(1, 32, 24, 24)).astype(np.float32)
    prepared = prepare("conv:32,k3 relu conv:32,k3", x)
    same = check_algorithms(prepared, "direct", "direct")
    assert [row.values["error"] for row in same.rows] == [0, 0, 0]
    report = check_algorithms(prepared, "winograd4", "direct")
    assert [row.name for row in report.rows] == ["0", "1", "2"]
    assert all(0 < row.values["scaled"] < 1e-5 for row in report.rows)
    assert report.totals["error"] == max(row.values["error"] for row in report.rows)
    weight = prepared.weights["2.weight"]
    weight[0, 0, 0, 0] += 1  # the direct way of the second layer reads it, transformed weights are older
    assert check_algorithms(prepared, "winograd4", "direct").rows[2].values["scaled"] > 0.01


@pytest.fixture
def call(capsys):
    def answer(*arguments, status=0):
        assert run_command_line(["run", *map(str, arguments)]) == status
        return capsys.readouterr()

    return answer


CHAIN = ["random:32x24x24", "conv:32,k3", "relu"]


def test_on_the_command_line(call, tmp_path):
    out, err = call(*CHAIN, "--algorithm", "winograd4", "--check", "direct", "--format", "json")
    document = json.loads(out)
    assert document["verb"] == "check"
    assert [layer["name"] for layer in document["layers"]] == ["0", "1"]
    assert document["answer"] == document["layers"][1]["scaled"]
    assert document["answer"] <= document["totals"]["scaled"] < 1e-12
    assert 0 < document["totals"]["unequal"] <= 32 * 22 * 22
    assert [(layer["algorithm"], layer["other"]) for layer in document["layers"]] == [("winograd4", "direct"), ("", "")]
    assert "note: winograd4 is compared with direct" in err
    assert "note: what the rule chooses is compared with fft" in call(*CHAIN, "--check", "fft").err
    assert float(call(*CHAIN, "--algorithm", "fft", "--check", "auto", "-q").out) > 0, "the rule does not choose fft"
    call(*CHAIN, "-o", tmp_path / "y.npy")
    assert call(*CHAIN, "--check", tmp_path / "y.npy", "-q").out == "0.0\n"
    saved = np.load(tmp_path / "y.npy")
    saved.flat[saved.argmax()] *= 1 + 2**-50
    np.save(tmp_path / "y.npy", saved)
    checked = (*CHAIN, "--check", tmp_path / "y.npy")
    assert 2**-51 <= float(call(*checked, "-q").out) <= 2**-49
    assert 3 <= float(call(*checked, "--get", "totals.ulps").out) <= 9
    assert call(*checked, "--get", "totals.unequal").out == "1\n"
    assert "is 3, but the output is 32x22x22" in call(*CHAIN, "--check", "[1,2,3]", status=1).err


def test_a_limit_makes_it_fail(call, tmp_path):
    call(*CHAIN, "-o", tmp_path / "y.npy")
    checked = (*CHAIN, "--check", tmp_path / "y.npy", "-q")
    call(*checked, "--max", "scaled=0,unequal=0")
    np.save(tmp_path / "y.npy", np.load(tmp_path / "y.npy") * 1.5)
    assert "error: scaled is 0.3333, above 0.1" in call(*checked, "--max", "scaled=0.1", status=1).err
    assert "error: scaled is 0.3333, above 1e-05" in call(*checked, "--max", "scaled=1e-5", status=1).err
    np.save(tmp_path / "y.npy", np.full((32, 22, 22), np.inf))
    assert "error: scaled is inf, above 0.1" in call(*checked, "--max", "scaled=0.1", status=1).err
    profiled = call(*CHAIN, "--profile", "--max", "planned_peak=1KiB", status=1).err
    assert profiled.endswith("MiB, above 1.000 KiB\n")
    assert "there is no total scale; check has" in call(*checked, "--max", "scale=1", status=2).err


def test_an_algorithm_that_cannot_be_had_is_said(call, tmp_path):
    strided = ["8x32x32", "conv:64,k3,s2", "conv:8,k1,s2"]
    said = "note: pointwise cannot compute layer 0 (conv) and 1 more; im2col does, as the rule says"
    assert said in call(*strided, "--algorithm", "pointwise").err
    assert said in call(*strided, "--check", "pointwise").err
    np.save(tmp_path / "x.npy", np.ones((3, 8, 32, 32), np.float32))
    batched = (tmp_path / "x.npy", *strided[1:], "--batch", "2", "-o", tmp_path / "y.npy")
    assert said in call(*batched, "--algorithm", "pointwise").err
    assert "no layer is a convolution, which fft could compute" in call("8x8", "relu", "--algorithm", "fft").err
    assert "cannot compute" not in call(*strided, "--algorithm", "im2col").err
    assert "winograd4 cannot compute layer 0 (convt)" in call("2x4x4", "convt:2,k2", "--algorithm", "winograd4").err


def test_what_cannot_be_checked(call):
    assert "did you mean 'winograd4'" in call(*CHAIN, "--check", "winogrd4", status=2).err
    refused = call("images/", "conv:8,k3", "--check", "direct", status=2).err
    assert "--check works on one input; images/ is a folder" in refused
    assert "or name a saved output, such as y.npy" in call(*CHAIN, "--check", "other", status=2).err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--check", "direct", "--layer", "0"], "--layer and --check ask for different answers; keep one of them"),
        (["--profile", "--fit", "y.npy"], "--fit and --profile ask for different answers"),
        (["--lr", "0.1"], "--lr has a meaning with --fit only"),
        (["--steps", "3"], "--steps has a meaning with --fit only"),
        (["--max", "scaled=0"], "--max has a meaning with --check or --profile only"),
        (["--check", "direct", "--indices"], "--indices has no meaning with --check"),
        (["--profile", "--heatmap"], "--heatmap has no meaning with --profile"),
        (["--profile", "--batch", "2"], "--batch has no meaning with --profile"),
        (["--im2col", "--algorithm", "direct"], "--algorithm has no meaning with --im2col"),
        (["--check", "direct", "--lines"], "--check has no meaning with --lines"),
    ],
)
def test_no_option_is_passed_over(call, options, message):
    assert f"error: {message}" in call(*CHAIN, *options, status=2).err
