"""Every JSON document that comes out is one that convcalc/schema.json allows, and it is the schema that is packaged."""

from __future__ import annotations

import inspect
import io
import json
from importlib.resources import files

import golden
import jsonschema
import pytest

from convcalc import errors
from convcalc.cli import VERBS, run_command_line

SCHEMA = json.loads(files("convcalc").joinpath("schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

CHAIN = ["3x32x32", "conv:8,k3,p1", "relu", "maxpool:2", "flatten", "linear:10"]
ARRAY = ["[[0,1,2],[3,4,5],[6,7,8]]", "-w", "[[0,1],[2,3]]"]
QUESTIONS = [
    ["shape", *CHAIN],
    ["shape", *CHAIN, "--explain"],
    ["shape", "8", "conv:k3"],
    ["shape", "2x3x8x8", "maxpool:2,indices"],
    ["shape", "8x8x8", "@a", "relu", "add:@a"],
    ["shape", *CHAIN, "-q"],
    ["flops", *CHAIN, "--explain"],
    ["flops", *CHAIN, "--backward", "--samples", "1M", "--speed", "0.15T"],
    ["flops", *CHAIN, "--get", "totals.macs"],
    ["flops", f"3x1{'0' * 30}x8", "conv:4"],
    ["memory", *CHAIN],
    ["memory", *CHAIN, "--train", "--optimizer", "adam"],
    ["summary", *CHAIN],
    ["compose", "conv:k3", "conv:k3,s2"],
    ["compose", "conv:k3,p1", "maxpool:2", "--explain"],
    ["compose", "conv:k3", "conv:k3", "-w", "ones:1x1x3x3", "-w", "ones:1x1x3x3"],
    ["run", *ARRAY],
    ["run", *ARRAY, "-q"],
    ["run", "[[nan,inf],[1,2]]", "relu"],
    ["run", "4x4", "maxpool:2", "--indices"],
    ["run", *ARRAY[:1], "-k", "2", "--fit", "[[19,25],[37,43]]", "--steps", "2"],
]
FAILURES = [
    ["shape", "3x4x4", "conv:8,k7"],
    ["shape", "3x4x4", "conv:8,kernal=7"],
    ["shape", "3x4x4", "conv:8,k1.5"],
    ["shape", "nowhere.txt"],
    ["shape", "-"],
    ["shape", "3x4x4", "repeat:1000000000", "relu", "end"],
    ["shape", "--kernle"],
    ["shpe"],
    ["shape"],
    ["flops", *CHAIN, "--max", "macs=1"],
    ["flops", *CHAIN, "--max", "macs=1", "--explain"],
    ["flops", *CHAIN, "--max", "macs=1", "-q"],
    ["flops", *CHAIN, "--get", "nothing"],
    ["compose", "nothing"],
    ["run", "[[1,2]", "relu"],
    ["run", "3x4x4", "conv:8,k7"],
]


def documents(capsys, *arguments):
    """The JSON documents that a command prints, one a line."""
    status = run_command_line([*arguments, "--format", "jsonl"])
    lines = capsys.readouterr().out.splitlines()
    return status, [json.loads(line, parse_constant=pytest.fail) for line in lines]


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("arguments", QUESTIONS, ids=" ".join)
def test_answers(capsys, arguments):
    status, found = documents(capsys, *arguments)
    assert (status, len(found)) == (0, 1)
    VALIDATOR.validate(found[0])
    assert found[0].get("status") != "error"


def test_every_verb_has_an_answer_here():
    assert {question[0] for question in QUESTIONS} >= VERBS.keys() - {"diff"}


@pytest.mark.parametrize("row", golden.CASES[::4], ids=lambda row: row.id)
@pytest.mark.parametrize("verb", ["flops", "memory"])
def test_golden_answers(capsys, row, verb):
    for document in documents(capsys, verb, row.input, *row.layers.split())[1]:
        VALIDATOR.validate(document)


@pytest.mark.parametrize("arguments", FAILURES, ids=" ".join)
def test_failures(capsys, monkeypatch, arguments):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"3x8x8\nconv:8,k30\n")))
    status, found = documents(capsys, *arguments)
    assert status in (1, 2)
    assert len(found) == 1
    VALIDATOR.validate(found[0])
    assert found[0]["status"] == "error"


def test_a_refused_answer_is_there_still(capsys):
    asked = ["flops", *CHAIN, "--max", "macs=1"]
    failure = {"code": "budget", "message": "macs is 241.7 k, above 1", "layer": None, "field": None, "value": None}
    found = documents(capsys, *asked)[1][0]
    assert (found["totals"]["params"], found["error"]) == (20714, failure)
    found = documents(capsys, *asked, "-q")[1][0]
    assert found == {"version": 1, "value": 241664, "status": "error", "error": failure}


def test_lines(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"3x8x8 conv:4\n3x8x8 con:4\n\xff\n")))
    status, found = documents(capsys, "shape", "--lines")
    assert (status, len(found)) == (0, 3)
    for document in found:
        VALIDATOR.validate(document)
        assert "line" in document


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"version": 2, "value": 1},
        {"version": 1, "value": 1, "more": 1},
        {"version": 1, "status": "error",
         "error": {"code": "nonsense", "message": "x", "layer": None, "field": None, "value": 1}},
        {"version": 1, "verb": "shape", "status": "complete"},
        {"version": 1, "value": 1, "status": "error"},
        {"version": 1, "verb": "shape", "status": "error", "layers": [], "totals": {}, "partial": [], "answer": None,
         "diagnostics": []},
    ],
)  # fmt: skip
def test_what_the_schema_refuses(document):
    assert not VALIDATOR.is_valid(document)


def test_the_schema_knows_every_class_of_error():
    codes = {
        cls.code for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.ConvcalcError)
    }
    assert set(SCHEMA["$defs"]["failure"]["properties"]["code"]["enum"]) == codes
