"""Formulas as they are printed, on arrays, and in the reference."""

from __future__ import annotations

import importlib.util
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import convcalc.formulas  # noqa: F401  fills FORMULAS
from convcalc.tracing import FORMULAS

ROOT = Path(__file__).parents[1]
EVERY = pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
WHOLE = {name: formula for name, formula in FORMULAS.items() if "float" not in str(formula.function.__annotations__)}
"""The formulas of whole numbers alone, which must be exact."""
REAL = {name: formula for name, formula in FORMULAS.items() if name not in WHOLE}

NAMES = {
    "floor": math.floor,
    "ceil": math.ceil,
    "min": min,
    "max": max,
    "abs": abs,
    "gcd": lambda a, b: math.gcd(int(a), int(b)),
    "exp": math.exp,
    "sqrt": math.sqrt,
    "ln": math.log,
    "tanh": math.tanh,
    "erf": math.erf,
    "exact": Fraction,
}
MARKS = {
    "⌊": "floor(",
    "⌋": ")",
    "⌈": "ceil(",
    "⌉": ")",
    "·": "*",
    "−": "-",
    " mod ": " % ",
    "≥": ">=",
    "≤": "<=",
    "√": "sqrt",
}


def value_of(text):
    """What a printed formula says, read with the usual precedence and computed with fractions."""
    code = re.sub(r"\|([^|]*)\|", r"abs(\1)", text)
    code = re.sub(r"(?<![\w.])\d+(\.\d+)?(e[−-]?\d+)?", lambda number: f"exact('{number[0].replace('−', '-')}')", code)
    for mark, meaning in MARKS.items():
        code = code.replace(mark, meaning)
    return eval(code, {"__builtins__": {}}, NAMES)


def arguments(formula, draw):
    """Arguments that the formula's annotations allow."""
    result = []
    for name in formula.parameters:
        kind = str(formula.function.__annotations__[name])
        if "Sequence" in kind:
            result.append(tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))))
        elif "float" in kind:
            result.append(draw(st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 3.0])))
        else:
            result.append(draw(st.integers(1, 30)))
    return result


def test_the_reader_reads():
    assert value_of("⌊(224 + 3 + 3 − 1·(7 − 1) − 1) / 2⌋ + 1") == 112
    assert value_of("⌈−7 / 2⌉·2 + |3 − 5| mod 2") == -6
    assert value_of("(1 if 2 > 3 else 0.5)") == 0.5


@EVERY
def test_the_printed_text_means_the_value(formula):
    @settings(max_examples=50, deadline=None)
    @given(st.data())
    def check(data):
        given_arguments = arguments(formula, data.draw)
        value = formula(*given_arguments)
        said = value_of(formula.traced(*given_arguments).numbers)
        if formula.name in WHOLE:
            assert said == value
        else:
            assert float(said) == pytest.approx(value, rel=1e-12, abs=1e-12)

    check()


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_as_arrays(name):
    """A design space at once: each element is what the ints give."""
    formula = WHOLE[name]
    random = np.random.default_rng(0)
    columns, rows = [], [[] for _ in range(200)]
    for parameter in formula.parameters:
        many = 2 if "Sequence" in str(formula.function.__annotations__[parameter]) else 1
        drawn = [random.integers(1, 30, 200) for _ in range(many)]
        columns.append(drawn[0] if many == 1 else tuple(drawn))
        for i, row in enumerate(rows):
            numbers = tuple(int(column[i]) for column in drawn)
            row.append(numbers[0] if many == 1 else numbers)
    found = formula(*columns)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.int64
    assert found.tolist() == [formula(*row) for row in rows]


@pytest.mark.parametrize("name", REAL)
def test_real_numbers_as_arrays(name):
    formula = REAL[name]
    first = np.array([-3.0, -1.5, -0.5, 0.0, 0.25, 1.0, 2.5, 7.0])
    if "int" in str(formula.function.__annotations__[formula.parameters[0]]):
        first = np.arange(1, 9)
    others = [1.5] * (len(formula.parameters) - 1)
    others = others if name != "hardtanh" else [-1.0, 1.5]
    found = formula(first, *others)
    # NumPy's exp and tanh may differ from the C library's in the last bit.
    assert found.tolist() == pytest.approx([formula(x, *others) for x in first.tolist()], rel=1e-14, abs=1e-16)


def test_large_numbers_stay_exact():
    formula = FORMULAS["conv_macs"]
    assert formula(10**6, 10**5, (10**4, 10**4), 10**5, 1, (7, 7)) == 49 * 10**24


@EVERY
def test_every_formula_is_documented_and_used(formula):
    assert formula.source
    assert f">>> {formula.name}(" in formula.__doc__ or f"{formula.name}(" in formula.__doc__.partition(">>>")[2]
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "convcalc").rglob("*.py")
                     if path.name != "formulas.py")  # fmt: skip
    assert re.search(rf"\b(F|formulas)\.{formula.name}\b", code), f"{formula.name} is used nowhere"
    assert f"## {formula.name}\n" in (ROOT / "docs" / "formulas.md").read_text(encoding="utf-8")


@EVERY
def test_no_formula_branches(formula):
    """Traced numbers refuse to be a condition, so that a formula that branches fails."""
    assert formula.traced(*((2, 3) if "Sequence" in str(formula.function.__annotations__[name]) else 2
                            for name in formula.parameters)).symbols  # fmt: skip


def make_docs():
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["formulas.md", "conventions.md"])
def test_the_pages_are_those_of_the_code(name):
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert page == make_docs().PAGES[name](), "run python scripts/make_docs.py"
