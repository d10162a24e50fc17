"""Numbers that remember how they were made, and what it is to be a formula.

`formulas.py` holds the formulas; here stands what lets one function serve as the answer, as its explanation and as its
entry in the reference: `Traced` numbers, the `formula` decorator, and `recording()`, which notes the uses of formulas.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
"""What the spatial axes are called, by their number."""


# --- numbers that remember -------------------------------------------------------------------------------------------

_COMPARISON, _SUM, _PRODUCT, _ATOM = 0, 1, 2, 3  # how tightly a text binds

Operations = tuple[int, int, int]
"""How many multiplications, additions and other operations: comparisons, divisions, function calls."""
_NO_OPERATIONS: Operations = (0, 0, 0)
_MULTIPLICATION: Operations = (1, 0, 0)
_ADDITION: Operations = (0, 1, 0)
_OTHER: Operations = (0, 0, 1)


class Traced:
    """A number together with the formula that made it, in symbols and in numbers.

    `operations` counts the arithmetic done so far by kind (a sign change is none), which is how the cost of an
    activation is read off its formula.
    """

    __slots__ = ("level", "numbers", "operations", "symbols", "value")

    def __init__(
        self,
        value: Any,
        symbols: str,
        numbers: str | None = None,
        level: int = _ATOM,
        operations: Operations = _NO_OPERATIONS,
    ) -> None:
        self.value = value
        self.symbols = symbols
        self.numbers = str(value) if numbers is None else numbers
        self.level = level
        self.operations = operations

    def __repr__(self) -> str:
        return f"<{self.symbols} = {self.numbers} = {self.value}>"

    def __bool__(self) -> bool:
        raise TypeError("a formula must be free of branches: use minimum() or maximum()")

    def __add__(self, other: Any) -> Traced:
        return _infix(" + ", _SUM, operator.add, self, other)

    def __radd__(self, other: Any) -> Traced:
        return _infix(" + ", _SUM, operator.add, other, self)

    def __sub__(self, other: Any) -> Traced:
        return _infix(" − ", _SUM, operator.sub, self, other)

    def __rsub__(self, other: Any) -> Traced:
        return _infix(" − ", _SUM, operator.sub, other, self)

    def __mul__(self, other: Any) -> Traced:
        return _infix("·", _PRODUCT, operator.mul, self, other)

    def __rmul__(self, other: Any) -> Traced:
        return _infix("·", _PRODUCT, operator.mul, other, self)

    def __truediv__(self, other: Any) -> Traced:
        return _infix(" / ", _PRODUCT, operator.truediv, self, other)

    def __rtruediv__(self, other: Any) -> Traced:
        return _infix(" / ", _PRODUCT, operator.truediv, other, self)

    def __floordiv__(self, other: Any) -> Traced:
        return _quotient("⌊⌋", operator.floordiv, self, other)

    def __rfloordiv__(self, other: Any) -> Traced:
        return _quotient("⌊⌋", operator.floordiv, other, self)

    def __mod__(self, other: Any) -> Traced:
        return _infix(" mod ", _PRODUCT, operator.mod, self, other)

    def __rmod__(self, other: Any) -> Traced:
        return _infix(" mod ", _PRODUCT, operator.mod, other, self)

    def __gt__(self, other: Any) -> Traced:
        return _infix(" > ", _COMPARISON, operator.gt, self, other)

    def __ge__(self, other: Any) -> Traced:
        return _infix(" ≥ ", _COMPARISON, operator.ge, self, other)

    def __le__(self, other: Any) -> Traced:
        return _infix(" ≤ ", _COMPARISON, operator.le, self, other)

    def __neg__(self) -> Traced:
        texts = ["−" + _bracket(self, _PRODUCT, symbols=symbols) for symbols in (True, False)]
        return Traced(-self.value, texts[0], texts[1], _SUM, self.operations)


def _traced(number: Any) -> Traced:
    if isinstance(number, Traced):
        return number
    text = str(number).replace("-", "−")
    return Traced(number, text, text, _SUM if text.startswith("−") else _ATOM)


def _bracket(number: Traced, level: int, *, symbols: bool) -> str:
    text = number.symbols if symbols else number.numbers
    return f"({text})" if number.level < level or (level > _SUM and text.startswith("−")) else text


def _infix(operator: str, level: int, result: Callable[[Any, Any], Any], a: Any, b: Any) -> Traced:
    left, right = _traced(a), _traced(b)
    right_level = level + (operator not in (" + ", "·"))
    texts = [
        _bracket(left, level, symbols=symbols) + operator + _bracket(right, right_level, symbols=symbols)
        for symbols in (True, False)
    ]
    one = _MULTIPLICATION if operator == "·" else _ADDITION if operator in (" + ", " − ") else _OTHER
    operations = _sum(left.operations, right.operations, one)
    return Traced(result(left.value, right.value), texts[0], texts[1], level, operations)


def _sum(*counts: Operations) -> Operations:
    multiplications, additions, others = zip(*counts, strict=True)
    return sum(multiplications), sum(additions), sum(others)


def _function(template: str, result: Callable[..., Any], *arguments: Any, one: Operations = _OTHER) -> Traced:
    """A traced call; `template` holds `{}` where the arguments' texts go."""
    numbers = [_traced(argument) for argument in arguments]
    return Traced(
        result(*(number.value for number in numbers)),
        template.format(*(number.symbols for number in numbers)),
        template.format(*(number.numbers for number in numbers)),
        _ATOM,
        _sum(one, *(number.operations for number in numbers)),
    )


def _quotient(marks: str, result: Callable[[Any, Any], Any], a: Any, b: Any) -> Traced:
    left, right = _traced(a), _traced(b)
    texts = [
        f"{marks[0]}{_bracket(left, _PRODUCT, symbols=symbols)} / {_bracket(right, _ATOM, symbols=symbols)}{marks[1]}"
        for symbols in (True, False)
    ]
    operations = _sum(left.operations, right.operations, _OTHER)
    return Traced(result(left.value, right.value), texts[0], texts[1], _ATOM, operations)


class TracedTuple(tuple[Any, ...]):
    """Traced numbers that stand for one argument, such as a kernel's sizes."""

    name: str


def minimum(a: Any, b: Any) -> Any:
    """The smaller one, of numbers, of arrays element by element, or of traced numbers."""
    if isinstance(a, Traced) or isinstance(b, Traced):
        return _function("min({}, {})", min, a, b)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return min(a, b)
    import numpy

    return numpy.minimum(a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger one, of numbers, of arrays element by element, or of traced numbers."""
    if isinstance(a, Traced) or isinstance(b, Traced):
        return _function("max({}, {})", max, a, b)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return max(a, b)
    import numpy

    return numpy.maximum(a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds and b elsewhere. Choosing is no operation; making the condition, a and b is.

    >>> where(2 > 1, 3, 4)
    3
    """
    if isinstance(condition, Traced):
        return _function("({1} if {0} else {2})", lambda holds, x, y: x if holds else y, condition, a, b,
                         one=_NO_OPERATIONS)  # fmt: skip
    if isinstance(condition, bool):
        return a if condition else b
    import numpy

    return numpy.where(condition, a, b)


def _function_of_one(template: str, name: str) -> Callable[[Any], Any]:
    """The function of `math` and of NumPy with this name, for floats, arrays and traced numbers."""

    def of_float(x: float) -> float:
        try:
            return float(getattr(math, name)(x))
        except OverflowError:
            return math.inf

    def function(x: Any) -> Any:
        if isinstance(x, Traced):
            return _function(template, of_float, x)
        if isinstance(x, int | float):
            return of_float(x)
        import numpy

        return getattr(numpy, name)(x)

    function.__name__ = name
    return function


exp = _function_of_one("exp({})", "exp")
expm1 = _function_of_one("(exp({}) − 1)", "expm1")
log1p = _function_of_one("ln(1 + {})", "log1p")
tanh = _function_of_one("tanh({})", "tanh")
square_root = _function_of_one("√({})", "sqrt")
absolute = _function_of_one("|{}|", "fabs")


def erf(x: Any) -> Any:
    """The error function, which NumPy does not have.

    >>> erf(0.5)
    0.5204998778130465
    """
    if isinstance(x, Traced):
        return _function("erf({})", math.erf, x)
    if isinstance(x, int | float):
        return math.erf(x)
    from convcalc.executor.special import erf as of_array

    return of_array(x)


def floor(a: Any) -> Any:
    """a rounded down to a whole number.

    >>> floor(7.5)
    7
    """
    if isinstance(a, Traced):
        return _function("⌊{}⌋", math.floor, a)
    if isinstance(a, int | float):
        return math.floor(a)
    import numpy

    return numpy.floor(a).astype(numpy.int64)


def ceil_div(a: Any, b: Any) -> Any:
    """a / b rounded up.

    >>> ceil_div(7, 2), ceil_div(-7, 2)
    (4, -3)
    """
    if isinstance(a, Traced) or isinstance(b, Traced):
        return _quotient("⌈⌉", lambda x, y: -(-x // y), a, b)
    return -(-a // b)


def common_divisor(a: Any, b: Any) -> Any:
    """The greatest common divisor, of ints, arrays or traced numbers."""
    if isinstance(a, Traced) or isinstance(b, Traced):
        return _function("gcd({}, {})", math.gcd, a, b)
    if isinstance(a, int) and isinstance(b, int):
        return math.gcd(a, b)
    import numpy

    return numpy.gcd(a, b)


def product(numbers: Sequence[Any]) -> Any:
    """The product of all, 1 of none.

    >>> product((2, 3, 4)), product(())
    (24, 1)
    """
    if isinstance(numbers, TracedTuple):
        value = product([number.value for number in numbers])
        text = "·".join(number.numbers for number in numbers) or "1"
        return Traced(value, f"∏{numbers.name}", text, _PRODUCT if len(numbers) > 1 else _ATOM)
    result: Any = 1
    for number in numbers:
        result = result * number
    return result


def summation(numbers: Sequence[Any]) -> Any:
    """The sum of all, 0 of none.

    >>> summation((2, 3, 4)), summation(())
    (9, 0)
    """
    if isinstance(numbers, TracedTuple):
        text = " + ".join(number.numbers for number in numbers) or "0"
        return Traced(sum(number.value for number in numbers), f"Σ{numbers.name}", text, _SUM)
    return sum(numbers)


# --- what a formula is ----------------------------------------------------------------------------------------------


class Step:
    """One use of a formula: what it was given (`arguments`), for which axis ("" if none), and what came out."""

    __slots__ = ("arguments", "axis", "formula", "value")

    def __init__(self, formula: Formula[..., Any], arguments: tuple[Any, ...], axis: str, value: Any) -> None:
        self.formula = formula
        self.arguments = arguments
        self.axis = axis
        self.value = value

    def traced(self) -> Traced:
        """The same once more on traced numbers: `.symbols` is the formula, `.numbers` the formula with the numbers."""
        return self.formula.traced(*self.arguments)


class Formula(Generic[P, R]):
    """A function that is one formula: callable as it was, and known to `FORMULAS` by its name.

    `result` names what it gives; `source` says who states it.
    """

    def __init__(self, function: Callable[P, R], result: str, source: str) -> None:
        self.function = function
        self.result = result
        self.source = source
        self.name = function.__name__
        self._operations: Operations | None = None
        self.parameters = function.__code__.co_varnames[: function.__code__.co_argcount]
        # doctest finds the examples of what looks like a wrapped function of this module.
        self.__wrapped__ = function
        self.__module__ = function.__module__
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        value = self.function(*args, **kwargs)
        if _steps is not None:
            _steps.append(Step(self, (*args, *kwargs.values()), _axis, value))
        return value

    def traced(self, *arguments: Any) -> Traced:
        """The formula on traced numbers, named by its parameters."""
        leaves: list[Any] = []
        for name, argument in zip(self.parameters, arguments, strict=True):
            if isinstance(argument, tuple):
                many = TracedTuple(Traced(number, f"{name}[{i}]") for i, number in enumerate(argument))
                many.name = name
                leaves.append(many)
            else:
                leaf = _traced(argument)
                leaves.append(Traced(argument, name, leaf.numbers, leaf.level))
        # The types speak of ints; that other numbers flow through is what formulas are for.
        function: Callable[..., Any] = self.function
        result = function(*leaves)
        return result if isinstance(result, Traced) else _traced(result)

    @property
    def operations(self) -> Operations:
        """The multiplications, additions and other operations that one use takes, every branch taken, signs free."""
        if self._operations is None:
            self._operations = self.traced(*(0.5,) * len(self.parameters)).operations
        return self._operations


FORMULAS: dict[str, Formula[..., Any]] = {}
"""All formulas by name, in the order of `formulas.py`. The formula reference is made from it."""

_steps: list[Step] | None = None
_axis = ""


def formula(result: str, source: str) -> Callable[[Callable[P, R]], Formula[P, R]]:
    """Register a function as the formula of `result`, stated by `source`."""

    def register(function: Callable[P, R]) -> Formula[P, R]:
        made = Formula(function, result, source)
        FORMULAS[made.name] = made
        return made

    return register


@contextmanager
def recording() -> Iterator[list[Step]]:
    """Every use of a formula inside the `with` block is appended to the list that it gives.

    >>> from convcalc.formulas import window_count
    >>> with recording() as steps:
    ...     window_count(224, 7, 2, 3, 3, 1)
    112
    >>> steps[0].traced().numbers
    '⌊(224 + 3 + 3 − 1·(7 − 1) − 1) / 2⌋ + 1'
    """
    global _steps  # noqa: PLW0603  the recorder is one place that every formula looks at
    before, _steps = _steps, []
    try:
        yield _steps
    finally:
        _steps = before


def per_axis(function: Callable[..., R], *columns: Sequence[Any]) -> tuple[R, ...]:
    """The formula for each spatial axis; each column holds one argument for all axes."""
    global _axis  # noqa: PLW0603
    if _steps is None:
        return tuple(map(function, *columns))
    results = []
    names = AXES.get(len(columns[0]), ("",) * len(columns[0]))
    for name, arguments in zip(names, zip(*columns, strict=True), strict=True):
        _axis = name
        results.append(function(*arguments))
    _axis = ""
    return tuple(results)
