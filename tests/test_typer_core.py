"""Typer's parser alone: an answer loads no more of typer, and typer is whole for everyone else."""

import subprocess
import sys

import pytest

APP = """
import typer, typer.testing

app = typer.Typer()

@app.command()
def hello(name: str, count: int = 1, formal: bool = typer.Option(False, "--formal/--casual", help="How.")):
    '''Greet.'''
    for _ in range(count):
        typer.echo(f"{'Good day' if formal else 'Hi'} {name}")

runner = typer.testing.CliRunner()
print(runner.invoke(app, ["Ada", "--count", "2", "--formal"]).output.split())
print("Greet." in runner.invoke(app, ["--help"]).output, "No such option" in runner.invoke(app, ["--fomral"]).output)
print(issubclass(typer.core.TyperCommand, typer.main.TyperCommand), typer.__version__ >= "0.28")
"""
GREETED = "['Good', 'day', 'Ada', 'Good', 'day', 'Ada']\nTrue True\nTrue True\n"


def output_of(program):
    """What a program prints in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    "question", [["3x8x8", "conv:4,k3"], ["3x8x8", "--stride", "2", "--quiet"], ["3x8x8", "relu", "--format=json"]]
)
def test_an_answer_loads_nothing_that_only_help_and_errors_use(question):
    shown = output_of(f"""
import sys
before = set(sys.modules)  # what finds an editable installation may load pathlib
from convcalc.cli import run_command_line
run_command_line(["shape", *{question}])
loaded = set(sys.modules) - before
print([name for name in ("inspect", "difflib", "gettext", "dataclasses", "pathlib") if name in loaded])
print(sorted(name for name in sys.modules if name.startswith("typer.") and "_click" not in name))
""").splitlines()
    assert shown[-2] == "[]"
    assert shown[-1] == "['typer._typing', 'typer.core', 'typer.exceptions']"


@pytest.mark.parametrize(
    "before",
    [
        "import convcalc.cli",
        "import typer, convcalc.cli",
        "import inspect, convcalc.cli",
        "from convcalc.cli.typer_core import UsageError; from typer import Typer",
        "from convcalc.cli import run_command_line as run; run(['shape', '3x8x8', '-k', '3'])",
        "from convcalc.cli import run_command_line as run; run(['shape', '--help'])",
    ],
)
def test_typer_is_whole_for_everyone_else(before):
    assert output_of(f"{before}\n{APP}").endswith(GREETED)


def test_every_name_of_typer_is_there():
    names = "[name for name in dir(typer) if name[0] != '_']"
    whole = output_of(f"import typer; print({names})")
    assert output_of(f"import convcalc.cli, typer; typer.Typer; print({names})") == whole
    assert output_of("import convcalc.cli; from typer import *; print(Typer.__name__)") == "Typer\n"
    assert output_of("import convcalc.cli, typer; print(hasattr(typer, 'nothing'), hasattr(typer, '_nothing'))") == (
        "False False\n"
    )


def test_what_is_loaded_later_is_the_real_thing():
    shown = output_of("""
import convcalc.cli, typer.core
assert typer.core.get_close_matches("conf", ["conv"]) == ["conv"]
assert typer.core._("word") == "word"
assert typer.core.inspect.cleandoc("  a") == "a"
assert typer.core.inspect.Parameter.empty is typer.core.inspect._empty
assert not hasattr(typer.core.inspect, "nothing")
import difflib, gettext, inspect
print(inspect.isclass(inspect.Signature), difflib.__file__[-10:], gettext.__file__[-10:])
""")
    assert shown == "True difflib.py gettext.py\n"
