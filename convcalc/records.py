"""Frozen dataclasses that cost next to nothing to make.

`dataclasses` compiles methods for every class, a quarter of a millisecond for each of the thirty classes that a command
loads. Here the methods stand once. For type checkers these are the standard library's own names; what looks at a class
from outside (`dataclasses.fields`, `dataclasses.replace`, `inspect.signature`) finds what it looks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import inspect

__all__ = ["REQUIRED", "dataclass", "field", "parameters_of", "replace"]

REQUIRED: Any = type("Required", (), {"__repr__": lambda _: "REQUIRED"})()
"""What stands for the default of a field that has none."""

if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
else:

    class field:  # noqa: N801  called like a function
        """A field whose value is made for each record; with `init=False` the constructor does not take it."""

        __slots__ = ("default_factory", "init")

        def __init__(self, *, default_factory: Callable[[], Any], init: bool = True) -> None:
            self.default_factory = default_factory
            self.init = init

        def __repr__(self) -> str:
            return "<factory>"

    def dataclass(*, frozen: bool, eq: bool, init: bool = True, repr: bool = True) -> Callable[[type], type]:
        """`dataclasses.dataclass` for classes that are frozen and compare by identity or by a method of their own."""
        assert frozen
        assert not eq

        def make(cls: type) -> type:
            own: dict[str, Any] = {}
            for base in cls.__mro__[:0:-1]:
                own.update(base.__dict__.get("_fields", {}))
            for name, annotation in cls.__annotations__.items():
                if not str(annotation).removeprefix("typing.").startswith("ClassVar"):
                    own[name] = default = cls.__dict__.get(name, REQUIRED)
                    if type(default) is field:
                        delattr(cls, name)
            cls._fields = own
            cls.__match_args__ = tuple(_parameters(own))
            cls.__dataclass_fields__ = _Noted(cls, "__dataclass_fields__")
            cls.__dataclass_params__ = _Noted(cls, "__dataclass_params__")
            cls.__setattr__ = _set_once
            cls.__delattr__ = _keep
            if init:
                cls.__init__ = _constructor(cls.__qualname__, own, finish=hasattr(cls, "__post_init__"))
                cls.__signature__ = _Signature()
            if repr:
                cls.__repr__ = _text
            return cls

        return make

    def replace(record: Any, /, **changes: Any) -> Any:
        """A record with these fields changed, made by its constructor."""
        return type(record)(**{name: getattr(record, name) for name in _parameters(record._fields)} | changes)


def parameters_of(cls: type) -> Mapping[str, Any]:
    """What the constructor of a class takes, in order, with the defaults; `REQUIRED` where there is none."""
    constructor: Any = vars(cls).get("__init__") or cls.__init__  # type: ignore[misc]  # of the class, not of a record
    found: Mapping[str, Any] | None = getattr(constructor, "parameters", None)
    if found is not None:
        return found
    names = constructor.__code__.co_varnames[1 : constructor.__code__.co_argcount]
    defaults = constructor.__defaults__ or ()
    required = len(names) - len(defaults)
    return dict.fromkeys(names[:required], REQUIRED) | dict(zip(names[required:], defaults, strict=True))


def _parameters(own: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a constructor takes, with their defaults."""
    return {name: default for name, default in own.items() if type(default) is not field or default.init}


def _constructor(name: str, own: Mapping[str, Any], *, finish: bool) -> Callable[..., None]:
    """The `__init__` of a class with these fields, which calls `__post_init__` to `finish`."""
    parameters = _parameters(own)
    names = tuple(parameters)
    makers = tuple((each, default.default_factory) for each, default in own.items() if type(default) is field)
    defaults = {each: value for each, value in own.items() if value is not REQUIRED and type(value) is not field}
    fields, known = own.keys(), parameters.keys()

    def __init__(self: Any, *given: Any, **named: Any) -> None:  # noqa: N807
        values = self.__dict__
        values.update(defaults)
        values.update(zip(names, given))  # noqa: B905  compared below
        if named:
            values.update(named)
            wrong = not (named.keys() <= known and named.keys().isdisjoint(names[: len(given)]))
        else:
            wrong = False
        for each, make in makers:
            if each not in values:
                values[each] = make()
        if wrong or len(given) > len(names) or not fields <= values.keys():
            _refuse(name, parameters, given, named)
        if finish:
            self.__post_init__()

    __init__.parameters = parameters  # type: ignore[attr-defined]  # what `parameters_of` looks for
    return __init__


def _refuse(name: str, parameters: Mapping[str, Any], given: tuple[Any, ...], named: Mapping[str, Any]) -> NoReturn:
    """Say as Python does what is wrong with a call of a constructor."""
    names = list(parameters)
    if len(given) > len(names):
        raise TypeError(f"{name}() takes {len(names)} arguments but {len(given)} were given")
    for each in named:
        if each not in parameters:
            raise TypeError(f"{name}() got an unexpected keyword argument {each!r}")
        if each in names[: len(given)]:
            raise TypeError(f"{name}() got multiple values for argument {each!r}")
    missing = [each for each in names[len(given) :] if parameters[each] is REQUIRED and each not in named]
    raise TypeError(f"{name}() is missing {', '.join(map(repr, missing))}")


def _text(record: Any) -> str:
    values = ", ".join(f"{name}={getattr(record, name)!r}" for name in record._fields)
    return f"{type(record).__qualname__}({values})"


def _set_once(record: Any, name: str, value: Any) -> None:
    """Give a field its value in `__init__`, and to nothing another one."""
    values = record.__dict__
    if name in values or name not in record._fields:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")
    values[name] = value


def _keep(record: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


# --- for those who look from outside --------------------------------------------------------------------------------


class _Noted:
    """What `dataclasses` notes in its classes, for one of ours. It is made when it is asked for."""

    __slots__ = ("cls", "name")

    def __init__(self, cls: Any, name: str) -> None:
        self.cls = cls
        self.name = name

    def __get__(self, record: object, cls: type) -> Any:
        import dataclasses

        types = {
            name: kind for each in self.cls.__mro__[::-1] for name, kind in getattr(each, "__annotations__", {}).items()
        }
        made = dataclasses.make_dataclass(
            self.cls.__name__,
            [(name, types[name], _field_of(default)) for name, default in self.cls._fields.items()],
            init=False,
            eq=False,
            frozen=True,
        )
        setattr(self.cls, self.name, getattr(made, self.name))
        return getattr(self.cls, self.name)


def _field_of(default: Any) -> Any:
    """The field of `dataclasses` for one of ours."""
    import dataclasses

    if default is REQUIRED:
        return dataclasses.field()
    if type(default) is field:
        return dataclasses.field(default_factory=default.default_factory, init=default.init)
    return dataclasses.field(default=default)


class _Signature:
    """The signature of a class whose constructor is made here."""

    __slots__ = ()

    def __get__(self, record: object, cls: type) -> inspect.Signature:
        if record is not None or not hasattr(cls.__init__, "parameters"):  # type: ignore[misc]  # see above
            raise AttributeError("__signature__")
        import inspect

        kind, shown = inspect.Parameter.POSITIONAL_OR_KEYWORD, {REQUIRED: inspect.Parameter.empty}
        parameters = parameters_of(cls).items()
        return inspect.Signature(
            [inspect.Parameter(name, kind, default=shown.get(default, default)) for name, default in parameters]
        )
