"""`convcalc run` as people and scripts call it."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from convcalc.arrays import MADE, NAMED
from convcalc.cli import run_command_line
from convcalc.cli.run import HELP
from convcalc.executor.report import RunReport
from convcalc.render.arrays import print_arrays, resized

X = "[[0,1,2],[3,4,5],[6,7,8]]"
K = "[[0,1],[2,3]]"
K_LIST = [[0, 1], [2, 3]]
EDGE = "[[1,1,0,0,0,0,1,1]]"


@pytest.fixture
def run(capsys):
    """The output of `convcalc run` with these arguments, and what it said, for the status that is expected."""

    def call(*arguments, status=0):
        assert run_command_line(["run", *arguments]) == status
        return capsys.readouterr()

    return call


def bare(run, *arguments):
    return json.loads(run(*arguments, "-q").out)


def test_the_example_of_the_notes(run):
    assert run(X, "-w", K) == ("19\t25\n37\t43\n", "")
    assert run(X, "-w", K, "-q").out == "[[19,25],[37,43]]\n"
    document = json.loads(run(X, "-w", K, "--format", "json").out)
    assert document == {
        "version": 1,
        "verb": "run",
        "status": "complete",
        "shape": [2, 2],
        "dtype": "int64",
        "output": [[19, 25], [37, 43]],
        "diagnostics": [],
    }


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("[[[0,1,2],[3,4,5],[6,7,8]],[[1,2,3],[4,5,6],[7,8,9]]]", "-w", "[[[0,1],[2,3]],[[1,2],[3,4]]]"),
         [[56, 72], [104, 120]]),
        ((EDGE, "-w", "[1,-1]"), [[0, 1, 0, 0, 0, -1, 0]]),
        (("[[1],[1],[0],[0],[0],[0],[1],[1]]", "-w", "[1]"), [[1], [1], [0], [0], [0], [0], [1], [1]]),
        (("[[1,2,5,6],[3,4,7,8],[9,1,0,7],[2,3,4,5]]", "maxpool:2"), [[4, 8], [9, 7]]),
        ((X, "-w", K, "--flip"), [[5, 11], [23, 29]]),
        ((X, "-w", K, "-s", "2"), [[19]]),
        ((X, "-w", K, "--bias-values", "[1]"), [[20, 26], [38, 44]]),
        ((X, "conv:nobias", "relu", "-w", f"0.weight={K.replace('[[', '[[[[').replace(']]', ']]]]')}"),
         [[19, 25], [37, 43]]),
        (("--input", X, "-w", K), [[19, 25], [37, 43]]),
        (("4x4", "-w", "[[1,2,3],[4,5,6],[7,8,9]]", "--as-matrix"),
         [[1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0], [0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0],
          [0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0], [0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9]]),
        ((X, "-w", K, "--im2col"), [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]),
        ((X, "conv:k2,name=a", "relu", "-w", K, "--layer", "a"), [[19, 25], [37, 43]]),
    ],
)  # fmt: skip
def test_bare_answers(run, arguments, wanted):
    assert bare(run, *arguments) == wanted


@pytest.mark.parametrize(("given", "wanted"), [("8x8", "3x8x8"), ("224", "3x1x224")])
def test_an_array_has_the_channels_that_the_first_layer_takes(run, given, wanted):
    out, err = run(given, "Conv2d(3, 8, 3)", status=1)
    assert out == ""
    assert err == (
        f"error: the input is one array of {given}, and the first layer takes 3 channels; give an array of {wanted}\n"
    )


def test_the_help_names_every_kernel():
    words = set(re.findall(r"[a-z][a-z0-9-]+", HELP))
    assert {*NAMED, *MADE} <= words


def test_the_transposed_matrix(run):
    kernel = "[[1,2,3],[4,5,6],[7,8,9]]"
    straight = bare(run, "4x4", "-w", kernel, "--as-matrix")
    transposed = bare(run, "2x2", "--kind", "convt", "-w", kernel, "--as-matrix")
    assert transposed == np.transpose(straight).tolist()


def test_files_in_and_out(run, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(9).reshape(3, 3))
    np.savez(tmp_path / "w.npz", **{"0.weight": np.arange(4).reshape(1, 1, 2, 2), "0.bias": [1]})
    assert (
        run(str(tmp_path / "x.npy"), "conv:k2", "-w", str(tmp_path / "w.npz"), "-o", str(tmp_path / "y.npy")).out == ""
    )
    assert np.load(tmp_path / "y.npy").tolist() == [[20, 26], [38, 44]]
    run(str(tmp_path / "x.npy"), "-w", K, "-o", str(tmp_path / "y.json"))
    assert json.loads((tmp_path / "y.json").read_text())["output"] == [[19, 25], [37, 43]]
    error = run(str(tmp_path / "x.npy"), "-w", K, "-o", str(tmp_path / "x.npy"), status=1).err
    assert "is the input; the result would overwrite it" in error


PRINTED = """\
{cls}(
  (a): Conv2d(1, 2, kernel_size=(2, 2), stride=(1, 1))
  (b): Sequential(
    (0): ReLU()
    (1): Conv2d(2, 1, kernel_size=(1, 1), stride=(1, 1), bias=False)
  )
)
"""


def test_what_pytorch_prints_with_weights_by_its_names(run, tmp_path):
    (tmp_path / "net.txt").write_text(PRINTED.format(cls="Sequential"))
    np.savez(
        tmp_path / "w.npz",
        **{"a.weight": [[K_LIST], [K_LIST]], "a.bias": [0.0, -40.0], "b.1.weight": [[[[1.0]], [[10.0]]]]},
    )
    output = bare(run, X, str(tmp_path / "net.txt"), "-w", str(tmp_path / "w.npz"))
    assert output == [[[19, 25], [37, 43 + 10 * 3]]]
    (tmp_path / "net.txt").write_text(PRINTED.format(cls="Net"))
    error = run(X, str(tmp_path / "net.txt"), status=1).err
    assert "is not known" in error
    assert bare(run, X, str(tmp_path / "net.txt"), "-w", str(tmp_path / "w.npz"), "--assume-sequential") == output


def test_indices_are_shown_and_undo_the_pooling(run):
    document = json.loads(run("[[1,2],[3,4]]", "maxpool:2", "--indices", "--format", "json").out)
    assert (document["output"], document["indices"]) == ([[4]], {"0": [[3]]})
    assert run("[[1,2],[3,4]]", "maxpool:2", "--indices").out == "4\n\n3\n"
    assert json.loads(run("[[1,2],[3,4]]", "maxpool:2", "--indices", "--get", "indices.0").out) == [[3]]
    undone = bare(run, "[[1,2],[3,4]]", "maxpool:2,indices", "@p", "maxunpool:2,@p.1")
    assert undone == [[0, 0], [0, 4]]
    error = run("[[1,2],[3,4]]", "maxpool:2,indices", "@p", "maxunpool:2,@p", status=1).err
    assert "an index is 4, but the output has places 0 to 3 in a channel" in error


def test_fitting_learns_the_edge_kernel_and_prints_a_falling_loss(run, tmp_path):
    np.savetxt(tmp_path / "x.csv", [json.loads(EDGE)[0]] * 6, fmt="%d", delimiter=",")
    run(str(tmp_path / "x.csv"), "-w", "[1,-1]", "-o", str(tmp_path / "y.csv"))
    out, err = run(
        str(tmp_path / "x.csv"), "conv:k1x2,nobias", "--fit", str(tmp_path / "y.csv"), "--lr", "3e-2", "--steps", "20"
    )
    assert [float(number) for number in out.split()] == pytest.approx([1, -1], abs=0.01)
    losses = [float(line.rpartition(" ")[2]) for line in err.splitlines() if line.startswith("step")]
    assert len(losses) == 11
    assert losses == sorted(losses, reverse=True)


def test_learned_weights_are_written_as_they_are_read(run, tmp_path):
    target = [[1, 2], [3, 4]]
    run(X, "conv:k2", "--fit", json.dumps(target), "--lr", "1e-3", "-o", str(tmp_path / "w.npz"))
    assert set(np.load(tmp_path / "w.npz")) == {"0.weight", "0.bias"}
    learned = bare(run, X, "conv:k2", "-w", str(tmp_path / "w.npz"))
    before = bare(run, X, "conv:k2")
    assert np.square(np.subtract(learned, target)).sum() < np.square(np.subtract(before, target)).sum()


def test_a_shape_in_place_of_an_array_is_random_from_the_seed(run):
    first = run("4x4", "relu", "--seed", "1", "-q")
    assert run("4x4", "relu", "--seed", "1", "-q") == first
    assert run("4x4", "relu", "--seed", "2", "-q") != first
    assert "the input is random, drawn from seed 1" in run("4x4", "relu", "--seed", "1").err


def test_lines(run, monkeypatch):
    questions = f"{X} conv:k2\n# nothing\n[[1,-2]] relu\n[1,[2]] relu\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(questions.encode())))
    lines = [json.loads(line) for line in run("--lines", "-w", K).out.splitlines()]
    assert [line["line"] for line in lines] == [1, 3, 4]
    assert lines[0]["output"] == [[19, 25], [37, 43]]
    assert [line["status"] for line in lines[1:]] == ["error", "error"]
    assert lines[1]["error"]["message"] == "no layer has a weight: relu"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("plain", "19  25\n37  43\n"),
        ("csv", "19,25\n37,43\n"),
        ("markdown", "|  | 0 | 1 |\n| ---: | ---: | ---: |\n| 0 | 19 | 25 |\n| 1 | 37 | 43 |\n"),
        ("jsonl", '{"version":1,"verb":"run","status":"complete","shape":[2,2],"dtype":"int64",'
                  '"output":[[19,25],[37,43]],"diagnostics":[]}\n'),
    ],
)  # fmt: skip
def test_formats(run, name, wanted):
    assert run(X, "-w", K, "--format", name).out == wanted


def test_nan_and_infinity_are_texts_in_json_and_words_elsewhere(run):
    assert json.loads(run("[nan,inf,-inf,0.5]", "relu", "--format", "json").out)["output"] == ["nan", "inf", 0.0, 0.5]
    assert run("[nan,inf,0.5]", "relu", "-q").out == "[nan,inf,0.5]\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "nothing is asked about"),
        (("relu",), 2, "there is no input; write an array first"),
        ((X, "--input", X), 2, "the input is given twice"),
        ((X, "3x4", "relu"), 2, "the input is given twice"),
        (("[[1,2],[3]]", "relu"), 2, "this is 1 where those before it are 2"),
        (("no.npy", "relu"), 1, "no.npy does not exist"),
        ((X, "-w", "gausian"), 2, "did you mean 'gaussian'?"),
        ((X, "conv:k2", "-w", "[[1,2,3]]"), 1, "weight is 1x1x1x3, but must be 1x1x2x2"),
        ((X, "-w", K, "-w", K), 2, "several weights are given; name each"),
        ((X, "relu", "--as-matrix", "--im2col"), 2, "--as-matrix and --im2col ask for different answers"),
        ((X, "relu", "--as-matrix"), 1, "relu is not linear, so it has no matrix"),
        ((X, "relu", "--layer", "1"), 2, "there is no such layer; the only layer is 0"),
        ((X, "-w", K, "--format", "tabel"), 2, "did you mean 'table'?"),
        ((X, "-w", K, "--get", "outptu"), 2, "did you mean 'output'?"),
        ((X, "-w", K, "-o", "y.bmp.npz/x.npy"), 1, "cannot be written"),
        ((X, "conv:k1", "--check", "direct", "--max", "scaled"), 2, "scaled has no limit; write scaled=1e-5"),
        ((X, "-w", "[" * 2000), 2, "more than 8 axes"),
        (("zeros:99999999x9999999", "relu"), 1, "more than this machine's memory holds"),
    ],
)
def test_refusals(run, arguments, status, message):
    assert message in run(*arguments, status=status).err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, "relu", "-o", "no/y.npy"), "no/y.npy cannot be written: no such file or directory"),
        ((X, "relu", "-o", "folder"), "folder cannot be written: is a directory"),
        ((X, "relu", "-o", "folder/file/y.npy"), "folder/file/y.npy cannot be written: not a directory"),
        ((X, "conv:k1", "--fit", X, "-o", "no/w.npz"), "no/w.npz cannot be written: no such file or directory"),
        (("5x5", "conv:2", "-o", "y.csv"), "a .csv file holds one or two axes, not 2x5x5; write .npy"),
        (("2x5x5", "conv:2", "-o", "y.png"), "a .png image has 1 or 3 channels of two axes, not 2x5x5; write .npy"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(run, monkeypatch, tmp_path, arguments, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("")
    monkeypatch.chdir(tmp_path)

    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr("convcalc.executor.run.compute", never)
    monkeypatch.setattr("convcalc.executor.fit.fit", never)
    assert run(*arguments, status=1).err == f"error: {message}\n"


def test_of_a_variance_below_zero_comes_nan_and_no_warning(run):
    weights = [part for pair in ("1.running_var=[-1]", "1.running_mean=[0]") for part in ("-w", pair)]
    assert run("ones:1x2x2", "conv:1,k1,nobias", "bn", "-w", "0.weight=ones:1x1x1x1", *weights, "-q").out == (
        "[[[nan,nan],[nan,nan]]]\n"
    )


def test_a_model_that_is_not_wired_says_what_tells(run, tmp_path):
    (tmp_path / "net.txt").write_text("Net(\n  (a): Conv2d(1, 2, kernel_size=(1, 1))\n  (b): ReLU()\n)")
    said = run("ones:1x1x2x2", str(tmp_path / "net.txt"), status=1).err
    assert said.startswith(
        "error: layer a (conv): what comes into it is not known: in which order the modules of Net are called is not"
        " printed; print(torch.fx.symbolic_trace(model)) prints it, --assume-sequential takes the printed order\n"
    )


# --- pictures -------------------------------------------------------------------------------------------------------


def drawn(array, how=None, *, width=80, colour=False, **others):
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, no_color=not colour, highlight=False,
                      color_system="truecolor" if colour else None)  # fmt: skip
    print_arrays(RunReport(np.asarray(array), **others), console, how)
    return file.getvalue()


def test_a_small_array_is_a_table_and_a_large_one_a_picture():
    assert [line.split() for line in drawn([[19, 25], [37, 43]]).splitlines()] == [
        ["0", "1"], ["─────────"], ["0", "19", "25"], ["1", "37", "43"]
    ]  # fmt: skip
    lines = drawn(np.arange(200 * 300).reshape(200, 300)).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1] == "0  .:-=+*#%@ 59999   200x300"
    assert len(lines) == 28


def test_a_row_that_is_too_wide_stands_upright():
    lines = drawn(np.arange(30) + 0.1234).splitlines()
    assert (len(lines), lines[0].split(), lines[-1].split()) == (30, ["0", "0.1234"], ["29", "29.12"])
    assert len(drawn(np.arange(30) + 0.1234, width=300).splitlines()) == 3
    assert "1x1000" in drawn(np.ones((1, 1000)))


def test_of_a_table_that_is_too_wide_the_first_and_last_columns_are_shown():
    lines = drawn(np.arange(300).reshape(3, 100), "table", width=40).splitlines()
    assert " ".join(" ".join(lines[5:]).split()) == "95 columns do not fit; -o FILE writes all"
    assert [line.split() for line in lines[:5]] == [
        ["0", "1", "2", "…", "98", "99"], ["─" * 29], ["0", "0", "1", "2", "…", "98", "99"],
        ["1", "100", "101", "102", "…", "198", "199"], ["2", "200", "201", "202", "…", "298", "299"],
    ]  # fmt: skip


def test_shades_without_colour():
    picture = drawn([[0, 1], [2, 9]], "heatmap").splitlines()
    assert picture[0] == " " * 16 + "." * 16
    assert picture[-2] == ":" * 16 + "@" * 16


def test_half_blocks_in_colour_hold_two_rows():
    picture = drawn([[0.0], [1.0]], "heatmap", colour=True)
    assert "38;2;68;1;84" in picture
    assert "▀" in drawn(np.zeros((40, 40)), "heatmap", colour=True)
    both = drawn(np.indices((33, 1))[0], "heatmap", colour=True).splitlines()[0]
    assert "38;2;68;1;84;48;2;" in both


def test_values_of_both_signs_meet_at_zero_in_white():
    assert "38;2;247;247;247" in drawn([[-5, 0, 5]], "heatmap", colour=True)
    assert "38;2;247;247;247" not in drawn([[1, 2, 3]], "heatmap", colour=True)


def test_only_some_of_many_channels_are_drawn():
    text = drawn(np.zeros((64, 50, 50)), "heatmap")
    assert "channel 3" in text
    assert "channel 4" not in text
    assert "and 60 more; -o FILE writes all" in text


def test_nan_has_a_mark_of_its_own():
    lines = drawn([[0.0, np.nan], [1.0, np.inf]], "heatmap").splitlines()
    assert "?" in lines[0]
    assert lines[-1].endswith("nan ?")


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (80, 80), (81, 80), (3, 81), (100, 1000), (1, 500)])
def test_resizing_keeps_the_mean_and_the_width(shape):
    plane = np.random.default_rng(0).normal(size=shape)
    pixels = resized(plane, 80)
    assert pixels.shape[1] <= 80
    if shape[1] % 80 == 0 or shape[1] <= 80:
        assert pixels.mean() == pytest.approx(plane.mean())


@pytest.mark.parametrize("given", [["3x8x8"], ["[[1,2]]"], ["--input", "3x8x8"], ["3x8x8", "@x"]])
def test_an_input_alone_asks_nothing(run, given):
    said = run(*given, status=2).err
    assert said.startswith(
        "error: there is no layer after the input; write one, such as conv:k3, or a kernel with -w\n"
    )


def test_a_chain_is_fitted_by_each_optimizer(run, tmp_path):
    x, target = tmp_path / "x.npy", tmp_path / "y.npy"
    stream = np.random.default_rng(0)
    np.save(x, stream.normal(size=(4, 2, 6, 6)))
    np.save(target, stream.normal(size=(4, 3)))
    chain = [str(x), "conv:4,k3", "relu", "maxpool:2", "flatten", "linear:3"]
    for optimizer, rate in (("sgd", "0.01"), ("momentum", "0.003"), ("adam", "0.01"), ("adamw", "0.01")):
        weights = str(tmp_path / f"{optimizer}.npz")
        options = ["--fit", str(target), "--optimizer", optimizer, "--lr", rate, "--steps", "60"]
        losses = json.loads(run(*chain, *options, "--get", "losses").out)
        assert len(losses) == 61
        assert losses[-1] < 0.2 * losses[0], optimizer
        run(*chain, *options, "-o", weights)
        output = np.array(bare(run, *chain, "-w", weights))
        assert ((output - np.load(target)) ** 2).sum() == pytest.approx(losses[-1], rel=1e-6)


def test_which_optimizers_there_are(run):
    assert "did you mean 'adam'?" in run(X, "-w", K, "--fit", K, "--optimizer", "adamm", status=2).err
    assert "has a meaning with --fit only" in run(X, "-w", K, "--optimizer", "adam", status=2).err


def test_the_loss_is_drawn_on_a_terminal():
    report = RunReport(np.ones((1, 1)), losses=[100.0, 10.0, 1.0, 1.0])
    console = Console(file=io.StringIO(), width=40, color_system=None, highlight=False)
    print_arrays(report, console)
    lines = console.file.getvalue().splitlines()
    assert [line.rstrip() for line in lines[:9]] == [
        "loss",
        "100 ┤█",
        "    ┤█",
        "    ┤█▁",
        "    ┤██",
        "    ┤██",
        "  1 ┤██▁▁",
        "     0  3  (logarithmic)",
        "",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        "a.npy relu -o a.npy",
        "relu --input a.npy -o a.npy",
        "3x4x4 conv:2,k3,nobias -w 0.weight=a.npy -o a.npy",
        "3x4x4 conv:2,k3,nobias -w b.npz:a -o b.npz",
        "3x4x4 conv:2,k3 -w 0.weight=b.npz:a --bias-values a.npy -o a.npy",
        "3x4x4 conv:2,k3 --check a.npy -o a.npy",
        "3x4x4 conv:2,k3 --fit a.npy -o a.npy",
        "a.npy relu --batch 1 -o a.npy",
        "a.npy relu --profile -o a.npy --format json",
    ],
)
def test_no_file_that_is_read_is_overwritten(arguments, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array = np.ones((2, 3, 3, 3))
    np.save("a.npy", array)
    np.savez("b.npz", a=array)
    assert "is the input; the result would overwrite it" in run(*arguments.split(), status=1).err
    assert np.array_equal(np.load("a.npy"), array)
    assert np.load("b.npz").files == ["a"]


def test_a_table_is_not_written_as_an_array(run, tmp_path):
    for option in ("--profile", "--check=direct"):
        said = run("3x4x4", "relu", option, "-o", str(tmp_path / "y.npy"), status=2).err
        assert "y.npy is for an array, but the answer is a table; write .json" in said
    assert not list(tmp_path.iterdir())


def test_what_text_does_not_hold_is_refused(run, monkeypatch):
    monkeypatch.setattr("convcalc.limits.available_memory", lambda: 1 << 20)
    said = run("1x200x200", "relu", "-q", status=1).err
    assert "40,000 numbers as text: 3.052 MiB of memory are needed, and 1.000 MiB are free; -o FILE.npy holds" in said
    assert run("1x200x200", "relu", "--get", "shape").out == "[1,200,200]\n"
    assert run("1x40x40", "conv:1,k2", "--im2col", "--get", "shape").out == "[1521,4]\n"
    said = run("1x200x200", "conv:1,k5", "--im2col", "--get", "shape", status=1).err
    assert "38,416 windows of 25 numbers: 14.65 MiB of memory are needed" in said


def test_layers_after_the_one_that_is_shown_are_not_computed(run, monkeypatch):
    monkeypatch.setattr("convcalc.executor.run._compute", None)
    assert run("1x4x4", "maxpool:2", "relu", "conv:9,k2", "--layer", "0", "--get", "shape").out == "[1,2,2]\n"


def test_layers_of_any_rank_take_arrays_of_many_axes(run):
    assert run("random:2x1x2x3x2x2", "relu", "softmax:1", "--get", "shape").out == "[2,1,2,3,2,2]\n"


def test_the_type_that_is_computed_in(run, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 4, 4), np.float32))
    given = (str(tmp_path / "x.npy"), "conv:2,k3")
    kinds = [
        run(*given, *options, "--get", "dtype").out
        for options in ([], ["--dtype", "float64"], ["--batch", "2", "--dtype", "float64"])
    ]
    assert kinds == ["float32\n", "float64\n", "float64\n"]
    assert run("3x4x4", "conv:2,k3", "--get", "dtype").out == "float32\n"
    assert run("[[1,2],[3,4]]", "relu", "--dtype", "float32", "--get", "dtype").out == "float32\n"
    assert "--dtype is half, but must be one of float32, float64" in run(*given, "--dtype", "half", status=2).err


def test_a_profile_on_the_command_line(run):
    out, err = run("2x3x16x16", "conv:8,k3", "relu", "--profile", "--threads", "1", "--format", "json")
    document = json.loads(out)
    assert [(layer["name"], layer["kind"], layer["layer"]) for layer in document["layers"]] == [
        ("0", "conv+relu", "conv2d:8,k3 relu")
    ]
    assert {"seconds", "gflops", "of_matmul", "intensity", "bytes", "planned", "measured"} <= document["layers"][
        0
    ].keys()
    assert document["totals"]["threads"] == 1
    assert "the best of 5 runs, 1 thread, float32" in err
    assert ", float64\n" in run("2x3x16x16", "conv:8,k3", "--profile", "--dtype", "float64").err
    seconds = float(run("2x3x16x16", "conv:8,k3", "relu", "--profile", "-q").out)
    assert 0 < seconds < 1
