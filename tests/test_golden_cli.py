"""The golden table through the command line: in this process for every row, in one of its own for a dozen."""

from __future__ import annotations

import json
import subprocess
import sys

import golden
import pytest

from convcalc.cli import run_command_line


def rows(table):
    return pytest.mark.parametrize("row", table, ids=lambda row: row.id)


def words(row):
    return [row.input, *row.layers.split()]


def json_of(capsys, *arguments):
    assert run_command_line([*arguments, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


@rows(golden.CASES)
def test_case(row, capsys):
    document = json_of(capsys, "flops", *words(row))
    wanted = [[int(size) for size in shape.split("x")] for shape in row.shape.split()]
    outputs = [layer["output"] for layer in document["layers"]]
    # A layer with two outputs has a list of shapes.
    found = [output[0] if isinstance(output[0], list) else output for output in outputs]
    assert found[-len(wanted) :] == wanted
    totals = document["totals"]
    assert (totals["params"], totals["macs"], totals["flops"]) == (row.params, row.macs, row.flops)
    assert run_command_line(["shape", *words(row), "-q"]) == 0
    assert capsys.readouterr().out == row.shape.split()[-1] + "\n"


@rows(golden.REFUSALS)
def test_refusal(row, capsys):
    assert run_command_line(["shape", *words(row), "--format", "json"]) == row.status
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert error["message"] == row.sentence
    lines = err.splitlines()
    assert lines[0] == f"error: {row.sentence}"
    if row.caret:
        start = lines[2].index("^")
        assert lines[1][start : len(lines[2])] == row.caret
        assert set(lines[2].strip()) == {"^"}


@rows(golden.GRADIENTS)
def test_gradients(row, capsys):
    assert json_of(capsys, "flops", *words(row), "--backward")["totals"]["backward_macs"] == row.backward
    document = json_of(capsys, "flops", *words(row), "--backward", "--input-grad")
    assert document["totals"]["backward_macs"] == row.backward_with_input


@rows(golden.KEPT)
def test_kept(row, capsys):
    assert json_of(capsys, "memory", *words(row), "--train")["totals"]["saved"] == row.saved
    assert json_of(capsys, "memory", *words(row))["totals"]["total"] == row.total


@rows(golden.TIMES)
def test_times(row, capsys):
    shape, layers = golden.TEN_LAYERS
    document = json_of(
        capsys, "flops", shape, *layers.split(),
        "--samples", "1M", "--speed", f"{row.speed / 1e12}T", "--convention", row.convention,
    )  # fmt: skip
    assert document["totals"]["seconds"] / 3600 == pytest.approx(row.hours, abs=5e-4)


@rows(golden.FIELDS)
def test_receptive_field(row, capsys):
    wanted = [int(size) for size in row.field.split("x")]
    assert json_of(capsys, "compose", *row.layers.split())["totals"]["receptive_field"] == wanted


@rows(golden.RUNS)
def test_run(row, capsys):
    given = [str(row.input), *row.layers.split()]
    if row.weight is not None:
        given += ["-w", str(row.weight)]
    assert json_of(capsys, "run", *given, *(["--flip"] if row.flip else []))["output"] == row.answer


def in_a_process(*arguments):
    command = [sys.executable, "-m", "convcalc", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")


@rows(golden.ANSWERS)
def test_answer(row):
    done = in_a_process(*row.arguments)
    assert done.returncode == row.status
    if row.status == 0:
        assert done.stdout == row.printed + "\n"
    else:
        assert done.stdout == ""
        assert done.stderr.startswith(row.printed)


@rows(golden.CASES[::24])
def test_case_in_a_process(row):
    done = in_a_process("flops", *words(row), "--get", "totals.flops")
    assert (done.stdout, done.returncode) == (f"{row.flops}\n", 0)
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines())


@rows(golden.REFUSALS[::16])
def test_refusal_in_a_process(row):
    done = in_a_process("shape", *words(row))
    assert (done.stdout, done.returncode) == ("", row.status)
    assert done.stderr.splitlines()[0] == f"error: {row.sentence}"
