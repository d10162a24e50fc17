"""README.md's examples: each ```console block is run in a terminal and must print exactly what stands there.

By itself, `python readme_examples.py README.md` runs them with the `convcalc` that is on the PATH and nothing else.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

WIDTH = 100
"""Columns of the terminal that the examples are printed in."""


def blocks(page: str) -> Iterator[list[tuple[str, str]]]:
    """The console blocks of a page: (command, what it prints) pairs. A command goes on after a backslash."""
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        pairs = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
        if not pairs or "".join(f"$ {command}\n{output}" for command, output in pairs) != block:
            raise ValueError(f"a console block does not begin with a command: {block}")
        yield pairs


def run(command: str, folder: Path, variables: Mapping[str, str]) -> str:
    """What a command prints in a terminal, without colours; then `exit status N` if it is not 0."""
    main, side = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(WIDTH), "LINES": "50", "TERM": "dumb", "NO_COLOR": "1", **variables}
    process = subprocess.Popen(
        ["bash", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=side,
        stderr=side,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    os.close(side)
    pieces = []
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # Linux's way of saying that the other end is closed
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(main)
    status = process.wait()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(pieces).decode().replace("\r\n", "\n"))
    # A progress bar rewrites its line: what stays is what came last.
    lines = [line.rpartition("\r")[2].rstrip() for line in text.splitlines()]
    if status:
        lines.append(f"exit status {status}")
    return "".join(f"{line}\n" for line in lines)


def main(path: str) -> int:
    """Run every example of a page and print how many there were; 1 with a message at the first that differs."""
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        for block in blocks(Path(path).read_text(encoding="utf-8")):
            for command, expected in block:
                printed = run(command, Path(folder), {})
                if printed != expected:
                    print(f"$ {command}\nexpected:\n{expected}\nprinted:\n{printed}")
                    return 1
                count += 1
    print(f"{count} examples of {path} print what it says")
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
