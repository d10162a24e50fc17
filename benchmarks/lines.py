"""How many questions a second `convcalc shape --lines` answers, against a start for each.

    python benchmarks/lines.py [--questions 10000]

Prints the seconds of one process for all questions, those of one process for one question, and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time


def seconds(arguments: list[str], text: bytes = b"") -> float:
    """Wall time of one convcalc process that is given this on standard input."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "convcalc", *arguments], input=text, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure both in turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    question = "3x224x224 conv:64,k7,s2,p3 relu maxpool:3,s2,p1"
    lines = f"{question}\n".encode() * options.questions
    many, one = [], []
    for _ in range(options.rounds):
        many.append(seconds(["shape", "--lines", "-q"], lines))
        one.append(seconds(["shape", *question.split(), "-q"]))
    together, alone = statistics.median(many), statistics.median(one)
    print(
        f"{options.questions} questions in one process: {together:.2f} s, {options.questions / together:,.0f} a second"
    )
    print(f"one question in a process: {alone * 1e3:.0f} ms; so many would take {alone * options.questions:,.0f} s,")
    print(f"{alone * options.questions / together:,.0f} times as long")


if __name__ == "__main__":
    main()
