"""What a question must not load, seen from a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CHAIN = ["3x32x32", "conv:8,k3,p1", "relu", "maxpool:2", "flatten", "linear:10"]
ERRORS = {
    "a shape": ["3x4x4", "conv:8,k7"],
    "a key": ["3x32x32", "conv:8,kernal=3"],
    "a kind": ["3x32x32", "cnv:8"],
    "no input": ["conv:8"],
    "an option": ["--nonsense"],
    "a missing file": ["./nowhere.txt"],
}
FORMATS = ["plain", "tsv", "csv", "json", "jsonl", "markdown"]
WATCHED = ("numpy", "rich", "onnx", "PIL")


def loaded_by(*arguments):
    """Which of the watched packages `convcalc` loads for these arguments, and its exit status."""
    program = (
        "import sys, json\n"
        "from convcalc.cli import run_command_line\n"
        f"status = run_command_line({list(arguments)!r})\n"
        f"loaded = [name for name in {WATCHED!r} if name in sys.modules]\n"
        "print('\\n' + json.dumps([status, loaded]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    status, loaded = json.loads(done.stdout.splitlines()[-1])
    return status, loaded


@pytest.mark.parametrize("verb", ["shape", "flops", "memory"])
@pytest.mark.parametrize("name", FORMATS)
def test_an_answer_without_a_table(verb, name):
    assert loaded_by(verb, *CHAIN, "--format", name) == (0, [])


@pytest.mark.parametrize("verb", ["shape", "flops", "memory"])
def test_a_table_needs_rich_and_no_more(verb):
    assert loaded_by(verb, *CHAIN, "--format", "table") == (0, ["rich"])


@pytest.mark.parametrize(
    "options",
    [
        ["shape", "--explain"],
        ["flops", "--explain"],
        ["flops", "--backward", "--convention", "thop"],
        ["memory", "--train", "--optimizer", "adam"],
        ["shape", "-q"],
        ["flops", "--get", "totals.params"],
        ["flops", "--max", "params=1"],
    ],
)
def test_options(options):
    assert loaded_by(options[0], *CHAIN, *options[1:])[1] == []


@pytest.mark.parametrize("arguments", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("verb", ["shape", "flops", "memory"])
def test_errors(verb, arguments):
    status, loaded = loaded_by(verb, *arguments)
    assert status in (1, 2)
    assert loaded == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["shape", "--help"], ["nonsense"]])
def test_help_and_version(arguments):
    assert "numpy" not in loaded_by(*arguments)[1]


def test_a_short_option_is_not_taken_for_a_long_one_that_is_misspelt():
    program = (
        "import sys\n"
        "from convcalc.cli import run_command_line\n"
        "run_command_line(['shape', '3x8x8', '-k3', '-q', '-p', '1'])\n"
        "print('difflib' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3x8x8", "False"]


def test_the_package_alone():
    program = "import sys, convcalc; print(*[name for name in ('numpy', 'rich', 'typer') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_layer_without_numpy():
    program = (
        "import sys\n"
        "from convcalc.layers import LAYERS\n"
        "for kind in LAYERS.values():\n"
        "    for rank in (1, 2, 3) if kind.ranked else (None,):\n"
        "        kind.layer_class(rank)\n"
        "print('numpy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False"], done.stderr
