"""Write the pages of docs/ that come from the code: `python scripts/make_docs.py`. A test compares them."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from convcalc import formulas  # noqa: E402  the tree of this script, not what is installed
from convcalc.analysis.conventions import TOOLS  # noqa: E402
from convcalc.tracing import FORMULAS, Formula  # noqa: E402

_MADE = "<!-- Made by scripts/make_docs.py from {source}; edit that. -->\n"
_SEQUENCE = "Sequence"


def formulas_page() -> str:
    """Every formula: what it gives, in symbols, what it means, examples, and who states it."""
    lines = [
        "# Formulas",
        "",
        _MADE.format(source="convcalc/formulas.py"),
        "Every number that convcalc gives comes from one of these. Each stands once in the code, as a function without"
        " branches; this page, `--explain` and the answers are all made by the same functions. Numbers are exact"
        " whole numbers, however large. ⌊ ⌋ rounds down, ⌈ ⌉ up; ∏ is the product over the axes.",
        "",
        "```pycon",
        ">>> from convcalc.formulas import *",
        "```",
        "",
    ]
    for formula in FORMULAS.values():
        lines += _section(formula)
    return "\n".join(lines).rstrip() + "\n"


def _section(formula: Formula[..., object]) -> list[str]:
    text = inspect.cleandoc(formula.__doc__ or "")
    prose, _, examples = text.partition(">>>")
    lines = [f"## {formula.name}", "", prose.strip(), "", f"    {formula.result} = {symbols(formula)}", ""]
    if examples:
        lines += ["```pycon", f">>>{examples}".rstrip(), "```", ""]
    return [*lines, f"Source: {formula.source}.", ""]


def symbols(formula: Formula[..., object]) -> str:
    """The formula in symbols, read off its own code by numbers that remember what was done to them."""
    annotations = formula.function.__annotations__
    arguments = [(1, 1) if _SEQUENCE in str(annotations[name]) else 1 for name in formula.parameters]
    return formula.traced(*arguments).symbols


def conventions_page() -> str:
    """How convcalc counts, and how each tool does."""
    lines = [
        "# Conventions of counting",
        "",
        _MADE.format(source="convcalc/analysis/conventions.py"),
        "MACs and FLOPs are different columns, because they are different numbers.",
        "",
        "## Exact, the default",
        "",
        "- A MAC is one product of a dot product, added to the others of its sum. What has no dot products has 0 MACs.",
        "- FLOPs are the operations that are done: a dot product of K terms is K multiplications and K − 1 additions;"
        " a bias is one more addition. Zeros that padding puts there are operands like others.",
        "- A transposed convolution multiplies every input element by every kernel element, also where the product is"
        " cropped afterwards; its additions are its products less the output elements that they reach before"
        " cropping, and the bias.",
        "- A comparison, an addition, a multiplication, a division or a call of a function (exp, tanh, √) is 1. The"
        " docstring of each layer's `cost` states its algorithm.",
        "- Backward is counted for each gradient apart: input, weight, bias. The first layer owes no gradient to its"
        " input unless `--input-grad` asks for it.",
        "",
        "## Other conventions",
        "",
        "`--convention` changes the FLOPs column alone. `macs` puts the MACs there, `2mac` two for each MAC, backward"
        " too. The others"
        " give the number of a tool for the same layer, in the version named, and also where the tool is wrong. Each"
        " is tested against the tool itself. Layers that are in no line of a table are 0 there: the tool passes over"
        " them. The layers' fields and inputs are what the tools see, so a number is for the forward pass in"
        " evaluation mode, with the batch that was given.",
        "",
    ]
    for name, tool in TOOLS.items():
        lines += [f"### {name}", "", f"{tool.call}.", "", tool.says, "", f"Where it is wrong: {tool.wrong}", ""]
        lines += ["| layer | FLOPs |", "|---|---|"]
        lines += [f"| {kind} | {rule.text} |" for kind, rule in tool.rules.items()] + [""]
    lines += [
        "`globalavgpool` and `globalmaxpool` are counted as the adaptive pools to 1 as which PyTorch writes them."
        " A softmax without `dim` makes thop fail; here it is counted along the axis that PyTorch then takes.",
        "",
    ]
    return "\n".join(lines)


PAGES = {"formulas.md": formulas_page, "conventions.md": conventions_page}
"""The pages by file name in docs/."""


def main() -> None:
    """Write all pages."""
    assert formulas.__file__.startswith(str(ROOT)), "convcalc comes from another tree"
    for name, page in PAGES.items():
        (ROOT / "docs" / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
