"""Completions: the files are what the script makes, and TAB in the real shells does what they say."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pty
import re
import select
import shutil
import signal
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SECONDS = 30

specification = importlib.util.spec_from_file_location("make_completions", ROOT / "scripts" / "make_completions.py")
make_completions = importlib.util.module_from_spec(specification)
specification.loader.exec_module(make_completions)


@pytest.mark.parametrize("name", ["convcalc.bash", "_convcalc", "convcalc.fish"])
def test_the_files_are_up_to_date(name):
    made = make_completions.files()[name]
    assert (ROOT / "completions" / name).read_text(encoding="utf-8") == made, "run scripts/make_completions.py"
    assert not re.search("@[A-Z_]+@", made)


# --- in the shells --------------------------------------------------------------------------------------------------

# The shell runs this in place of convcalc: what stands on the line when Enter is pressed is shown in brackets.
STARTS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        "bind 'set enable-bracketed-paste off'; bind 'set bell-style none'; bind 'set show-all-if-ambiguous on';"
        " convcalc() { printf '<%s>' \"$@\"; echo '<end>'; }; source {completions}/convcalc.bash",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "unsetopt beep prompt_cr zle_bracketed_paste; fpath=({completions} $fpath); autoload -Uz compinit;"
        " compinit -u -D;"
        " convcalc() { printf '<%s>' \"$@\"; echo '<end>' }",
    ),
    "fish": (
        ["fish", "--no-config", "-i"],
        "function convcalc; printf '<%s>' $argv; echo '<end>'; end; source {completions}/convcalc.fish",
    ),
}
TYPED = [
    ("sha\t 3x8x8", ["shape", "3x8x8"]),
    ("shape 3x8x8 --kern\t5", ["shape", "3x8x8", "--kernel-size", "5"]),
    ("flops --conv\t fv\t", ["flops", "--convention", "fvcore"]),
    ("flops --format mark\t 3x8x8", ["flops", "--format", "markdown", "3x8x8"]),
    ("memory --optimizer mom\t", ["memory", "--optimizer", "momentum"]),
    ("memory --dtype bfl\t", ["memory", "--dtype", "bfloat16"]),
    ("shape --kind pixelu\t", ["shape", "--kind", "pixelunshuffle"]),
    ("shape --padding-mode refl\t", ["shape", "--padding-mode", "reflect"]),
    ("shape 3x8x8 pixelsh\t", ["shape", "3x8x8", "pixelshuffle"]),
    ("shape 3x8x8 conv:64,k\t3", ["shape", "3x8x8", "conv:64,kernel_size=3"]),
    ("shape 3x8x8 conv:ker\t5,str\t2", ["shape", "3x8x8", "conv:kernel_size=5,stride=2"]),
    ("shape 3x8x8 conv:64,k3,nob\t", ["shape", "3x8x8", "conv:64,k3,nobias"]),
    ("shape 3x8x8 Conv2d:8,padding_m\tcirc\t", ["shape", "3x8x8", "Conv2d:8,padding_mode=circular"]),
    ("shape 3x8x8 maxpool:2,ceil_m\tt\t", ["shape", "3x8x8", "maxpool:2,ceil_mode=true"]),
    ("shape 3x8x8 @skip relu add:@\t", ["shape", "3x8x8", "@skip", "relu", "add:@skip"]),
    ("shape 3x8x8 @skip relu from:@s\t", ["shape", "3x8x8", "@skip", "relu", "from:@skip"]),
    ("shape 3x8x8 @one relu @two relu concat:@one,@t\t",
     ["shape", "3x8x8", "@one", "relu", "@two", "relu", "concat:@one,@two"]),
    ("hel\t mem\t", ["help", "memory"]),
    ("help kin\t", ["help", "kinds"]),
    ("help pixelu\t", ["help", "pixelunshuffle"]),
    ("shape --hel\t", ["shape", "--help"]),
    ("shape netw\t", ["shape", "network.txt"]),
    ("shape -o resu\t", ["shape", "-o", "results.json"]),
]  # fmt: skip


class Shell:
    """A shell at the other end of a terminal."""

    def __init__(self, name, folder):
        command, start = STARTS[name]
        environment = {"HOME": str(folder), "PATH": os.environ["PATH"], "TERM": "dumb", "LC_ALL": "C.UTF-8",
                       "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}  # fmt: skip
        self.number, self.terminal = pty.fork()
        if self.number == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, environment)
        self.shown = ""
        self.type(start.replace("{completions}", str(ROOT / "completions")) + "; convcalc ready\r")
        self.answer()

    def type(self, text):
        os.write(self.terminal, text.encode())

    def answer(self):
        """The words that the next convcalc was given."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(r"((?:<[^<>]*>)*)<end>\r?\n", self.shown)):
            ready, _, _ = select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no answer within {SECONDS} s; the terminal shows {self.shown!r}"
            piece = os.read(self.terminal, 65536)
            if b"\x1b[c" in piece or b"\x1b[0c" in piece:  # fish asks what terminal this is
                self.type("\x1b[?62;c")
            self.shown += piece.decode(errors="replace")
        self.shown = self.shown[found.end() :]
        return re.findall("<([^<>]*)>", found[1])

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.number, signal.SIGKILL)
        os.waitpid(self.number, 0)
        os.close(self.terminal)


@pytest.fixture(scope="module", params=list(STARTS))
def shell(request, tmp_path_factory):
    if shutil.which(request.param) is None:
        reason = f"{request.param} is not installed"
        if os.environ.get("CONVCALC_REQUIRE_SHELLS"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("shell")
    for name in ("network.txt", "results.json"):
        (folder / name).touch()
    opened = Shell(request.param, folder)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("typed", "words"), [case for case in TYPED if case[1]], ids=[case[0] for case in TYPED if case[1]]
)
def test_tab(shell, typed, words):
    shell.type(f"convcalc {typed}\r")
    assert shell.answer() == words
