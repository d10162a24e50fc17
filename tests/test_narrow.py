"""Types that NumPy does not have, against the package that the onnx package takes them from."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from convcalc.narrow import FORMATS, INTEGERS, POWERS, converted, decoded

THEIRS = {
    "bfloat16": ml_dtypes.bfloat16, "float8e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8e4m3fnuz": ml_dtypes.float8_e4m3fnuz, "float8e5m2": ml_dtypes.float8_e5m2,
    "float8e5m2fnuz": ml_dtypes.float8_e5m2fnuz, "float4e2m1": ml_dtypes.float4_e2m1fn,
}  # fmt: skip


def numbers(stream, count=4000):
    spread = stream.normal(size=count) * 10.0 ** stream.integers(-12, 6, count)
    return np.concatenate([spread, [0.0, -0.0, np.inf, -np.inf, np.nan]]).astype(np.float32)


def bits(x):
    """Numbers of which -0 is not 0, and every nan is the same."""
    return np.where(np.isnan(x), np.float32(np.nan), x).view(np.uint32)


@pytest.mark.parametrize("kind", FORMATS)
def test_floats_are_rounded_as_theirs(kind):
    x = numbers(np.random.default_rng(0))
    x = x if FORMATS[kind].nan else x[:-1]
    found = converted(x, kind, saturate=False)
    np.testing.assert_array_equal(bits(found), bits(x.astype(THEIRS[kind]).astype(np.float32)))
    if kind != "bfloat16":
        largest = converted(np.array([np.inf, -1e30]), kind)
        assert largest.tolist() == [FORMATS[kind].largest, -FORMATS[kind].largest]


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "bfloat16"])
def test_codes_mean_what_theirs_mean(kind):
    codes = np.arange(16 if kind == "float4e2m1" else 256, dtype=np.uint8)
    np.testing.assert_array_equal(bits(decoded(codes, kind)), bits(codes.view(THEIRS[kind]).astype(np.float32)))


def test_powers_of_two():
    codes = np.arange(256, dtype=np.uint8)
    wanted = codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    np.testing.assert_array_equal(decoded(codes, POWERS), wanted)
    x = np.array([3.0, 2.9, 4.0, 0.7, 1e39, np.nan])
    up, down, nearest = (converted(x, POWERS, mode=mode).tolist()[:4] for mode in ("up", "down", "nearest"))
    assert (up, down, nearest) == ([4, 4, 4, 1], [2, 2, 4, 0.5], [4, 2, 4, 0.5])
    assert converted(x, POWERS)[4] == 2.0**127
    assert np.isnan(converted(x, POWERS, saturate=False)[4:]).all()


@pytest.mark.parametrize("kind", INTEGERS)
def test_bits_that_do_not_fit_are_dropped(kind):
    x = np.arange(-40, 40, dtype=np.int8)
    wanted = x.astype(getattr(ml_dtypes, kind)).astype(np.int8)
    np.testing.assert_array_equal(converted(x, kind).astype(np.int8), wanted)
