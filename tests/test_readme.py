"""The examples at the prompt, of README.md and of pages of docs/, print what these pages say."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import readme_examples

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = list(readme_examples.blocks(README))
PAGES = [
    block
    for page in ("lessons", "compose", "run")
    for block in readme_examples.blocks((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for the whole page: an example may use a file that one before it wrote."""
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    """An environment in which `convcalc` is this tree's, installed or not."""
    programs = tmp_path_factory.mktemp("bin")
    script = programs / "convcalc"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m convcalc "$@"\n')
    script.chmod(0o755)
    return {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("block", [*BLOCKS, *PAGES], ids=[block[0][0] for block in [*BLOCKS, *PAGES]])
def test_example(block, folder, variables):
    for command, expected in block:
        assert readme_examples.run(command, folder, variables) == expected


def test_there_is_an_example_of_every_verb():
    from convcalc.cli import VERBS

    shown = {command.split()[1] for block in BLOCKS for command, _ in block if command.startswith("convcalc ")}
    assert set(VERBS) <= shown


def test_commands_that_ci_takes():
    found = re.findall(r"^<!-- command: (\w+) -->\n```sh\n(.+)\n```$", README, re.MULTILINE)
    assert [name for name, _ in found] == ["run", "test"]
    assert all("python3 -m venv .venv && " in command for _, command in found)
