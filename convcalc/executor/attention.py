"""Attention: softmax of products of queries and keys, times values, for all heads at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from convcalc.executor.kernels import Array
from convcalc.executor.pieces import PIECE, SHARED
from convcalc.executor.softmax import shared_out
from convcalc.executor.threads import share, thread_count
from convcalc.layers.matmul import Attention


class Scored(NamedTuple):
    """How far attention has come: queries in groups that share keys, times the scale, and all keys and values.

    `stages` are the scores, these bent by the softcap, with the mask added, and the shares: (N, heads, length, keys).
    """

    grouped: Array
    key: Array
    value: Array
    scale: np.floating
    stages: tuple[Array, Array, Array, Array]


class Ready(NamedTuple):
    """Queries, keys (with the past) and values as (N, heads, length, size), and what is added to the scores, if any."""

    query: Array
    key: Array
    value: Array
    scale: np.floating
    bias: Array | None

    @property
    def shared(self) -> int:
        """How many heads share their keys and values; they stand side by side."""
        return int(self.query.shape[1] // self.key.shape[1])


def _ready(layer: Attention, inputs: tuple[Array, ...]) -> Ready:
    given = dict(zip(layer.given, inputs[3:], strict=True))
    wide = np.result_type(inputs[0].dtype, np.float32)
    query, key, value = (
        by_heads(x, heads).astype(wide, copy=False)
        for x, heads in zip(inputs[:3], (layer.q_heads, *(layer.kv_heads or layer.q_heads,) * 2), strict=True)
    )
    if "past_key" in given:
        key = np.concatenate([given["past_key"].astype(wide), key], axis=2)
    if "past_value" in given:
        value = np.concatenate([given["past_value"].astype(wide), value], axis=2)
    scale = wide.type(query.shape[3] ** -0.5 if layer.scale is None else layer.scale)
    bias = _bias(layer, given, (*query.shape[:3], key.shape[2]), wide)
    return Ready(query, key, value, scale, bias)


def scored(layer: Attention, inputs: tuple[Array, ...]) -> Scored:
    """The shares of the values, with all that they are made of."""
    ready = _ready(layer, inputs)
    batch, heads, length, size = ready.query.shape
    grouped = ready.query.reshape(batch, -1, ready.shared * length, size) * ready.scale
    scores = np.matmul(grouped, ready.key.swapaxes(-1, -2)).reshape(batch, heads, length, -1)
    stages = [scores]
    for step in _STEPS:
        stages.append(stages[-1].copy())
        step(layer, stages[-1], ready.bias)
    return Scored(grouped, ready.key, ready.value, ready.scale, (stages[0], stages[1], stages[2], stages[3]))


def attend(layer: Attention, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    """The output, and those further ones that the layer gives; the scores of a few heads at a time."""
    query, key, value, scale, bias = ready = _ready(layer, inputs)
    batch, heads, length, size = query.shape
    groups, keys = key.shape[1:3]
    shared = ready.shared
    wanted = np.empty((batch, heads, length, keys), query.dtype) if "scores" in layer.extra else None
    mixed = np.empty((batch, heads, length, value.shape[3]), query.dtype)

    few = heads_together(groups, shared * length * keys, query.dtype)

    def work(job: tuple[int, int]) -> None:
        sample, first = job
        mine = (sample, slice(first * shared, (first + few) * shared))
        own = (sample, slice(first, first + few))
        parts = query[mine].reshape(-1, shared * length, size) * scale
        scores = np.matmul(parts, key[own].swapaxes(-1, -2))
        by_head = scores.reshape(-1, length, keys)
        for stage in range(4):
            if stage:
                _STEPS[stage - 1](layer, by_head, None if bias is None else bias[mine])
            if wanted is not None and stage == layer.stage:
                wanted[mine] = by_head
        mixed[mine] = np.matmul(scores, value[own]).reshape(len(by_head), length, -1)

    share(work, [(sample, first) for sample in range(batch) for first in range(0, groups, few)])
    output = mixed if inputs[0].ndim == 4 else mixed.swapaxes(1, 2).reshape(batch, length, -1)
    further = {"key": key, "value": value, "scores": wanted}
    arrays = (output, *(further[name] for name in layer.extra))
    return tuple(array.astype(inputs[0].dtype, copy=False) for array in arrays if array is not None)


def heads_together(heads: int, scores: int, dtype: np.dtype[Any]) -> int:
    """Of how many heads with so many scores each (of those that share their keys: together) they are made at once."""
    most = PIECE if thread_count() == 1 else SHARED
    return max(1, min(heads, most // max(scores * dtype.itemsize, 1)))


# What is done with scores where they stand, (..., length, keys), one after the other.


def _bend(layer: Attention, scores: Array, bias: Array | None) -> None:
    """The soft cap c·tanh(score / c)."""
    if layer.softcap:
        scores /= scores.dtype.type(layer.softcap)
        np.tanh(scores, out=scores)
        scores *= scores.dtype.type(layer.softcap)


def _mask(layer: Attention, scores: Array, bias: Array | None) -> None:
    """The mask, added."""
    if bias is not None:
        scores += bias


def _share_out(layer: Attention, scores: Array, bias: Array | None) -> None:
    """The softmax of each row; zeros for a row that looks nowhere, whatever its scores are."""
    if bias is None and scores.flags.c_contiguous and shared_out(scores.reshape(-1, scores.shape[-1])):
        return
    largest = scores.max(axis=-1, keepdims=True)
    scores -= np.where(np.isneginf(largest), 0, largest)
    np.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    scores /= np.where(total == 0, 1, total)
    if bias is not None:
        scores[np.isneginf(bias.max(axis=-1))] = 0


_STEPS = (_bend, _mask, _share_out)


def by_heads(x: Array, heads: int | None) -> Array:
    """(N, heads, length, size), of (N, length, heads·size) too."""
    return x if x.ndim == 4 or heads is None else x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _bias(
    layer: Attention, given: Mapping[str, Array], shape: tuple[int, ...], dtype: np.dtype[np.floating]
) -> Array | None:
    """What is added to the scores, of their shape: the mask, and -inf where nothing is looked at. None: nothing is."""
    batch, _, length, keys = shape
    bias: Array | None = None
    mask = given.get("mask")
    if mask is not None:
        bias = np.where(mask, 0, -np.inf).astype(dtype) if mask.dtype == bool else mask.astype(dtype)
        short = keys - bias.shape[-1]
        if short:
            bias = np.pad(bias, [(0, 0)] * (bias.ndim - 1) + [(0, short)], constant_values=-np.inf)
    seen = _seen(layer, given, batch, length, keys)
    if seen is not None:
        hidden = np.where(seen, 0, -np.inf).astype(dtype)
        bias = hidden if bias is None else bias + hidden
    return None if bias is None else np.broadcast_to(bias, shape)


def _seen(layer: Attention, given: Mapping[str, Array], batch: int, length: int, keys: int) -> Array | None:
    """(N or 1, 1, length, keys): where a query may look, by its place among the keys. None: everywhere."""
    lengths = given.get("lengths")
    # So many keys come before the first query.
    before = np.array([layer.past]) if lengths is None else lengths.reshape(-1) - length
    places = before[:, None, None, None] + np.arange(length)[:, None]
    columns = np.arange(keys)
    left, right = layer.window
    found = []
    if layer.causal:
        found.append(columns <= places)
    if left >= 0:
        found.append(columns >= places - left)
    if right >= 0:
        found.append(columns <= places + right)
    if lengths is not None:
        found.append(np.broadcast_to(columns < lengths.reshape(-1, 1, 1, 1), (batch, 1, 1, keys)))
    seen: Array | None = None
    for each in found:
        seen = each if seen is None else seen & each
    return seen
