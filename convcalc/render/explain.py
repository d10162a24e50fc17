"""Explanations: each formula, the same with the numbers, the result, and what the floor drops in words."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from convcalc.analysis.report import Report, Row
from convcalc.render.text import shapes_text
from convcalc.render.units import printable
from convcalc.tracing import Step

_FAR_ENDS = {
    "length": ("element", "elements", "at the end"),
    "width": ("column", "columns", "on the right"),
    "height": ("row", "rows", "at the bottom"),
    "depth": ("slice", "slices", "at the back"),
}


_GRADIENT = re.compile(r"backward_(.+)_macs")
"""The key of what one gradient costs."""


def explanation(report: Report) -> Iterator[str]:
    """The lines of all layers' explanations, then those of the layers that they merge into."""
    for index, row in enumerate((*report.rows, *report.merged)):
        if index:
            yield ""
        shapes = " → ".join(shapes_text(shapes, people=True) for shapes in (row.inputs, row.outputs))
        between = "  " if index < len(report.rows) else " merge into "
        name = printable(f"{row.name}{between}{row.layer}".rstrip())
        yield f"{name}  {shapes}" if row.inputs else name
        yield from _row_lines(row)


def wrapped(line: str, width: int) -> list[str]:
    """A line of an explanation in so many columns; a formula goes on below its beginning.

    >>> wrapped("  output = size + before + after", 24)
    ['  output = size + before', '             + after']
    """
    if len(line) <= width:
        return [line]
    start = line.rfind(" = ", 0, width * 2 // 3)
    indent = start + 5 if start > 0 else len(line) - len(line.lstrip()) + 2
    # A line ends before an operator and not after it, nor after a comma.
    tied = re.sub("(?<=[+−/·,]) ", "\0", line)
    parts = textwrap.wrap(tied, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    return [part.replace("\0", " ") for part in parts]


def markdown_explanation(report: Report) -> Iterator[str]:
    """The same for Markdown, where it stands as it is."""
    yield from ("```text", *explanation(report), "```")


def _row_lines(row: Row) -> Iterator[str]:
    reason = row.reasons.get("output") or row.reasons.get("flops")
    if reason:
        yield f"  {'rule' if row.outputs else 'unknown'}: {reason}"
    elif not row.steps and not row.algebra:
        yield "  no formula"
    yield from (f"  {line}" for line in row.algebra)
    yield from _step_lines(row)
    if row.values.get("flops") and all(step.formula.result != "FLOPs" for step in row.steps):
        yield f"  FLOPs = {row.values['flops']}"
    if "backward_flops" in row.reasons:
        yield f"  backward: {row.reasons['backward_flops']}"
        for key, value in row.values.items():
            gradient = _GRADIENT.fullmatch(key)
            if gradient and value:
                yield f"  ∂{gradient[1]} MACs = {value}"
        yield f"  backward FLOPs = {row.values['backward_flops']}"


def _step_lines(row: Row) -> Iterator[str]:
    for steps in _same(row.steps):
        step = steps[0]
        if step.formula.name == "unread":
            for each in steps:
                yield from _unread_words(each)
            continue
        traced = step.traced()
        axes = " = ".join(dict.fromkeys(each.axis for each in steps if each.axis))
        name = f"{axes}: {step.formula.result}" if axes else step.formula.result
        yield f"  {name} = {traced.symbols}"
        margin = " " * (len(name) + 2)
        if traced.numbers != str(step.value):
            yield f"{margin} = {traced.numbers}"
        yield f"{margin} = {step.value}"


def _same(steps: Sequence[Step]) -> list[list[Step]]:
    """Steps grouped that use one formula with the same numbers on several axes."""
    groups: list[list[Step]] = []
    for step in steps:
        for group in groups:
            if (group[0].formula, group[0].arguments) == (step.formula, step.arguments) and step.axis:
                group.append(step)
                break
        else:
            groups.append([step])
    return groups


def _unread_words(step: Step) -> Iterator[str]:
    one, many, where = _FAR_ENDS.get(step.axis, ("element", "elements", "at the end"))
    names = dict(zip(step.formula.parameters, step.arguments, strict=True))
    unread, after = step.value, names["after"]
    if not unread:
        return
    words = f"{unread} {one if unread == 1 else many} {where} {'is' if unread == 1 else 'are'} never read"
    if unread <= after:
        words += ", of the padding"
    elif after:
        words += f", {unread - after} of the input and {after} of the padding"
    yield f"  {words}"
