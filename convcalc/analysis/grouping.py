"""Rows added up: by the modules that their names tell of, and by their kinds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from convcalc.analysis.costs import parts, total
from convcalc.analysis.report import Column, Row, Value
from convcalc.records import replace

MOST_LEVELS = 20
"""Levels of modules inside modules that are told apart."""


class _Module:
    """A module of the tree that the names make, or a layer of it. `rows` are all the layers below it."""

    __slots__ = ("inside", "level", "name", "rows")

    def __init__(self, name: str, level: int) -> None:
        self.name = name
        self.level = level
        self.inside: dict[str, _Module] = {}
        self.rows: list[Row] = []


def nested(rows: Sequence[Row], columns: Sequence[Column], levels: int) -> Iterator[Row]:
    """The rows in the order of the tree that their names make, each module before what is in it.

    What lies deeper than `levels` is summed up in the module of that level.
    """
    names = {row.name for row in rows}
    root = _Module("", -1)
    for row in rows:
        module = root
        for name in modules_of(row.name, names)[:levels]:
            module = module.inside.setdefault(name, _Module(name, module.level + 1))
            module.rows.append(row)
    stack = list(reversed(root.inside.values()))
    while stack:
        module = stack.pop()
        # ONNX files name a module for each layer alone, as in /features/conv/Conv.
        alone = module.name == module.rows[0].name or "/" in module.rows[0].name
        if len(module.rows) == 1 and alone:
            yield replace(module.rows[0], level=module.level)
            continue
        yield _module_row(module, columns)
        stack += reversed(module.inside.values())


def modules_of(name: str, names: Collection[str]) -> list[str]:
    """The modules that a layer is in, and the layer: its name up to each dot, or to each slash where it has some.

    None of them has the name of another layer.

    >>> modules_of("a.b.c", {"a.b.c"}), modules_of("a.1.x", {"a", "a.1.x"})
    (['a', 'a.b', 'a.b.c'], ['a.1.x'])
    >>> modules_of("/a/a.0/Conv", {"/a/a.0/Conv"})
    ['/a', '/a/a.0', '/a/a.0/Conv']
    """
    mark = "/" if "/" in name else "."
    ends = (end for end in range(1, len(name)) if name[end] == mark)
    found = [name[:end] for end in islice(ends, MOST_LEVELS)]
    first = next((place for place, module in enumerate(found) if module in names), len(found))
    return [*found[:first], name]


def by_kind(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """A row for every kind of layer, with the most MACs first."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(row.kind, []).append(row)
    found = [
        Row(kind, kind, _count(same), (), (), sums(same, columns), layers=len(same)) for kind, same in kinds.items()
    ]
    return sorted(found, key=lambda row: (_number(row.values["macs"]), _number(row.values["flops"])), reverse=True)


def sums(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, Value]:
    """The sum of each column that has a total; None where a part of it is unknown."""
    unknown = parts(columns, rows)
    return {key: None if key in unknown else value for key, value in total(columns, rows).items()}


def _number(value: Value) -> float:
    return value if isinstance(value, int | float) else -1


def _count(rows: Sequence[Row]) -> str:
    return f"{len(rows)} layers" if len(rows) > 1 else "1 layer"


def _module_row(module: _Module, columns: Sequence[Column]) -> Row:
    """The row of a module: what its first layer takes and its last gives, and the sums."""
    rows = module.rows
    return Row(
        module.name,
        "module",
        _count(rows),
        rows[0].inputs,
        rows[-1].outputs,
        sums(rows, columns),
        level=module.level,
        header=bool(module.inside),
        layers=len(rows),
    )
