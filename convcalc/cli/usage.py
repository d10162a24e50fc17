"""What typer refuses, in the words of this project: unknown options, missing and wrong values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from convcalc.cli.options import FORMATS
from convcalc.errors import ConvcalcError, ExpressionError, did_you_mean

_TYPES = {"int": "a whole number", "integer": "a whole number", "float": "a number", "boolean": "true or false"}
_NEGATIVE = re.compile(r"-\d+(x-?\d*)*$")


def usage_error(error: Any, verb: str, arguments: Iterable[str], verbs: Mapping[str, str]) -> ConvcalcError:
    """The error for one of typer's, which has no public type: it is told by the attributes that it has."""
    if hasattr(error, "possibilities"):
        return _unknown_option(error.option_name, verb, arguments, verbs)
    if hasattr(error, "option_name"):
        return _value(error.option_name, verb, takes_one="does not take" not in error.message)
    parameter = getattr(error, "param", None)
    if parameter is not None and parameter.opts[0].startswith("-"):
        value = re.match(r"'(.*)' is not a valid|(.*) is not in the range x>=(.*)\.", error.message)
        right = _TYPES.get(parameter.type.name.removesuffix(" range"))
        if value is not None and right is not None:
            given = value[1] or value[2]
            right = f"at least {value[3]}" if value[3] else right
            return ExpressionError(f"{parameter.opts[-1]} is {given}, but must be {right}", value=given)
    text: str = error.format_message()
    return ExpressionError(text[:1].lower() + text[1:].rstrip("."))


def _unknown_option(option: str, verb: str, arguments: Iterable[str], verbs: Mapping[str, str]) -> ConvcalcError:
    if not verb:
        first = f"; a verb comes first: {', '.join(verbs)}"
        meant = "; did you mean '--version'?" if option.lower() in ("-v", "--ver") else first
        return ExpressionError(f"unknown option {option}{meant}", value=option)
    word = next((argument for argument in arguments if argument.startswith(option)), option)
    if _NEGATIVE.match(word):
        return ExpressionError(f"{word} is no shape; every size is at least 1, as in 3x224x224", value=word)
    if os.path.exists(word):  # noqa: PTH110  pathlib takes long to load
        return ExpressionError(f"{word} is read as options; of a file of that name, write ./{word}", value=word)
    if option.removeprefix("--") in FORMATS:
        return ExpressionError(
            f"unknown option {option} of {verb}; did you mean '--format {option[2:]}'?", value=option
        )
    having = [other for other in verbs if other != verb and option in options_of(other)]
    if having:
        *others, last = having
        who = f"{', '.join(others)} and {last} have" if others else f"{last} has"
        return ExpressionError(f"{verb} has no {option}; {who} it", value=option)
    long = [name for name in options_of(verb) if name.startswith("--")]
    meant = did_you_mean(option, long) if option.startswith("--") else ""
    return ExpressionError(
        f"unknown option {option} of {verb}{meant or f'; convcalc {verb} --help names all'}", value=option
    )


def options_of(verb: str) -> list[str]:
    """Every option of a verb, as it is written."""
    from convcalc.cli import command_of

    parameters = command_of(verb).params
    names = [name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)]
    return [name for name in names if name.startswith("-")]


def _value(option: str, verb: str, *, takes_one: bool) -> ConvcalcError:
    from convcalc.cli import command_of

    if not takes_one:
        return ExpressionError(f"{option} is on or off and takes no value", value=option)
    parameters = command_of(verb).params if verb else ()
    about: str = next((getattr(each, "help", None) for each in parameters if option in each.opts), None) or ""
    about = about.partition(";")[0].rstrip(".")
    hint = f" ({about[:1].lower()}{about[1:]})" if about else ""
    return ExpressionError(f"{option} needs a value{hint}", value=option)
