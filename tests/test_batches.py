"""Images, folders and large files through a network in batches, and output files that grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from convcalc.cli import run_command_line
from convcalc.errors import ExpressionError, ModelFileError, ShapeError
from convcalc.executor.batches import Batches
from convcalc.executor.run import run
from convcalc.expressions import parse_text
from convcalc.growing import GrowingArray
from convcalc.images import Folder, preparation, read_image
from convcalc.mapped import MappedArray

CHAIN = ["conv:4,k3", "relu", "flatten", "linear:5"]


@pytest.fixture
def call(capsys):
    """The output of `convcalc run` with these arguments, and what it said, for the status that is expected."""

    def answer(*arguments, status=0):
        assert run_command_line(["run", *map(str, arguments)]) == status
        return capsys.readouterr()

    return answer


@pytest.fixture
def photos(tmp_path):
    """Five images of different sizes: four in colour, the last grey."""
    folder = tmp_path / "photos"
    folder.mkdir()
    stream = np.random.default_rng(0)
    for number, (height, width) in enumerate([(20, 30), (24, 16), (16, 16), (40, 17)]):
        Image.fromarray(stream.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{number}.png")
    Image.fromarray(stream.integers(0, 256, (19, 23), np.uint8)).save(folder / "4.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def names(folder):
    return sorted(file.name for file in folder.iterdir())


# --- images ---------------------------------------------------------------------------------------------------------


def test_an_image_of_floats_is_grey_and_as_it_is(tmp_path):
    floats = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    Image.fromarray(floats).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), floats[None])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", channels=3), np.repeat(floats[None], 3, axis=0))
    resized = read_image(tmp_path / "a.tif", preparation("8x10,nearest", None, None))
    np.testing.assert_array_equal(resized, floats.repeat(2, 0).repeat(2, 1)[None])


def test_an_image_is_resized_cropped_and_normalised(tmp_path):
    Image.new("RGB", (50, 40), (255, 51, 0)).save(tmp_path / "a.png")
    x = read_image(tmp_path / "a.png", preparation("20", "16x12", "imagenet"))
    assert (x.shape, x.dtype) == ((3, 16, 12), np.float32)
    wanted = [(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    assert x[:, 0, 0].tolist() == pytest.approx(wanted, abs=1e-6)


def test_the_crop_is_the_middle(tmp_path):
    pixels = np.arange(7 * 10, dtype=np.uint8).reshape(7, 10)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    x = read_image(tmp_path / "a.png", preparation(None, "3x4", None))
    assert np.round(x[0] * 255).tolist() == pixels[2:5, 3:7].tolist()


@pytest.mark.parametrize(
    ("text", "size"), [("10", (10, 15)), ("10x12", (10, 12)), ("40,bicubic", (40, 60)), ("7,nearest", (7, 10))]
)
def test_the_shorter_side_is_what_a_single_number_means(photos, text, size):
    assert read_image(photos / "0.png", preparation(text, None, None)).shape == (3, *size)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("0", None, None), "--resize is 0, but must be a size such as 224"),
        (("9,cubic", None, None), "after the comma stands one of nearest, bilinear, bicubic, lanczos; did you mean"),
        ((None, "3x4x5", None), "--crop is 3x4x5"),
        ((None, None, "imagnet"), "did you mean 'imagenet'?"),
        ((None, None, "1,2/0"), "means/deviations such as"),
    ],
)
def test_what_is_no_preparation(options, said):
    with pytest.raises(ExpressionError, match=said.replace("?", r"\?")):
        preparation(*options)


def test_what_an_image_cannot_be_prepared_for(photos):
    with pytest.raises(ShapeError, match="16x16, smaller than the crop 18x18; --resize can make it larger"):
        read_image(photos / "2.png", preparation(None, "18", None))
    with pytest.raises(ShapeError, match="has 1 channel, but --normalize has numbers for 2"):
        read_image(photos / "4.png", preparation(None, None, "1,2/3,4"))
    assert read_image(photos / "4.png", preparation(None, None, "imagenet")).shape == (3, 19, 23)


def test_sixteen_bits_are_resized_without_loss_of_range(tmp_path):
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / "a.png")
    x = read_image(tmp_path / "a.png", preparation("4", None, None))
    assert x.tolist() == np.ones((1, 4, 4)).tolist()


def test_a_folder_is_read_in_the_order_of_names(photos):
    folder = Folder(photos, preparation("16", "16", None))
    assert folder.shape == (5, 3, 16, 16)
    assert np.array_equal(folder[1:3][1], read_image(photos / "2.png").astype(np.float32))
    assert np.ptp(folder[4:5][0], axis=0).max() == 0, "a grey image among colours has equal channels"
    with pytest.raises(ShapeError, match=r"1\.png is 3x24x16, but 0\.png is 3x20x30; --resize and --crop make"):
        Folder(photos)[0:2]
    with pytest.raises(ModelFileError, match="holds no images"):
        Folder(photos.parent)


# --- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 4, 100])
def test_batches_give_what_the_whole_gives(batch):
    x = np.random.default_rng(0).normal(size=(10, 3, 8, 8))
    parts = list(Batches(parse_text(" ".join(CHAIN)), x, batch))
    assert [len(part) for part in parts] == [batch] * (10 // batch) + ([10 % batch] if 10 % batch else [])
    np.testing.assert_allclose(np.concatenate(parts), run(" ".join(CHAIN), x).output, rtol=1e-12)


def test_samples_need_no_channels():
    x = np.arange(2 * 4 * 4).reshape(2, 4, 4)
    (both,) = Batches(parse_text("conv"), x, 2, [[0, 1], [2, 3]])
    assert both.shape == (2, 3, 3)
    assert both[1].tolist() == run("conv", x[1], [[0, 1], [2, 3]]).output.tolist()


def test_a_large_file_is_never_in_memory(tmp_path):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (400, 1, 100, 100))
    x[:] = 1
    del x
    run_command_line(["run", str(tmp_path / "x.npy"), "avgpool:10", "--batch", "4", "-o", str(tmp_path / "warm.npy")])
    tracemalloc.start()
    arguments = ["run", str(tmp_path / "x.npy"), "avgpool:10", "--batch", "4", "-o", str(tmp_path / "y.npy")]
    assert run_command_line(arguments) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    y = np.load(tmp_path / "y.npy")
    assert (y.shape, y.min(), y.max()) == ((400, 1, 10, 10), 1, 1)


def test_a_part_of_a_file_alone_is_mapped(tmp_path):
    for order in "CF":
        np.save(tmp_path / "x.npy", np.asarray(np.arange(4000.0).reshape(100, 40), order=order))
        mapped = MappedArray(tmp_path / "x.npy")
        assert np.array_equal(mapped[3:7], np.arange(120.0, 280.0).reshape(4, 40))
        assert np.array_equal(mapped[98:200], np.arange(3920.0, 4000.0).reshape(2, 40))
        assert mapped.whole().shape == (100, 40)
        assert not mapped[0:1].flags.writeable


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on addresses is the system's")
def test_a_file_larger_than_the_addresses_that_there_are(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 24, 1, 16, 16)}
        )
        file.truncate(file.tell() + (1 << 34))  # a hole: it takes no place on the disk
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "from convcalc.executor.batches import Batches; from convcalc.expressions import parse_text\n"
        "from convcalc.arrays import map_array, read_array\n"
        "parts = Batches(parse_text('conv:2,k16 flatten'), map_array('x.npy'), 64).outputs((1 << 24) - 192)\n"
        "print(sum(map(len, parts)))\n"
        "read_array('x.npy')"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout == "192\n"
    assert "x.npy cannot be mapped: 16.00 GiB of addresses are needed" in done.stderr


def test_an_output_that_memory_does_not_hold_is_refused_at_once(call, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.ones((1000, 64)))
    monkeypatch.setattr("convcalc.limits.available_memory", lambda: 100_000)
    said = call(tmp_path / "x.npy", "relu", "--batch", "2", "-q", status=1).err
    assert (
        "the output of all 1,000 samples: 500.0 KiB of memory are needed, and 97.66 KiB are free; -o FILE.npy writes it"
        in said
    )


def test_a_full_disk_leaves_what_can_be_gone_on_with(call, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(10, 4)))
    asked = [tmp_path / "x.npy", "linear:3", "--batch", "2"]
    call(*asked, "-o", tmp_path / "whole.npy")

    def full(self, rows, append=GrowingArray.append):
        if self.done == 4:
            raise ModelFileError("y.npy.part cannot be written: no space left on device")
        append(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(GrowingArray, "append", full)
        said = call(*asked, "-o", tmp_path / "y.npy", status=1).err
    assert said.startswith("note: the weights of 0 are random")
    assert "stopped after 4 of 10 samples; the same command with --resume goes on\nerror: y.npy.part cannot" in said
    assert "4 of 10 samples were there already" in call(*asked, "-o", tmp_path / "y.npy", "--resume").err
    assert (tmp_path / "y.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_full_disk_leaves_no_file_without_rows(call, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.ones((4, 2)))

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(GrowingArray, "_header", full)
    said = call(tmp_path / "x.npy", "relu", "--batch", "2", "-o", tmp_path / "y.npy", status=1).err
    assert said == f"error: {tmp_path}/y.npy.part cannot be written: no space left on device\n"
    assert names(tmp_path) == ["x.npy"]


def test_a_damaged_image_is_mended_and_gone_on_from(call, photos, tmp_path):
    good = (photos / "3.png").read_bytes()
    (photos / "3.png").write_bytes(good[:300])
    asked = [f"{photos}/", *CHAIN, "--resize", "16", "--crop", "16", "--batch", "2", "-o", photos / "y.npy"]
    said = call(*asked, status=1).err
    assert "stopped after 2 of 5 samples" in said
    assert said.endswith("3.png is no image that can be read, or is damaged\n")
    (photos / "3.png").write_bytes(good)
    assert "2 of 5 samples were there already" in call(*asked, "--resume").err
    call(*asked[:-1], tmp_path / "whole.npy")
    assert (photos / "y.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    # An image that is answered already must be the same.
    (photos / "3.png").write_bytes(good[:300])
    call(*asked, status=1)
    (photos / "3.png").write_bytes(good)
    Image.new("RGB", (20, 20)).save(photos / "0.png")
    assert "of another question or other files" in call(*asked, "--resume", status=1).err


def test_a_folder_on_the_command_line(call, photos, tmp_path):
    options = ["--resize", "16", "--crop", "16", "--normalize", "half"]
    call(f"{photos}/", *CHAIN, *options, "--batch", "2", "-o", tmp_path / "y.npy")
    y = np.load(tmp_path / "y.npy")
    assert y.shape == (5, 5)
    assert json.loads(call(f"{photos}/", *CHAIN, *options, "-q").out) == [
        pytest.approx(row, abs=1e-6) for row in y.tolist()
    ]
    one = json.loads(call(photos / "1.png", *CHAIN, *options, "-q").out)
    assert one == pytest.approx(y[1].tolist(), abs=1e-6)
    assert names(tmp_path) == ["photos", "y.npy"]


def test_a_shape_makes_as_many_samples_as_a_batch_has(call):
    assert json.loads(call("3x6x6", *CHAIN, "--batch", "4", "--format", "json").out)["shape"] == [4, 5]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["x.npy", "relu", "--resume"], 2, "name it with -o FILE.npy"),
        (["x.npy", "relu", "--resume", "-o", "y.csv"], 2, "name it with -o FILE.npy"),
        (["x.npy", "relu", "--batch", "2", "--layer", "0"], 2, "--layer works on one input"),
        (["x.npy", "relu", "--batch", "2", "-o", "x.npy"], 1, "is the input; the result would overwrite it"),
        (["x.npy", "relu", "--crop", "3"], 2, "--crop has a meaning for images and folders of them only"),
        (["x.npy", "relu", "--crop", "3", "--batch", "2"], 2, "--crop has a meaning for images"),
        (["x.npy", "relu", "--batch", "0"], 2, "--batch"),
        (["x.npy", "flatten:0", "--batch", "2"], 1, "no axis of samples"),
        (["folder", "relu"], 1, "folder is a folder; a folder of images is written with a / at its end, folder/"),
        (["nowhere/", "relu"], 1, "nowhere/ does not exist"),
        (["nowhere.npy", "relu", "--batch", "2"], 1, "nowhere.npy does not exist"),
    ],
)
def test_what_is_refused(call, tmp_path, monkeypatch, arguments, status, said):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((3, 2, 2)))
    Path("folder").mkdir()
    assert said in call(*arguments, status=status).err


# --- several inputs -------------------------------------------------------------------------------------------------


@pytest.fixture
def several(tmp_path, monkeypatch):
    """A model of N images and N numbers and one number beside them, and files of its inputs."""
    monkeypatch.chdir(tmp_path)
    nodes = [
        onnx.helper.make_node("Mul", ["x", "t"], ["y"]),
        onnx.helper.make_node("ReduceMean", ["y"], ["z"], axes=[1, 2, 3], keepdims=0),
    ]
    shapes = {"x": ["N", 3, 6, 5], "t": ["N", 1, 1, 1], "y": ["N", 3, 6, 5], "z": ["N"]}
    save_model(nodes, shapes, inputs="xt", outputs="yz")
    stream = np.random.default_rng(0)
    x, t = stream.normal(size=(7, 3, 6, 5)).astype(np.float32), stream.normal(size=(7, 1, 1, 1)).astype(np.float32)
    np.save("x.npy", x)
    np.save("t.npy", t)
    np.savez("xt.npz", x=x, t=t)
    return x * t


def save_model(nodes, shapes, *, inputs, outputs):
    infos = {key: onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, size) for key, size in shapes.items()}
    graph = onnx.helper.make_graph(nodes, "g", [infos[key] for key in inputs], [infos[key] for key in outputs])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), "m.onnx")


@pytest.mark.parametrize(
    "given", [["--input", "x=x.npy,t=t.npy"], ["xt.npz"], ["--input", "t=t.npy", "--input", "x=x.npy"]]
)
def test_several_inputs_go_through_in_batches(call, several, given):
    call(*given, "m.onnx", "--batch", "3", "-o", "both.npz")
    both = np.load("both.npz")
    np.testing.assert_array_equal(both["y"], several)
    np.testing.assert_allclose(both["z"], several.mean((1, 2, 3)), rtol=1e-5, atol=1e-7)
    call(*given, "m.onnx", "--batch", "3", "-o", "y.npy")
    np.testing.assert_array_equal(np.load("y.npy"), several)


def test_a_run_of_several_inputs_is_gone_on_with(call, several, monkeypatch):
    def full(self, rows, append=GrowingArray.append):
        if self.done == 4:
            raise ModelFileError("no space left on device")
        append(self, rows)

    asked = ["m.onnx", "--input", "x=x.npy,t=t.npy", "--batch", "2", "-o", "y.npy"]
    with monkeypatch.context() as patch:
        patch.setattr(GrowingArray, "append", full)
        call(*asked, status=1)
    assert "4 of 7 samples were there already" in call(*asked, "--resume").err
    np.testing.assert_array_equal(np.load("y.npy"), several)
    with monkeypatch.context() as patch:
        patch.setattr(GrowingArray, "append", full)
        call(*asked, status=1)
    os.utime("x.npy", (0, 0))  # each file is looked at, not the last alone
    assert "of another question or other files" in call(*asked, "--resume", status=1).err


def test_of_several_inputs_those_that_are_made_are_as_many_as_those_that_are_given(call, several):
    assert call("m.onnx", "--input", "t=1x1x1,x=x.npy", "--batch", "3", "--get", "shape").out == "[7,3,6,5]\n"
    assert call("m.onnx", "--input", "t=1x1x1,x=3x6x5", "--batch", "3", "--get", "shape").out == "[3,3,6,5]\n"


def test_a_folder_is_one_of_several_inputs(call, several, photos):
    asked = ["m.onnx", "--input", f"x={photos}/,t=ones:5x1x1x1", "--resize", "6x5"]
    assert call(*asked, "--get", "shape").out == "[5,3,6,5]\n"
    assert "--resize has a meaning for images" in call("m.onnx", "--input", "x=x.npy,t=t.npy", *asked[3:], status=2).err


@pytest.mark.parametrize(
    ("shape", "given", "said"),
    [
        (["N", 3], "x=ones:4x2,w=ones:3x3", "as many samples of every input, but there are 4 of x and 3 of w"),
        (
            [2, 2],
            "x=ones:2x2,w=ones:2x2",
            "the input w is 2 in front, however many samples there are of x; batches need",
        ),
        ([], "x=ones:4x2,w=ones:4", "the input w is one number; batches need an axis of samples in front of every"),
        (["N", 2], "x=ones:4x2,w=one.npy", "samples stand along the first axis, each an array; but the input w is one"),
        (["N", 2], "x=ones:4x2", "the input w is missing"),
    ],
)
def test_inputs_without_an_axis_of_samples_are_refused(call, tmp_path, monkeypatch, shape, given, said):
    monkeypatch.chdir(tmp_path)
    np.save("one.npy", np.float32(1))
    node = onnx.helper.make_node("MatMul" if shape == [2, 2] else "Mul", ["x", "w"], ["y"])
    save_model([node], {"x": ["N", 2], "w": shape, "y": ["N", "K"]}, inputs="xw", outputs="y")
    assert said in call("m.onnx", "--input", given, "--batch", "2", status=1).err


def test_one_number_is_written_as_an_array_of_one(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node = onnx.helper.make_node("Mul", ["x", "w"], ["y"])
    save_model([node], {"x": ["N"], "w": [], "y": ["N"]}, inputs="xw", outputs="y")
    assert call("m.onnx", "--input", "x=[1,2],w=[3]", "-q").out == "[3.0,6.0]\n"
    assert (
        "input w is a scalar, with 0 axes, but 2 is given" in call("m.onnx", "--input", "x=[1],w=[3,4]", status=1).err
    )


# --- files that grow ------------------------------------------------------------------------------------------------


def test_a_file_grows_and_is_gone_on_with(tmp_path):
    path = tmp_path / "y.npy"
    rows = np.arange(12.0).reshape(6, 2)
    first = GrowingArray(path, 6, {"words": ("a",)})
    first.append(rows[:2])
    first.append(rows[2:3])
    first.close()
    assert not path.exists()
    with (tmp_path / "y.npy.part").open("ab") as file:
        file.write(b"half a row")
    pair = GrowingArray(path, 6, {"words": ["a"]}, resume=True, step=2)
    assert pair.done == 2
    pair.append(rows[2:3])
    pair.close()
    second = GrowingArray(path, 6, {"words": ["a"]}, resume=True)
    assert (second.done, second.replaces) == (3, False)
    with pytest.raises(ShapeError, match=r"the output is 3 \(float64\), but that of the samples before is 2 "):
        second.append(np.ones((1, 3)))
    second.append(rows[3:])
    second.finish()
    assert np.load(path).tolist() == rows.tolist()
    assert names(tmp_path) == ["y.npy"]


def test_another_question_is_not_gone_on_with(tmp_path):
    first = GrowingArray(tmp_path / "y.npy", 6, {"words": "a"})
    first.append(np.ones((2, 2)))
    first.close()
    with pytest.raises(ModelFileError, match="of another question or other files"):
        GrowingArray(tmp_path / "y.npy", 6, {"words": "b"}, resume=True)
    (tmp_path / "y.npy.part.json").unlink()
    with pytest.raises(ModelFileError, match=r"y\.npy\.part\.json, which says what it is of, is not there"):
        GrowingArray(tmp_path / "y.npy", 6, {"words": "a"}, resume=True)
    assert GrowingArray(tmp_path / "y.npy", 6, {"words": "a"}).replaces


INTERRUPTED = """
import os, signal, sys
from convcalc.__main__ import main
from convcalc.growing import GrowingArray

def append(self, part, whole=GrowingArray.append):
    whole(self, part)
    if self.done == 80:
        os.kill(os.getpid(), signal.SIGINT)

GrowingArray.append = append
main()
"""
"""convcalc, to which somebody presses Ctrl-C after 80 samples."""


def test_ctrl_c_says_how_to_go_on_and_resume_does(interruptible, tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 8, 16, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    words = ["run", str(tmp_path / "x.npy"), "conv:8,k3,p1", "relu", "conv:8,k3,p1", "-o", str(tmp_path / "y.npy")]
    # In a folder that changes while it runs.
    where = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}}
    where |= {"capture_output": True, "text": True}
    stopped = subprocess.run([sys.executable, "-c", INTERRUPTED, *words, "--batch", "2"], check=False, **where)
    assert (stopped.returncode, stopped.stdout) == (130, "")
    assert "stopped after 80 of 300 samples; the same command with --resume goes on" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert names(tmp_path) == ["x.npy", "y.npy.part", "y.npy.part.json"]
    done = subprocess.run([sys.executable, "-m", "convcalc", *words, "--resume", "--batch", "40"], check=True, **where)
    assert "80 of 300 samples were there already" in done.stderr
    y = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(y[[0, 150, 299]], run("conv:8,k3,p1 relu conv:8,k3,p1", x[[0, 150, 299]]).output,
                               rtol=1e-4, atol=1e-5)  # fmt: skip
    assert names(tmp_path) == ["x.npy", "y.npy"]
