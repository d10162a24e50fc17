"""From a question to its answer: the network, the analysis, budgets, and the output that was asked for."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from convcalc.analysis.report import Diagnostic, Report
from convcalc.cli.options import FORMATS, LAYER_OPTIONS, Question
from convcalc.errors import (
    BudgetError,
    ConvcalcError,
    ExpressionError,
    UnsupportedOpError,
    did_you_mean,
    refuse_other,
    too_much,
)
from convcalc.network import Network
from convcalc.nouns import LayerOptions, read_network

Analysis = Callable[[Network], Report]
OUTPUT_FORMATS = {".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv", ".md": "markdown", ".txt": "plain"}
"""The format of a file by its suffix."""
_OF_ARRAYS = (".npy", ".npz", ".png", ".pgm")
"""The suffixes of files that hold arrays."""


def answer(
    question: Question,
    analysis: Analysis,
    *,
    explain: bool = False,
    open_input: bool = False,
    files: Sequence[str] = (),
) -> None:
    """Answer the question, or each line of standard input with --lines. With `open_input` there need be no input.

    `files` are those that are read beside the words: --output is none of them.
    """
    name = format_name(question)
    check_output_options(question, name, explain=explain, files=files)
    if question["lines"]:
        _answer_lines(question, analysis, open_input=open_input)
        return
    give(question, analysis(_network(question, open_input=open_input)), explain=explain)


def give(question: Question, report: Report, *, explain: bool = False) -> None:
    """Print a report as the options ask for it, with its diagnostics; then fail if it exceeds a budget."""
    name = format_name(question)
    report = _selected(question, report)
    refusal = _refusal(question, report)
    # Without an answer the notes say why.
    print_diagnostics(report.diagnostics, quiet=question["quiet"] and report.answer is not None)
    if question["quiet"] and report.answer is None:
        raise UnsupportedOpError("-q prints one value, and there is none here")
    write_report(question, report, name, explain=explain, refusal=refusal)
    if refusal is not None:
        raise refusal


def _selected(question: Question, report: Report) -> Report:
    """The report with the rows that --layer, --sort and --top ask for."""
    asked = {name: question[name] for name in ("layer", "sort", "top")}
    if all(value is None for value in asked.values()):
        return report
    from convcalc.analysis.selection import selected

    if question["quiet"] and question["layer"] is not None:
        raise ExpressionError(
            "-q prints one value of the whole network; --get layers.NAME.output or another key asks for a layer's"
        )
    return selected(report, **asked)


def layer_options(question: Question) -> LayerOptions:
    """The layer that the options describe; false when none was given."""
    fields = {}
    for option in LAYER_OPTIONS[1:]:
        value = question[option.name]
        if value is not None:
            text = str(value).lower() if isinstance(value, bool) else value
            fields[option.name] = (option.flags[0].partition("/")[0], text)
    return LayerOptions(question["kind"], fields)


def _network(question: Question, *, open_input: bool) -> Network:
    return read_network(
        question.words,
        input_shape=question["input_shape"],
        options=layer_options(question),
        batch=question["batch"],
        open_input=open_input,
        assume_sequential=question["assume_sequential"],
        unprinted=question["unprinted"],
    )


def _answer_lines(question: Question, analysis: Analysis, *, open_input: bool) -> None:
    from convcalc.nouns import line_network

    options = layer_options(question)

    def content_of(line: bytes, number: int) -> dict[str, Any]:
        network = line_network(
            line,
            number,
            input_shape=question["input_shape"],
            options=options,
            batch=question["batch"],
            open_input=open_input,
            assume_sequential=question["assume_sequential"],
            unprinted=question["unprinted"],
        )
        report = _selected(question, analysis(network))
        return _document(question, report, _refusal(question, report))

    answer_lines(content_of)


def answer_lines(content_of: Callable[[bytes, int], dict[str, Any]]) -> None:
    """One JSON line for each line of standard input, errors too, as soon as it is read."""
    from convcalc.nouns import standard_input
    from convcalc.render.document import error_document, json_text

    for number, line in enumerate(standard_input(), 1):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        try:
            text = json_text({"line": number, **content_of(line, number)}, compact=True)
        except ConvcalcError as error:
            text = json_text({"line": number, **error_document(error)}, compact=True)
        except (MemoryError, OverflowError, RecursionError, ValueError) as error:
            text = json_text({"line": number, **error_document(too_much(error))}, compact=True)
        # A program that asks line by line waits for this one.
        print(text, flush=True)  # noqa: T201  the answer


# --- output ---------------------------------------------------------------------------------------------------------


def format_name(question: Question) -> str | None:
    """The format that --format or the suffix of --output asks for, if any."""
    name: str | None = question["format_name"]
    path = question["output"]
    if name is None and path is not None:
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122  pathlib is slower to load
        return OUTPUT_FORMATS.get(suffix)
    return name


def check_output_options(
    question: Question, name: str | None, *, explain: bool, files: Sequence[str] = (), array: bool = False
) -> None:
    """Raise `ExpressionError` for a format that is not known, and for output options that contradict each other.

    Raises `ModelFileError` for an --output that is one of the words, or of these further files. `array`: the answer is
    an array, which files of arrays can hold.
    """
    if name is not None:
        refuse_other("--format", name, FORMATS, OUTPUT_FORMATS.get(f".{name.lower()}", name))
    if question["quiet"] and question["get"] is not None:
        raise ExpressionError("-q and --get both ask for one value; keep one of them")
    if question["quiet"] and explain:
        raise ExpressionError("-q asks for one value and --explain for formulas; keep one of them")
    if explain and name in ("csv", "tsv"):
        raise ExpressionError(f"--explain has no {name} form; plain, markdown and json have the formulas", value=name)
    if question["output"] == "":
        raise ExpressionError("--output needs the name of a file", value="")
    if question["output"] is not None:
        path = question["output"]
        if path.isdecimal():
            raise ExpressionError(
                f"--output is {path}, which looks like channels out, -c {path}; of a file of that name, write ./{path}",
                value=path,
            )
        from convcalc.files import refuse_target

        refuse_target(path, [*question.words, *files])
        if not array and name is None and path.lower().endswith(_OF_ARRAYS):
            raise ExpressionError(
                f"-o {path} is for an array, but the answer is a table; write {', '.join(OUTPUT_FORMATS)}",
                field="output",
                value=path,
            )
    if question["lines"]:
        if question["output"] is not None:
            raise ExpressionError("--lines answers on standard output; it has no --output")
        if name not in (None, "json", "jsonl"):
            raise ExpressionError(f"--lines answers in JSON lines, not in {name}", value=name)
        if question.words:
            raise ExpressionError("--lines reads the questions from standard input; the command line has none")


def value_path(question: Question) -> str | None:
    """Where in the document the one value stands that -q or --get asks for; None for all of it."""
    return "answer" if question["quiet"] else question["get"]


def write_report(
    question: Question,
    report: Report,
    name: str | None,
    *,
    explain: bool = False,
    refusal: BudgetError | None = None,
) -> None:
    """Print the report, or write it to --output, in the format that is asked for; in JSON with the refusal."""
    path = question["output"]
    if path is not None and path != "-":
        from convcalc.files import write_whole

        lines = _lines(question, report, name or "tsv", explain=explain, refusal=refusal)
        write_whole(path, "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
        return
    name = name or ("table" if sys.stdout.isatty() else "tsv")
    if name == "table" and value_path(question) is None and not explain:
        from convcalc.render.table import print_table
        from convcalc.render.terminal import Console

        print_table(report, Console())
        return
    # All of it is made before any of it is printed: what fails prints no half of an answer.
    lines = list(_lines(question, report, name, explain=explain, refusal=refusal))
    if name == "table" and explain and sys.stdout.isatty():
        from shutil import get_terminal_size

        from convcalc.render.explain import wrapped

        lines = [part for line in lines for part in wrapped(line, get_terminal_size().columns)]
    sys.stdout.write("".join([f"{line}\n" for line in lines]))


def _lines(
    question: Question, report: Report, name: str, *, explain: bool, refusal: BudgetError | None
) -> Iterable[str]:
    """The answer line by line in every format but the terminal's table."""
    from convcalc.render import text

    if name in ("json", "jsonl"):
        from convcalc.render.document import json_text

        return [json_text(_document(question, report, refusal), compact=name == "jsonl")]
    path = value_path(question)
    if path is not None:
        from convcalc.render.document import document
        from convcalc.render.units import plain_text

        if _asks_for_kernel(question, report):
            from convcalc.render.arrays import nested_text

            return [nested_text(text.without_leading(array)) for array in report.arrays.values()]
        value = look_up(document(report), path)
        # The names of totals are the one list that is no shape.
        return [",".join(value) if path == "partial" else plain_text(value)]
    if explain:
        from convcalc.render.explain import explanation, markdown_explanation

        return markdown_explanation(report) if name == "markdown" else explanation(report)
    return {"plain": text.plain, "table": text.plain, "csv": text.csv, "tsv": text.tsv, "markdown": text.markdown}[
        name
    ](report)


def _document(question: Question, report: Report, refusal: BudgetError | None) -> dict[str, Any]:
    """The JSON document of a report, or of the one value that is asked for; one whether it is refused or not."""
    from convcalc.render.document import document, error_document, value_document

    content = document(report)
    path = value_path(question)
    if path is not None:
        content = value_document(content["arrays"] if _asks_for_kernel(question, report) else look_up(content, path))
    if refusal is None:
        return content
    refusal.told = True
    return content | error_document(refusal)


def _asks_for_kernel(question: Question, report: Report) -> bool:
    """Whether -q means weights: the kernel says more than its size; of layers that are an answer, the text is meant."""
    return question["quiet"] and bool(report.arrays) and not isinstance(report.answer, str)


def print_diagnostics(diagnostics: Iterable[Diagnostic], *, quiet: bool) -> None:
    """Print notes and warnings to standard error, but no notes when quiet."""
    from convcalc.render.units import printable

    for item in diagnostics:
        if quiet and item.level == "note":
            continue
        layer = f"layer {item.layer}: " if item.layer is not None else ""
        text = printable(f"{item.level}: {layer}{item.message}")
        print(text, file=sys.stderr)  # noqa: T201  messages go to standard error


def look_up(content: Any, path: str) -> Any:
    """What stands at a path such as totals.params, layers.0.output or layers.stem.output.

    Raises `ExpressionError` naming what is there.
    """
    current = content
    steps = path.split(".")
    while steps:
        # A layer's name may have dots in it: as much of the path as names one is a step.
        count = next((n for n in range(len(steps), 1, -1) if _named(current, ".".join(steps[:n]))), 1)
        step = ".".join(steps[:count])
        steps = steps[count:]
        found = _step(current, step)
        if found is None:
            raise ExpressionError(
                f"--get {path}: there is no {step or 'empty name'}; {_what_is_there(current, step)}", value=path
            )
        current = found[0]
    several = isinstance(current, list) and (path == "diagnostics" or any(isinstance(item, dict) for item in current))
    if isinstance(current, dict) or several:
        inside = f"; it has {', '.join(current)}" if isinstance(current, dict) else ""
        raise ExpressionError(f"--get {path} is not one value{inside}; --format json gives all of it", value=path)
    return current


def _step(content: Any, step: str) -> tuple[Any] | None:
    """What one step of a path leads to, in a tuple of its own because it may be None itself."""
    if isinstance(content, dict):
        return (content[step],) if step in content else None
    if not isinstance(content, list):
        return None
    named = _named(content, step)
    if named:
        return (named[0],)
    number = int(step) if re.fullmatch(r"-?[0-9]{1,9}", step) else None
    return (content[number],) if number is not None and -len(content) <= number < len(content) else None


def _named(content: Any, name: str) -> list[Any]:
    """The items of a list that have this name."""
    items = content if isinstance(content, list) else []
    return [item for item in items if isinstance(item, dict) and item.get("name") == name]


def _what_is_there(content: Any, step: str) -> str:
    if isinstance(content, dict):
        inside = [f"{key}.{step}" for key, value in content.items() if isinstance(value, dict) and step in value]
        meant = f"; did you mean '{inside[0]}'?" if inside else did_you_mean(step, content)
        return f"there is {', '.join(content) or 'nothing'}{meant}"
    if isinstance(content, list):
        return (
            f"there is 0 to {len(content) - 1}"
            if len(content) > 1
            else "there is 0 alone"
            if content
            else "it is empty"
        )
    return "one value has no parts"


# --- budgets --------------------------------------------------------------------------------------------------------


_ENDLESS = ("inf", "nan")
"""Totals that are numbers and no limit allows, as texts because JSON has none of them."""


def exceeding(report: Report, budget: str | None) -> list[str]:
    """What is above its limit, in words, one for each total. Raises `ExpressionError` for no such total or limit."""
    if budget is None:
        return []
    from convcalc.render.text import total_unit
    from convcalc.render.units import quantity, value_text

    known = [name for name, value in report.totals.items() if value in _ENDLESS or not isinstance(value, str | tuple)]
    exceeded = []
    if not budget:
        raise ExpressionError("--max needs limits, such as params=5M,macs=600M", value=budget)
    for part in budget.split(","):
        key, equals, limit_text = part.partition("=")
        if not known:
            raise ExpressionError(f"--max {budget}: {report.verb} has no totals", value=budget)
        if key not in known:
            have = f"; {report.verb} has {', '.join(known)}{did_you_mean(key, known)}"
            raise ExpressionError(f"--max {budget}: there is no total {key}{have}", value=budget)
        if not equals:
            example = "1e-5" if isinstance(report.totals[key], float) else "5M"
            raise ExpressionError(f"--max {budget}: {key} has no limit; write {key}={example}", value=budget)
        limit = quantity(limit_text, f"--max {key}")
        value = report.totals[key]
        if value is None:
            exceeded.append(f"{key} is not known in full")
        elif isinstance(value, str):
            exceeded.append(f"{key} is {value}, above {value_text(limit, total_unit(report, key))}")
        elif isinstance(value, int | float) and value > limit:
            least = "at least " if key in report.partial else ""
            exceeded.append(f"{key} is {least}{_apart(value, limit, total_unit(report, key))}")
        elif key in report.partial:
            exceeded.append(f"{key} is not known in full")
    return exceeded


def _apart(value: float, limit: float, unit: str) -> str:
    """A total and its limit in units for people, or to the last digit where these look the same."""
    from convcalc.render.units import value_text

    texts = value_text(value, unit), value_text(limit, unit)
    if texts[0] == texts[1]:
        texts = f"{value:,}", f"{limit:,}"
    return f"{texts[0]}, above {texts[1]}"


def _refusal(question: Question, report: Report) -> BudgetError | None:
    """The error for what exceeds its limit, and with --strict for what is unknown."""
    exceeded = exceeding(report, question["budget"])
    if exceeded:
        return BudgetError("; ".join(exceeded))
    if question["strict"] and report.status == "partial":
        unknown = sorted({name for name, value in report.totals.items() if value is None} | report.partial)
        return BudgetError(f"--strict: {', '.join(unknown)} cannot be told in full")
    return None
