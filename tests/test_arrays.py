"""Reading and writing arrays: every format, and everything that a file can have wrong with it."""

from __future__ import annotations

import io
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, strategies as st

from convcalc.arrays import ALIASES, NAMED, is_array, read_array, read_arrays
from convcalc.arrays.text import parse_array
from convcalc.arrays.writing import write_array
from convcalc.errors import ConvcalcError, ExpressionError, ModelFileError, ResourceError, ShapeError


def names(folder):
    return [path.name for path in folder.iterdir()]


# --- in the command line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[1]", [1]),
        ("[[0,1],[2,3]]", [[0, 1], [2, 3]]),
        (" [ [ 0 , -1 ],\n[ +2 , 3 ], ] ", [[0, -1], [2, 3]]),
        ("[1, 2.5]", [1.0, 2.5]),
        ("[.5, 1e3, -2.E-1]", [0.5, 1000.0, -0.2]),
        ("[[[1],[2]]]", [[[1], [2]]]),
        ("[9223372036854775807]", [9223372036854775807]),
    ],
)
def test_inline(text, wanted):
    array = parse_array(text)
    assert array.tolist() == wanted
    assert array.dtype == (np.int64 if isinstance(np.array(wanted).flat[0].item(), int) else np.float64)


def test_inline_nan_and_infinity():
    array = parse_array("[nan, inf, -Infinity, +NaN]")
    assert [math.isnan(array[0]), array[1], array[2], math.isnan(array[3])] == [True, math.inf, -math.inf, True]


def test_whole_numbers_past_int64_become_floats():
    assert parse_array("[9223372036854775808, 1]").tolist() == [2.0**63, 1.0]


@pytest.mark.parametrize(
    ("text", "message", "marked"),
    [
        ("[[1,2],[3]]", "this is 1 where those before it are 2", "[3]"),
        ("[[1,2],3]", "a number stands where a list should", "3"),
        ("[1,[2]]", "a list stands where a number should", "[2]"),
        ("[[[1]],[2]]", "this has 1 axes where those before it have 2", "[2]"),
        ("[[]]", "a list is empty", "[]"),
        ("[1 2]", ", or ] should stand here, not 2", "2"),
        ("[1,,2]", "a number or [ should stand here, not ,", ","),
        ("[a]", "a number or [ should stand here, not a", "a"),
        ("[1,2", "a ] is missing at the end", ""),
        ("[", "a ] is missing at the end", ""),
        ("[1]]", "there is more after the array's end", "]"),
        ("[__import__('os')]", "a number or [ should stand here, not _", "_"),
        ("[" * 9 + "1" + "]" * 9, "more than 8 axes", "["),
    ],
)
def test_inline_that_is_wrong(text, message, marked):
    with pytest.raises(ExpressionError) as caught:
        read_array(text)
    assert message in caught.value.message
    span = caught.value.span
    assert span is not None
    assert text[span.start : span.end] == marked


@given(st.text(alphabet="[],0123456789.-+einfa ", max_size=30))
def test_any_text_is_an_array_or_an_error(text):
    try:
        array = parse_array("[" + text)
    except ExpressionError as error:
        span = error.span
    else:
        span = None
        assert array.size > 0
    assert span is None or 0 <= span.start <= len(text) + 1


@given(
    st.lists(
        st.lists(st.floats(allow_nan=False) | st.integers(-(2**63) + 1, 2**63 - 1), min_size=2, max_size=2), min_size=1
    )
)
def test_what_is_printed_can_be_read(rows):
    assert parse_array(str(rows)).tolist() == np.array(rows, parse_array(str(rows)).dtype).tolist()


@pytest.mark.parametrize("name", [*NAMED, *ALIASES])
def test_named_kernels(name):
    array = read_array(name)
    assert array.ndim == 2
    if name in ("box", "blur", "box5", "gaussian", "gaussian5", "identity", "sharpen"):
        assert array.sum() == pytest.approx(1)
    elif name == "emboss":
        assert array.sum() == 1
    else:
        assert array.sum() == 0


def test_sobel_sees_what_gets_lighter_to_the_right_and_downwards():
    light = np.tile(np.arange(3), (3, 1))
    assert (read_array("sobel") * light).sum() > 0
    assert (read_array("sobel-y") * light.T).sum() > 0
    assert (read_array("sobel") * light.T).sum() == 0


def test_made_for_a_shape():
    assert read_array("ones:2x3").tolist() == [[1] * 3] * 2
    assert read_array("arange:2x2").tolist() == [[0, 1], [2, 3]]
    assert not read_array("zeros:3").any()
    assert np.array_equal(read_array("random:3x3", seed=4), read_array("random:3x3", seed=4))
    assert not np.array_equal(read_array("random:3x3", seed=4), read_array("random:3x3", seed=5))


@pytest.mark.parametrize("text", ["gausian", "ones:axb", "nothing.xyz"])
def test_words_that_are_no_array(text):
    with pytest.raises(ConvcalcError) as caught:
        read_array(text)
    if text == "gausian":
        assert "did you mean 'gaussian'" in caught.value.message


@pytest.mark.parametrize("text", ["conv", "3x4", "relu", "@a", "net.txt.gz", "-", "box:3"])
def test_what_is_no_array_by_its_spelling(text):
    assert not is_array(text)


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["1,2\n3,4\n", "1\t2\r\n3\t4", "1;2\n3;4\n", "1 2\n\n  3   4\n", "# title\n1,2\n3,4,\n", "\ufeff1,2\n3,4"],
)
def test_rows(tmp_path, text):
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode())
    array = read_array(str(path))
    assert array.tolist() == [[1, 2], [3, 4]]
    assert array.dtype == np.int64


def test_decimal_commas_between_semicolons(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("1,5;2\n-3;nan\n")
    assert np.array_equal(read_array(str(path)), [[1.5, 2], [-3, np.nan]], equal_nan=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1,2\n3\n", "line 2 has 1 numbers where those before it have 2"),
        (b"1,2\n\n3,x\n", "line 3, column 2: 'x' is no number"),
        (b"1,,3\n", "line 1, column 2: a number is missing"),
        (b"# nothing\n", "holds no numbers"),
        (b"\xff\xfe1", "is not text"),
    ],
)
def test_rows_that_are_wrong(tmp_path, content, message):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        read_array(str(path))


def test_npz_by_name(tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, **{"0.weight": np.ones((1, 2)), "b": np.zeros(3, np.int8)})
    assert set(read_arrays(path)) == {"0.weight", "b"}
    assert read_array(f"{path}:b").tolist() == [0, 0, 0]
    with pytest.raises(ModelFileError, match=r"holds 2 arrays \(0.weight, b\); choose one with .*:0.weight"):
        read_array(str(path))
    with pytest.raises(ModelFileError, match=r"has no array 0.wait; did you mean '0.weight'"):
        read_array(f"{path}:0.wait")


class Trap:
    """Unpickling this would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_pickles_are_never_loaded(tmp_path):
    trap = np.array([Trap(str(tmp_path / "sprung"))], dtype=object)
    np.save(tmp_path / "a.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "b.npz", trap)
    for name in ("a.npy", "b.npz"):
        with pytest.raises(ModelFileError, match="never loaded"):
            read_array(str(tmp_path / name))
    assert not (tmp_path / "sprung").exists()


def damaged_files():
    whole = io.BytesIO()
    np.save(whole, np.arange(100.0))
    packed = io.BytesIO()
    np.savez_compressed(packed, a=np.arange(100.0))
    yield "x.npy", b""
    yield "x.npy", b"not numpy"
    yield "x.npy", whole.getvalue()[:200]
    yield "x.npy", packed.getvalue()
    yield "x.npz", whole.getvalue()
    yield "x.npz", packed.getvalue()[:100]
    for at in range(40, 200, 8):
        changed = bytearray(packed.getvalue())
        changed[at] ^= 0xFF
        yield "x.npz", bytes(changed)
    yield "x.png", b"\x89PNG\r\n\x1a\nnot really"
    yield "x.png", b""


@pytest.mark.parametrize(("name", "content"), list(damaged_files()))
def test_damaged_files(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    try:
        array = read_array(str(path))
    except ModelFileError as error:
        message = error.message
    else:
        # A damaged byte that nothing depends on.
        message = name
        assert np.array_equal(array, np.arange(100.0))
    assert name in message


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1j]), np.zeros((0, 3))])
def test_arrays_of_what_is_no_number(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ModelFileError):
        read_array(str(tmp_path / "x.npy"))


def test_a_file_that_is_cut_short_says_so(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(100.0))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
    with pytest.raises(ModelFileError, match=r"x\.npy is cut short: it has 920 of 928 bytes"):
        read_array(str(tmp_path / "x.npy"))


def test_archives_of_no_arrays_and_of_too_many(tmp_path, monkeypatch):
    np.savez(tmp_path / "none.npz")
    with pytest.raises(ModelFileError, match=r"none\.npz holds no arrays"):
        read_array(str(tmp_path / "none.npz"))
    np.savez_compressed(tmp_path / "large.npz", a=np.zeros(1 << 20))
    monkeypatch.setattr("convcalc.limits.available_memory", lambda: 1 << 20)
    with pytest.raises(
        ResourceError, match=r"what .*large\.npz holds: 8\.000 MiB of memory are needed, and 1\.000 MiB are free"
    ):
        read_array(str(tmp_path / "large.npz"))


def test_missing_files_and_folders(tmp_path):
    for name in ("no.npy", "no.csv", "no.png", "no.npz"):
        with pytest.raises(ModelFileError, match="does not exist"):
            read_array(str(tmp_path / name))
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(ModelFileError, match="is a folder; name a file in it"):
        read_array(str(tmp_path / "folder.npy"))


# --- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "value", "wanted"),
    [
        ("L", 51, [0.2]),
        ("1", 1, [1.0]),
        ("RGB", (255, 51, 0), [1.0, 0.2, 0.0]),
        ("RGBA", (255, 51, 0, 7), [1.0, 0.2, 0.0]),
        ("I;16", 65535, [1.0]),
    ],
)
def test_images(tmp_path, mode, value, wanted):
    from PIL import Image

    Image.new(mode, (4, 3), value).save(tmp_path / "x.png")
    array = read_array(str(tmp_path / "x.png"))
    assert array.shape == (len(wanted), 3, 4)
    assert array[:, 0, 0].tolist() == pytest.approx(wanted)


def test_images_without_pillow_say_what_to_install(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from convcalc.arrays import read_array\n"
        f"read_array({str(tmp_path / 'x.png')!r})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "needs Pillow: pip install pillow" in result.stderr


# --- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv"])
@pytest.mark.parametrize("array", [np.array([[1, -2], [3, 4]]), np.array([[0.1, np.nan], [1e300, -np.inf]])])
def test_what_is_written_is_read_again(tmp_path, name, array):
    write_array(tmp_path / name, array)
    assert np.array_equal(read_array(str(tmp_path / name)), array, equal_nan=array.dtype.kind == "f")
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["x.png", "x.pgm"])
def test_written_images(tmp_path, name):
    write_array(tmp_path / name, np.array([[0.0, 0.2], [0.4, 1.0], [0.6, 0.8]]))
    assert read_array(str(tmp_path / name)).tolist() == [[[0.0, 0.2], [0.4, 1.0], [0.6, 0.8]]]


def test_written_images_are_stretched_when_values_are_beyond_black_and_white(tmp_path):
    write_array(tmp_path / "x.png", np.array([[-1.0, 0.0], [3.0, np.nan]]))
    assert read_array(str(tmp_path / "x.png"))[0].tolist() == pytest.approx(np.array([[0, 64 / 255], [1, 0]]))


def test_written_colour(tmp_path):
    array = np.zeros((3, 2, 4))
    array[0, 1, 3] = array[2, 0, 0] = 1
    write_array(tmp_path / "x.png", array)
    assert np.array_equal(read_array(str(tmp_path / "x.png")), array)


@pytest.mark.parametrize("name", ["x.csv", "x.png", "x.pgm"])
def test_arrays_that_a_format_cannot_hold(tmp_path, name):
    with pytest.raises(ShapeError, match=r"write \.npy"):
        write_array(tmp_path / name, np.ones((2, 5, 3, 3)))
    assert names(tmp_path) == []


def test_the_input_is_never_overwritten(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3))
    (tmp_path / "link.npy").symlink_to(tmp_path / "x.npy")
    for name in ("x.npy", "link.npy"):
        with pytest.raises(ModelFileError, match="is the input"):
            write_array(tmp_path / name, np.zeros(3), inputs=[str(tmp_path / "x.npy")])
    assert np.load(tmp_path / "x.npy").tolist() == [0, 1, 2]


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ExpressionError, match="should end in"):
        write_array(tmp_path / "x.bmp", np.zeros(3))
    with pytest.raises(ModelFileError, match="cannot be written: no such file"):
        write_array(tmp_path / "no" / "x.npy", np.zeros(3))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.arange(3))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fdopen", full)
    with pytest.raises(ModelFileError, match="no space left"):
        write_array(tmp_path / "x.npy", np.zeros(3))
    assert np.load(tmp_path / "x.npy").tolist() == [0, 1, 2]
    assert names(tmp_path) == ["x.npy"]


def test_a_header_that_python_cannot_take_apart(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 4)))
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole.replace(b", }", b",  "))
    with pytest.raises(ModelFileError, match="is no file of NumPy arrays, or is damaged"):
        read_array(str(tmp_path / "x.npy"))
