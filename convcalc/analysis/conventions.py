"""How other tools count FLOPs, for those who compare with them. Each rule changes the FLOPs column alone."""

from __future__ import annotations

from collections.abc import Callable

from convcalc.analysis.shapes import Resolved
from convcalc.layers.base import Cost

Rule = Callable[[Resolved, Cost], int]


def _macs(item: Resolved, cost: Cost) -> int:
    return cost.macs


def _two_macs(item: Resolved, cost: Cost) -> int:
    return 2 * cost.macs


CONVENTION_RULES: dict[str, Rule] = {
    "macs": _macs,
    "2mac": _two_macs,
}
"""From a layer and its exact cost to the FLOPs that the convention gives it."""
