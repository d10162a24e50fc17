"""Numbers for people: counts in SI units, bytes in binary ones, seconds in what fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from convcalc.analysis.report import Value
from convcalc.errors import ExpressionError
from convcalc.layers.base import Shape

_SI = ("", "k", "M", "G", "T", "P", "E", "Z")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_EXACT_BELOW = 100_000
_TIMES = (
    (2 * 31_557_600, 31_557_600, "years"),
    (2 * 86_400, 86_400, "days"),
    (3600, 3600, "h"),
    (60, 60, "min"),
    (1, 1, "s"),
    (1e-3, 1e-3, "ms"),
    (1e-6, 1e-6, "µs"),
    (0, 1e-9, "ns"),
)
"""From how many seconds on a unit is used, its seconds, and its name."""
_MOST_DIGITS = 100
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_QUANTITY = r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*([kKMGTPE]?)(i?)B?$"


def count_text(number: float) -> str:
    """A count: exact while it is short, else four digits and an SI prefix.

    >>> count_text(18432), count_text(1_024_000_000), count_text(10.0), count_text(59392.4)
    ('18,432', '1.024 G', '10', '59,392')
    """
    if abs(number) < _EXACT_BELOW:
        return (
            f"{number:,}" if isinstance(number, int) else f"{number:,.0f}" if abs(number) >= 1e4 else f"{number:,.4g}"
        )
    return _scaled(number, 1000, _SI)


def bytes_text(number: float) -> str:
    """Bytes in binary units.

    >>> bytes_text(512), bytes_text(10_585_792)
    ('512 B', '10.10 MiB')
    """
    return f"{number} B" if number < 1024 else _scaled(number, 1024, _BINARY)


def _scaled(number: float, base: int, units: tuple[str, ...]) -> str:
    if isinstance(number, int) and abs(number) >= base ** len(units):
        return _scientific(number) + (" B" if base == 1024 else "")
    index = 0
    value: float = number
    while abs(value) >= base and index < len(units) - 1:
        value /= base
        index += 1
    digits = max(0, 3 - len(str(int(abs(value)))) + 1)
    text = f"{value:.{digits}f}"
    if float(text) >= base and index < len(units) - 1:  # 999.96 k is 1.000 M
        text, index = "1.000" if base == 1000 else "1.00", index + 1
    return f"{text} {units[index]}"


def _scientific(number: int) -> str:
    """Four digits of an int beyond every unit, which may be beyond every float too.

    >>> _scientific(1_727_999 * 10**400)
    '1.728e406'
    """
    cut = len(str(abs(number))) - 4
    rounded = (number + 10**cut // 2) // 10**cut
    digits = str(rounded)
    return f"{digits[0]}.{digits[1:4]}e{cut + len(digits) - 1}"


def seconds_text(seconds: float) -> str:
    """A time in the unit that fits.

    >>> seconds_text(68266.7), seconds_text(853.3), seconds_text(0.002)
    ('18.96 h', '14.22 min', '2 ms')
    """
    size, unit = next((size, unit) for least, size, unit in _TIMES if seconds >= least)
    return f"{seconds / size:.4g} {unit}"


def share_text(share: float, longest: int = 8) -> str:
    """A part of 1 as a bar of so many characters at most, and in percent.

    >>> share_text(0.5), share_text(0.02), share_text(1.5, longest=4), share_text(0.5, longest=0)
    ('████      50.0 %', '▏          2.0 %', '████ 150.0 %', ' 50.0 %')
    """
    eighths = round(min(share, 1) * 8 * longest)
    bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
    return f"{bar:<{longest}} {share * 100:5.1f} %" if longest else f"{share * 100:5.1f} %"


def value_text(value: Value | Shape, unit: str = "count") -> str:
    """A value of a column for people; unknown is "?"."""
    if value is None:
        return "?"
    if isinstance(value, tuple):
        return sizes_text(value)
    if isinstance(value, str):
        return value
    return _TEXTS.get(unit, count_text)(value)


def percent_text(number: float) -> str:
    """A part of 100; below 0 it is a loss.

    >>> percent_text(61.25), percent_text(-4.0)
    ('61.2 %', '-4.0 %')
    """
    return f"{number:.1f} %"


_TEXTS: dict[str, Callable[[float], str]] = {
    "bytes": bytes_text,
    "seconds": seconds_text,
    "share": share_text,
    "percent": percent_text,
    "gflops": lambda number: f"{count_text(number)} GFLOP/s",
}
"""How numbers of a unit are written for people; counts, where it is none of these."""


def sizes_text(sizes: Sequence[Any]) -> str:
    """Numbers, or (before, after) pairs, one for each axis. A pair of equal numbers is one number.

    >>> sizes_text((64, 112, 112)), sizes_text(((1, 1), (0, 2))), sizes_text(())
    ('64x112x112', '1x0+2', 'scalar')
    """
    return (
        "x".join(["+".join(map(str, dict.fromkeys(size))) if isinstance(size, tuple) else str(size) for size in sizes])
        or "scalar"
    )


def plain_text(value: object) -> str:
    """A value for a machine: all digits, no unit; unknown is empty.

    >>> plain_text((64, 112, 112)), plain_text(None), plain_text(True)
    ('64x112x112', '', 'true')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int)):
        return str(value)
    if isinstance(value, (tuple, list)) and all(map(_is_size, value)):
        return sizes_text(value)
    return repr(value) if isinstance(value, float) else str(value)


def _is_size(value: object) -> bool:
    return isinstance(value, (int, float, tuple))


def printable(text: str) -> str:
    r"""The text without what would move a terminal's cursor or change its colours.

    >>> printable("a\x1b[1mb")
    'a·[1mb'
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "·" for character in text)


def quantity(text: str, name: str) -> int | float:
    """A quantity as people write it: 1M, 0.15T, 600k, 512MiB; exact, an int where it is whole.

    Raises `ExpressionError` naming the option.

    >>> quantity("1M", "--samples"), quantity("2KiB", "--max"), quantity("0.5", "--speed"), quantity("1e-5", "--max")
    (1000000, 2048, 0.5, 1e-05)
    """
    from decimal import Decimal, localcontext

    match = re.match(_QUANTITY, text.strip())
    if match is None or (match[3] and not match[2]):
        raise ExpressionError(f"{name} is {text}, but must be a number such as 600000, 600k, 1M or 0.15T", value=text)
    number = Decimal(match[1])
    if number.adjusted() > _MOST_DIGITS or len(match[1]) > _MOST_DIGITS:
        raise ExpressionError(f"{name} is {text}, but must have at most {_MOST_DIGITS} digits", value=text)
    power = " KMGTPE".index(match[2].upper()) if match[2] else 0
    with localcontext(prec=2 * _MOST_DIGITS):
        number *= (1024 if match[3] else 1000) ** power
        return int(number) if number == int(number) else float(number)
