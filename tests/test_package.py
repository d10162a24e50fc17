"""`from convcalc import ...`: what it offers, and that it loads nothing else."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import convcalc

PUBLIC = [name for name in convcalc.__all__ if not name.startswith("_")]
FOR_TYPE_CHECKERS = [
    (node.module, alias.name)
    for statement in ast.parse(Path(convcalc.__file__).read_text(encoding="utf-8")).body
    if isinstance(statement, ast.If)
    for node in statement.body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
]


def modules_after(program):
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_import_alone_loads_next_to_nothing():
    new = modules_after("import convcalc") - modules_after("")
    assert new - {"__future__", "typing"} - modules_after("import typing") == {"convcalc", "convcalc._version"}


@pytest.mark.parametrize("name", ["Conv2d", "Network", "parse_network", "analyse", "shapes", "costs", "compose"])
def test_only_what_computes_loads_numpy(name):
    assert not {"numpy", "rich", "typer"} & modules_after(f"from convcalc import {name}")


def test_numpy_is_seen_when_it_is_loaded():
    assert "numpy" in modules_after("from convcalc import run")


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name(name):
    value = getattr(convcalc, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__name__ == name
        assert value.__doc__


def test_type_checkers_see_the_same_names():
    """A name that this misses is to be imported under TYPE_CHECKING in convcalc/__init__.py too."""
    assert sorted(name for _, name in FOR_TYPE_CHECKERS) == PUBLIC
    for module, name in FOR_TYPE_CHECKERS:
        assert getattr(sys.modules[module], name) is getattr(convcalc, name)


def test_no_module_has_a_public_name():
    """Importing a module sets its name in the package, which would hide a function of that name."""
    assert not {module.name for module in pkgutil.iter_modules(convcalc.__path__)} & set(PUBLIC)


def test_star_and_dir():
    names: dict[str, object] = {}
    exec("from convcalc import *", names)  # inside a function only so
    assert set(PUBLIC) <= set(names)
    assert set(PUBLIC) <= set(dir(convcalc))


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'convcalc' has no attribute 'Conv4d'"):
        convcalc.Conv4d  # noqa: B018


@pytest.mark.parametrize("function", [convcalc.analyse, convcalc.memory])
@pytest.mark.parametrize(("field", "value"), [("dtype", "float128"), ("optimizer", "adagrad")])
def test_unknown_words_are_refused(function, field, value):
    with pytest.raises(convcalc.LayerError, match=f"{field} is {value}, but must be one of"):
        function(convcalc.parse_network("3x8x8 conv:4"), **{field: value})


def test_unknown_convention_is_refused():
    with pytest.raises(convcalc.LayerError, match="convention is mac, but must be one of"):
        convcalc.costs(convcalc.parse_network("3x8x8 conv:4"), convention="mac")


def test_analyse_is_the_three_in_one():
    network = convcalc.parse_network("3x32x32 conv:16,k3,p1 relu maxpool:2 flatten linear:10")
    report = convcalc.analyse(network, train=True, backward=True, optimizer="adam")
    counted = convcalc.costs(network, backward=True)
    held = convcalc.memory(network, train=True, optimizer="adam")
    assert report.answer == (10,)
    assert report.totals == {**counted.totals, **held.totals}
    assert not set(counted.totals) & set(held.totals)
    for row, cost, size in zip(report.rows, counted.rows, held.rows, strict=True):
        assert row.outputs == cost.outputs
        assert row.values == {**cost.values, **size.values}
        assert not set(cost.values) & set(size.values)


def test_parse_network_places_the_input():
    network = convcalc.parse_network("conv:4,k3", input=(3, 8, 8), batch=2)
    assert convcalc.shapes(network).answer == (2, 4, 6, 6)
    with pytest.raises(convcalc.ExpressionError, match="the input is given twice"):
        convcalc.parse_network("3x8x8 conv:4,k3", input=(3, 8, 8))
