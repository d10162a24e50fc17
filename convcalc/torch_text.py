"""The text that PyTorch prints of a model, to a `Network`. Nothing is evaluated.

    module   = ["(" name "):"] [count "x"] Class "(" attributes ")"
             | ["(" name "):"] [count "x"] Class "(" newline {attributes newline | module newline} ")"
    name     = a word, a number, or "first-last" for `count` equal modules of a list

What the text says is exact: the modules, their parameters, and how `Sequential` and its like call them. What it does
not say is said: a container of somebody's own may own parameters, and calls its modules in an order that is not
printed, so shapes and costs stop there, unless the printed order is assumed. Two names of one module are printed as two
modules. Lines before and after the model, colours, and prefixes of the first line are stepped over, and said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from convcalc.errors import ExpressionError, ModelFileError, ResourceError, Source, Span, did_you_mean
from convcalc.expressions.layer_text import LayerText
from convcalc.expressions.program import Program
from convcalc.expressions.tokens import shape_of, split_outside, value_of
from convcalc.layers import LAYERS, SEQUENCES, find_kind
from convcalc.network import Input, Network, input_twice
from convcalc.torch_classes import ATTENTION, CHAINS, LISTS, NOT_PYTORCH, OWNERS, PARAMETER, Module, layer_text
from convcalc.torch_wiring import MOST_MODULES, Unprinted, Walk

_HEAD = re.compile(
    r"(?:\((?P<name>.*?)\): )?(?:(?P<count>[0-9]{1,9}) x )?"
    r"(?:(?:torch|nn)\.(?:\w+\.)*)?(?P<cls>[A-Za-z_][\w.]*)\((?P<rest>.*)"
)
_CHILD = re.compile(r"\((?P<name>.*?)\): (?P<text>.+)")
"""Something with a name that does not print itself as PyTorch's modules do."""
_PREFIXED = re.compile(r".*[\s:=>\]](?P<head>[A-Za-z_][\w.]*\()")
"""A first line that something stands before, such as what a log puts there."""
_RANGE = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_INPUT = re.compile(r"input\s+[0-9]+(x[0-9]+)*")
"""A line before a model, as files of expressions have it."""
_NO_MODULE = ("None", "Object of type")
"""What a name that holds no module prints."""


def looks_printed(text: str, *, strange: bool = True) -> bool:
    """Whether a text is what PyTorch prints of a model: a line opens a module that later ones close, or a single line
    is a module that is no layer expression, of a class that is known or, if `strange`, of any.

    >>> [looks_printed(text) for text in ("Sequential(\\n  (0): ReLU()\\n)", "conv:64,k3\\nrelu", "LSTM(4, 8)")]
    [True, False, True]
    """
    lines = [line.strip() for line in _COLOUR.sub("", text).splitlines() if line.strip()]
    if len(lines) == 1:
        return _is_lone_module(lines[0], strange=strange)
    return _start(lines) is not None


def _is_lone_module(line: str, *, strange: bool) -> bool:
    """Whether one line is a module that no expression is: a kind's name, or a slip in one, is read as an expression."""
    head = _HEAD.fullmatch(line)
    if head is None or head["name"] is not None or not line.endswith(")") or not _closes(head["rest"]):
        return False
    cls = head["cls"]
    if cls in (*CHAINS, *LISTS, *OWNERS, ATTENTION):
        return True
    if not strange:
        return False
    known = [name for kind in LAYERS.values() for name in kind.names()]
    return cls[:1].isupper() and find_kind(cls) is None and not did_you_mean(cls.lower(), known)


def _start(lines: Sequence[str]) -> tuple[int, int] | None:
    """The line and the place in it where a model of several lines begins; the lines are stripped and none is empty."""
    for number, line in enumerate(lines[:-1]):
        head = _HEAD.fullmatch(line)
        if head is not None and head["name"] is None and not _closes(head["rest"]):
            return number, 0
        prefixed = _PREFIXED.fullmatch(line)
        if prefixed is not None and _CHILD.match(lines[number + 1]):
            return number, prefixed.start("head")
    return None


def _closes(rest: str) -> bool:
    """Whether what follows an opening bracket holds its closing one."""
    depth = 1
    for start, end in split_outside(rest, ""):
        for character in rest[start:end]:
            depth += {"(": 1, ")": -1}.get(character, 0)
            if depth == 0:
                return True
    return False


class Printed(NamedTuple):
    """A printed model: its tree, notes on what stands around it, the lines of its code if torch.fx printed it, and its
    input where a line before it gives one.
    """

    root: Module
    notes: tuple[str, ...]
    code: Sequence[Span]
    given: Span | None


def read_module(text: str, name: str) -> Printed:
    """A printed model from its text. Raises `ModelFileError` at the line that does not belong."""
    lines = [span for span in _lines(_COLOUR.sub("", text), name) if span.end > span.start]
    texts = [span.source.text[span.start : span.end] for span in lines]
    start, place = _start(texts) or (0, 0)
    given = [span for span, line in zip(lines[:start], texts, strict=False) if _INPUT.fullmatch(line)]
    if len(given) > 1:
        raise input_twice(given[1])
    around = start - len(given)
    if place:
        lines[start] = Span(lines[start].source, lines[start].start + place, lines[start].end)
        texts[start] = texts[start][place:]
    code: Sequence[Span] = ()
    root: Module | None = None
    opened: list[Module] = []
    for number in range(start, len(lines)):
        span, stripped = lines[number], texts[number]
        if root is not None and not opened:
            code = _code(lines[number:], texts[number:])
            around += 0 if code else len(lines) - number
            break
        if stripped == ")" and opened:
            opened.pop()
            continue
        head = _HEAD.fullmatch(stripped)
        if head is None or (opened and head["name"] is None):
            if not opened:
                raise ModelFileError("this line is no module, such as Sequential(", span=span)
            _take_in(opened[-1], stripped, span)
            continue
        closed = _closes(head["rest"])
        attributes = head["rest"].removesuffix(")") if closed else head["rest"]
        module = Module(_names(head, span), head["cls"], attributes.strip(), span)
        if opened:
            opened[-1].children.append(module)
        else:
            root = module
        if not closed:
            opened.append(module)
    if root is None or opened:
        where = opened[-1] if opened else None
        raise ModelFileError(
            f"{where.cls}( is not closed; the text ends too early" if where else f"{name} is empty",
            span=where.span if where else None,
        )
    if root.attributes.startswith("original_name="):
        raise ModelFileError("TorchScript prints no sizes; print the model that this was made of", span=root.span)
    return Printed(root, _notes(around), code, given[0] if given else None)


def _code(lines: Sequence[Span], texts: Sequence[str]) -> Sequence[Span]:
    """What torch.fx prints below a model, if it did. Raises `ModelFileError` for a second model."""
    start = next((number for number, text in enumerate(texts) if text.startswith("def forward(")), None)
    if start is None and _start(texts) is not None:
        raise ModelFileError("the model has ended before this line; one model is read at a time", span=lines[0])
    return lines[start:] if start is not None else ()


def _lines(text: str, name: str) -> Iterator[Span]:
    """The lines of a text, without the space around them."""
    for number, line in enumerate(text.splitlines(), 1):
        start = len(line) - len(line.lstrip())
        source = Source(line, name, on_command_line=False, line_number=number)
        yield Span(source, start, max(len(line.rstrip()), start))


def _notes(around: int) -> tuple[str, ...]:
    if not around:
        return ()
    lines = "1 line" if around == 1 else f"{around:,} lines"
    return (f"{lines} before or after the printed model not read",)


def _take_in(module: Module, line: str, span: Span) -> None:
    """A line inside a module that is no module as PyTorch prints one: attributes, a parameter, or something else."""
    child = _CHILD.fullmatch(line)
    if child is None:
        module.attributes = f"{module.attributes} {line}".strip()
        return
    if child["text"].startswith(_NO_MODULE):
        return
    if re.match(r"(Parameter|Tensor) containing", child["text"]):
        module.children.append(Module((child["name"],), PARAMETER, child["text"], span, odd=True))
        return
    word = re.match(r"[\w.]+", child["text"])
    cls = word[0] if word else child["text"]
    module.children.append(Module((child["name"],), cls, child["text"], span, odd=True))


def _names(head: re.Match[str], span: Span) -> Sequence[str]:
    """The names of a module, or of all that one line stands for."""
    if head["count"] is None:
        return (head["name"] or "",)
    count = int(head["count"])
    between = _RANGE.fullmatch(head["name"] or "")
    if between is None or int(between[2]) - int(between[1]) + 1 != count:
        raise ModelFileError(f"{count} modules need a name such as (0-{count - 1})", span=span, value=head["name"])
    if count > MOST_MODULES:
        raise ResourceError(f"{count:,} modules are more than the {MOST_MODULES:,} that are read", span=span)
    return range_names(int(between[1]), count)


def range_names(first: int, count: int) -> Sequence[str]:
    """The names of so many modules of a list."""
    return [str(first + index) for index in range(count)]


# --- the network ------------------------------------------------------------------------------------------------------


class PrintedModel(Program):
    """A printed model as a program: it becomes a `Network`, on an input or with parameters alone."""

    def __init__(
        self, text: str, name: str, given: tuple[int, ...] | None = None, input_span: Span | None = None
    ) -> None:
        self.root, self.notes, self.code, line = read_module(text, name)
        self.texts = dict(_leaf_texts(self.root))
        self.arguments: tuple[str, ...] = ()
        if self.code:
            from convcalc.torch_graph import argument_names

            self.arguments = argument_names(self.code[0])
        self.names_inputs = len(self.arguments) > 1
        self.sequential = False
        self.said: dict[str, tuple[Any, Span | None]] = {}
        if line is not None:
            span = Span(line.source, line.end - len(line.source.text[line.start : line.end].split()[-1]), line.end)
            self.usual = shape_of(line.source.text[span.start : span.end], span)
            if given is None:
                given, input_span = self.usual, span
        super().__init__([layer for layer in self.texts.values() if layer is not None], given, input_span)

    def assume_sequential(self) -> None:
        """Take the modules of every container as called in printed order."""
        self.sequential = True

    def say(self, texts: Sequence[str]) -> None:
        """Say what the text leaves out: num_heads=8, or of one module encoder.attn.num_heads=8."""
        for text in texts:
            for place, end in split_outside(text, ","):
                span = Span(Source(f"--unprinted {text}"), place + len("--unprinted "), end + len("--unprinted "))
                name, equals, value = text[place:end].partition("=")
                if not (name and equals):
                    raise ExpressionError(
                        f"--unprinted {text[place:end]} has no value; write num_heads=8, or attn.num_heads=8",
                        span=span,
                        value=text[place:end],
                    )
                if name in self.said:
                    raise ExpressionError(f"{name} is given twice; keep one of them", span=span, value=name)
                self.said[name] = value_of(value, span), span

    def network(self, shape: tuple[int, ...] | None = None, *, open_input: bool = False) -> Network:
        """The network on the input of the text, or on `shape`; without either parameters alone are known, unless
        `open_input` asks for the geometry. Raises `ExpressionError` for both.
        """
        if shape is None and self.given is None and not open_input:
            return self._wired(self.rank() or 2, {}, (), "")
        return super().network(shape, open_input=open_input)

    def named_network(
        self, given: Mapping[str, tuple[int, ...]], batch: int | None = None, *, open_input: bool = False
    ) -> Network:
        """The network on inputs by the names of the code's arguments, of shapes with the batch; "" is the first alone.

        Raises `ExpressionError` for another name.
        """
        if not any(given):
            network = self.network(given.get(""), open_input=open_input)
            return network if batch is None else network.with_batch(batch)
        for name in given:
            if name not in self.arguments:
                raise ExpressionError(
                    f"{f'the code takes no {name}' if name else 'an input has no name'}; it takes"
                    f" {', '.join(self.arguments)}{did_you_mean(name, self.arguments)}",
                    field="input",
                )
        inputs = {name: Input(given[name]) for name in self.arguments if name in given}
        axes = len(next(iter(inputs.values())).shape)
        network = self._wired(self.rank() or min(max(axes - 2, 1), 3), inputs, (), next(iter(inputs)))
        return network if batch is None else network.with_batch(batch)

    def sample_axes(self) -> int | None:
        """How many axes a sequence has that comes in, or None where no module is over sequences."""
        kinds = [found[0].name for module in _all_modules(self.root) if (found := find_kind(module.cls))]
        return next((SEQUENCES[kind] for kind in kinds if kind in SEQUENCES and kind not in NOT_PYTORCH), None)

    def wired(self, rank: int, inputs: Mapping[str, Input], notes: tuple[str, ...]) -> Network:
        """The network of the modules, as far as the text tells how they are wired."""
        return self._wired(rank, inputs, notes, "input")

    def _wired(self, rank: int, inputs: Mapping[str, Input], notes: tuple[str, ...], first: str) -> Network:
        given = next(iter(inputs.values()), None)
        shape, hidden = (None, False) if given is None else (given.shape, not given.batch_given)
        walk: Walk
        if self.code:
            from convcalc.torch_graph import GraphWalk

            walk = GraphWalk(self.texts, rank, first, shape, hidden=hidden, sequential=False)
            walk.code = self.code
            if first != "input":
                walk.inputs = {name: given.shape for name, given in inputs.items()}
        else:
            walk = Walk(self.texts, rank, first, shape, hidden=hidden, sequential=self.sequential)
        walk.unprinted = Unprinted(self.said)
        walk.through(self.root)
        walk.unprinted.refuse_unused()
        return Network(
            inputs,
            tuple(walk.nodes),
            walk.outputs or (walk.current,),
            (*self.notes, *notes, *walk.all_notes()),
            tuple(walk.warnings()),
            walk.hidden_names(),
            walk.constants,
            unwired=walk.unwired(),
        )


def parse_printed(
    text: str,
    *,
    input: Sequence[int] | None = None,
    batch: int | None = None,
    assume_sequential: bool = False,
    unprinted: Mapping[str, object] | None = None,
) -> Network:
    """The network of a model that PyTorch printed, on an input of sizes, (channels, *sizes) or with a batch before.

    Without an input parameters alone are known. What the text does not tell is in the network's `notes` and `warnings`;
    with `assume_sequential` all containers call their modules in printed order. `unprinted` says what the text leaves
    out: `{"num_heads": 8}`, or of one module `{"encoder.attn.num_heads": 8}`. Raises `ModelFileError` for a text that
    is no printed model, `ExpressionError` for what no layer leaves out.

    >>> network = parse_printed("Sequential(\\n  (0): Linear(in_features=8, out_features=2)\\n)", input=(8,))
    >>> [(node.name, node.layer.kind) for node in network.nodes]
    [('0', 'linear')]
    """
    model = PrintedModel(text, "the text")
    if assume_sequential:
        model.assume_sequential()
    model.said.update({name: (value, None) for name, value in (unprinted or {}).items()})
    network = model.network(None if input is None else tuple(input))
    return network if batch is None else network.with_batch(batch)


def _leaf_texts(root: Module) -> Iterator[tuple[Module, LayerText | None]]:
    """Every module that is a layer or unknown, in printed order."""
    for module in _all_modules(root):
        if not module.is_container and not (module.cls == ATTENTION and module.children):
            yield module, layer_text(module)


def _all_modules(root: Module) -> Iterator[Module]:
    """Every module in printed order, but for those that make the weight of another."""
    stack = [root]
    while stack:
        module = stack.pop()
        yield module
        if not module.parametrized:
            stack += reversed(module.children)
