"""Attention: softmax of products of queries and keys, times values, for all heads at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from convcalc.executor.kernels import Array
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


def scored(layer: Attention, inputs: tuple[Array, ...]) -> Scored:
    """The shares of the values, with what they are made of."""
    given = dict(zip(layer.given, inputs[3:], strict=True))
    wide = np.result_type(inputs[0].dtype, np.float32)
    query, key, value = (
        by_heads(x, heads).astype(wide, copy=False)
        for x, heads in zip(inputs[:3], (layer.q_heads, layer.kv_heads, layer.kv_heads), strict=True)
    )
    if "past_key" in given:
        key = np.concatenate([given["past_key"].astype(wide), key], axis=2)
    if "past_value" in given:
        value = np.concatenate([given["past_value"].astype(wide), value], axis=2)
    batch, heads, length, size = query.shape
    shared = heads // key.shape[1]
    scale = wide.type(size**-0.5 if layer.scale is None else layer.scale)
    # Heads that share their keys and values stand side by side.
    grouped = query.reshape(batch, key.shape[1], shared * length, size) * scale
    scores = np.matmul(grouped, key.swapaxes(-1, -2)).reshape(batch, heads, length, key.shape[2])
    bent = wide.type(layer.softcap) * np.tanh(scores / wide.type(layer.softcap)) if layer.softcap else scores
    bias = _bias(layer, given, scores.shape, wide)
    masked = bent if bias is None else bent + bias
    return Scored(grouped, key, value, scale, (scores, bent, masked, _shares(masked, bias)))


def attend(layer: Attention, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    """The output, and those further ones that the layer gives."""
    found = scored(layer, inputs)
    batch, heads, length, keys = found.stages[3].shape
    shares = found.stages[3].reshape(*found.grouped.shape[:-1], keys)
    mixed = np.matmul(shares, found.value).reshape(batch, heads, length, -1)
    output = mixed if inputs[0].ndim == 4 else mixed.swapaxes(1, 2).reshape(batch, length, -1)
    further = {"key": found.key, "value": found.value, "scores": found.stages[layer.stage]}
    return tuple(x.astype(inputs[0].dtype, copy=False) for x in (output, *(further[name] for name in layer.extra)))


def by_heads(x: Array, heads: int | None) -> Array:
    """(N, heads, length, size), of (N, length, heads·size) too."""
    return x if x.ndim == 4 or heads is None else x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _bias(
    layer: Attention, given: Mapping[str, Array], shape: tuple[int, ...], dtype: np.dtype[np.floating]
) -> Array | None:
    """What is added to the scores: the mask, and -inf where nothing is looked at. None where nothing is added."""
    batch, _, length, keys = shape
    bias: Array | None = None
    mask = given.get("mask")
    if mask is not None:
        bias = np.where(mask, 0, -np.inf).astype(dtype) if mask.dtype == bool else mask.astype(dtype)
        short = keys - bias.shape[-1]
        if short:
            bias = np.pad(bias, [(0, 0)] * (bias.ndim - 1) + [(0, short)], constant_values=-np.inf)
    seen = _seen(layer, given, batch, length, keys)
    if seen is None:
        return bias
    hidden = np.where(seen, 0, -np.inf).astype(dtype)
    return hidden if bias is None else bias + hidden


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


def _shares(scores: Array, bias: Array | None) -> Array:
    """The softmax of each row; zeros for a row that looks nowhere."""
    largest = scores.max(axis=-1, keepdims=True)
    powers = np.exp(scores - np.where(np.isneginf(largest), 0, largest))
    total = powers.sum(axis=-1, keepdims=True)
    shares: Array = powers / np.where(total == 0, 1, total)
    if bias is None:
        return shares
    return np.where(np.isneginf(bias.max(axis=-1, keepdims=True)), np.zeros((), shares.dtype), shares)
