"""From a question to its answer: the network, the analysis, budgets, and the output that was asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from convcalc.analysis.report import Report
from convcalc.cli.options import FORMATS, LAYER_OPTIONS, Question
from convcalc.errors import BudgetError, ConvcalcError, ExpressionError, did_you_mean
from convcalc.network import Network
from convcalc.nouns import LayerOptions, read_network

Analysis = Callable[[Network], Report]
_SUFFIXES = {".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv", ".md": "markdown", ".txt": "plain"}


def answer(question: Question, analysis: Analysis, *, explain: bool = False) -> None:
    """Answer the question, or each line of standard input with --lines."""
    if question["lines"]:
        _answer_lines(question, analysis)
        return
    _check_output_options(question)
    report = analysis(_network(question, question.words))
    _print_notes(report, quiet=question["quiet"])
    _write(question, report, explain=explain)
    check_budget(report, question["budget"])
    _check_strict(question, report)


def layer_options(question: Question) -> LayerOptions:
    """The layer that the options describe; false when none was given."""
    fields = {}
    for option in LAYER_OPTIONS[1:]:
        value = question[option.name]
        if value is not None:
            text = str(value).lower() if isinstance(value, bool) else value
            fields[option.name] = (option.flags[0].partition("/")[0], text)
    return LayerOptions(question["kind"], fields)


def _network(question: Question, words: Iterable[str]) -> Network:
    return read_network(
        list(words), input_shape=question["input_shape"], options=layer_options(question), batch=question["batch"]
    )


def _answer_lines(question: Question, analysis: Analysis) -> None:
    """One JSON line for each line of standard input, errors too."""
    from convcalc.render.document import document, error_document, json_text

    if question.words:
        raise ExpressionError("--lines reads the questions from standard input; the command line has none")
    for line in sys.stdin:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            report = analysis(_network(question, [text]))
            check_budget(report, question["budget"])
            _check_strict(question, report)
            content = document(report)
            if question["get"] or question["quiet"]:
                content = {"version": content["version"], "value": look_up(content, question["get"] or "answer")}
        except ConvcalcError as error:
            content = error_document(error)
        print(json_text(content, compact=True))  # noqa: T201  the answer


# --- output ---------------------------------------------------------------------------------------------------------


def _check_output_options(question: Question) -> None:
    name = question["format_name"]
    if name is not None and name not in FORMATS:
        raise ExpressionError(
            f"--format is {name}, but must be one of {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}", value=name
        )
    if question["quiet"] and question["get"]:
        raise ExpressionError("-q and --get both ask for one value; keep one of them")


def _write(question: Question, report: Report, *, explain: bool) -> None:
    path = question["output"]
    if path is not None:
        from convcalc.files import write_whole

        name = question["format_name"] or _SUFFIXES.get(path[path.rfind(".") :], "tsv")
        write_whole(path, "".join(f"{line}\n" for line in _lines(question, report, name, explain=explain)).encode())
        return
    terminal = sys.stdout.isatty()
    name = question["format_name"] or ("table" if terminal else "tsv")
    if name == "table" and not question["quiet"] and not question["get"] and not explain:
        from rich.console import Console

        from convcalc.render.table import print_table

        print_table(report, Console())
        return
    for line in _lines(question, report, name, explain=explain):
        print(line)  # noqa: T201  the answer


def _lines(question: Question, report: Report, name: str, *, explain: bool) -> Iterable[str]:
    """The answer line by line in every format but the terminal's table."""
    from convcalc.render import text

    if question["quiet"]:
        from convcalc.render.units import plain_text

        return [plain_text(report.answer)]
    if question["get"]:
        from convcalc.render.document import document
        from convcalc.render.units import plain_text

        return [plain_text(look_up(document(report), question["get"]))]
    if name in ("json", "jsonl"):
        from convcalc.render.document import document, json_text

        return [json_text(document(report), compact=name == "jsonl")]
    if explain and name in ("table", "plain", "tsv"):
        from convcalc.render.explain import explanation

        return explanation(report)
    return {"plain": text.plain, "table": text.plain, "csv": text.csv, "tsv": text.tsv, "markdown": text.markdown}[
        name
    ](report)


def _print_notes(report: Report, *, quiet: bool) -> None:
    for item in report.diagnostics:
        if quiet and item.level == "note":
            continue
        layer = f"layer {item.layer}: " if item.layer is not None else ""
        print(f"{item.level}: {layer}{item.message}", file=sys.stderr)  # noqa: T201  messages go to standard error


def look_up(content: Any, path: str) -> Any:
    """What stands at a path such as totals.params or layers.0.output. Raises `ExpressionError` naming what is there."""
    current = content
    for step in path.split("."):
        if isinstance(current, list) and step.lstrip("-").isdigit() and -len(current) <= int(step) < len(current):
            current = current[int(step)]
        elif isinstance(current, dict) and step in current:
            current = current[step]
        else:
            known = list(current) if isinstance(current, dict) else []
            there = f"0 to {len(current) - 1}" if isinstance(current, list) else ", ".join(known) or "nothing"
            raise ExpressionError(
                f"--get {path}: there is no {step}{did_you_mean(step, known)}; there is {there}", value=path
            )
    if isinstance(current, dict) or (isinstance(current, list) and current and isinstance(current[0], dict)):
        raise ExpressionError(f"--get {path} is not one value; --format json gives all of it", value=path)
    return current


# --- budgets --------------------------------------------------------------------------------------------------------


def check_budget(report: Report, budget: str | None) -> None:
    """Raise `BudgetError` naming every total that is above its limit."""
    if budget is None:
        return
    from convcalc.render.units import quantity, value_text

    units = {column.key: column.unit for column in report.columns}
    exceeded = []
    for part in budget.split(","):
        key, equals, limit_text = part.partition("=")
        if not equals or key not in report.totals:
            known = [name for name, value in report.totals.items() if not isinstance(value, str | tuple)]
            what = f"there is no total {key}{did_you_mean(key, known)}" if equals else f"{part} has no limit"
            have = f"; {report.verb} has {', '.join(known)}" if known else f"; {report.verb} has no totals"
            raise ExpressionError(f"--max {budget}: {what}{have}", value=budget)
        limit = quantity(limit_text, f"--max {key}")
        value = report.totals[key]
        unit = units.get(key, "bytes" if report.verb == "memory" else "count")
        if value is None:
            exceeded.append(f"{key} is not known in full")
        elif isinstance(value, int | float) and value > limit:
            exceeded.append(f"{key} is {value_text(value, unit)}, above {value_text(limit, unit)}")
    if exceeded:
        raise BudgetError("; ".join(exceeded))


def _check_strict(question: Question, report: Report) -> None:
    if question["strict"] and report.status == "partial":
        unknown = [name for name, value in report.totals.items() if value is None]
        raise BudgetError(f"--strict: {', '.join(unknown)} cannot be told in full")
