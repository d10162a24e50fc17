"""`Report`, the frozen answer that every verb gives to the renderer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convcalc.layers.base import Layer, Shape
from convcalc.records import dataclass, field
from convcalc.tracing import Step

Value = int | float | str | tuple[Any, ...] | None
"""A number, a text, numbers (or pairs) per axis, or None: unknown, never 0."""


class Column:
    """One quantity: its key in JSON, its title in tables, and its unit.

    `unit` is "count", "bytes", "seconds", "number", "sizes" (one for each axis), "share" (of 1), "percent", "gflops" or
    "text"; `total` says whether the column has a total; `wide` marks one that a narrow terminal does without.
    """

    __slots__ = ("key", "title", "total", "unit", "wide")

    def __init__(self, key: str, title: str, unit: str = "count", *, total: bool = True, wide: bool = False) -> None:
        self.key = key
        self.title = title
        self.unit = unit
        self.total = total
        self.wide = wide


@dataclass(frozen=True, eq=False)
class Diagnostic:
    """Something to know about the answer. `level` is "note" or "warning"; `layer` names what it is about, if one."""

    level: str
    message: str
    layer: str | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """One layer's line. Shapes are as people see them: without the batch unless one was given; none where unknown.

    `values` are by column key; `reasons` say why a value is 0 or unknown; `steps` are the formulas that were used.
    `level` is how many modules it is inside of, where rows are nested; a `header` is a module above the rows of what is
    in it, whose values are theirs added up. `source` is the layer, or the text of what is none. `layers` is how many
    layers a row adds up, 0 if it is a layer's own. `algebra` says in symbols how its weights are made, a line each.
    """

    name: str
    kind: str
    source: Layer | str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    values: Mapping[str, Value] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    level: int = 0
    header: bool = False
    layers: int = 0
    algebra: tuple[str, ...] = ()

    @property
    def layer(self) -> str:
        """The layer's expression. Made when it is asked for: tab-separated rows have none."""
        if isinstance(self.source, str):
            return self.source
        from convcalc.expressions.writing import expression_of

        return expression_of(self.source)


@dataclass(frozen=True, eq=False)
class Report:
    """Rows, totals and diagnostics. `answer` is the one value that `-q` prints; `arrays` are NumPy's, by name.

    `merged` are layers that can take the place of those of the rows.

    `partial` names the totals that are only a part, because something that belongs to them is unknown: they are at
    least what they say. For the shapes of a network it is "output".
    """

    verb: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    totals: Mapping[str, Value]
    answer: Value | Shape
    diagnostics: tuple[Diagnostic, ...] = ()
    arrays: Mapping[str, Any] = field(default_factory=dict)
    partial: frozenset[str] = frozenset()
    merged: tuple[Row, ...] = ()

    @property
    def status(self) -> str:
        """ "complete", or "partial" when any total is unknown."""
        unknown = self.partial or any(value is None for value in self.totals.values())
        return "partial" if unknown else "complete"
