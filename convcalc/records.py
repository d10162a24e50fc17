"""Frozen dataclasses that are cheap to make.

For each frozen class `dataclasses` compiles two methods that refuse every assignment, always the same two: a quarter
of a millisecond a class, of which a command loads thirty. Here they stand once. Type checkers see the same decorator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["dataclass"]

C = TypeVar("C", bound=type)

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen: bool, eq: bool, init: bool = True, repr: bool = True) -> Callable[[C], C]:
        """`dataclasses.dataclass` for classes that are frozen and compare by identity or by a method of their own."""
        assert frozen
        assert not eq

        def make(cls: C) -> C:
            made = dataclasses.dataclass(init=init, eq=False, repr=repr)(cls)
            made.__setattr__ = _set_once
            made.__delattr__ = _keep
            return made

        return make


def _set_once(record: Any, name: str, value: Any) -> None:
    """Give a field its value in `__init__`, and to nothing another one."""
    values = record.__dict__
    if name in values or name not in record.__dataclass_fields__:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
    values[name] = value


def _keep(record: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
