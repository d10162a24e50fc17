"""The answer of `convcalc run` as text, as a picture, or in a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from convcalc.cli.answer import answer_lines, look_up, value_path
from convcalc.cli.options import Question
from convcalc.errors import Span

if TYPE_CHECKING:
    from convcalc.executor.report import RunReport


def give_lines(question: Question, report_of: Callable[[Sequence[Span]], RunReport]) -> None:
    """One JSON line for each line of standard input, whose words `report_of` answers."""
    from convcalc.nouns import line_spans
    from convcalc.render.arrays import run_document
    from convcalc.render.document import value_document

    path = _path(question)

    def content_of(line: bytes, number: int) -> dict[str, Any]:
        content = run_document(report_of(line_spans(line, number)))
        return content if path is None else value_document(look_up(content, path))

    answer_lines(content_of)


def _path(question: Question) -> str | None:
    """Where in the document the one value stands that is asked for."""
    return "output" if question["quiet"] else value_path(question)


def give_array(question: Question, report: RunReport, name: str | None, how: str | None) -> None:
    """Print the answer, or write it to --output, in the format of this name; `how` asks for a heat map or a table."""
    from convcalc.render.arrays import print_arrays

    path = question["output"]
    if path is not None and path != "-":
        from convcalc.arrays.writing import WRITTEN_SUFFIXES
        from convcalc.files import write_whole

        if question["format_name"] is None and path.lower().endswith(WRITTEN_SUFFIXES):
            _write_array(path, report)
            return
        write_whole(path, "".join(f"{line}\n" for line in _lines(question, report, name or "tsv")).encode())
        return
    name = name or ("table" if how or sys.stdout.isatty() else "tsv")
    if name == "table" and _path(question) is None:
        from convcalc.render.terminal import Console

        print_arrays(report, Console(highlight=False), how)
        return
    for line in _lines(question, report, name):
        print(line)  # noqa: T201  the answer


def _write_array(path: str, report: RunReport) -> None:
    """Write the output and what goes with it; learned weights and a model's outputs under their own names."""
    from convcalc.arrays.writing import write_array, write_arrays

    if report.same and path.lower().endswith(".npz"):
        group = report.same.partition(".")[0]
        write_arrays(path, {name.removeprefix(f"{group}."): array for name, array in report.others.items()})
    else:
        write_array(path, report.output, others=report.others)


_TEXT_BYTES = 80
"""What a number takes on its way to text: an object, its place in a list, and its digits."""


def _lines(question: Question, report: RunReport, name: str) -> Iterable[str]:
    """The answer line by line in every format but the terminal's."""
    from convcalc.render import arrays

    path = _path(question)
    if path is None and name not in ("json", "jsonl"):
        return arrays.WRITERS[name](report)
    from convcalc.limits import need_bytes

    part = None if path is None else path.partition(".")[0]
    many = report.output.size * (part in (None, "output")) + sum(
        array.size for key, array in report.others.items() if part in (None, key.partition(".")[0])
    )
    need_bytes(many * _TEXT_BYTES, f"{many:,} numbers as text", "; -o FILE.npy holds them as they are")
    if question["quiet"] and name not in ("json", "jsonl"):
        return [arrays.nested_text(report.output)]
    from convcalc.render.document import value_document
    from convcalc.render.units import plain_text

    content = arrays.run_document(report, part)
    if path is not None:
        value = look_up(content, path)
        if name not in ("json", "jsonl"):
            return [arrays.compact_json(value) if isinstance(value, list) else plain_text(value)]
        content = value_document(value)
    return [arrays.compact_json(content) if name == "jsonl" else arrays.document_text(content)]
