"""The progress of what takes long, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PRINTS = 10
"""About how many losses are printed."""


@contextmanager
def loss_progress(steps: int, *, quiet: bool) -> Iterator[Callable[[int, float], None]]:
    """Give a function for each step's loss: it prints some of them, with a bar below on a terminal."""
    every = max(steps // _PRINTS, 1)
    if quiet:
        yield lambda _step, _loss: None
        return
    if not sys.stderr.isatty():

        def write(step: int, loss: float) -> None:
            if step % every == 0 or step == 1:
                print(f"step {step}: loss {loss:.6g}", file=sys.stderr)  # noqa: T201  messages go to standard error

        yield write
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from convcalc.render.terminal import Console

    columns = (TextColumn("fitting"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4g}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("fitting", total=steps, loss=float("nan"))

        def show(step: int, loss: float) -> None:
            progress.update(task, completed=step, loss=loss)
            if step % every == 0 or step == 1:
                progress.console.print(f"step {step}: loss {loss:.6g}", highlight=False)

        yield show


@contextmanager
def batch_progress(count: int, done: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Give a function for how many samples more are done: it draws a bar, on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda _more: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from convcalc.render.terminal import Console

    columns = (TextColumn("running"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("running", total=count, completed=done)
        yield lambda more: progress.advance(task, more)


def say(sentence: str) -> None:
    """A sentence about how a run went, on standard error."""
    print(sentence, file=sys.stderr)  # noqa: T201  messages go to standard error
