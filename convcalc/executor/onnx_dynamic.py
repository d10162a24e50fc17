"""ONNX's ops whose outputs have sizes that hang on numbers: no layer can say which, so they are computed while reading.

`DYNAMIC` is the table from an op to the function that computes it, from the node's attributes and its inputs, of which
those that are left out are None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from convcalc.errors import ShapeError
from convcalc.executor.kernels import Array

Dynamic = Callable[[Mapping[str, Any], Sequence[Array | None]], tuple[Array, ...]]


def _non_zero(attributes: Mapping[str, Any], inputs: Sequence[Array | None]) -> tuple[Array, ...]:
    """The places of what is not 0, (axes, count)."""
    (x,) = map(np.asarray, inputs)
    return (np.stack(np.nonzero(np.atleast_1d(x)))[: x.ndim],)


def _range(attributes: Mapping[str, Any], inputs: Sequence[Array | None]) -> tuple[Array, ...]:
    """From the start by steps to before the limit."""
    start, limit, delta = (np.asarray(x).reshape(()) for x in inputs)
    count = max(int(np.ceil((limit - start) / delta)), 0)
    return ((start + np.arange(count) * delta).astype(start.dtype),)


def _compress(attributes: Mapping[str, Any], inputs: Sequence[Array | None]) -> tuple[Array, ...]:
    """The slices along the axis for which the second input is true, or without an axis such elements."""
    x, condition = map(np.asarray, inputs)
    return (np.compress(condition.astype(bool), x, attributes.get("axis")),)


def _unique(attributes: Mapping[str, Any], inputs: Sequence[Array | None]) -> tuple[Array, ...]:
    """What there is, sorted or in the order of coming; where each came first, which each element is, and how often."""
    (x,) = map(np.asarray, inputs)
    axis = attributes.get("axis")
    found, first, which, counts = np.unique(x, True, True, True, axis=axis)
    which = which.reshape(-1)
    if not attributes.get("sorted", 1):
        order = np.argsort(first, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        found = np.take(found, order, axis=0 if axis is None else axis)
        first, counts, which = first[order], counts[order], place[which]
    return (found, *(x.astype(np.int64) for x in (first, which, counts)))


def _corners(boxes: Array, *, centred: bool) -> Array:
    """(y, x) of two opposite corners, the smaller ones first, of boxes given so or by their centre and size."""
    if centred:
        middle, half = boxes[..., [1, 0]], boxes[..., [3, 2]] / 2
        return np.concatenate([middle - half, middle + half], axis=-1)
    low, high = np.minimum(boxes[..., :2], boxes[..., 2:]), np.maximum(boxes[..., :2], boxes[..., 2:])
    return np.concatenate([low, high], axis=-1)


def _overlaps(box: Array, others: Array) -> Array:
    """The area that a box shares with each of others, over that of both together."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.maximum(sides, 0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - shared
    overlaps: Array = np.divide(shared, areas, out=np.zeros_like(shared), where=areas > 0)
    return overlaps


def _non_max_suppression(attributes: Mapping[str, Any], inputs: Sequence[Array | None]) -> tuple[Array, ...]:
    """(sample, class, box) of the best boxes, none overlapping a better one of its class by more than a threshold."""
    boxes, scores, *limits = inputs
    most, overlap, least = (
        None if place >= len(limits) or limits[place] is None else np.asarray(limits[place]).reshape(-1)[0]
        for place in range(3)
    )
    if boxes is None or scores is None or boxes.shape[:2] != (scores.shape[0], scores.shape[2]):
        raise ShapeError("NonMaxSuppression needs boxes, (N, boxes, 4), and scores, (N, classes, boxes)")
    corners = _corners(boxes, centred=bool(attributes.get("center_point_box")))
    chosen: list[tuple[int, int, int]] = []
    for sample, kind in np.ndindex(*scores.shape[:2]):
        own, all_corners = scores[sample, kind], corners[sample]
        left = np.argsort(-own, kind="stable")
        if least is not None:
            left = left[own[left] > least]
        count = 0
        while left.size and count < (0 if most is None else most):
            best, left = left[0], left[1:]
            chosen.append((sample, kind, int(best)))
            count += 1
            left = left[_overlaps(all_corners[best], all_corners[left]) <= (0 if overlap is None else overlap)]
    return (np.array(chosen, np.int64).reshape(-1, 3),)


DYNAMIC: Mapping[str, Dynamic] = {
    "NonZero": _non_zero,
    "Range": _range,
    "Compress": _compress,
    "Unique": _unique,
    "NonMaxSuppression": _non_max_suppression,
}
"""What computes an op of ONNX's own domain that has no layer."""
