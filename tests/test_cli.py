"""The contract of the command line: what goes where, in which format, with which exit status."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from convcalc._version import __version__
from convcalc.cli import VERBS, run_command_line
from convcalc.cli.options import FORMATS
from convcalc.cli.usage import options_of
from convcalc.expressions.layer_text import field_names
from convcalc.layers import LAYERS

CHAIN = ["3x32x32", "conv:8,k3,p1", "relu", "maxpool:2", "flatten", "linear:10"]
COSTED = ("shape", "flops", "memory")


@pytest.fixture
def ask(capsys, monkeypatch):
    """Asks in this process: exit status, standard output, standard error."""

    def asked(*arguments, stdin=b""):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        status = run_command_line(arguments)
        return status, *capsys.readouterr()

    return asked


def process(*arguments, stdin=b"", **options):
    """Asks in a process of its own."""
    command = [sys.executable, "-m", "convcalc", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False, **options)


def on_terminal(*arguments, columns=80, **environment):
    """What a terminal of so many columns shows, and the exit status."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    clean = {
        key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    }
    with subprocess.Popen(
        [sys.executable, "-m", "convcalc", *arguments], stdin=follower, stdout=follower, stderr=follower,
        env={**clean, "TERM": "xterm-256color", **environment},
    ) as child:  # fmt: skip
        os.close(follower)
        shown = b""
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        status = child.wait(timeout=60)
    os.close(leader)
    return shown.decode().replace("\r\n", "\n"), status


def without_colours(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def error(ask, *arguments, stdin=b""):
    """Exit status and the lines of standard error; nothing has gone to standard output."""
    status, out, err = ask(*arguments, stdin=stdin)
    assert out == ""
    return status, err.splitlines()


# --- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", COSTED)
def test_all_formats_say_the_same(ask, verb):
    texts = {}
    for name in FORMATS:
        status, texts[name], err = ask(verb, *CHAIN, "--format", name)
        assert (status, err) == (0, "")
    document = json.loads(texts["json"])
    assert json.loads(texts["jsonl"]) == document
    assert texts["jsonl"].count("\n") == 1
    tsv = [line.split("\t") for line in texts["tsv"].splitlines()]
    assert list(csv.reader(io.StringIO(texts["csv"]))) == tsv
    header = tsv[0]
    assert len(set(header)) == len(header)
    for line, layer in zip(tsv[1:], document["layers"], strict=False):
        cells = dict(zip(header, line, strict=True))
        for key in header[4:]:
            assert cells[key] == ("" if layer.get(key) is None else str(layer[key]))
        assert cells["output"] == "x".join(map(str, layer["output"]))
    totals = verb != "shape"
    assert len(tsv) == 1 + len(document["layers"]) + totals
    for name in ("plain", "markdown", "table"):
        for layer in document["layers"]:
            assert layer["layer"] in texts[name]
        assert ("total" in texts[name]) == totals
    rows = texts["markdown"].splitlines()
    assert len({row.count("|") for row in rows if row.startswith("|")}) == 1


def test_tab_separated_when_piped_and_a_table_on_a_terminal():
    piped = process("shape", *CHAIN[:2])
    assert piped.stdout == b"name\tkind\tinput\toutput\n0\tconv\t3x32x32\t8x32x32\n"
    shown, status = on_terminal("shape", *CHAIN[:2])
    assert status == 0
    assert "\t" not in shown
    assert re.search(r"Layer .*\n─+", without_colours(shown))


def test_colours_obey_no_color_and_the_terminal():
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9]")
    assert colour.search(on_terminal("shape", *CHAIN)[0])
    assert not colour.search(on_terminal("shape", *CHAIN, NO_COLOR="1")[0])
    assert "\x1b" not in on_terminal("shape", *CHAIN, TERM="dumb")[0]
    assert b"\x1b" not in process("shape", *CHAIN, "--format", "table").stdout


@pytest.mark.parametrize("columns", [40, 60, 80, 160])
@pytest.mark.parametrize(
    "question",
    [
        ["shape"],
        ["flops", "--backward"],
        ["memory", "--train"],
    ],
    ids=lambda question: question[0],
)
def test_tables_fit(columns, question):
    long = "conv:64,k7,s2,p3,bias=false,padding_mode=reflect"
    shown, status = on_terminal(*question, "3x224x224", long, *CHAIN[2:], columns=columns)
    assert status == 0
    lines = [line.rstrip() for line in without_colours(shown).splitlines()]
    assert max(map(len, lines)) <= columns
    text = "".join(lines).replace(" ", "")
    assert "64x112x112" in text
    if question[0] != "shape":  # the last column is whole
        last = {"flops": "236.0M", "memory": "8.422MiB"}[question[0]]
        assert last in text
    if columns >= 80:
        assert {"flops": "235.2M", "memory": "36.75KiB", "shape": "padding_mode=reflect"}[question[0]] in text


def test_carets_stay_under_their_token_on_a_narrow_terminal():
    shown, status = on_terminal("shape", *CHAIN, "con:3", *CHAIN[1:], columns=40)
    _, text, carets = shown.splitlines()[-3:]
    assert status == 2
    assert len(text) <= 40
    assert text[carets.index("^") : len(carets)] == "con:3"


# --- one value ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["shape", *CHAIN[:2], "-q"], "8x32x32"),
        (["shape", "224", "-k", "7", "-s", "2", "-p", "3", "-q"], "112x112"),
        (["flops", "100x64x64", "conv:100,k5,psame,nobias", "-q"], "1024000000"),
        (["memory", *CHAIN[:2], "-q"], "45952"),
        (["flops", *CHAIN, "--get", "totals.params"], "20714"),
        (["shape", *CHAIN, "--get", "layers.0.output"], "8x32x32"),
        (["shape", *CHAIN, "--get", "layers.-1.output"], "10"),
        (["shape", "3x8x8", "conv:4,name=stem", "--get", "layers.stem.kind"], "conv"),
        (["shape", "3x8x8", "conv:4,k3", "--explain", "--get", "layers.0.steps.0.value"], "6"),
        (
            ["shape", *CHAIN[:2], "-q", "--format", "json"],
            '{\n  "version": 1,\n  "value": [\n    8,\n    32,\n    32\n  ]\n}',
        ),
        (["shape", *CHAIN[:2], "-q", "--format", "jsonl"], '{"version":1,"value":[8,32,32]}'),
        (["shape", *CHAIN[:2], "-q", "--format", "csv"], "8x32x32"),
    ],
)
def test_one_value(ask, arguments, answer):
    assert ask(*arguments) == (0, answer + "\n", "")


def test_quiet_keeps_warnings_and_drops_notes(ask):
    assert ask("shape", "8", "conv:k3", "-q") == (0, "6x6\n", "")
    assert ask("shape", "8", "conv:k3")[2] == "note: the input is read as sizes with one channel\n"
    assert ask("shape", "3x8x8", "conv:4", "linear:10", "-q")[2].startswith("warning: layer 1 (linear): ")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (
            "totals.parms",
            "there is no parms; there is params, macs, flops, multiplications, additions; did you mean 'params'?",
        ),
        (
            "layer.0",
            "there is no layer; there is version, verb, status, layers, totals, partial, answer, diagnostics;"
            " did you mean 'layers'?",
        ),
        (
            "params",
            "there is no params; there is version, verb, status, layers, totals, partial, answer, diagnostics;"
            " did you mean 'totals.params'?",
        ),
        ("layers.9.output", "there is no 9; there is 0 to 4"),
        ("layers.0.output.0.1", "there is no 1; one value has no parts"),
        ("", "there is no empty name; there is version, verb, status, layers, totals, partial, answer, diagnostics"),
    ],
)
def test_a_path_that_leads_nowhere(ask, path, sentence):
    assert error(ask, "flops", *CHAIN, "--get", path) == (2, [f"error: --get {path}: {sentence}"])


def test_a_path_to_more_than_one_value(ask):
    assert error(ask, "flops", *CHAIN, "--get", "totals")[1] == [
        "error: --get totals is not one value; it has params, macs, flops, multiplications, additions;"
        " --format json gives all of it"
    ]


# --- budgets --------------------------------------------------------------------------------------------------------


def test_a_budget_names_all_that_exceeds_it(ask):
    status, out, err = ask("flops", *CHAIN, "--max", "macs=1k,params=20k,flops=1G")
    assert status == 1
    assert out.startswith("name\t")
    assert err == "error: macs is 241,664, above 1,000; params is 20,714, above 20,000\n".replace("241,664", "241.7 k")


def test_a_budget_is_exact(ask):
    total = 1_024_000_000
    question = ["flops", "100x64x64", "conv:100,k5,psame,nobias", "-q", "--max"]
    assert ask(*question, f"macs={total}") == (0, f"{total}\n", "")
    assert ask(*question, f"macs={total - 1}")[::2] == (1, "error: macs is 1,024,000,000, above 1,023,999,999\n")
    assert ask("memory", "3x32x32", "conv:8", "-q", "--max", "total=44KiB")[::2] == (
        1, "error: total is 44.12 KiB, above 44.00 KiB\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "budget", "sentence"),
    [
        (
            "flops",
            "mac=1",
            "--max mac=1: there is no total mac; flops has params, macs, flops, multiplications, additions;"
            " did you mean 'macs'?",
        ),
        ("flops", "macs", "--max macs: macs has no limit; write macs=5M"),
        ("flops", "", "--max needs limits, such as params=5M,macs=600M"),
        ("flops", "macs=abc", "--max macs is abc, but must be a number such as 600000, 600k, 1M or 0.15T"),
        ("shape", "macs=1", "--max macs=1: shape has no totals"),
    ],
)
def test_a_budget_that_means_nothing(ask, verb, budget, sentence):
    assert error(ask, verb, *CHAIN, "--max", budget) == (2, [f"error: {sentence}"])


def test_huge_quantities_stay_exact(ask):
    out = ask("flops", "1x1x1", "conv:1,nobias", "--samples", "1" + "0" * 30, "--get", "totals.total_flops")[1]
    assert out == "1" + "0" * 30 + "\n"


# --- files and standard input ---------------------------------------------------------------------------------------


NET = """\
# a small network
input 3x32x32

conv:8,k3,p1   # the stem
relu  maxpool:2
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.txt").write_text(NET)
    (tmp_path / "layers.txt").write_text("conv:8,k3,p1\nrelu maxpool:2\n")
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbf3x32x32\r\nconv:8,k3,p1\r\nrelu\r\nmaxpool:2\r\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "comments.txt").write_text("# nothing\n\n")
    (tmp_path / "binary.dat").write_bytes(b"\x7fELF\xff\xfe\x00")
    (tmp_path / "wrong.txt").write_text("3x8x8\nconv:8,kernal=3\n")
    (tmp_path / "large.txt").write_text("3x8x8\nconv:8,k30\n")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "words", [["net.txt"], ["marked.txt"], ["layers.txt", "--input", "3x32x32"], ["3x32x32", "layers.txt"]]
)
def test_a_file_is_a_network(ask, folder, words):
    assert ask("shape", *words, "-q") == (0, "8x16x16\n", "")


def test_standard_input_is_a_network(ask):
    assert ask("shape", "-", "-q", stdin=NET.encode()) == (0, "8x16x16\n", "")
    assert error(ask, "shape", "-", "-", stdin=NET.encode()) == (2, ["error: standard input can be read once only",
                                                                   "  - -", "  ^"])  # fmt: skip


@pytest.mark.parametrize(
    ("words", "status", "lines"),
    [
        (
            ["empty.txt"],
            1,
            ["error: empty.txt is empty; it should hold layers, one or more a line", "  empty.txt", "  ^^^^^^^^^"],
        ),
        (
            ["comments.txt"],
            1,
            [
                "error: comments.txt is empty; it should hold layers, one or more a line",
                "  comments.txt",
                "  ^^^^^^^^^^^^",
            ],
        ),
        (["folder"], 1, ["error: folder is a folder; name a file in it", "  folder", "  ^^^^^^"]),
        (
            ["binary.dat"],
            1,
            ["error: binary.dat is no text: invalid start byte at byte 4", "  binary.dat", "  ^^^^^^^^^^"],
        ),
        (
            ["nowhere.txt"],
            1,
            ["error: nowhere.txt is neither a layer nor a file that exists", "  nowhere.txt", "  ^^^^^^^^^^^"],
        ),
        (
            ["wrong.txt"],
            1,
            [
                "error: unknown key kernal for conv; did you mean 'kernel_size'?",
                "  in wrong.txt, line 2:",
                "  conv:8,kernal=3",
                "         ^^^^^^^^",
            ],
        ),
        (
            ["large.txt"],
            1,
            [
                "error: layer 0 (conv): kernel 30 is larger than the padded input 8 (height);"
                " a kernel_size of at most 8 fits",
                "  in large.txt, line 2:",
                "  conv:8,k30",
                "         ^^^",
            ],
        ),
        (
            ["net.txt", "net.txt"],
            1,
            [
                "error: the input is given twice; keep one of them",
                "  in net.txt, line 2:",
                "  input 3x32x32",
                "        ^^^^^^^",
            ],
        ),
        (
            ["net.txt", "3x8x8"],
            2,
            ["error: the input is given twice; keep one of them", "  net.txt 3x8x8", "          ^^^^^"],
        ),
        (
            ["3x8x8", "net.txt", "--input", "3x9x9"],
            2,
            ["error: the input is given twice; keep one of them", "  3x8x8 net.txt", "  ^^^^^"],
        ),
        (
            ["3x8x8", "conv:3", "--input", "3x8x8"],
            2,
            ["error: the input is given twice; keep one of them", "  3x8x8 conv:3", "  ^^^^^"],
        ),
        (
            ["net.txt", "-k", "3"],
            1,
            [
                "error: a layer by options and layers written out are given together; keep one of them",
                "  in net.txt, line 4:",
                "  conv:8,k3,p1   # the stem",
                "  ^^^^^^^^^^^^",
            ],
        ),
        (["2x3x8x8", "conv:3", "--batch", "2"], 2, ["error: the batch is given twice: --batch 2, and 2 in 2x3x8x8"]),
    ],
)
def test_files_that_fail(ask, folder, words, status, lines):
    assert error(ask, "shape", *words) == (status, lines)


def test_sizes_alone_have_the_channels_of_the_file(ask, folder):
    for words in (["64", "net.txt"], ["net.txt", "--input", "64x64"]):
        assert ask("shape", *words, "--get", "layers.0.input") == (0, "3x64x64\n", "")
    assert ask("shape", "1x64x64", "net.txt", "--get", "layers.0.input") == (0, "1x64x64\n", "")


def test_sizes_alone_have_the_channels_that_the_first_layer_says(ask):
    assert ask("shape", "64", "Conv2d(3, 8, 3)", "relu", "--get", "layers.0.input") == (0, "3x64x64\n", "")
    printed = b"Net(\n  (conv): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))\n)\n"
    assert ask("shape", "-", "--input", "64", "--assume-sequential", "-q", stdin=printed)[1] == "8x62x62\n"
    status, out, notes = ask("shape", "64", "relu", "Conv2d(1, 8, 3)", "-q")
    assert (status, out, notes) == (0, "8x62x62\n", "")
    assert ask("shape", "64", "conv:8", "--get", "layers.0.input")[1] == "1x64x64\n"


def test_a_file_that_is_nearly_named(ask, folder):
    (folder / "examples").mkdir()
    (folder / "examples" / "known.txt").write_text(NET)
    (folder / "-net.txt").write_text(NET)
    for word, meant in (("net", "net.txt"), ("known", "examples/known.txt"), ("known.txt", "examples/known.txt")):
        assert error(ask, "shape", word) == (
            1,
            [f"error: {word} is neither a layer nor a file that exists; did you mean '{meant}'?", f"  {word}",
             f"  {'^' * len(word)}"],
        )  # fmt: skip
    assert error(ask, "shape", "-net.txt") == (
        2, ["error: -net.txt is read as options; of a file of that name, write ./-net.txt"]
    )  # fmt: skip
    assert error(ask, "net.txt") == (2, ["error: a verb comes before net.txt: " + ", ".join(VERBS)])
    assert ask("shape", "./-net.txt", "-q") == (0, "8x16x16\n", "")


def test_channels_that_come_last_are_noted(ask):
    note = "note: the input 64x64x3 is read as 64 channels of 64x3; channels come first, as in 3x64x64\n"
    assert ask("shape", "64x64x3", "conv:8,k3")[2] == note
    for shape in ("64x32x3", "64x64x5", "3x64x3", "8x8x3"):
        assert ask("shape", shape, "conv:8,k3")[2] == ""


@pytest.mark.parametrize("words", [["3x8x8", "net.txt"], ["net.txt", "--input", "3x8x8"], ["3x8x8", "-"]])
def test_the_input_of_a_file_gives_way(ask, folder, words):
    text = (folder / "net.txt").read_bytes()
    assert ask("shape", *words, "--get", "layers.0.input", stdin=text) == (0, "3x8x8\n", "")
    assert ask("run", *words, "-q", stdin=text)[0] == 0


def test_the_input_of_a_line_does_not_give_way(ask, folder):
    out = ask("shape", "--lines", "-q", "--input", "3x8x8", stdin=b"relu\n3x9x9 relu\nnet.txt\n")[1]
    answers = [json.loads(line) for line in out.splitlines()]
    assert answers[0]["value"] == [3, 8, 8]
    assert answers[1]["error"]["message"] == "the input is given twice; keep one of them"
    assert answers[2]["value"] == json.loads(ask("shape", "3x8x8", "net.txt", "-q", "--format", "json")[1])["value"]


# --- writing files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.json", "{\n"), ("a.jsonl", '{"version":1,'), ("a.csv", "name,kind"), ("a.TSV", "name\tkind"),
     ("a.md", "| Layer"), ("a.txt", "Layer  "), ("a", "name\tkind")],
)  # fmt: skip
def test_the_suffix_decides(ask, folder, name, start):
    assert ask("shape", *CHAIN, "-o", name) == (0, "", "")
    assert (folder / name).read_text().startswith(start)
    assert ask("shape", *CHAIN, "-o", name, "--format", "json")[0] == 0
    assert json.loads((folder / name).read_text())["status"] == "complete"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere/a.json", "nowhere/a.json cannot be written: no such file or directory"),
        ("folder", "folder cannot be written: is a directory"),
        ("", "--output needs the name of a file"),
    ],
)
def test_what_cannot_be_written(ask, folder, name, sentence):
    status, out, err = ask("shape", *CHAIN, "-o", name)
    assert (status, out, err) == (2 if not name else 1, "", f"error: {sentence}\n")


def test_a_failure_leaves_the_file_as_it_was(ask, folder):
    (folder / "a.json").write_text("before")
    assert ask("shape", "3x4x4", "conv:8,k7", "-o", "a.json")[0] == 1
    assert (folder / "a.json").read_text() == "before"
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["flops", "net.txt", "-o", "net.txt"],
        ["shape", "3x8x8", "net.txt", "--input", "3x8x8", "-o", "../{folder}/net.txt"],
        ["compose", "conv:nobias", "-w", "kernel.csv", "-o", "kernel.csv"],
    ],
)
def test_an_answer_is_not_written_over_its_question(ask, folder, arguments):
    (folder / "kernel.csv").write_text("1,2\n3,4\n")
    target = arguments[-1].format(folder=folder.name)
    before = (folder / target).read_bytes()
    assert error(ask, *arguments[:-1], target) == (
        1, [f"error: {target} is the input; the result would overwrite it"]
    )  # fmt: skip
    assert (folder / target).read_bytes() == before


def test_a_dash_is_standard_output(ask):
    assert ask("shape", *CHAIN, "-o", "-", "-q") == (0, "10\n", "")


# --- lines ----------------------------------------------------------------------------------------------------------


def test_lines_are_questions(ask):
    stdin = b"3x8x8 conv:4,k3\n\n# a comment\n3x8x8 con:4\n3x8x8 conv:4,k9\r\n\xff\n-\n"
    status, out, err = ask("shape", "--lines", stdin=stdin)
    assert (status, err) == (0, "")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["line"] for answer in answers] == [1, 4, 5, 6, 7]
    assert answers[0]["answer"] == [4, 6, 6]
    assert [answer["status"] for answer in answers] == ["complete", "error", "error", "error", "error"]
    assert answers[1]["error"]["message"] == "unknown layer con; did you mean 'conv'?"
    assert answers[1]["error"]["span"] == [6, 11]
    assert answers[2]["error"]["layer"] == "0 (conv)"
    assert answers[3]["error"]["message"] == "line 6 of standard input is no text: invalid start byte at byte 0"


def test_lines_with_options(ask):
    values = [
        json.loads(line) for line in ask("shape", "--lines", "-q", "-k", "3", stdin=b"8\n3x9x9\n")[1].splitlines()
    ]
    assert values == [{"line": 1, "version": 1, "value": [6, 6]}, {"line": 2, "version": 1, "value": [3, 7, 7]}]
    budget = json.loads(ask("flops", "--lines", "--max", "macs=1", stdin=b"3x8x8 conv:4\n")[1])
    assert budget["error"]["code"] == "budget"
    assert error(ask, "shape", "--lines", "3x8x8") == (
        2, ["error: --lines reads the questions from standard input; the command line has none"]
    )  # fmt: skip
    assert error(ask, "shape", "--lines", "--format", "csv")[0] == 2
    assert error(ask, "shape", "--lines", "-o", "a.json")[0] == 2
    answer = json.loads(ask("flops", "--lines", stdin=b"3x8x8 relu --backward\n")[1])
    assert answer["error"]["message"] == "--backward is an option; of --lines the options stand on the command line"


def test_thousands_of_lines_are_answered_in_order():
    sizes = range(20, 2020)
    questions = b"".join(b"3x%dx%d conv:64,k7,s2,p3 relu maxpool:3,s2,p1\n" % (size, size) for size in sizes)
    answers = [json.loads(line) for line in process("shape", "--lines", "-q", stdin=questions).stdout.splitlines()]
    assert [answer["line"] for answer in answers] == list(range(1, 2001))
    halves = [(size - 1) // 2 + 1 for size in sizes]
    assert [answer["value"][1] for answer in answers] == [(half - 1) // 2 + 1 for half in halves]


def test_a_program_can_ask_line_by_line():
    command = [sys.executable, "-m", "convcalc", "shape", "--lines", "-q"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        for size in (8, 9):
            child.stdin.write(b"3x%dx8 conv:4,k3\n" % size)
            child.stdin.flush()
            assert json.loads(child.stdout.readline())["value"] == [4, size - 2, 6]


# --- mistypes -------------------------------------------------------------------------------------------------------


SLIPS = [
    ("", "nothing is asked about; write an input and layers, such as 3x224x224 conv:64,k3, or a file,"
         " or - for standard input", None),
    ("3x224x224", "there is no layer after the input; write one, such as conv:64,k3", None),
    ("conv:64", "there is no input; write its shape first, such as 3x224x224", None),
    ("3x8x8 cnv:3", "unknown layer cnv; did you mean 'conv'?", "cnv:3"),
    ("3x8x8 conv:3,kernal=3", "unknown key kernal for conv; did you mean 'kernel_size'?", "kernal=3"),
    ("3x8x8 conv:3,K3", "unknown key K3 for conv; did you mean 'k3'?", "K3"),
    ("3x8x8 conv:3,kernel_size", "kernel_size needs a value, such as kernel_size=2", "kernel_size"),
    ("3x8x8 conv:3,kernel_size3", "unknown key kernel_size3 for conv; did you mean 'kernel_size=3'?", "kernel_size3"),
    ("3x8x8 conv:3,k", "k needs a value, such as k2", "k"),
    ("3x8x8 conv:3:k3", "3:k3 has a colon of its own; commas part arguments: 3,k3", "3:k3"),
    ("3x8x8 conv:3, k3", "unknown layer k3; did you mean 'conv:3,k3', without a space?", "k3"),
    ("3x8x8 maxpool ceil", "unknown layer ceil; did you mean 'maxpool:ceil', without a space?", "ceil"),
    ("3x8x8 conv 8", "unknown layer 8; did you mean 'conv:8', without a space?", "8"),
    ("3x8x8 maxpool 2 k3", "unknown layer 2; did you mean 'maxpool:2', without a space?", "2"),
    ("3x8x8 relu 8", "the input is given twice; keep one of them", "8"),
    ("3x8x8 conv3x3:8", "unknown layer conv3x3; did you mean 'conv:8,k3x3'?", "conv3x3:8"),
    ("3x8x8 maxpool2x2", "unknown layer maxpool2x2; did you mean 'maxpool:k2x2'?", "maxpool2x2"),
    ("3x8x8 dense:8", "unknown layer dense; did you mean 'linear'?", "dense:8"),
    ("3x8x8 nn.Dense:8", "unknown layer nn.Dense; did you mean 'linear'?", "nn.Dense:8"),
    ("3x8x8 Pool:2", "unknown layer Pool; did you mean 'maxpool' or 'avgpool'?", "Pool:2"),
    ("3x8x8 dw_conv:8", "unknown layer dw_conv; did you mean 'conv:depthwise'?", "dw_conv:8"),
    ("3x8x8 gridsample:1", "unknown layer gridsample; it is read in ONNX files only", "gridsample:1"),
    ("3x8x8 conv8", "unknown layer conv8; did you mean 'conv:8'?", "conv8"),
    ("3x8x8 conv=8,k3", "unknown layer conv=8; did you mean 'conv:8,k3'?", "conv=8,k3"),
    ("3x8x8 conv:3,k3,k5", "kernel_size is given twice", "k5"),
    ("3x8x8 conv:3,,k5", "an argument of conv is empty", ""),
    ("3x8x8 conv:3,k3x3x3x3", "kernel_size is 3x3x3x3, but conv has 1, 2 or 3 spatial axes", "k3x3x3x3"),
    ("3x8x8 conv:3,psmae", "unknown key psmae for conv; did you mean 'psame'?", "psmae"),
    ("3x8x8 conv:-8", "out_channels is -8, but must be at least 1", "-8"),
    ("3,8,8 conv:3", "unknown layer 3,8,8; did you mean '3x8x8'?", "3,8,8"),
    ("3X8X8 conv:3", "unknown layer 3X8X8; did you mean '3x8x8'?", "3X8X8"),
    ("3×8×8 conv:3", "unknown layer 3×8×8; did you mean '3x8x8'?", "3×8×8"),
    ("3 8 8 conv:3", "a shape has no spaces; did you mean '3x8x8'?", None),
    ("torch.Size([3,8,8]) conv:3", "unknown layer torch.Size([3,8,8]); did you mean '3x8x8'?", "torch.Size([3,8,8])"),
    ("3 x 8 conv:3", "unknown layer x; a shape has no spaces: did you mean one such as '3x224x224'?", "x"),
    ("0x8x8 conv:3", "the input 0x8x8 has a size of 0; every size is at least 1", "0x8x8"),
    ("-3x8x8 conv:3", "-3x8x8 is no shape; every size is at least 1, as in 3x224x224", None),
    ("conv:3 3x8x8", "3x8x8 stands after a layer; the input comes first", "3x8x8"),
    ("3x8x8 repeat:2 relu", "repeat has no end", "repeat:2"),
    ("3x8x8 日本:3", "unknown layer 日本", "日本:3"),
    ("3x8x8 conv:日本", "out_channels is 日本, but must be a whole number", "日本"),
    ("3x8x8 -k", "-k needs a value (kernel: 3, or 3x5)", None),
    ("3x8x8 --kernle 3", "unknown option --kernle of shape; did you mean '--kernel-size'?", None),
    ("3x8x8 --kernel 3", "unknown option --kernel of shape; did you mean '--kernel-size'?", None),
    ("3x8x8 -z", "unknown option -z of shape; convcalc shape --help names all", None),
    ("3x8x8 --json", "unknown option --json of shape; did you mean '--format json'?", None),
    ("3x8x8 conv --format md", "--format is md, but must be one of table, plain, tsv, csv, json, jsonl, markdown;"
                               " did you mean 'markdown'?", None),
    ("3x8x8 conv --format JSON", "--format is JSON, but must be one of table, plain, tsv, csv, json, jsonl, markdown;"
                                 " did you mean 'json'?", None),
    ("3x8x8 -k 3 -o 8", "--output is 8, which looks like channels out, -c 8; of a file of that name, write ./8", None),
    ("3x8x8 --train", "shape has no --train; memory and run have it", None),
    ("3x8x8 --strict=1 conv", "--strict is on or off and takes no value", None),
    ("3x8x8 conv --batch abc", "--batch is abc, but must be a whole number", None),
    ("3x8x8 conv --batch 0", "--batch is 0, but must be at least 1", None),
    ("3x8x8 -p sane", "padding is sane, but must be one of valid, same, same_upper, same_lower, causal, full", None),
    ("3x8x8 --kind maxpol -k 2", "unknown layer maxpol; did you mean 'maxpool'?", None),
    ("3x8x8 --kind conv:8", "--kind takes a kind alone; write conv:8 without it", None),
    ("3x8x8 conv --format jsn", "--format is jsn, but must be one of table, plain, tsv, csv, json, jsonl, markdown;"
                                " did you mean 'json'?", None),
    ("3x8x8 conv -q --explain", "-q asks for one value and --explain for formulas; keep one of them", None),
    ("3x8x8 conv -q --get answer", "-q and --get both ask for one value; keep one of them", None),
    ("3x8x8 conv --explain --format csv", "--explain has no csv form; plain, markdown and json have the formulas",
     None),
    (f"3x8x8 conv:{'9' * 400}", "a number has 400 digits; 300 are the most that are read", None),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence", "token"), SLIPS, ids=[words or "nothing" for words, _, _ in SLIPS])
def test_slips(ask, words, sentence, token):
    status, lines = error(ask, "shape", *words.split())
    assert status == 2
    assert lines[0] == f"error: {sentence}"
    if token is not None:
        start = lines[1].rindex(token) if token else lines[2].index("^")
        wide = sum(2 if character > "\u2e80" else 1 for character in token)
        before = sum(2 if character > "\u2e80" else 1 for character in lines[1][:start])
        assert lines[2] == " " * before + "^" * max(wide, 1)
        assert len(lines) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["shap", "3x8x8"], "unknown verb shap; did you mean 'shape'?"),
        (["3x8x8", "conv:3"], "a verb comes before 3x8x8: " + ", ".join(VERBS)),
        (["conv:3"], "a verb comes before conv:3: " + ", ".join(VERBS)),
        (["SHAPE", "3x8x8"], "unknown verb SHAPE; did you mean 'shape'?"),
        (["kinds"], "unknown verb kinds; did you mean 'convcalc help kinds'?"),
        (["version"], "unknown verb version; did you mean 'convcalc --version'?"),
        (["-V"], "unknown option -V; did you mean '--version'?"),
        (["help", "flop"], "there is no help for flop; did you mean 'flops'?"),
        (["help", "dense:3"], "there is no help for dense; did you mean 'linear'?"),
        (["help", "gridsample"], "there is no help for gridsample; it is read in ONNX files only"),
        (["-k", "3"], "unknown option -k; a verb comes first: " + ", ".join(VERBS)),
        ([""], "unknown verb ; convcalc has " + ", ".join(VERBS)),
        (["shape", "3x8x8", ""], "a word of the command line is empty"),
        (
            ["flops", *CHAIN, "--convention", "tourch"],
            "--convention is tourch, but must be one of exact, macs, 2mac, torch, fvcore, thop, ptflops;"
            " did you mean 'torch'?",
        ),
        (["run", "3x8x8", "relu", "--seed", "abc"], "--seed is abc, but must be a whole number"),
        (["run", "3x8x8", "relu", "--seed", "-1"], "--seed is -1, but must be at least 0"),
        (["run", "[[1,2]]"], "there is no layer after the input; write one, such as conv:k3, or a kernel with -w"),
        (["run", "3x8x8", "relu", "--backward"], "run has no --backward; flops has it"),
        (["flops", *CHAIN, "--samples", "1.5"], "--samples is 1.5, but must be a whole number"),
        (["flops", *CHAIN, "--speed", "1e400"], "--speed is 1e400, but must have at most 100 digits"),
        (
            ["memory", *CHAIN, "--dtype", "fp16"],
            "--dtype is fp16, but must be one of float64, double, float32, float, float16, half, bfloat16, float8,"
            " int64, int32, int16, int8, uint8, bool; did you mean 'float16'?",
        ),
        (["flops", "--input"], "--input needs a value (the input's shape, such as 3x224x224)"),
        (["memory", *CHAIN, "--optimizer", "adam"], "--optimizer has a meaning with --train only"),
    ],
)
def test_slips_of_verbs_and_values(ask, arguments, sentence):
    status, lines = error(ask, *arguments)
    assert (status, lines[0]) == (2, f"error: {sentence}")


def test_absurd_repeats_are_refused_at_once(ask):
    for words in (["repeat:1000000000", "relu", "end"], ["repeat:1" + "0" * 100, "relu", "end"],
                  ["repeat:1000"] * 9 + ["relu"] + ["end"] * 9):  # fmt: skip
        status, lines = error(ask, "shape", "3x8x8", *words)
        assert status == 1
        assert lines[0] == "error: this repeat makes the network longer than 100,000 layers"


def test_numbers_beyond_floats_are_exact_or_refused(ask):
    size = "1" + "0" * 30
    assert ask("shape", f"3x{size}x8", "conv:4,k3", "-q")[1] == f"4x{int(size) - 2}x6\n"
    assert ask("flops", f"3x{size}x{size}", "conv:4", "--format", "plain")[1].count("1.200e61") == 6
    status, lines = error(
        ask, "flops", "x".join(["3"] + ["1" + "0" * 290] * 2), *["upsample:scale_factor=9" + "0" * 250] * 20
    )
    assert (status, lines) == (1, ["error: a number of the answer is too large to be written"])
    status, lines = error(ask, "shape", "3x8x8", "Conv2d(" + "(" * 3000 + ")" * 3000 + ")")
    assert (status, lines[0]) == (1, "error: brackets stand in brackets too many times")


def test_no_escape_sequence_reaches_the_terminal(ask):
    status, lines = error(ask, "shape", "3x8x8", "con\x1b[31mv:3")
    assert status == 2
    assert "\x1b" not in "".join(lines)


# --- JSON errors ----------------------------------------------------------------------------------------------------


def test_errors_are_json_too(ask):
    status, out, err = ask("shape", "3x4x4", "conv:8,k7", "--format", "json")
    sentence = "layer 0 (conv): kernel 7 is larger than the padded input 4 (height); a kernel_size of at most 4 fits"
    assert status == 1
    assert json.loads(out) == {
        "version": 1,
        "status": "error",
        "error": {"code": "shape", "message": sentence, "layer": "0 (conv)", "field": "kernel_size", "value": 7,
                  "span": [13, 15], "text": "3x4x4 conv:8,k7"},
    }  # fmt: skip
    assert err == f"error: {sentence}\n  3x4x4 conv:8,k7\n               ^^\n"


@pytest.mark.parametrize(
    "arguments", [["shape", "--kernle"], ["shpe"], ["shape"], ["shape", "3x8x8", "conv:3,kk=1"], []]
)
def test_errors_of_the_command_line_are_json_too(ask, arguments):
    status, out, _ = ask(*arguments, "--format=json")
    assert status == 2
    assert json.loads(out)["error"]["code"] == "expression"


# --- explanations ---------------------------------------------------------------------------------------------------


def test_explanations_in_every_format(ask):
    question = ["shape", "3x224x224", "conv:64,k7,s2,p3", "--explain"]
    plain = ask(*question)[1]
    assert "= ⌊(224 + 3 + 3 − 1·(7 − 1) − 1) / 2⌋ + 1" in plain
    for name in ("plain", "table"):
        assert ask(*question, "--format", name)[1] == plain
    assert ask(*question, "--format", "markdown")[1] == f"```text\n{plain}```\n"
    assert json.loads(ask(*question, "--format", "json")[1])["layers"][0]["steps"][0]["value"] == 112


def test_the_cost_of_a_layer_is_explained_in_full(ask):
    assert ask("flops", "3x8x8", "conv:4,k3", "--explain", "--backward")[1].splitlines() == [
        "0  conv2d:4,k3  3x8x8 → 4x6x6",
        "  rule: one dot product for each output element, padding zeros included, and the bias",
        "  weight: parameters = ∏shape",
        "                     = 4·3·3·3",
        "                     = 108",
        "  bias: parameters = ∏shape",
        "                   = 4",
        "  MACs = batch·out_channels·∏output·⌊in_channels / groups⌋·∏kernel_size",
        "       = 1·4·6·6·⌊3 / 1⌋·3·3",
        "       = 3888",
        "  additions = products − sums",
        "            = 3888 − 144",
        "            = 3744",
        "  additions = additions + outputs",
        "            = 3744 + 144",
        "            = 3888",
        "  FLOPs = multiplications + additions + other",
        "        = 3888 + 3888 + 0",
        "        = 7776",
        "  backward: the input's gradient is a transposed convolution, the weight's a correlation over all windows",
        "  ∂weight MACs = 3888",
        "  backward FLOPs = 7808",
    ]


def test_explanations_without_a_formula_say_the_rule(ask):
    layers = ("3x4x4", "relu", "globalavgpool", "flatten", "linear:2")
    assert ask("shape", *layers, "--explain")[1] == (
        "0  relu  3x4x4 → 3x4x4\n  rule: the input's shape\n\n"
        "1  globalavgpool  3x4x4 → 3x1x1\n  rule: (N, C, *output_size)\n\n"
        "2  flatten  3x1x1 → 3\n  rule: the shape with these axes multiplied\n\n"
        "3  linear:2  3 → 2\n  rule: the input's shape with out_features for the last axis\n"
    )
    assert ask("flops", "3x4x4", "@a", "add:@a", "flatten", "--explain")[1] == (
        "0  add  3x4x4, 3x4x4 → 3x4x4\n  rule: one addition an element for each input after the first\n"
        "  FLOPs = 48\n\n"
        "1  flatten  3x4x4 → 48\n  rule: nothing: numbers are moved\n"
    )


# --- help and processes ---------------------------------------------------------------------------------------------


def test_help_begins_with_examples(ask):
    for verb in VERBS:
        status, out, _ = ask(verb, "--help")
        assert status == 0
        own = ("Arrays:", "Learning:", "Images:") if verb == "run" else (f"Options of {verb}:",)
        groups = (*own, "A layer by options:", "Network:", "Output:")
        places = [out.index(text) for text in ("Examples:\n", f"  convcalc {verb} ", "Usage:", *groups)]
        assert places == sorted(places)
        assert max(map(len, out.splitlines())) <= 80
        assert ask(verb, "-h")[1] == ask("help", verb)[1] == out
    status, out, _ = ask()
    assert status == 0
    assert ask("--help")[1] == ask("-h")[1] == ask("help")[1] == out
    assert out.index("  convcalc shape ") < out.index("Usage:") < out.index("Commands:")
    assert max(map(len, out.splitlines())) <= 80


def test_help_shows_every_option_of_a_verb(ask):
    for verb in VERBS:
        out = ask(verb, "--help")[1]
        assert set(options_of(verb)) <= set(re.findall(r"--?[a-z][a-z0-9-]*", out)), verb


def test_help_names_every_kind_and_each_argument_of_it(ask):
    out = ask("help", "kinds")[1]
    for kind in LAYERS.values():
        assert f"\n  {kind.name} " in out
        status, about, _ = ask("help", kind.name)
        assert status == 0
        for field in field_names(kind.layer_class()):
            assert f"\n  {field}=" in about
        for flag in kind.flags:
            assert re.search(rf"\b{flag}\b", about)
        assert max(map(len, about.splitlines())) <= 80
    assert ask("help", "nn.AvgPool1d") == ask("help", "avgpool")
    assert ask("help", "cnov") == (2, "", "error: there is no help for cnov; did you mean 'conv'?\n")


def test_help_on_expressions(ask):
    out = ask("help", "expressions")[1]
    for word in ("repeat", "end", "from:@a", "@a", "input", "Expression"):
        assert ask("help", word) == (0, out, "")
    assert max(map(len, out.splitlines())) <= 80
    words = "conv:64,k7,s2,p3,name=stem @a conv:64 add:@a mul:@a from:@a concat:@a crop:@a repeat:3 relu end"
    assert all(word.partition(":")[0] in out for word in words.split() if word != "relu")
    assert ask("shape", "3x224x224", *words.split(), "-q") == (0, "128x112x112\n", "")


def test_version(ask):
    assert ask("--version") == (0, f"convcalc {__version__}\n", "")


@pytest.mark.parametrize("name", ["tsv", "json"])
def test_a_reader_that_leaves_ends_it_quietly(name):
    command = f"{sys.executable} -m convcalc shape 3x8x8 repeat:20000 relu end --format {name}"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1; echo ${{PIPESTATUS[0]}}"], capture_output=True, check=False
    )
    assert done.stdout.splitlines()[-1] == b"0"
    assert done.stderr == b""


@pytest.mark.parametrize(
    "question", ["shape 3x8x8 relu", "shape 3x8x8 cnv", "shape 3x8x8 relu --format table", "--help"]
)
def test_a_reader_that_never_was(question):
    # Nothing is written before the end: the pipe breaks when what is buffered is flushed.
    command = f"{sys.executable} -m convcalc {question}"
    done = subprocess.run(
        ["bash", "-c", f"{command} 2>&1 | true; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""
    assert done.returncode == (2 if "cnv" in question else 0)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("repeat", [1, 20_000])
def test_a_full_disk(repeat):
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "convcalc", "shape", "3x8x8", f"repeat:{repeat}", "relu", "end"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"error: standard output cannot be written: no space left on device\n"


def test_closed_streams():
    unwritten = b"error: standard output cannot be written: bad file descriptor\n"
    for question, status, message in (
        ("shape - <&-", 1, b"error: standard input is closed\n  -\n  ^\n"),
        ("shape - </dev/null >&-", 1, None),
        ("shape 3x8x8 relu >&-", 1, unwritten),
        ("shape 3x8x8 relu --format json >&-", 1, unwritten),
        ("--version >&-", 1, unwritten),
        ("shape 3x8x8 relu -o /dev/null >&-", 0, b""),
        ("shape 3x8x8 relu >&- 2>&-", 1, b""),
    ):
        done = subprocess.run(
            ["bash", "-c", f"exec {sys.executable} -m convcalc {question}"], capture_output=True, check=False
        )
        assert done.returncode == status
        assert b"Traceback" not in done.stderr
        assert message in (None, done.stderr)


def test_an_output_that_cannot_show_a_sign():
    done = process("shape", "3x8x8", "conv:k3,name=ü", "--explain", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert b"\\xfc  conv2d:k3  3x8x8 -> 3x6x6\n" in done.stdout
    assert b"= floor((8 + 0 + 0 - 1*(3 - 1) - 1) / 1) + 1\n" in done.stdout
    table = process("flops", "3x8x8", "conv:k3", "--format", "table", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert b"\n---" in table.stdout
    assert b"\\" not in table.stdout


@pytest.mark.parametrize("arguments", [["shape", "-"], ["shape", "--lines"]])
def test_ctrl_c_ends_it_quietly(interruptible, arguments):
    command = [sys.executable, "-m", "convcalc", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        if "--lines" in arguments:  # its first answer says that it has started
            child.stdin.write(b"3x8x8 relu\n")
            child.stdin.flush()
            child.stdout.readline()
        else:
            deadline = time.monotonic() + 30
            while not waits_for_input(child.pid) and time.monotonic() < deadline:
                time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err) == (130, b"", b"")


def waits_for_input(number):
    """Whether a process is blocked reading a pipe, as far as the system says."""
    with open(f"/proc/{number}/wchan") as file:  # noqa: PTH123
        return "pipe" in file.read()


def test_quiet_without_an_answer_is_an_error(ask):
    status, out, err = ask("compose", "32x32", "conv:k3,s2", "upsample:2", "-q")
    assert (status, out) == (1, "")
    assert err.endswith("error: -q prints one value, and there is none here\n")
