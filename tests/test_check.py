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
        ([1.0, 2.0], [1.0, 2.0], (0, 0, 0, 0)),
        ([1.0, 2.0 + 2**-51], [1.0, 2.0], (2**-51, 2**-52, 2**-52, 1)),
        ([0.25, -8.0], [0.5, -8.0], (0.25, 0.25 / 8, 0.5, 0.25 / 2**-53)),
        ([1e-300, 4.0], [0.0, 4.0], (1e-300, 2.5e-301, 0, 1e-300 / np.spacing(1e-300))),
        ([np.nan, np.inf], [np.nan, np.inf], (0, 0, 0, 0)),
        ([np.nan, 1.0], [0.0, 1.0], (np.inf, np.inf, 0, np.inf)),
        ([np.inf, 1.0], [2.0, 1.0], (np.inf,) * 4),
        ([3, 4], [3, 5], (1, 0.2, 0.2, 1 / np.spacing(5.0))),
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


CHAIN = ["32x24x24", "conv:32,k3", "relu"]


def test_on_the_command_line(call, tmp_path):
    out, err = call(*CHAIN, "--algorithm", "winograd4", "--check", "direct", "--format", "json")
    document = json.loads(out)
    assert [layer["name"] for layer in document["layers"]] == ["0", "1"]
    assert 0 < document["totals"]["scaled"] < 1e-12
    assert "note: winograd4 is compared with direct" in err
    call(*CHAIN, "-o", tmp_path / "y.npy")
    assert call(*CHAIN, "--check", tmp_path / "y.npy", "-q").out == "0.0\n"
    saved = np.load(tmp_path / "y.npy")
    saved.flat[saved.argmax()] *= 1 + 2**-50
    np.save(tmp_path / "y.npy", saved)
    assert 3 <= float(call(*CHAIN, "--check", tmp_path / "y.npy", "-q").out) <= 9
    assert "is 3, but the output is 32x22x22" in call(*CHAIN, "--check", "[1,2,3]", status=1).err


def test_what_cannot_be_checked(call):
    assert "did you mean 'winograd4'" in call(*CHAIN, "--check", "winogrd4", status=2).err
    assert "ask for different arrays" in call(*CHAIN, "--check", "direct", "--layer", "0", status=2).err
