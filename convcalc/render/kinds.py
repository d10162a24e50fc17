"""What kinds of layer there are, and what one of them takes, for `convcalc help`. All of it is read off `LAYERS`."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from convcalc.errors import ExpressionError, did_you_mean
from convcalc.expressions.layer_text import field_names
from convcalc.expressions.slips import other_name
from convcalc.expressions.tokens import WIRING
from convcalc.layers import LAYERS, Kind, find_kind
from convcalc.records import REQUIRED, parameters_of

if TYPE_CHECKING:
    from convcalc.layers.base import Layer

_WIDTH = 80
_FAMILIES = {
    "conv": "Convolution and linear", "linear": "Convolution and linear",
    "pool": "Pooling", "lppool": "Pooling", "adaptive": "Pooling", "fractional": "Pooling", "unpool": "Pooling",
    "reshape": "Shape", "rearrange": "Shape", "unfold": "Shape", "upsample": "Shape", "pad": "Shape",
    "norm": "Norms and dropout", "dropout": "Norms and dropout",
    "activation": "Activations", "parametric": "Activations", "softmax": "Activations",
    **dict.fromkeys(("recurrent", "multihead", "embedding"), "Sequences"),
    **dict.fromkeys(("join", "matmul"), "Joins of several tensors"),
}  # fmt: skip
"""Under which heading the kinds of a module stand."""

_ONE_RANK = re.compile(r"`[A-Za-z]+` (over (one|two|three) ax|of \(N)")
"""How the docstring begins of a class that is another one for so many axes."""


_EXPRESSIONS = """\
How layers are written, at the prompt and in files.

  3x224x224               the input, first: channels and sizes; 224 or 224x224
                          are sizes alone, 8x3x224x224 has a batch in front;
                          10x64 are steps and features before an lstm
  conv:64,k7,s2,p3        a kind, a colon, and arguments with commas between
  conv:64                 one bare value, first: the main size of the kind
  k7  k3x5  p1+2  psame   short keys; p1+2 is 1 before and 2 after
  nobias  depthwise       flags
  kernel_size=7           PyTorch's names
  name=stem               a name for the layer; without one it is a number
  Conv2d(3, 64, 7)        PyTorch's own text, quoted at the prompt

  @a                      names what is there now
  from:@a                 goes back to it
  add:@a mul:@a           joins: what is there now, and a
  concat:@a,@b            the same, by channels
  crop:@a                 cuts to a's sizes
  @a.1                    the second output of what made a
  repeat:3 ... end        three times what stands between

A file holds the same, one or more a line; # begins a comment, and a line
input 3x224x224 is the input, if the command line has none."""

_WIRING_WORDS = (*WIRING, "input", "expression", "wiring", "@")


def topic_help(word: str, verbs: Iterable[str]) -> list[str]:
    """What `convcalc help WORD` prints. Raises `ExpressionError` for a word that there is no help for."""
    name = word.lower().partition(":")[0].partition("(")[0]
    if name == "kinds":
        return kinds_help()
    if name == "expressions" or name.rstrip("s") in _WIRING_WORDS or name.startswith("@"):
        return _EXPRESSIONS.split("\n")
    return kind_help(name, verbs)


def kinds_help() -> list[str]:
    """A line for each kind: its name, its other names, and PyTorch's."""
    lines = ["Every kind of layer, with other names for it and the class that it is."]
    width = max(map(len, LAYERS)) + 2
    heading = ""
    for kind in LAYERS.values():
        if _FAMILIES[kind.module] != heading:
            heading = _FAMILIES[kind.module]
            lines += ["", f"{heading}:"]
        names = ", ".join([*_other_names(kind), _class_text(kind)])
        lines += textwrap.wrap(f"  {kind.name:{width}}{names}", _WIDTH, subsequent_indent=" " * (width + 2))
    return [*lines, "", "convcalc help KIND says what one of them takes. PyTorch's own text is read too."]


def kind_help(word: str, verbs: Iterable[str] = ()) -> list[str]:
    """What a kind takes: each field, its default, and the short ways to give it. Raises `ExpressionError` for none."""
    found = find_kind(word)
    if found is None:
        known = [*verbs, *(name for kind in LAYERS.values() for name in kind.names())]
        meant = other_name(word) or did_you_mean(word, known)
        meant = meant or "; convcalc help names the verbs, convcalc help kinds every kind of layer"
        raise ExpressionError(f"there is no help for {word}{meant}", value=word)
    kind, rank = found
    cls = kind.layer_class(rank)
    lines = [", ".join([kind.name, *_other_names(kind), _class_text(kind)])]
    lines += textwrap.wrap(_about(cls), _WIDTH, initial_indent="  ", subsequent_indent="  ")
    names = field_names(cls)
    rows = [(_default_text(cls, name), ", ".join(_short_forms(kind, name))) for name in names]
    rows.append(("name=...", "the layer's own name"))
    width = max(len(default) for default, _ in rows) + 2
    lines += ["", "Arguments, and their short forms:"]
    for default, short in rows:
        lines += textwrap.wrap(f"  {default:{width}}{short}", _WIDTH, subsequent_indent=" " * (width + 2))
    return lines


def _about(cls: type[Layer]) -> str:
    """The first paragraph of the docstring, of the class for any rank where there is one."""
    texts = (inspect.cleandoc(each.__doc__ or "") for each in cls.__mro__)
    return next(text for text in texts if not _ONE_RANK.match(text)).partition("\n\n")[0].replace("\n", " ")


def _short_forms(kind: Kind, name: str) -> list[str]:
    """The ways to give a field without its name."""
    first = [f"{kind.name}:..."] if name == kind.main else []
    keys = [f"{key}..." for key, field in kind.keys.items() if field == name]
    return [*first, *keys, *(flag for flag, (field, _) in kind.flags.items() if field == name)]


def _default_text(cls: type[Layer], name: str) -> str:
    """A field with its default as it is written in an expression; `...` stands for what has none."""
    value = parameters_of(cls)[name]
    if value is None or value is REQUIRED:
        return f"{name}=..."
    return f"{name}={str(value).lower() if isinstance(value, bool) else value}"


def _other_names(kind: Kind) -> list[str]:
    return [name for name in kind.aliases if not name.startswith("lazy")]


def _class_text(kind: Kind) -> str:
    """The names of its classes, as `Conv1d, 2d, 3d` where they differ by the rank alone."""
    if isinstance(kind.classes, str):
        return kind.classes
    return f"{kind.classes[0]}, 2d, 3d"
