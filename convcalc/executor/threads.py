"""Threads over blocks of work.

NumPy lets go of the interpreter inside its loops and its matrix product, so that plain threads over blocks use all
cores. The matrix product itself is held to one thread inside them, because two levels of threads fight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from threading import Lock, Thread, local
from time import sleep
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # it has no types

from convcalc.errors import ResourceError
from convcalc.executor.kernels import Array
from convcalc.executor.processor import available_threads, core_count, cores, on_another_core, on_any_core
from convcalc.tracing import product

T = TypeVar("T")
Calls = list[tuple[Callable[..., object], tuple[Any, ...]]]
"""Functions and what they are to be called with, one after the other."""
Stage = list[Calls]
"""Calls for each thread, the calling one first. No thread begins the next stage before all are done with this one."""

_LINE = 64
"""Bytes of a cache line, where arrays start."""


class _Helper:
    """A thread that does what it is given, one piece of work at a time, until `end`."""

    def __init__(self) -> None:
        self._work: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._idle = True
        self._cores = cores()
        self._given, self._done = Lock(), Lock()
        self._given.acquire()
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def start(self, work: Callable[[], None]) -> None:
        """Begin the work, and come back at once."""
        self._done.acquire(blocking=False)
        self._work, self._error = work, None
        on_another_core(self._thread, self._cores)
        # Nothing between these two: an interrupt there would leave `wait` waiting for what has not begun.
        self._idle = False
        self._given.release()

    def wait(self) -> BaseException | None:
        """What the work raised, once it is done. An interrupt waits too: the work writes into the caller's arrays."""
        interrupt: BaseException | None = None
        while not self._idle:
            try:
                self._done.acquire()
            except KeyboardInterrupt as error:
                interrupt = error
        return self._error or interrupt

    def end(self) -> None:
        """End the thread."""
        self._work = None
        self._given.release()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            self._given.acquire()
            if self._work is None:
                return
            on_any_core(self._cores)
            try:
                self._work()
            except BaseException as error:  # the caller raises it
                self._error = error
            self._idle = True
            if self._done.locked():  # else the caller has seen already that this thread is idle
                self._done.release()


class _Team:
    """The threads of a `threads` block: how many `share` uses, those besides the calling one, who has them now.

    `before` is the block that was there when this one began. Blocks of several threads may end in any order.
    """

    def __init__(self, count: int, before: _Team | None) -> None:
        self.count = count
        self.before = before
        self.helpers: list[_Helper] = []
        self.busy = Lock()
        self.over = False


class _State:
    """The team that works now; None outside of all blocks. How many blocks there are, and their hold on the libraries.

    One hold for all: of two that are not let go in turn the last would leave the libraries held.
    """

    team: _Team | None = None
    blocks = 0
    held: Any = None
    changing = Lock()


class _Scratch(local):
    """Arrays by name, of each thread its own.

    Besides for which of the threads calls are collected now, where they go, and whether they follow others at once.
    """

    hand = 0
    collected: list[Stage] | None = None
    in_a_row = False


_state = _State()
_scratch = _Scratch()


def thread_count() -> int:
    """How many threads `share` uses now."""
    team = _state.team
    return 1 if team is None else team.count


@cache
def libraries() -> ThreadpoolController:
    """The libraries that are loaded now that have threads of their own, such as NumPy's for matrix products."""
    return ThreadpoolController()


@contextmanager
def threads(count: int | None = None) -> Iterator[None]:
    """Use so many threads inside the `with` block (all cores if None), and one inside each matrix product.

    Inside another such block None keeps what that one uses.
    """
    if count is None and _state.team is not None:
        yield
        return
    with _state.changing:
        team = _state.team = _Team(available_threads() if count is None else count, _state.team)
        _state.blocks += 1
        if _state.blocks == 1:
            _state.held = libraries().limit(limits=1, user_api="blas")
    try:
        _start(team.helpers, team.count - 1)
        yield
    finally:
        with _state.changing:
            team.over = True
            while _state.team is not None and _state.team.over:
                _state.team = _state.team.before
            _state.blocks -= 1
            if not _state.blocks:
                _state.held.restore_original_limits()
        with team.busy:  # another thread may be sharing its work with them
            for helper in team.helpers:
                helper.end()
            team.helpers = []
        for name in [name for name in vars(_scratch) if not name.endswith(" 0")]:
            delattr(_scratch, name)


def _start(helpers: list[_Helper], count: int) -> None:
    """Add so many helpers. Raises `ResourceError` when the system has no more threads."""
    for _ in range(count):
        try:
            helpers.append(_Helper())
        except RuntimeError:
            raise ResourceError(
                f"the system starts no more than {len(helpers) + 1:,} threads; ask for fewer with --threads",
                value=count + 1,
            ) from None


def share(work: Callable[[T], None], tasks: Iterable[T]) -> None:
    """Call `work` for every task, in as many threads as `threads` allows; each takes the next task when it is free.

    What a task shares in its turn is done by its own thread alone: the others may all be waiting for theirs.
    """
    if _scratch.collected is not None:
        share_calls(lambda task: [(work, (task,))], tasks)
        return
    listed = list(tasks)
    todo = iter(listed)

    def take() -> None:
        # Each thread has settings of its own for what NumPy warns of.
        with np.errstate(all="ignore"):
            for task in todo:
                work(task)

    if not _at_once([take] * min(len(listed), thread_count())):
        take()


def _at_once(works: Sequence[Callable[[], None]], give_up: Callable[[], None] | None = None) -> bool:
    """Do each in a thread of its own, the first in this one. False, with nothing done, where threads are not free.

    `give_up` is called when this thread cannot do its part, so that the others need not wait for it.
    """
    team = _state.team
    if len(works) < 2 or team is None or not team.busy.acquire(blocking=False):
        return False
    started: list[_Helper] = []
    errors: list[BaseException | None] = []
    try:
        if len(works) > 1 + len(team.helpers):
            return False
        for helper, work in zip(team.helpers, works[1:], strict=False):
            started.append(helper)
            helper.start(work)
        works[0]()
    except BaseException:
        if give_up is not None:
            give_up()
        raise
    finally:
        try:
            errors = [helper.wait() for helper in started]
        finally:
            team.busy.release()
    for error in errors:
        if error is not None:
            raise error
    return True


def share_calls(calls_of: Callable[[T], Calls], tasks: Iterable[T]) -> None:
    """Make the calls of every task, the tasks dealt out to as many threads as `threads` allows.

    This thread collects the calls first. While one thread works out in Python what to call, all others wait for the
    interpreter, and to be woken takes as long as many a call; threads that only call hardly ever wait.
    """
    listed = list(tasks)
    hands: list[Calls] = [[] for _ in range(min(thread_count(), len(listed)))]
    for index, task in enumerate(listed):
        _scratch.hand = index % len(hands)
        hands[_scratch.hand] += calls_of(task)
        if len(hands) == 1 and _scratch.collected is None:
            perform(hands[0])
            hands[0] = []
    _scratch.hand = 0
    if _scratch.collected is not None:
        _scratch.collected.append(hands)
    else:
        share(perform, hands)


def perform(calls: Calls) -> None:
    """Make the calls."""
    with np.errstate(all="ignore"):
        for function, arguments in calls:
            function(*arguments)


def is_in_a_row() -> bool:
    """Whether what is shared now follows other work at once, or will when it is done again: no thread must be woken."""
    return _scratch.in_a_row


@contextmanager
def in_a_row(now: bool) -> Iterator[None]:
    """Divide work inside the `with` block as work that follows other work at once.

    Not if not `now`, or where there are more threads than cores, so that they do not watch for each other.
    """
    before, _scratch.in_a_row = _scratch.in_a_row, now and thread_count() <= core_count()
    try:
        yield
    finally:
        _scratch.in_a_row = before


@contextmanager
def collecting() -> Iterator[list[Stage]]:
    """What `share_calls` is asked for inside the `with` block, in order, and not yet done."""
    stages: list[Stage] = []
    _scratch.collected = stages
    try:
        yield stages
    finally:
        _scratch.collected = None


WATCHING = 300
"""How often a thread looks for the others before it sleeps in between: about a quarter of a millisecond."""


def play(stages: Sequence[Stage]) -> None:
    """Make the calls of all stages, in the threads for which they were collected.

    Threads are woken once. At the end of a stage they watch for each other, because to be woken takes longer than many
    a call. Who watches lets go of the interpreter each time that it looks.
    """
    done = [0] * max(map(len, stages), default=0)
    broken = False

    def give_up() -> None:
        nonlocal broken
        broken = True

    def part(hand: int) -> None:
        try:
            with np.errstate(all="ignore"):
                for number, stage in enumerate(stages, 1):
                    if hand < len(stage):
                        for function, arguments in stage[hand]:
                            function(*arguments)
                    done[hand] = number
                    looked = 0
                    while min(done) < number and not broken:
                        looked += 1
                        sleep(0 if looked < WATCHING else 5e-5)
                    if broken:
                        return
        except BaseException:
            give_up()
            raise

    # Of more threads than cores one that watches may keep another from its work.
    if len(done) > core_count() or not _at_once([partial(part, hand) for hand in range(len(done))], give_up):
        for stage in stages:
            share(perform, stage)


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """An array of any content that nobody else uses until this thread asks for the same name again.

    In what `share_calls` collects, it is until those calls are made that the same thread is to make.
    """
    needed = product(shape) * dtype.itemsize
    name = f"{name} {_scratch.hand}"
    kept: Array | None = getattr(_scratch, name, None)
    if kept is None or kept.size < needed:
        whole = np.empty(needed + _LINE, np.uint8)
        kept = whole[-whole.ctypes.data % _LINE :]
        setattr(_scratch, name, kept)
    return kept[:needed].view(dtype).reshape(shape)
