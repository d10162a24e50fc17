"""Random nodes of the ops that have many forms, against onnxruntime."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from convcalc.executor.run import compute, prepare
from convcalc.onnx_file import read_onnx


class Case(NamedTuple):
    """A node: `fixed` are the inputs that the file holds, `inputs` those that come in; None is one left out."""

    op: str
    attributes: dict[str, Any]
    inputs: list[np.ndarray | None]
    fixed: dict[int, np.ndarray] = {}
    outputs: tuple[str, ...] = ("float32",)
    opset: int = 21
    tolerance: float = 1e-5


def model_of(case: Case) -> bytes:
    names = [f"x{place}" for place in range(max([len(case.inputs) - 1, *case.fixed]) + 1)]
    given = {name: x for name, x in zip(names, case.inputs, strict=False) if x is not None}
    fixed = {names[place]: array for place, array in case.fixed.items()}
    used = [name if name in given or name in fixed else "" for name in names]
    node = helper.make_node(case.op, used, [f"y{place}" for place in range(len(case.outputs))], **case.attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
         for name, x in given.items()],
        [helper.make_tensor_value_info(f"y{place}", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)
         for place, dtype in enumerate(case.outputs)],
        [numpy_helper.from_array(array, name) for name, array in fixed.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=10)
    return model.SerializeToString()


def given_of(case: Case) -> dict[str, np.ndarray]:
    return {f"x{place}": x for place, x in enumerate(case.inputs) if x is not None}


def ours(case: Case) -> list[np.ndarray]:
    network = read_onnx(model_of(case), "m")
    found = compute(prepare(network, given_of(case)), threads=1).outputs
    return [found[f"y{place}"] for place in range(len(case.outputs))]


def theirs(case: Case) -> list[np.ndarray] | None:
    """What onnxruntime gives, or None for what it refuses."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model_of(case), options, providers=["CPUExecutionProvider"])
        return session.run(None, given_of(case))
    except Exception:  # noqa: BLE001  onnxruntime has many classes for what it refuses
        return None


def normal(stream: np.random.Generator, *shape: int, dtype: str = "float32") -> np.ndarray:
    return stream.normal(size=shape).astype(dtype)


def check(make: Callable[[random.Random, np.random.Generator], Case], seeds: range) -> int:
    """How many random nodes were compared."""
    compared = 0
    for seed in seeds:
        case = make(random.Random(seed), np.random.default_rng(seed))
        wanted = theirs(case)
        if wanted is None:
            continue
        what = f"seed {seed}: {case.op} {case.attributes} {[None if x is None else x.shape for x in case.inputs]}"
        for one, other in zip(ours(case), wanted, strict=True):
            assert one.dtype == other.dtype, what
            np.testing.assert_allclose(one, other, rtol=case.tolerance, atol=case.tolerance, err_msg=what)
        compared += 1
    return compared


def resize(draw: random.Random, stream: np.random.Generator) -> Case:
    rank = draw.choice([1, 2, 2, 3])
    shape = (draw.randint(1, 2), draw.randint(1, 3), *(draw.randint(1, 8) for _ in range(rank)))
    mode = draw.choice(["nearest", "linear", "cubic"] if rank == 2 else ["nearest", "linear"])
    places = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]
    if mode != "nearest":
        # onnxruntime rounds these to float32, which decides which of two neighbours is next to the middle of both.
        places.append("half_pixel_symmetric")
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": draw.choice(places)}
    if mode == "nearest":
        attributes["nearest_mode"] = draw.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    if mode == "cubic":
        attributes["cubic_coeff_a"] = draw.choice([-0.75, -0.5])
        attributes["exclude_outside"] = draw.randint(0, 1)
    # Sizes, and scales that give whole sizes: of others onnxruntime takes another length than ONNX says.
    wanted = [*shape[:2], *(size * draw.choice([1, 2, 3]) for size in shape[2:])]
    if draw.random() < 0.5:
        wanted = [*shape[:2], *(draw.randint(1, 12) for _ in range(rank))]
    return Case("Resize", attributes, [normal(stream, *shape)], {3: np.array(wanted, np.int64)}, opset=19)


FAMILIES: dict[str, Callable[[random.Random, np.random.Generator], Case]] = {
    "resize": resize,
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def test_random_nodes(family):
    assert check(FAMILIES[family], range(12)) >= 4


@pytest.mark.slow
def test_many_random_nodes(family):
    assert check(FAMILIES[family], range(100, 700)) >= 100
