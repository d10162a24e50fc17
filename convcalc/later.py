"""Modules that are loaded when they are first used, for packages that import more than an answer needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any


@contextmanager
def loaded_later(modules: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Let what is imported inside have stand-ins for these modules, by name with the functions that are taken of each.

    A stand-in becomes the module when a function is called or anything else is asked of it. Whatever is imported
    outside gets the modules themselves.
    """
    later = {name: _Later(name, functions) for name, functions in modules.items() if name not in sys.modules}
    sys.modules.update(later)
    try:
        yield
    finally:
        for name, module in later.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


class _Later(ModuleType):
    """A module in the place of one that is not loaded yet."""

    def __init__(self, name: str, functions: Sequence[str]) -> None:
        super().__init__(name)
        for function in functions:
            setattr(self, function, partial(self._call, function))

    def _call(self, function: str, /, *args: Any, **kwargs: Any) -> Any:
        return self.__getattr__(function)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":  # an import statement asks whether this is a package
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        real = import_module(self.__name__)
        vars(self).update(vars(real))
        return getattr(real, name)
