"""What can go wrong, as one family: everything that convcalc raises on purpose is a `ConvcalcError`."""

from __future__ import annotations

from collections.abc import Iterable


class Source:
    """A text that was read: where it came from and what it said.

    `on_command_line` decides the exit status of an error in it: 2 on the command line, 1 in a file or standard input.
    """

    __slots__ = ("line_number", "name", "on_command_line", "text")

    def __init__(self, text: str, name: str = "", *, on_command_line: bool = True, line_number: int = 0) -> None:
        self.text = text
        self.name = name
        self.on_command_line = on_command_line
        self.line_number = line_number


class Span:
    """The characters `start` to `end` (not included) of a source."""

    __slots__ = ("end", "source", "start")

    def __init__(self, source: Source, start: int, end: int) -> None:
        self.source = source
        self.start = start
        self.end = end

    def __repr__(self) -> str:
        return f"Span({self.source.text[self.start : self.end]!r}, {self.start}, {self.end})"


class ConvcalcError(Exception):
    """Root of the family. The message is one sentence for a person; `span` is where the caret goes.

    `layer` is the name of the layer that it is about, `field` and `value` what of it is wrong. `code` is the stable
    name of the class of error in JSON. `exit_status` is what the command line ends with. `told` says whether the
    document of an answer holds it.
    """

    code = "error"
    exit_status = 1
    told = False

    def __init__(
        self,
        message: str,
        *,
        span: Span | None = None,
        layer: str | None = None,
        field: str | None = None,
        value: object = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.span = span
        self.layer = layer
        self.field = field
        self.value = value

    def __str__(self) -> str:
        return f"layer {self.layer}: {self.message}" if self.layer is not None else self.message


class ExpressionError(ConvcalcError, ValueError):
    """A text is not a layer expression, or an option has no meaning there."""

    code = "expression"
    exit_status = 2


class LayerError(ConvcalcError, ValueError):
    """A layer was given a value that it cannot have, whatever the input is."""

    code = "layer"
    exit_status = 2


class ShapeError(ConvcalcError, ValueError):
    """A layer cannot take the shape that came in."""

    code = "shape"


class UnsupportedOpError(ConvcalcError, NotImplementedError):
    """An op is known by name only, or an answer about it cannot be given."""

    code = "unsupported-op"


class ModelFileError(ConvcalcError):
    """A file or standard input cannot be read as what it should be."""

    code = "model-file"


class ResourceError(ConvcalcError):
    """The answer would need more memory or time than there is."""

    code = "resource"


class BudgetError(ConvcalcError):
    """A `--max` budget is exceeded, or `--strict` met a partial result."""

    code = "budget"


def unreadable(name: object, error: Exception, span: Span | None = None) -> ModelFileError:
    """The error for a file or a folder that is not there or cannot be read.

    >>> [unreadable("x", error).message for error in (FileNotFoundError(), PermissionError(13, "Permission denied"))]
    ['x does not exist', 'x cannot be read: permission denied']
    """
    if isinstance(error, FileNotFoundError):
        return ModelFileError(f"{name} does not exist", span=span)
    if isinstance(error, IsADirectoryError):
        return ModelFileError(f"{name} is a folder; name a file in it", span=span)
    reason = getattr(error, "strerror", None) or str(error) or "error"
    return ModelFileError(f"{name} cannot be read: {reason.lower()}", span=span)


def too_much(error: Exception) -> ResourceError:
    """The error for one of Python's that says that a number or a text is beyond it; raises any other again."""
    for kind, sentence in _TOO_MUCH.items():
        if isinstance(error, kind):
            return ResourceError(sentence)
    for text, kind in _TOO_MUCH_TEXTS.items():
        if text in str(error):
            return ResourceError(_TOO_MUCH[kind])
    raise error


_TOO_MUCH: dict[type[Exception], str] = {
    MemoryError: "the answer needs more memory than there is",
    RecursionError: "brackets stand in brackets too many times",
    OverflowError: "a number of the answer is too large to be written",
}

_TOO_MUCH_TEXTS: dict[str, type[Exception]] = {
    "integer string conversion": OverflowError,  # more than 4,300 digits
    "array is too big": MemoryError,
    "Maximum allowed dimension exceeded": MemoryError,
}
"""What Python and NumPy say in a ValueError."""


def refuse_other(option: str, word: str, known: Iterable[str], meant: str = "") -> None:
    """Raise `ExpressionError` for an option's word that is none of the known ones; `meant` is a guess at it.

    >>> refuse_other("--by", "kinds", ("layer", "kind"))
    Traceback (most recent call last):
    convcalc.errors.ExpressionError: --by is kinds, but must be one of layer, kind; did you mean 'kind'?
    """
    words = list(known)
    if word not in words:
        hint = did_you_mean(meant or word, words)
        raise ExpressionError(f"{option} is {word}, but must be one of {', '.join(words)}{hint}", value=word)


def refuse_below_one(option: str, number: int | None) -> None:
    """Raise `ExpressionError` for an option's number below 1.

    >>> refuse_below_one("--top", 0)
    Traceback (most recent call last):
    convcalc.errors.ExpressionError: --top is 0, but must be at least 1
    """
    if number is not None and number < 1:
        raise ExpressionError(f"{option} is {number}, but must be at least 1", field=option.lstrip("-"), value=number)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'kernel_size'?` for the closest known word, or nothing when none is close.

    >>> did_you_mean("kernal", ["kernel_size", "stride"])
    "; did you mean 'kernel_size'?"
    >>> did_you_mean("STRIDE", ["kernel_size", "stride"]), did_you_mean("xyz", ["kernel_size", "stride"])
    ("; did you mean 'stride'?", '')
    """
    from difflib import get_close_matches

    word = word.lower()
    words = {known_word.lower(): known_word for known_word in sorted(known, reverse=True)}
    close = [words[found] for found in get_close_matches(word, sorted(words), n=1, cutoff=0.6)]
    if not close:
        # A long name cut short or with a slip in its first part: compare with as much of each as was typed.
        heads = {lower[: len(word)]: known_word for lower, known_word in words.items() if len(word) >= 3}
        close = [heads[head] for head in get_close_matches(word, heads, n=1, cutoff=0.7)]
    return f"; did you mean '{close[0]}'?" if close else ""
