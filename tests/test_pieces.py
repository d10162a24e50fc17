"""Formulas done a piece at a time, beside the same formulas on whole arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convcalc import formulas as F
from convcalc.executor import pieces, sums
from convcalc.executor.activation import change, formula_of
from convcalc.executor.kernels import kernel_of
from convcalc.executor.threads import threads
from convcalc.layers import LAYERS
from convcalc.layers.activation import Elementwise
from convcalc.layers.parametric import ELU, GELU, GLU, LeakyReLU, PReLU, RReLU, Scale, Shift, Softplus, Threshold
from convcalc.layers.softmax import LogSoftmax, Softmax

MADE = {"threshold": Threshold(0.1, 20.0), "scale": Scale(-0.5), "shift": Shift(0.25)}
ACTIVATIONS = [
    MADE.get(name) or kind.layer_class()()
    for name, kind in LAYERS.items()
    if issubclass(kind.layer_class(), Elementwise) and name != "prelu"
]
ACTIVATIONS += [GELU("tanh"), LeakyReLU(0.0), LeakyReLU(-0.5), LeakyReLU(1.5), RReLU(0.1, 3.0), ELU(-2.0)]
ACTIVATIONS += [Softplus(-3.0, 2.0)]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    """Pieces of 64 to 128 numbers, shared at once, so that a small array has whole ones and a rest."""
    for made in (pieces.program, pieces._full):
        made.cache_clear()
    for name, few in {"PIECE": 512, "SHARED": 1024, "ROW": 16}.items():
        monkeypatch.setattr(pieces, name, few)
    monkeypatch.setattr(pieces, "SMALL", 1)
    monkeypatch.setattr(pieces, "ALONE", 1)
    with np.errstate(all="ignore"):
        yield
    for made in (pieces.program, pieces._full):
        made.cache_clear()


def arrays(dtype):
    """Numbers of all sizes and the special ones, lying in several ways."""
    stream = np.random.default_rng(0)
    x = stream.standard_normal((3, 5, 7, 11)).astype(dtype) * np.asarray([0.1, 1, 30], dtype)[:, None, None, None]
    x.reshape(-1)[:12] = [0.0, -0.0, np.inf, -np.inf, np.nan, 3, -3, 6, 0.5, -0.5, 1e-30, -1e30]
    return {
        "rows": x,
        "channels last": x.transpose(0, 2, 3, 1),
        "every other": np.repeat(x, 2, axis=3)[..., ::2],
        "backwards": x[:, ::-1],
        "one": x[:1, 0, 0, 5],
        "none": x[:0],
    }


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pieces_give_what_the_formula_gives(layer, dtype):
    exact = not (isinstance(layer, GELU) and layer.approximate == "none")
    for name, x in arrays(dtype).items():
        wanted = np.asarray(layer.formula(x, *layer.arguments))
        for count in (1, 2):
            with threads(count):
                (found,) = kernel_of(layer)(layer, (x,), {})
                over = x.copy() if name != "every other" else np.repeat(x, 2, axis=3)[..., ::2]
                change(layer, over)
            assert found.dtype == x.dtype
            assert found.shape == x.shape
            if exact:
                np.testing.assert_array_equal(found, wanted, err_msg=name)
            np.testing.assert_array_equal(over, found, err_msg=name)


def test_one_function_is_called_with_whole_arrays_where_that_is_no_slower():
    dtype = np.dtype(np.float32)
    plain = {
        formula: pieces.program(formula, (), "f", dtype).is_plain(10) for formula in (np.exp, F.relu, F.relu6, F.silu)
    }
    assert plain == {np.exp: True, F.relu: False, F.relu6: False, F.silu: False}


def test_gelu_is_nearer_than_its_bound():
    x = np.concatenate([np.linspace(-9, 9, 40001), 10.0 ** np.arange(-30, 30, 7.0), [-1e30, 0.0]]).astype(np.float32)
    (found,) = kernel_of(GELU())(GELU(), (x,), {})
    wanted = np.array([0.5 * value * math.erfc(-value * math.sqrt(0.5)) for value in x.astype(np.float64)])
    assert (np.abs(found - wanted) <= 3 * 2.0**-24 * np.abs(x)).all()
    assert formula_of(GELU()) is not GELU().formula


@pytest.mark.parametrize("slopes", [(0.25, 0.5, 1.0, 0.01, 0.1), (0.25, -0.5, 1.5, 0.0, 0.1)])
def test_prelu_and_glu_give_what_their_formulas_give(slopes):
    x = arrays(np.float32)["rows"]
    weight = np.asarray(slopes, np.float32)
    (found,) = kernel_of(PReLU(5))(PReLU(5), (x,), {"weight": weight})
    np.testing.assert_array_equal(found, np.where(x > 0, x, weight.reshape(5, 1, 1) * x))
    x = x[:, :4]
    (found,) = kernel_of(GLU(1))(GLU(1), (x,), {})
    np.testing.assert_array_equal(found, F.glu(x[:, :2], x[:, 2:]))


SHAPES = (
    ((3, 5, 7, 11), (3, 5, 7, 11)),
    ((3, 5, 7, 11), (5, 1, 1)),
    ((3, 5, 7, 11), (1, 5, 1, 1)),
    ((3, 5, 7, 11), (3, 5, 1, 1)),
    ((3, 5, 7, 11), (11,)),
    ((3, 5, 7, 11), (7, 11)),
    ((3, 5, 7, 11), (3, 1, 7, 1)),
    ((3, 5, 7, 11), ()),
    ((11,), (3, 5, 1)),
    ((300, 200), (300, 1)),
    ((0, 5), (1, 5)),
)


@pytest.mark.parametrize(("first", "second"), SHAPES)
@pytest.mark.parametrize("count", [1, 2])
def test_broadcast_pieces_give_what_numpy_gives(first, second, count):
    stream = np.random.default_rng(1)
    a, b = (stream.standard_normal(shape).astype(np.float32) for shape in (first, second))
    with threads(count):
        for formula in (np.subtract, np.greater, lambda x, y: np.where(x > y, x * y, 2 - x)):
            np.testing.assert_array_equal(pieces.together(formula, a, b), formula(a, b))
        condition = a > 0
        np.testing.assert_array_equal(pieces.together(np.where, condition, a, b), np.where(condition, a, b))


def test_whole_numbers_become_floats_and_floats_whole_numbers():
    steps = np.arange(-300, 300, dtype=np.int16).reshape(20, 30)
    scale = np.float32(0.5).reshape(())
    found = pieces.together(lambda x, s: pieces.as_floats(x) * s, steps, scale)
    np.testing.assert_array_equal(found, steps * np.float32(0.5))
    back = pieces.together(lambda x, s: pieces.as_type(np.rint(x / s), "int16"), found, scale)
    assert back.dtype == np.int16
    np.testing.assert_array_equal(back, steps)


def test_products_of_long_rows_are_added_up_in_parts():
    x = np.random.default_rng(3).random((2, (1 << 20) + 5)).astype(np.float32)
    wanted = x.astype(np.float64)
    np.testing.assert_allclose(sums.row_dots(x, x), (wanted * wanted).sum(axis=1), rtol=4 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 7, 600, 5000, 20000])
def test_sums_of_rows(dtype, columns):
    x = np.random.default_rng(2).random((5, columns)).astype(dtype)
    wanted = x.astype(np.longdouble)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(sums.row_sums(x), wanted.sum(axis=1).astype(dtype), rtol=4 * eps)
    np.testing.assert_allclose(sums.row_dots(x, x), (wanted * wanted).sum(axis=1).astype(dtype), rtol=4 * eps)
    np.testing.assert_array_equal(sums.row_extremes(np.maximum, x), x.max(axis=1))
    x[2, columns // 2] = np.nan
    assert np.isnan(sums.row_sums(x)).tolist() == np.isnan(sums.row_extremes(np.minimum, x)).tolist()
    sums.running_sums(x, so_far := np.empty_like(x))
    np.testing.assert_allclose(so_far[:2], wanted[:2].cumsum(axis=1).astype(dtype), rtol=16 * eps)
    assert np.isnan(so_far[2]).tolist() == [False] * (columns // 2) + [True] * (columns - columns // 2)
    times = sums.repeated(x[0])
    y = x.copy()
    sums.on_rows(np.add, y, times)
    np.testing.assert_array_equal(y, x + x[0])


@pytest.mark.parametrize("offset", [0, 100, -100, 1e30, -1e30])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 2])
def test_softmax_of_any_size(offset, axis, count):
    x = np.random.default_rng(3).standard_normal((20, 30, 40)).astype(np.float32) * 5 + np.float32(offset)
    x[3, 4, 5:9] = [-np.inf, -np.inf, -1000, 0]
    wide = x.astype(np.float64)
    with threads(count):
        (found,) = kernel_of(Softmax)(Softmax(axis), (x,), {})
        (logs,) = kernel_of(LogSoftmax)(LogSoftmax(axis), (x,), {})
    moved = wide - wide.max(axis=axis, keepdims=True)
    total = np.exp(moved).sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(found, np.exp(moved) / total, rtol=2e-6, atol=1e-38)
    np.testing.assert_allclose(logs, moved - np.log(total), rtol=2e-6, atol=2e-6)
    x[0, 0, 0] = np.nan
    (found,) = kernel_of(Softmax)(Softmax(axis), (x,), {})
    assert np.isnan(found).sum() == x.shape[axis]
