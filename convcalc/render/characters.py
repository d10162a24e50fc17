"""What stands for signs that a terminal's encoding does not have, such as the lines of tables where it is ASCII."""

from __future__ import annotations

import codecs

NAME = "convcalc.plain"
"""The name under which streams know `_instead`."""

_INSTEAD = {
    **dict.fromkeys("─−", "-"), **dict.fromkeys("█▉▊▋▌▇▆▅▄▀", "#"), **dict.fromkeys("▍▎▏▃▂▁", " "), "┤": "|",
    "·": "*", "×": "x", "µ": "u", "…": "~", "→": "->", "≥": ">=", "≤": "<=", "≈": "~", "√": "sqrt ", "∏": "prod ",
    "Σ": "sum ", "⌊": "floor(", "⌋": ")", "⌈": "ceil(", "⌉": ")", "²": "^2", "³": "^3", "ᵀ": "^T", "‖": "||",
}  # fmt: skip


def _instead(error: UnicodeError) -> tuple[str, int]:
    r"""What is written for signs that cannot be; what has no other form is escaped.

    >>> codecs.register_error(NAME, _instead)
    >>> "⌊7 / 2⌋ → ü".encode("ascii", NAME)
    b'floor(7 / 2) -> \\xfc'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    escape = codecs.lookup_error("backslashreplace")
    found = ""
    for index in range(error.start, error.end):
        sign = error.object[index]
        one = UnicodeEncodeError(error.encoding, error.object, index, index + 1, error.reason)
        found += _INSTEAD.get(sign) or str(escape(one)[0])
    return found, error.end


codecs.register_error(NAME, _instead)
