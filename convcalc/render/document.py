"""Reports and errors as the JSON document: versioned, plain integers, shapes as arrays. Schema: schema.json."""

from __future__ import annotations

import json
from typing import Any

from convcalc.analysis.report import Report, Row
from convcalc.errors import ConvcalcError
from convcalc.tracing import Step

VERSION = 1


def document(report: Report) -> dict[str, Any]:
    """The report as the document that JSON output holds and `--get` looks into."""
    found = {
        "version": VERSION,
        "verb": report.verb,
        "status": report.status,
        "layers": [_layer(row) for row in report.rows if not row.header],
        "totals": dict(report.totals),
        "partial": sorted(report.partial),
        "answer": report.answer,
        "diagnostics": [
            {"level": item.level, "layer": item.layer, "message": item.message} for item in report.diagnostics
        ],
    }
    if report.merged:
        found["merged"] = [_layer(row) for row in report.merged]
    if report.arrays:
        found["arrays"] = {name: array.tolist() for name, array in report.arrays.items()}
    return found


def _layer(row: Row) -> dict[str, Any]:
    layer: dict[str, Any] = {"name": row.name, "kind": row.kind, "layer": row.layer}
    for key, shapes in (("input", row.inputs), ("output", row.outputs)):
        layer[key] = list(shapes[0]) if len(shapes) == 1 else [list(shape) for shape in shapes] or None
    layer |= row.values
    if row.reasons:
        layer["reasons"] = dict(row.reasons)
    if row.algebra:
        layer["algebra"] = list(row.algebra)
    if row.steps:
        layer["steps"] = [_step(step) for step in row.steps]
    return layer


def _step(step: Step) -> dict[str, Any]:
    traced = step.traced()
    return {
        "axis": step.axis or None,
        "result": step.formula.result,
        "formula": traced.symbols,
        "numbers": traced.numbers,
        "value": step.value,
    }


def value_document(value: Any) -> dict[str, Any]:
    """One value of a report as a document of its own, for -q and --get in JSON."""
    return {"version": VERSION, "value": value}


def error_document(error: ConvcalcError) -> dict[str, Any]:
    """An error as the document that takes the report's place."""
    found: dict[str, Any] = {
        "code": error.code,
        "message": str(error),
        "layer": error.layer,
        "field": error.field,
        "value": error.value if isinstance(error.value, int | float | str | None) else str(error.value),
    }
    if error.span is not None:
        found["span"] = [error.span.start, error.span.end]
        found["text"] = error.span.source.text
        if not error.span.source.on_command_line:
            found["file"] = error.span.source.name
            found["line"] = error.span.source.line_number
    return {"version": VERSION, "status": "error", "error": found}


def json_text(content: dict[str, Any], *, compact: bool = False) -> str:
    """The document as text: indented, or on one line."""
    if compact:
        return json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return json.dumps(content, indent=2, ensure_ascii=False)
