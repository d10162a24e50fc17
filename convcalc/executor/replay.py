"""Layers in a row as one list of calls on fixed arrays, worked out once and made again for every batch.

To work out what to call, to make arrays and to hand work to threads takes as long as the work of a small layer. A
network that has been computed once is likely to be computed again: from the second time on its calls are kept, and
threads go through them without the interpreter's help in between.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from threading import Lock, get_ident
from typing import Any

import numpy as np

from convcalc.analysis.shapes import Resolved
from convcalc.executor.fusion import Step
from convcalc.executor.kernels import Array
from convcalc.executor.memory_format import is_channels_last, seen
from convcalc.executor.threads import Stage, collecting, in_a_row, play, share_calls, thread_count
from convcalc.layers.base import Shape
from convcalc.tracing import ceil_div, product

ALIGNED = 64
"""Bytes at whose multiples tensors begin: lines of a processor's cache."""


class Replay:
    """Steps that run as one: from the tensors `inputs` to the tensors `outputs`, both by name.

    All other tensors lie in one block of memory, each where others are over or not yet there.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        outputs: Sequence[str],
        shapes: Mapping[str, Shape],
        dtype: np.dtype[Any],
        channels_last: Collection[str] = (),
    ) -> None:
        made = {name for step in steps for name in step.outputs}
        self.items: tuple[Resolved, ...] = tuple(item for step in steps for item in step.items)
        self.inputs = tuple(dict.fromkeys(name for step in steps for name in step.inputs if name not in made))
        self.outputs = tuple(outputs)
        self._steps, self._shapes, self._dtype, self._channels_last = steps, shapes, dtype, channels_last
        self._stages: list[Stage] = []
        self._tensors: dict[str, Array] = {}
        self._recorded: tuple[int, int] | None = None
        self._busy = Lock()

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """What goes out; an error names the layer. From two threads at once the second has to wait."""
        if not all(self._can_take(name, array) for name, array in zip(self.inputs, inputs, strict=True)):
            return self._one_by_one(inputs)
        with self._busy:
            # The calls work in arrays of the thread that has recorded them, which may compute something else now.
            wanted = thread_count(), get_ident()
            if self._recorded != wanted:
                self._recorded = None  # what an interrupt leaves half recorded is no longer what was
                self._record()
                self._recorded = wanted
            for name, array in zip(self.inputs, inputs, strict=True):
                np.copyto(self._tensors[name], array)
            play(self._stages)
            return tuple(self._tensors[name].copy(order="K") for name in self.outputs)

    def _can_take(self, name: str, array: Array) -> bool:
        # Sums along other strides are rounded otherwise; other shapes and types would be stretched and rounded.
        same = array.shape == self._shapes[name] and array.dtype == self._dtype
        return same and (is_channels_last(array) if name in self._channels_last else array.flags.c_contiguous)

    def _one_by_one(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        tensors = dict(zip(self.inputs, inputs, strict=True))
        last = {name: index for index, step in enumerate(self._steps) for name in (*step.inputs, *step.outputs)}
        for index, step in enumerate(self._steps):
            found = step.run(tuple(tensors[name] for name in step.inputs))
            tensors.update(zip(step.outputs, found, strict=True))
            for name in {*step.inputs, *step.outputs} - {*self.outputs}:
                if last[name] == index:
                    del tensors[name]
        return tuple(tensors[name] for name in self.outputs)

    def _record(self) -> None:
        places, size = layout(self._steps, self.inputs, self.outputs, self._sizes())
        arena = np.empty(size + ALIGNED, np.uint8)
        arena = arena[-arena.ctypes.data % ALIGNED :]
        self._tensors = {}
        for name, place in places.items():
            shape = self._shapes[name]
            part = arena[place : place + int(product(shape)) * self._dtype.itemsize]
            memory = part.view(self._dtype)
            self._tensors[name] = seen(memory, shape) if name in self._channels_last else memory.reshape(shape)
        # The second time the threads' own arrays are as large as any layer needs, so that all layers share them.
        for _ in range(2):
            with in_a_row(True), collecting() as stages:
                for step in self._steps:
                    (output,) = step.outputs
                    into = step.into or partial(_store, step)
                    into(tuple(self._tensors[name] for name in step.inputs), self._tensors[output])
        self._stages = together(stages)

    def _sizes(self) -> dict[str, int]:
        names = (*self.inputs, *(name for step in self._steps for name in step.outputs))
        return {name: int(product(self._shapes[name])) * self._dtype.itemsize for name in names}


def _store(step: Step, inputs: tuple[Array, ...], out: Array) -> None:
    share_calls(lambda _: [(lambda: np.copyto(out, step.run(inputs)[0]), ())], [None])


def together(stages: Sequence[Stage]) -> list[Stage]:
    """Stages of one thread, one after the other, as one: nobody need wait between them."""
    result: list[Stage] = []
    for stage in stages:
        if result and len(stage) == len(result[-1]) == 1:
            result[-1] = [result[-1][0] + stage[0]]
        else:
            result.append(stage)
    return result


def layout(
    steps: Sequence[Step], inputs: Sequence[str], outputs: Sequence[str], sizes: Mapping[str, int]
) -> tuple[dict[str, int], int]:
    """Where each tensor begins in one block of memory, and how large that must be.

    A tensor takes the smallest gap between those that are alive; what comes in is there from the beginning, and what
    goes out stays to the end.
    """
    last = {name: index for index, step in enumerate(steps) for name in (*step.inputs, *step.outputs)}
    last |= dict.fromkeys(outputs, len(steps))
    places: dict[str, int] = {}
    alive: list[tuple[int, int, str]] = []  # first byte, byte after the last, and name, in order
    size = 0

    def add(name: str) -> None:
        nonlocal size
        wanted = ceil_div(sizes[name], ALIGNED) * ALIGNED
        gaps = []
        end = 0
        for first, after, _ in alive:
            if first - end >= wanted:
                gaps.append((first - end, end))
            end = max(end, after)
        places[name] = min(gaps)[1] if gaps else end
        alive.append((places[name], places[name] + wanted, name))
        alive.sort()
        size = max(size, alive[-1][1])

    for name in inputs:
        add(name)
    for index, step in enumerate(steps):
        for name in step.outputs:
            add(name)
        alive[:] = [living for living in alive if last[living[2]] > index]
    return places, size


SMALL = 1 << 16
"""Numbers of a tensor below which it does not matter that one thread alone makes it."""


def replays(
    steps: Sequence[Step], outputs: Sequence[str], shapes: Mapping[str, Shape], dtype: np.dtype[Any]
) -> list[Step | Replay]:
    """The steps, with those in a row as one that can be recorded.

    `shapes` are those of the tensors of this type, no others.
    """
    last = {name: index for index, step in enumerate(steps) for name in step.inputs}
    last |= dict.fromkeys(outputs, len(steps))
    lying = {name for step in steps if step.channels_last for name in step.outputs}
    result: list[Step | Replay] = []
    row: list[Step] = []
    for index, step in enumerate((*steps, None)):
        if step is not None and _can_be_recorded(step, shapes):
            row.append(step)
            continue
        if sum(one.into is not None for one in row) > 1:
            kept = [name for one in row for name in one.outputs if last.get(name, -1) >= index]
            result.append(Replay(row, kept, shapes, dtype, lying))
        else:
            result += row
        row = []
        if step is not None:
            result.append(step)
    return result


_IN_ORDER = ("flatten", "unflatten", "reshape", "squeeze", "unsqueeze")
"""Views that leave the numbers in their order in memory."""


def _can_be_recorded(step: Step, shapes: Mapping[str, Shape]) -> bool:
    names = (*step.inputs, *step.outputs)
    if len(step.outputs) != 1 or not step.inputs or not all(name in shapes for name in names):
        return False
    if step.items[0].layer.view and step.items[0].layer.kind not in _IN_ORDER:
        return False
    return step.into is not None or max(product(shapes[name]) for name in names) < SMALL
