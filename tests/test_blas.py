"""Products that are added to what is there."""

from __future__ import annotations

import random

import numpy as np
import pytest

from convcalc.executor import blas
from convcalc.executor.blocks import multiply
from convcalc.executor.run import compute, prepare
from convcalc.executor.threads import perform

TYPES = [np.float32, np.float64]


@pytest.fixture(params=[True, False], ids=["library", "NumPy alone"])
def library(request, monkeypatch):
    """With NumPy's library, where this machine has one that can add, and without."""
    if request.param:
        if not blas.can_add(np.dtype(np.float32)):
            pytest.skip("NumPy multiplies with another library here")
    else:
        monkeypatch.setattr(blas, "_gemm", lambda dtype: None)
    return request.param


@pytest.mark.parametrize("dtype", TYPES)
def test_products_of_parts_of_arrays(dtype, library):
    draw, stream = random.Random(0), np.random.default_rng(0)
    for _ in range(300):
        rows, terms, columns = draw.randint(1, 70), draw.choice([1, 5, 40, 130]), draw.randint(1, 90)
        whole_a, whole_b, whole_out = (
            stream.standard_normal((high + draw.randint(0, 3), wide + draw.randint(0, 9))).astype(dtype)
            for high, wide in ((rows, terms), (terms, columns), (rows, columns))
        )
        a, b, out = whole_a[-rows:, -terms:], whole_b[:terms, :columns], whole_out[:rows, -columns:]
        if draw.random() < 0.5:
            b = whole_b.T.copy().T[:terms, :columns]
        if draw.random() < 0.5:
            a = whole_a.T.copy().T[-rows:, -terms:]
        before = whole_out.copy()
        added = [
            (
                stream.standard_normal((rows, columns)),
                stream.standard_normal((rows, 1)),
                stream.standard_normal(columns),
            )[draw.randrange(3)].astype(dtype)
            for _ in range(draw.randint(0, 3))
        ]
        calls = []
        multiply(a, b, out, terms, calls, added)
        perform(calls)
        wanted = sum((array.astype(np.float64) for array in added), a.astype(np.float64) @ b.astype(np.float64))
        sizes = sum((abs(array) for array in added), abs(a) @ abs(b))
        assert (abs(out - wanted) <= 8 * np.finfo(dtype).eps * sizes).all()
        before[:rows, -columns:] = out
        assert np.array_equal(before, whole_out)  # nothing beside it was written


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        (lambda a, b, out: (a, b, out), True),
        (lambda a, b, out: (a, b[:, :3], out[:, 1:4]), True),
        (lambda a, b, out: (a.T.copy().T, b, out), True),
        (lambda a, b, out: (a.T.copy().T, b.T.copy().T, out), True),
        (lambda a, b, out: (a, b, out.T.copy().T), False),
        (lambda a, b, out: (a, np.repeat(b, 2, 1)[:, ::2], out), False),
        (lambda a, b, out: (a[:1], b, out[:1]), False),
        (lambda a, b, out: (a, b[:, :1], out[:, :1]), False),
        (lambda a, b, out: (a[:, :1], b[:1], out), True),
        (lambda a, b, out: (a[::-1], b, out), False),
        (lambda a, b, out: (a[:, ::-1], b, out), False),
        (lambda a, b, out: (a[None], b, out), False),
        (lambda a, b, out: (a.astype(np.float64), b, out), False),
        (lambda a, b, out: (a.astype(int), b.astype(int), out.astype(int)), False),
        (lambda a, b, out: (a.astype(np.float16), b.astype(np.float16), out.astype(np.float16)), False),
        (lambda a, b, out: (np.broadcast_to(a[:1], a.shape), b, out), False),
        (lambda a, b, out: (a[:0], b, out[:0]), False),
        (lambda a, b, out: (np.zeros(65, np.uint8)[1:].view(np.float32).reshape(4, 4)[:, :3], b, out), False),
    ],
)
def test_what_is_taken(change, taken, library):
    arrays = change(np.ones((4, 3), np.float32), np.ones((3, 8), np.float32), np.ones((4, 8), np.float32))
    assert blas.can_add_to(*arrays) == (taken and library)


def test_a_function_that_is_wrong_is_not_used():
    assert not blas._is_right(lambda *arguments: None, np.dtype(np.float32))


@pytest.mark.parametrize("text", ["conv:96,k1 relu", "@x conv:64,k1 add:@x relu", "conv:32,k3,s2,p1"])
def test_layers_give_the_same_without_it(text, monkeypatch):
    x = np.random.default_rng(0).standard_normal((1, 64, 24, 24)).astype(np.float32)
    found = compute(prepare(text, x)).output
    monkeypatch.setattr(blas, "_gemm", lambda dtype: None)
    wanted = compute(prepare(text, x)).output
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
