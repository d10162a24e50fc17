"""Threads over blocks of work.

NumPy lets go of the interpreter inside its loops and its matrix product, so that plain threads over blocks use all
cores. The matrix product itself is held to one thread inside them, because two levels of threads fight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import local
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # it has no types

from convcalc.executor.kernels import Array
from convcalc.executor.processor import available_threads
from convcalc.tracing import product

T = TypeVar("T")


_LINE = 64
"""Bytes of a cache line, where arrays start."""


class _State:
    """How many threads `share` uses, and the pool of those besides the calling one."""

    count = 1
    pool: ThreadPoolExecutor | None = None


_state = _State()
_scratch = local()


def thread_count() -> int:
    """How many threads `share` uses now."""
    return _state.count


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def threads(count: int | None = None) -> Iterator[None]:
    """Use so many threads inside the `with` block (all cores if None), and one inside each matrix product.

    Inside another such block None keeps what that one uses.
    """
    if count is None and _state.pool is not None:
        yield
        return
    before = _state.count, _state.pool
    _state.count = available_threads() if count is None else count
    _state.pool = ThreadPoolExecutor(max(_state.count - 1, 1))
    try:
        with _libraries().limit(limits=1, user_api="blas"):
            yield
    finally:
        _state.pool.shutdown()
        _state.count, _state.pool = before


def share(work: Callable[[T], None], tasks: Iterable[T]) -> None:
    """Call `work` for every task, in as many threads as `threads` allows; each takes the next task when it is free."""
    listed = list(tasks)
    todo = iter(listed)

    def take() -> None:
        # Each thread has settings of its own for what NumPy warns of.
        with np.errstate(all="ignore"):
            for task in todo:
                work(task)

    helpers = min(_state.count, len(listed)) - 1
    started = [_state.pool.submit(take) for _ in range(helpers)] if _state.pool is not None else []
    take()
    for helper in started:
        helper.result()


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """An array of any content that this thread alone uses, until it asks for the same name again."""
    needed = product(shape) * dtype.itemsize
    kept: Array | None = getattr(_scratch, name, None)
    if kept is None or kept.size < needed + _LINE:
        kept = np.empty(needed + _LINE, np.uint8)
        setattr(_scratch, name, kept)
    start = -kept.ctypes.data % _LINE
    return kept[start : start + needed].view(dtype).reshape(shape)
