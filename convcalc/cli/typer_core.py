"""Typer's commands and parser, without the rest of typer.

`import typer` loads whatever any application may want, three quarters of which no answer here needs: it is most of the
time of a short answer. The classes that parse are all in `typer.core`, so that module is loaded alone, and the modules
that it uses for help and for errors when it first calls them. The package is whole again for whoever asks it for more:
`typer.Typer` is there after `import convcalc.cli` as ever.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

from convcalc.later import loaded_later

__all__ = [
    "Abort", "Exit", "NoSuchOption", "TyperArgument", "TyperCommand", "TyperGroup", "TyperOption", "UsageError",
    "types",
]  # fmt: skip

_LATER = {
    "difflib": ("get_close_matches",),
    "gettext": ("gettext",),
    "inspect": ("cleandoc", "isfunction"),
    "typer.models": ("ArgumentInfo", "OptionInfo", "ParamMeta", "ParameterInfo"),
}
"""Modules that `typer.core` imports and that an answer does not use, and what is taken from them by name."""
_AGAIN = ("typer.utils",)
"""Modules of typer's that hold what is taken from those, to be loaded anew by whoever wants them."""


class _Package(ModuleType):
    """The package typer, whose own code is run when something is asked of it that is in none of its modules."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and name != "__all__":
            raise AttributeError(f"module 'typer' has no attribute '{name}'")
        self.__class__ = ModuleType  # type: ignore[assignment]  # the package is whole from now on
        self.__spec__.loader.exec_module(self)  # type: ignore[union-attr]  # its spec has one
        return getattr(self, name)


def _load() -> None:
    """Load `typer.core`, alone where it can be."""
    spec = None if "typer" in sys.modules else PathFinder.find_spec("typer")
    if spec is None or spec.loader is None or spec.submodule_search_locations is None:
        import_module("typer.core")
        return
    package = _Package("typer")
    package.__spec__ = spec
    package.__file__ = spec.origin
    package.__path__ = spec.submodule_search_locations
    sys.modules["typer"] = package
    with loaded_later(_LATER):
        import_module("typer.core")
    for name in _AGAIN:
        sys.modules.pop(name, None)
        vars(package).pop(name.rpartition(".")[2], None)


_load()

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption  # noqa: E402  loaded before
from typer.exceptions import Abort, Exit  # noqa: E402  loaded before

if TYPE_CHECKING:
    from typer._click import types
    from typer._click.exceptions import NoSuchOption, UsageError
else:  # typer gives these no public name
    from typer.core import _click, types

    NoSuchOption, UsageError = _click.exceptions.NoSuchOption, _click.exceptions.UsageError
