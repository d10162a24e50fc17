"""Command lines of sensible pieces, put together without sense: all end in 0, 1 or 2, none in a traceback."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import random
import resource

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from convcalc.cli import VERBS, run_command_line
from convcalc.cli.usage import options_of
from convcalc.errors import ConvcalcError
from convcalc.expressions import parse_text
from convcalc.expressions.layer_text import field_names
from convcalc.layers import LAYERS

HUGE = ["1" + "0" * 30, "1" + "0" * 100, "9" * 400, "9" * 5000, "2147483648", "18446744073709551616"]
NUMBERS = ["0", "1", "2", "3", "7", "-1", "-0", "+1", "3.5", "1e3", "1e400", "nan", "inf", "007", *HUGE]
SIZES = [*NUMBERS, "3x5", "1+2", "1+2x0+0", "1+1x2", "x", "3x", "x3", "3x5x7x9", "+", "1+2+3", "3/5", "1..9", "same",
         "causal", "none", "true", "false", "", " ", "²", "٣", "日本", "é", "\x1b[31m", "\ud800", "@a", "'", '"', "(",
         ")", "((((", "#", "%s", "{}", "\n", "\t", "\0"]  # fmt: skip
INPUTS = ["3x32x32", "3x224x224", "1", "8", "3x8", "2x3x8x8", "2x3x8x8x8", "0x3", "1x1x1x1x1x1x1", "x", "3x", "3,8,8",
          "784", "x".join(["3", *HUGE[:2]]), f"{HUGE[1]}x{HUGE[1]}", "3x8/9", "3x8..9", "-3x8", "[[1]]"]  # fmt: skip
WIRING = ["@a", "@b", "from:@a", "from:b", "add:@a", "concat:@a,@b", "repeat:2", "repeat:0", "repeat:1000000000",
          f"repeat:{HUGE[0]}", "repeat:99999", "end", "repeat", "@", "from:", "end:3"]  # fmt: skip
TEXTS = ["", "-", "--", "./nofile", "/", "/dev/null", "conv", "Conv2d(3, 8, 3)", "nn.Conv2d(3,8,(3,3),bias=False),",
         "Conv2d(3, 8", "(" * 3000, "Conv2d(" + "(" * 3000 + ")" * 3000 + ")", "input", "input:3x8x8", "#"]  # fmt: skip
FORMATS = ["json", "json", "jsonl", "csv", "tsv", "plain", "markdown", "table", "xml"]
PATHS = ["answer", "totals.macs", "layers.0.output", "layers.x", "layers.-1", "totals", "layers.0.steps.0.numbers", ""]
BUDGETS = ["params=1", "macs=1k,params=2M", "macs", "macs=", "=1", "total=1KiB", "peak=1G,total=1e9", f"macs={HUGE[0]}"]
QUANTITIES = ["1", "1M", "0.15T", "1e9", "0", "1KiB", *HUGE[:3]]
LAYER_OPTIONS = {"-k": SIZES, "-s": SIZES, "-p": SIZES, "-d": SIZES, "-g": ["1", "3", "depthwise"], "-c": NUMBERS,
                 "--kind": ["conv", "maxpool", "relu", "convt", "zz"], "--bias": None, "--no-bias": None,
                 "--padding-mode": ["zeros", "reflect", "zz"], "--output-padding": SIZES, "--output-size": SIZES,
                 "--ceil-mode": None}  # fmt: skip
OPTIONS = {"--input": INPUTS, "--batch": NUMBERS, "--format": FORMATS, "-q": None, "--get": PATHS, "--max": BUDGETS,
           "--strict": None, "--explain": None, "--backward": None, "--input-grad": None, "--samples": QUANTITIES,
           "--speed": QUANTITIES, "--convention": ["exact", "macs", "2mac", "zz"], "--dtype": ["float16", "float3"],
           "--train": None, "--optimizer": ["adam", "adamx"], "--lines": None, "--help": None, "--kernle": None,
           "-w": ["[[0,1],[2,3]]", "sobel", "zz", "0.weight=ones:4x3x2x2", "[[[[1]]", "ones:9e9", *HUGE[:2]],
           "--bias-values": ["[1]", "ones:4"], "--seed": NUMBERS, "--flip": None, "--layer": ["0", "zz"],
           "--indices": None, "--as-matrix": None, "--im2col": None, "--fit": ["[[1,2]]", "ones:4x6x6"],
           "--lr": NUMBERS, "--steps": ["1", "2", "0", "abc"], "--heatmap": None, "--table": None, "-z": None,
           "--format=json": None, "-k3": None}  # fmt: skip
MOST_MEMORY = 3 << 30


def layer(draw):
    """A layer's expression, mostly one that can be made."""
    word = any_layer(draw)
    while draw.random() < 0.95 and not can_be_made(word):
        word = any_layer(draw)
    return word


def can_be_made(word):
    try:
        return all(item.layer(2) for item in parse_text(word).layers)
    except ConvcalcError:
        return False


def any_layer(draw):
    """A kind that exists, with some of its keys."""
    kind = draw.choice(list(LAYERS.values()))
    keys = [
        *kind.keys,
        *(f"{field}=" for field in field_names(kind.layer_class())),
        *kind.flags,
        *kind.keys,
        *kind.keys,
        "name=",
    ]
    keys = draw.choice([*[keys] * 15, ["zz", ""]])
    word = draw.choice([kind.name, kind.name, *kind.names()])
    few = ["2", "3", "1", "4"]
    value = draw.choice([*[few] * 12, SIZES])
    arguments = [draw.choice(value)] * draw.randint(0, 1) if kind.main else []
    arguments += [draw.choice(keys) + draw.choice(value) for _ in range(draw.choice([0, 0, 1, 1, 2]))]
    return f"{word}:{','.join(arguments)}" if arguments else word


def mutated(draw, word):
    """The word with a character gone, twice, or another."""
    if not word or draw.random() > 0.01:
        return word
    place = draw.randrange(len(word))
    return word[:place] + draw.choice(["", word[place] * 2, draw.choice("x:,=@()[]-+#. é")]) + word[place + 1 :]


def option(draw, table):
    """An option and its value, mostly one that fits."""
    name = draw.choice(list(table))
    values = table[name]
    if draw.random() < 0.05:
        values = draw.choice([None, SIZES, PATHS])
    return [name] if values is None else [name, draw.choice(values)]


def command_line(draw):
    """A list of arguments."""
    verb = draw.choice([*VERBS])
    small = ["3x8x8", "2x3x8x8", "[[0,1],[2,3]]"]
    words = [
        draw.choice([*INPUTS[:2] * 8, "16x9x9", draw.choice(INPUTS)])
        if verb != "run"
        else draw.choice([*small * 8, *INPUTS])
    ]
    options = []
    if draw.random() < 0.1:
        options = [option(draw, LAYER_OPTIONS) for _ in range(draw.randint(1, 3))]
    else:
        words += [layer(draw) for _ in range(draw.randint(1, 4))]
        if draw.random() < 0.2:
            words[1:1] = draw.choice([["@a"], ["@a", "@b"], ["repeat:3"]])
            words.append(draw.choice(["end", *WIRING]))
    if draw.random() < 0.05:
        words.insert(draw.randint(0, len(words)), draw.choice([*TEXTS, *WIRING]))
    known = options_of(verb)
    table = OPTIONS if draw.random() < 0.05 else {name: OPTIONS[name] for name in OPTIONS if name in known}
    for more in options + [option(draw, table) for _ in range(draw.choice([0, 0, 1, 1, 2]))]:
        place = draw.choice([0, len(words)])
        words[place:place] = more
    verb = draw.choice([verb] * 50 + ["shpe", "--help", ""])
    return [mutated(draw, word) for word in [verb, *words]]


def stdin():
    return io.TextIOWrapper(io.BytesIO(b"3x8x8 conv:4,k3\n\xff\nrelu\n3x8x8 conv:4,k9\n"), encoding="utf-8")


def ask(arguments, monkeypatch):
    """Exit status, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stdin", stdin())
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run_command_line(arguments)
    return status, out.getvalue(), err.getvalue()


def check(arguments, monkeypatch):
    status, out, err = ask(arguments, monkeypatch)
    assert status in (0, 1, 2)
    messages = err.splitlines()
    failures = [line for line in messages if line.startswith("error: ")]
    assert len(failures) == (1 if status else 0)
    asked = ("--format", "json") in itertools.pairwise(arguments)
    if status and asked:
        document = json.loads(out.splitlines()[-1])
        assert document["status"] == "error"
        assert document["error"]["message"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """In a folder of its own: a word that slips into -o names a file."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bounded():
    """No more address space than a question may need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("seed", range(150))
def test_a_few(seed, monkeypatch):
    check(command_line(random.Random(seed)), monkeypatch)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(draw=st.randoms(use_true_random=False))
def test_many(draw, bounded, monkeypatch):
    check(command_line(draw), monkeypatch)
